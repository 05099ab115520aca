"""Where a kernel runs."""
