"""Tell a running HyperSpy of the signal type: the entry point of an older installation may not be of this tree."""

from importlib import resources

import hyperspy.extensions
import yaml


def register(monkeypatch):
    """Put our part of `hyperspy_extension.yaml` where HyperSpy puts it when it finds the entry point."""
    text = resources.files("phonon_eels").joinpath("hyperspy_extension.yaml").read_text("utf-8")
    for section, entries in yaml.safe_load(text).items():
        for name, entry in entries.items():
            monkeypatch.setitem(hyperspy.extensions.ALL_EXTENSIONS[section], name, entry)
