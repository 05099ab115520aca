"""Spectrum images of a layered crystal with known truth."""
