"""The command `phonon-eels`. Importing it loads nothing heavy: a step of the workflow is a process of its own."""

from phonon_eels.cli.program import main

__all__ = ["main"]
