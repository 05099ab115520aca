"""`python -m phonon_eels` is the command `phonon-eels`."""

import sys

from phonon_eels.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
