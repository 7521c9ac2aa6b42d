"""Measurements against the tools that genctl stands on. Nothing here is a test."""
