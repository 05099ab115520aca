"""A vacuum reference fitted with the spectra: pulls of one, no bias, and less scatter than the reference fitted before.

Specimen and vacuum are counted anew in every draw. Run as a program it prints the figures that the documentation gives (`time 64 128`: processor seconds of whole scans).
"""

import sys
from dataclasses import replace
from time import process_time
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import chi2

from phonon_eels.backends.spectra import NO_CHANNEL
from phonon_eels.forward.model import build_forward_model
from phonon_eels.steps.vacuum_response import joint_response
from tests.unit.forward.joint_scenes import MATERIAL, SETTINGS, THERMAL, common_std, finished, fitted, scene
from tests.unit.forward.spectra import alignment_of, context_of, true_params

DRAWS = 60
SEEDS = {0.2: 41, 1.0: 44, 10.0: 41}
"""With 41 the draws of as many electrons have a mean pull of 0.46 at 38 meV, 0.41 with the reference fitted before: it is the specimen's
own counting. The joint fit's over 43, 41, 44 and 45 is 0.13 ± 0.06."""
SCAN_DRAWS = 24


def study(times, draws, rows, columns, seed):
    """Return errors and told deviations, (draws, modes) each, of single energies before and jointly, and of the scan's mean."""
    own, random = scene(rows, columns), np.random.default_rng(seed)
    told: dict[str, list[np.ndarray]] = {}
    for _ in range(draws):
        image, reference = own.draw(random, times)
        (before, model), joint, _ = fitted(own, image, reference)
        after = finished(own, image, joint)
        for name, fit, used in (("before", before, model), ("joint", after, joint.model)):
            error, single = fit.energies() - own.truth_mev, fit.energies(fit.std)
            common = common_std(used, fit)
            told.setdefault(f"{name}_error", []).append(error[0, 0])
            told.setdefault(f"{name}_std", []).append(np.hypot(single[0, 0], common))
            told.setdefault(f"{name}_mean_error", []).append(error.mean(axis=(0, 1)))
            weight = (single**2).mean(axis=(0, 1)) / (rows * columns)
            told.setdefault(f"{name}_mean_std", []).append(np.sqrt(weight + common**2))
        told.setdefault("settled", []).append(np.array(joint.reference.settled))
        told.setdefault("tension_p", []).append(np.array(joint.reference.tension_p))
    return {name: np.array(values) for name, values in told.items()}


def assert_honest(pulls):
    """Pulls, (draws, modes), have mean 0 and width 1 within 99.9 % and 99.8 % limits."""
    draws = len(pulls)
    low, high = np.sqrt(chi2.ppf([0.001, 0.999], draws - 1) / (draws - 1))
    assert (np.abs(pulls.mean(axis=0)) < 3.3 / np.sqrt(draws)).all(), pulls.mean(axis=0)
    width = pulls.std(axis=0, ddof=1)
    assert (width > low).all(), width
    assert (width < high).all(), width


@pytest.mark.slow
@pytest.mark.parametrize("times", [0.2, 1.0, 10.0])
def test_pulls_of_a_position(times):
    found = study(times, DRAWS, 1, 1, SEEDS[times])
    assert_honest(found["joint_error"] / found["joint_std"])
    assert found["settled"].mean() > 0.9
    assert (found["tension_p"] > 1e-4).all()  # both have the same peak
    # The errors of both estimates are of the same draws: their scatter compares much better than either is known.
    rms = [np.sqrt((found[f"{name}_error"] ** 2).mean()) for name in ("before", "joint")]
    assert rms[1] < (0.97 if times < 0.5 else 1.03) * rms[0]


@pytest.mark.slow
def test_mean_of_a_scan():
    """Nine positions and a reference of one position's electrons: what is common to all is what the reference leaves."""
    found = study(1.0, SCAN_DRAWS, 3, 3, 42)
    assert_honest(found["joint_mean_error"] / found["joint_mean_std"])
    rms = [np.sqrt((found[f"{name}_mean_error"] ** 2).mean()) for name in ("before", "joint")]
    assert rms[1] < 0.9 * rms[0], rms


def seconds_of(side):
    """Return processor seconds of the joint fit of a scan of side × side positions on one thread, and how many took part."""
    own = scene(side, side)
    image, reference = own.draw(np.random.default_rng(7), 10.0)
    model = build_forward_model(SETTINGS, MATERIAL, own.channels, 0.5, reference.shape, THERMAL, vacuum=reference)
    place = alignment_of(own.specimen)
    start = true_params(own.specimen, model)
    start[..., 0], start[..., 2:5] = own.empty.max(), 0.0
    prepared = SimpleNamespace(
        model=model, alignment=place, thermal_mev=THERMAL, starts=lambda rows=slice(None): start[rows]
    )
    context = context_of(MATERIAL)
    small = SimpleNamespace(**{**vars(prepared), "alignment": replace(place, channel=_first_only(place.channel))})
    joint_response(image, small, SETTINGS, context)  # compiles
    before = process_time()
    found = joint_response(image, prepared, SETTINGS, context)
    return process_time() - before, found.positions, found.settled


def _first_only(channel):
    few = np.full_like(channel, NO_CHANNEL)
    few[0, :2] = channel[0, :2]
    return few


if __name__ == "__main__" and sys.argv[1] == "time":
    for side in map(int, sys.argv[2:]):
        print(side, "x", side, *seconds_of(side), flush=True)
elif __name__ == "__main__":
    cases = [(times, 1, 1) for times in (0.2, 1.0, 10.0)] + [(times, 3, 3) for times in (0.2, 1.0, 10.0)]
    for share, size, other in cases:
        table = study(share, int(sys.argv[1]), size, other, 43)
        kind = "error" if size == 1 else "mean_error"
        scatter = {name: table[f"{name}_{kind}"].std(axis=0, ddof=1) for name in ("before", "joint")}
        told_by = {name: table[f"{name}_{kind.replace('error', 'std')}"].mean(axis=0) for name in scatter}
        bias = table[f"joint_{kind}"].mean(axis=0) / scatter["joint"] * np.sqrt(len(table["settled"]))
        print(
            f"{share:g} of a position's electrons, {size} x {other} positions: scatter before / joint",
            np.round(scatter["before"] / scatter["joint"], 2), "told", np.round(told_by["before"] / told_by["joint"], 2),
            "joint pulls", np.round(scatter["joint"] / told_by["joint"], 2), "bias in its errors", np.round(bias, 1),
            f"settled {table['settled'].mean():.2f}",
            "tension p, quartiles", np.round(np.quantile(table["tension_p"], [0.0, 0.25, 0.5, 0.75]), 3), flush=True,
        )  # fmt: skip
