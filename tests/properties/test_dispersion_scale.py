"""The same counts on an axis k times as wide, with all energies and the temperature times k: everything in meV times k."""

from dataclasses import replace

import numpy as np
import pytest

from phonon_eels.config import Settings
from phonon_eels.spectrum_image import EnergyAxis
from phonon_eels.steps.align_zlp import align_zlp
from phonon_eels.steps.fit_peaks import fit_peaks
from tests.unit.forward.spectra import SEPARATED, context_of, material_of, simulated, with_results

MATERIAL = material_of(*SEPARATED)
TOLERANCE_SIGMA = 1e-2
"""Of the deviations: searches stop on relative changes, and a last step may be left out below 0.01 deviations."""


def _scaled(k):
    modes = tuple(
        mode.model_copy(
            update={
                **{key: k * getattr(mode, key) for key in ("energy_mev", "fwhm_mev", "prior_energy_std_mev")},
                "bounds_mev": tuple(k * bound for bound in mode.bounds_mev),
            }
        )
        for mode in MATERIAL.modes
    )
    return MATERIAL.model_copy(update={"modes": modes})


def _run(image, k, **changes):
    axis = image.energy
    moved = image.with_(
        energy=EnergyAxis(k * axis.offset_mev, k * axis.dispersion_mev, axis.n_channels),
        acquisition=replace(image.acquisition, temperature_k=293.0 * k),
    )
    context = context_of(_scaled(k))
    context = with_results(context, align_zlp=align_zlp(moved, Settings().align_zlp, context))
    return fit_peaks(moved, Settings().fit_peaks.model_copy(update=changes), context)


@pytest.fixture(scope="module")
def image():
    return simulated(
        4, 4, material=MATERIAL, energy={"jitter_mev": 0.1}, phonons={"area_e": 8e3}, detector={"poisson": True, "gain": 1.0},
    ).image  # fmt: skip


@pytest.fixture(scope="module")
def reference(image):
    return _run(image, 1.0)


@pytest.mark.parametrize("k", [0.5, 3.0])
def test_energies_and_deviations_follow_the_dispersion(image, reference, k):
    """From the zero-loss peak to the maps and the scan-wide table."""
    found = _run(image, k)
    std = reference.maps["energy_mev_std"].values
    assert np.isfinite(std).all()
    for name in ("energy_mev", "energy_mev_low68", "energy_mev_high95", "zlp_center_mev"):
        away = found.maps[name].values / k - reference.maps[name].values
        own = reference.maps["zlp_center_mev_std"].values if name == "zlp_center_mev" else std
        assert np.nanmax(np.abs(away / own)) < TOLERANCE_SIGMA, name
    for name in ("energy_mev_std", "energy_mev_crb", "fwhm_mev"):
        np.testing.assert_allclose(found.maps[name].values / k, reference.maps[name].values, rtol=2e-3, err_msg=name)
    area = (found.maps["area_e"] - reference.maps["area_e"]) / reference.maps["area_e_std"]
    assert float(np.abs(area).max()) < TOLERANCE_SIGMA
    for name in ("deviance_per_dof", "p_value"):
        np.testing.assert_allclose(found.maps[name].values, reference.maps[name].values, atol=1e-3, err_msg=name)
    table, before = (result.tables["modes"] for result in (found, reference))
    assert (np.abs(table["energy_mev"] / k - before["energy_mev"]) < TOLERANCE_SIGMA * before["energy_mev_std"]).all()
    np.testing.assert_allclose(table["fwhm_mev"] / k, before["fwhm_mev"], rtol=2e-3)
