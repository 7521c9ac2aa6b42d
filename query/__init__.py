"""Answering queries: which generation, how consistent, and the search itself."""
