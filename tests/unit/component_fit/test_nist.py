"""The reference problems of NIST that sums of these components can say, to the certified digits."""

from pathlib import Path

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.component_fit.model import Component, Tie, build_model
from phonon_eels.component_fit.passes import Problem, run_positions
from phonon_eels.component_fit.result import summarise
from phonon_eels.kernels.likelihood import GAUSSIAN

FOLDER = Path(__file__).parent / "nist_strd"
ROOT_LN2 = 2.0 * np.sqrt(np.log(2.0))
ANY = (-np.inf, np.inf)


def exponential(name, **more):
    return Component("exponential", name, bounds={"amplitude": ANY, "rate": (-50.0, 50.0)}, **more)


def gaussian(name):
    return Component(
        "gaussian", name, {"centre": 1.0, "fwhm": 1.0}, bounds={"area": ANY, "centre": ANY, "fwhm": (1e-3, 1e4)}
    )


def saturating():
    floor = Component("offset", "b1")
    return [floor, exponential("b2", tied={"amplitude": Tie("b1.value", factor=-1.0)})]


def gauss_values(b):
    """Two Gaussians of NIST (heights, centres, half widths at 1/e) on an exponential, as areas and FWHM."""
    peaks = [v for k in (2, 5) for v in (b[k] * b[k + 2] * np.sqrt(np.pi), b[k + 1], b[k + 2] * ROOT_LN2)]
    return [b[0], b[1], *peaks]


def eckerle_values(b):
    sigma = b[1]
    return [b[0] * np.sqrt(2.0 * np.pi), b[2], sigma * np.sqrt(2.0) * ROOT_LN2]


CASES = {
    **dict.fromkeys(
        ("Gauss1", "Gauss2", "Gauss3"), (lambda: [exponential("e"), gaussian("g"), gaussian("h")], gauss_values)
    ),
    **dict.fromkeys(("Lanczos2", "Lanczos3"), (lambda: [exponential("a"), exponential("b"), exponential("c")], list)),
    "MGH17": (
        lambda: [Component("offset", "o"), exponential("a"), exponential("b")],
        lambda b: [b[0], b[1], b[3], b[2], b[4]],
    ),
    **dict.fromkeys(("Misra1a", "BoxBOD"), (saturating, lambda b: [b[0], -b[0], b[1]])),
    "Eckerle4": (lambda: [gaussian("g")], eckerle_values),
    "DanWood": (
        lambda: [Component("power_law", "p", bounds={"exponent": (-20.0, 20.0)})],
        lambda b: [b[0], -b[1]],
    ),
}

TOO_FAR = (("MGH17", 0), ("BoxBOD", 0))
"""Start 1 of two problems that NIST calls hard; a scan's start is the best of several (`fit_mean`)."""


def read(name):
    """Return starts (2, parameters), certified values, their standard deviations, residual sum of squares, x, y."""
    lines = (FOLDER / f"{name}.dat").read_text().splitlines()
    table = np.array(
        [
            [float(v) for v in line.split("=")[1].split()]
            for line in lines[40:60]
            if line.strip().startswith("b") and "=" in line
        ]
    )
    rss = next(float(line.split(":")[1]) for line in lines if line.startswith("Residual Sum of Squares"))
    data = np.array([[float(v) for v in line.split()] for line in lines[60:] if line.strip()])
    order = np.argsort(data[:, 1], kind="stable")
    return table[:, :2].T, table[:, 2], table[:, 3], rss, data[order, 1], data[order, 0]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("which", [0, 1])
def test_certified_digits(name, which):
    make, convert = CASES[name]
    starts, certified, certified_std, rss, x, y = read(name)
    if (
        np.unique(x).size < x.size
    ):  # repeated measurements: channels have energies of their own, apart by nothing that counts
        x = x + 1e-12 * np.arange(x.size)
    noise = rss / (x.size - certified.size)
    model = build_model(make(), x, reference_mev=1.0 if name == "DanWood" else 0.0, scale_mev=1.0)
    areas = np.array([1.0 / model.channel_mev if n.endswith("area") else 1.0 for n in model.names])
    mask = np.full(x.size, 1.0 / noise)
    problem = Problem(model, y[None, None], None, None, mask, 0, 1.0, 0.0, 0.0, GAUSSIAN, 1e-20, 3000)
    start = np.asarray(convert(starts[which])) * areas
    fit = summarise(model, run_positions(problem, CpuBackend(1), starts=start[None, None]))
    if (name, which) in TOO_FAR:
        assert fit.status[0, 0] in (1, 2, 5)  # not the optimum, and said so
        return
    truth = np.asarray(convert(certified)) * areas
    digits = -np.log10(np.abs(fit.values[0, 0] / truth - 1.0) + 1e-16)
    assert digits.min() > 6.0, dict(zip(model.names, digits, strict=True))
    assert fit.deviance[0, 0] * noise == pytest.approx(rss, rel=1e-6)
    if name in ("MGH17", "DanWood"):  # the others' parameters are not NIST's own, so neither are their deviations
        order = [0, 1, 3, 2, 4] if name == "MGH17" else [0, 1]
        np.testing.assert_allclose(fit.std[0, 0], certified_std[order], rtol=2e-2)
