"""Checks of the library on this machine against float64 references in NumPy."""
