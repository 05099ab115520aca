"""Error bars of the whole classic chain: resample, normalise, subtract, deconvolve, fit."""

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import load_material
from phonon_eels.config.settings import AlignZlp, Deconvolve, FitPeaks, Normalise, SubtractZlp
from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.spectrum_image import Acquisition, EnergyAxis, NoiseModel, ScanAxis, SpectrumImage
from phonon_eels.steps.align_zlp import align_zlp
from phonon_eels.steps.deconvolve import deconvolve
from phonon_eels.steps.fit_peaks import fit_peaks
from phonon_eels.steps.normalise import normalise
from phonon_eels.steps.spec import StepContext
from phonon_eels.steps.subtract_zlp import subtract_zlp

MODES = ("BiO57", "CuO78")
AXIS = EnergyAxis(-40.0, 1.0, 200)
SHAPE = (24, 25)
GAIN = 2.0
FINE = 20


def material_of_two():
    """Two modes 20 meV apart: what is tested is noise, and close modes are biased by this route."""
    material = load_material("bi2212")
    kept = tuple(mode for mode in material.modes if mode.name in MODES)
    return material.model_copy(update={"modes": kept, "pairs": ()})


def scan(material, peak_e, brightness, seed):
    """Return raw counts whose zero-loss peak wanders by fractions of a channel; every position has the same modes."""
    rng = np.random.default_rng(seed)
    step = AXIS.dispersion_mev / FINE
    fine = AXIS.offset_mev - 60.0 + step * np.arange((AXIS.n_channels + 120) * FINE)
    response = split_pearson7(step * np.arange(-60 * FINE, 60 * FINE + 1), 7.0, 1.8, 1.8)
    response /= response.sum()
    lines = np.where(np.abs(fine) < 0.5 * step, 1.0, 0.0)
    for mode in material.modes:
        lines += 8e-3 * step * mode.fwhm_mev / (2 * np.pi) / ((fine - mode.energy_mev) ** 2 + mode.fwhm_mev**2 / 4)
    cumulative = np.concatenate([[0.0], np.cumsum(np.convolve(lines, response, "same"))])
    edges = AXIS.offset_mev + AXIS.dispersion_mev * (np.arange(AXIS.n_channels + 1) - 0.5)
    shift = rng.uniform(-0.5, 0.5, SHAPE)
    fine_edges = np.append(fine - 0.5 * step, fine[-1] + 0.5 * step)
    electrons = np.stack([np.diff(np.interp(edges - s, fine_edges, cumulative)) for s in shift.ravel()])
    electrons = peak_e * brightness.ravel()[:, None] * electrons + 1.0
    counts = GAIN * rng.poisson(electrons).reshape(*SHAPE, -1)
    axes = (ScanAxis("row", 0.1, SHAPE[0]), ScanAxis("column", 0.1, SHAPE[1]))
    noise = NoiseModel(gain=GAIN, source="known")
    return SpectrumImage(
        counts=counts, energy=AXIS, scan=axes, noise=noise, acquisition=Acquisition(temperature_k=293.0)
    )


def classic_chain(image, material, subtraction, deconvolution, fit):
    """Run the steps in memory as the pipeline does."""
    known = {"maps": {}, "summaries": {}, "tables": {}}
    steps = [
        (align_zlp, AlignZlp(alignment="resample")), (normalise, Normalise()), (subtract_zlp, subtraction),
        (deconvolve, deconvolution), (fit_peaks, fit),
    ]  # fmt: skip
    for step, settings in steps:
        context = StepContext(material=material, backend=CpuBackend(2), route="classic", seed=3, **known)
        result = step(image, settings, context)
        image = image if result.image is None else result.image
        known["summaries"][step.__name__] = dict(result.summary) | {"messages": result.messages}
        known["tables"][step.__name__] = result.tables
        if result.maps is not None:
            known["maps"][step.__name__] = result.maps
    return result


SUBTRACTION = SubtractZlp(
    method="log_quadratic", windows_mev=((18.0, 40.0), (105.0, 155.0)), output_window_mev=(20.0, 150.0), compare_models=False
)  # fmt: skip


@pytest.mark.statistics
@pytest.mark.parametrize("method", ["richardson_lucy", "fourier_ratio", "none"])
def test_intervals_of_separated_modes_cover(method):
    """About the mean of all positions, because this route is biased: noise is what a deviation speaks of."""
    material = material_of_two()
    brightness = np.random.default_rng(5).uniform(0.7, 1.4, SHAPE)
    image = scan(material, 4e5, brightness, 6)
    fit = FitPeaks(line_shape="gaussian", background="linear", window_mev=(40.0, 100.0))
    result = classic_chain(image, material, SUBTRACTION, Deconvolve(method=method), fit)
    for mode in MODES:
        here = result.maps.sel(mode=mode)
        for name in ("apparent_energy_mev", "area_e"):
            value, std = here[name].values, here[f"{name}_std"].values
            pull = (value - value.mean()) / std
            inside = {limit: float((np.abs(pull) < limit).mean()) for limit in (1.0, 1.96)}
            for limit, nominal in ((1.0, 0.6827), (1.96, 0.95)):
                lowest = nominal - 2.33 * np.sqrt(nominal * (1.0 - nominal) / pull.size)  # 99 %, one-sided
                assert inside[limit] >= lowest, (mode, name, inside)
            assert pull.std() > 0.9  # nor wider than they need be
            bound = here[f"{name}_crb"].values
            assert (bound < 1.1 * std).all()
        energy, naive = here["apparent_energy_mev"].values, here["apparent_energy_mev_naive_std"].values
        wrong = ((energy - energy.mean()) / naive).std()  # what independent channels would have quoted
        assert {"richardson_lucy": wrong > 1.3, "fourier_ratio": wrong < 0.6, "none": wrong > 1.05}[method]
        told = 0.0 if method == "none" else float(here["apparent_energy_mev_syst"].values[0, 0])
        assert np.isfinite(told)
