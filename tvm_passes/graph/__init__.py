"""Passes on the integer graph: layout, verification, kernel selection."""
