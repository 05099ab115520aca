"""Geometry of the crystal in the scan."""
