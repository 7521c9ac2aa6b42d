"""The commands, grouped as the command line groups them."""
