"""Layer-resolved phonon maps and their modulation from STEM-EELS spectrum images.

The public names below are loaded on first use: `import phonon_eels` costs milliseconds, whereas HyperSpy, Numba and
Dask together cost seconds that a program asking only for `--help` should not pay.
"""

from importlib import import_module

__version__ = "0.1.0"

# Public name -> the module that defines it. `__init__.pyi` says the same to type checkers; a test keeps them equal.
_PUBLIC = {
    "Acquisition": "phonon_eels.spectrum_image",
    "Component": "phonon_eels.component_fit.model",
    "EnergyAxis": "phonon_eels.spectrum_image",
    "NoiseModel": "phonon_eels.spectrum_image",
    "ScanAxis": "phonon_eels.spectrum_image",
    "Settings": "phonon_eels.config",
    "SpectrumImage": "phonon_eels.spectrum_image",
    "StepResult": "phonon_eels.spectrum_image",
    "Tie": "phonon_eels.component_fit.model",
    "fit_components": "phonon_eels.component_fit.fit",
    "fit_model": "phonon_eels.signals.model_fit",
    "refit_components": "phonon_eels.component_fit.fit",
    "gather_settings": "phonon_eels.pipeline.gather",
    "read": "phonon_eels.io.read",
    "read_results": "phonon_eels.io.results",
    "run": "phonon_eels.pipeline",
    "run_step": "phonon_eels.pipeline",
    "sample_path": "phonon_eels.pipeline.gather",
}

# Modules reached as attributes. `simulate` is the module for every caller, because importing it anywhere binds that
# name here: a function of the same name would be either, depending on who imported what first.
_SUBMODULES = ("simulate",)

__all__ = ["__version__", *_PUBLIC, *_SUBMODULES]


def __getattr__(name: str) -> object:
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
