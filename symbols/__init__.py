"""Erasure-coded symbols: how an artifact is cut, encoded, checked and rebuilt."""
