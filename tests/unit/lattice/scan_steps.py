"""Run the two lattice steps on a bare dark-field image."""

from dataclasses import replace

import numpy as np

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Settings, load_material
from phonon_eels.spectrum_image import EnergyAxis, ScanAxis, SpectrumImage
from phonon_eels.steps.assign_layers import assign_layers
from phonon_eels.steps.map_superstructure import map_superstructure
from phonon_eels.steps.spec import StepContext

BI2212 = load_material("bi2212")


def image_of(haadf, step_nm, n_channels=4, seed=0):
    """Return a spectrum image of noise with this dark-field image; `step_nm` a number or (row, column)."""
    steps = (step_nm, step_nm) if np.isscalar(step_nm) else step_nm
    rows, columns = haadf.shape
    counts = np.random.default_rng(seed).poisson(5.0, (rows, columns, n_channels)).astype(np.float32)
    axes = (ScanAxis("row", steps[0], rows), ScanAxis("column", steps[1], columns))
    return SpectrumImage(counts, EnergyAxis(-2.0, 1.0, n_channels), axes, haadf=haadf)


def assign(haadf, step_nm, material=BI2212, backend=None, **settings):
    """Return image, context with the result in it, and the result of `assign_layers`."""
    image = image_of(haadf, step_nm)
    context = StepContext(material, backend or CpuBackend(1))
    result = assign_layers(image, Settings().assign_layers.model_copy(update=settings), context)
    if result.skipped is None:
        context = replace(
            context,
            maps={"assign_layers": result.maps},
            tables={"assign_layers": result.tables},
            summaries={"assign_layers": result.summary},
        )
    return image, context, result


def superstructure(haadf, step_nm, material=BI2212, **settings):
    """Return the results of `assign_layers` and of `map_superstructure` after it."""
    image, context, layers = assign(haadf, step_nm, material)
    return layers, map_superstructure(image, Settings().map_superstructure.model_copy(update=settings), context)


def names_of(maps):
    """Return the layer names of the map `layer`."""
    return np.array(maps["layer"].attrs["flag_meanings"].split())[maps["layer"].values]


def phase_difference(a, b):
    """Return a - b, folded into (-π, π]."""
    return np.angle(np.exp(1j * (np.asarray(a) - np.asarray(b))))
