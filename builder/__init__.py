"""The writer: builds generations from the commit log, signs them and publishes them."""
