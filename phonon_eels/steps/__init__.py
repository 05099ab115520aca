"""Steps of the pipeline: one file, one step."""
