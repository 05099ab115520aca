"""Per-spectrum routines: one source for CPU and GPU."""
