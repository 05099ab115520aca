"""What a scan can show, told before it is taken: Cramér–Rao bounds and power from the same model that will be fitted."""
