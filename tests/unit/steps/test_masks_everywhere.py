"""Every step honours the mask: what lies under it changes no number of any step, and maps say masked there."""

from dataclasses import replace

import numpy as np
import pytest

from phonon_eels.config import Settings
from phonon_eels.errors import DataError
from phonon_eels.spectrum_image import REGIONS
from phonon_eels.steps.maps import mark_masked
from phonon_eels.steps.registry import steps_of_route
from tests.unit.forward.spectra import SEPARATED, context_of, material_of, simulated, with_results

MATERIAL = material_of(*SEPARATED)
WINDOWS = {"output_window_mev": (25.0, 95.0), "windows_mev": ((25.0, 31.0), (95.0, 110.0))}
CHANGES = {
    "ingest": {"quality": "warn"}, "calibrate": {"method": "zero"}, "denoise": {"method": "pca"}, "subtract_zlp": WINDOWS,
    "deconvolve": {"iterations": 2},
}  # fmt: skip
LEFT_OUT = ("report",)  # draws the results of the others; `tests/workflow/test_marked_frames.py` looks at it
ROUTES = {
    "forward": (
        "ingest",
        "remove_spikes",
        "align_zlp",
        "calibrate",
        "fit_peaks",
        "assign_layers",
        "map_superstructure",
    ),
    "classic": ("ingest", "remove_spikes", "align_zlp", "normalise", "denoise", "subtract_zlp"),
    "deconvolved": ("ingest", "align_zlp", "normalise", "subtract_zlp", "deconvolve", "fit_peaks"),
}


@pytest.fixture(scope="module")
def marked():
    image = simulated(
        12, 14, material=MATERIAL, energy={"jitter_mev": 0.2}, phonons={"area_e": 8e3},
        detector={"poisson": True, "gain": 2.0, "read_noise_e": 1.0},
    ).image  # fmt: skip
    regions = np.zeros((12, 14), np.uint8)
    regions[:3, :4] = REGIONS.index("hole")
    regions[7, 9] = REGIONS.index("contamination")
    return image.with_(
        regions=regions, counts=np.asarray(image.counts), noise=replace(image.noise, source={"gain": "given"})
    )


def rubbish(image, kind):
    """Other counts and another dark field under the mask: nothing, or more than any peak of the sample."""
    rng = np.random.default_rng(3)
    under = np.zeros(image.shape[2]) if kind == "empty" else rng.integers(0, 90_000, image.shape[2])
    counts = np.where(image.masked[..., None], under, image.counts).astype(image.counts.dtype)
    haadf = np.where(image.masked, 0.0 if kind == "empty" else 1e4, image.haadf)
    return image.with_(counts=counts, haadf=haadf)


def chain(image, steps):
    """Run steps one after the other as the pipeline does; return the result of each."""
    route = "forward" if "normalise" not in steps else "classic"
    context, results = context_of(MATERIAL, route=route), {}
    entries = {entry.name: entry for entry in steps_of_route(route)}
    for name in steps:
        settings = getattr(Settings(), name).model_copy(update=CHANGES.get(name, {}))
        result = entries[name].load().run(image, settings, context)
        result = mark_masked(result, image, estimates=name != "ingest")
        results[name] = result
        context = with_results(context, **{name: result})
        image = image if result.image is None else result.image
    return results


@pytest.fixture(scope="module", params=["forward", "classic", pytest.param("deconvolved", marks=pytest.mark.slow)])
def runs(request, marked):
    steps = ROUTES[request.param]
    return marked.masked, [chain(rubbish(marked, kind), steps) for kind in ("empty", "full")]


def same(one, two, masked, where):
    """Equal, numbers of masked positions aside."""
    assert type(one) is type(two), where
    if isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            same(one[key], two[key], masked, f"{where}.{key}")
    elif isinstance(one, float):
        assert one == two or (np.isnan(one) and np.isnan(two)), f"{where}: {one} {two}"
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), where
        for number, pair in enumerate(zip(one, two, strict=True)):
            same(*pair, masked, f"{where}[{number}]")
    else:
        assert one == two, f"{where}: {one} {two}"


# What a file holds is told as it is, under the mask too.
OF_THE_FILE = {"ingest": ("counts", "status", "status_counts")}


def test_no_number_of_any_step_depends_on_what_lies_under_the_mask(runs):
    masked, (one, two) = runs
    for step, result in one.items():
        other = two[step]
        assert (result.skipped is None) == (other.skipped is None), step
        for name in result.maps.data_vars if result.maps is not None else ():
            values, others = result.maps[name].values, other.maps[name].values
            if values.ndim >= 2 and values.shape[-2:] == masked.shape:
                values, others = values[..., ~masked], others[..., ~masked]
            np.testing.assert_array_equal(values, others, err_msg=f"{step}: {name}")
        for name, table in result.tables.items():
            if step != "ingest" or name not in ("quality", "check_pictures", "spikes"):
                assert table.equals(other.tables[name]), f"{step}: table {name}"
        told = [{k: v for k, v in r.summary.items() if k not in OF_THE_FILE.get(step, ())} for r in (result, other)]
        same(*told, masked, step)


def test_maps_say_masked_and_hold_no_estimate_there(runs):
    masked, (one, _) = runs
    seen = 0
    for step, result in one.items():
        if result.maps is None or "status" not in result.maps or result.maps["status"].shape != masked.shape:
            continue
        seen += 1
        words = result.maps["status"].attrs["flag_meanings"].split()
        np.testing.assert_array_equal(result.maps["status"].values == words.index("masked"), masked, err_msg=step)
        for name, variable in result.maps.data_vars.items():
            if variable.dims[-2:] == ("row", "column") and variable.dtype.kind == "f" and step != "ingest":
                assert np.isnan(variable.values[..., masked]).all(), f"{step}: {name}"
    assert seen >= 3


def test_no_step_is_forgotten():
    here = {name for steps in ROUTES.values() for name in steps}
    there = {entry.name for route in ("forward", "classic") for entry in steps_of_route(route)}
    # Frames: `test_frame_quality`; the modulation of masked positions: `tests/unit/lattice`, and the workflow.
    assert there - here - set(LEFT_OUT) == {"register_frames", "measure_modulation"}


@pytest.mark.parametrize("shape", [(1, 14), (14, 1), (1, 1)], ids=["row", "column", "single spectrum"])
@pytest.mark.parametrize("route", ["forward", "classic"])
def test_lines_and_single_spectra_go_through_every_step_or_are_told_why_not(route, shape):
    image = simulated(
        *shape, material=MATERIAL, phonons={"area_e": 8e3}, detector={"poisson": True, "gain": 2.0, "read_noise_e": 1.0}
    ).image
    steps = [step for step in ROUTES[route] if step != "denoise" or shape != (1, 1)]
    results = chain(image.with_(counts=np.asarray(image.counts), haadf=None), steps)
    for step, result in results.items():
        if result.skipped is not None:
            assert step in ("assign_layers", "map_superstructure"), step
            assert len(result.skipped) > 20
            continue
        assert result.maps is None or result.maps["status"].shape == shape, step
        assert result.image is None or result.image.shape[:2] == shape, step
    if route == "forward":
        energies = results["fit_peaks"].maps["energy_mev"].values
        assert np.isfinite(energies).mean() > 0.6


def test_components_of_a_single_spectrum_are_refused_with_the_way_out():
    image = simulated(1, 1, material=MATERIAL).image
    with pytest.raises(
        DataError, match=r"pca needs at least two finite spectra with counts; set denoise\.method to none"
    ):
        chain(image.with_(haadf=None), ("align_zlp", "normalise", "denoise"))
