"""The forward model of a whole scan: built from material and zero-loss shape, run over all positions."""
