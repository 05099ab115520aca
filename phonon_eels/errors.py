"""Exceptions of phonon_eels.

Every message says three things: what was given, what is allowed, and how to mend it.
"""

from __future__ import annotations


class PhononEELSError(Exception):
    """Base of all errors that the user can mend. The command line exits with code 2 on it."""


class ConfigError(PhononEELSError):
    """A setting is unknown, out of range or contradicts another one."""


class InputFileError(PhononEELSError):
    """A file is missing, truncated, foreign, or lacks what the step needs. The message names the file."""


class DataError(PhononEELSError):
    """The data were read but cannot carry the analysis (NaN, no zero-loss peak, window outside the axis)."""


class OutputError(PhononEELSError):
    """A result cannot be written (folder not writable, disk full, name outside the results folder)."""


class DeviceError(PhononEELSError):
    """The device that was asked for is not there."""


class QualityError(PhononEELSError):
    """A quality check failed and the settings ask to stop there. The command line exits with code 3 on it."""
