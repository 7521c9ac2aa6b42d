"""Ids, the generation manifest, the control record, the activation invariants and the errors.

Pure: nothing here does I/O or reads a clock.
"""
