"""Sums of peaks and a background, fitted to every position: models, starts, fits, intervals."""
