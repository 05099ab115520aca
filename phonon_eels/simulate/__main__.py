"""Make the scans of `sample_data/` again: ``python -m phonon_eels.simulate FOLDER``."""

from __future__ import annotations

import sys

from phonon_eels.simulate.sample import write_samples

if __name__ == "__main__":
    for made in write_samples(sys.argv[1] if len(sys.argv) > 1 else "sample_data"):
        print(made)
