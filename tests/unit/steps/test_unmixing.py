"""Each layer's own spectrum from a counted scan: modes stand where they were planted and nowhere else."""

import numpy as np
import pytest

from phonon_eels.config import Settings
from phonon_eels.figures import plot_unmixed
from phonon_eels.steps.assign_layers import assign_layers
from tests.unit.forward.spectra import context_of, material_of, simulated

NAMES = ("BiO", "SrO", "CuO2 lower", "CuO2 upper", "Ca", "everywhere")
WINDOWS = {"BiO": (54.0, 61.0), "CuO2": (74.0, 82.0)}


@pytest.fixture(scope="module")
def scan():
    return simulated(
        56, 40, seed=2, material=material_of("BiO57", "CuO78"), detector={"poisson": True, "gain": 1.0}, phonons={"dechannelled_fraction": 0.1},
        energy={"zero_mev": 0.0}, scan={"column_step_nm": 0.1},
    )  # fmt: skip


def assigned(scan, **changes):
    settings = Settings().assign_layers.model_copy(update={"localisation_fwhm_nm": 0.2, **changes})
    result = assign_layers(scan.image, settings, context_of())
    assert result.skipped is None, result.skipped
    return result


def electrons(table, name, window):
    """Return electrons in a window and their deviation."""
    inside = (table["energy_loss_mev"] >= window[0]) & (table["energy_loss_mev"] <= window[1])
    syst = table.loc[inside, f"{name}_syst_e"].sum() if f"{name}_syst_e" in table else 0.0
    return table.loc[inside, f"{name}_e"].sum(), np.hypot(
        np.sqrt((table.loc[inside, f"{name}_std_e"] ** 2).sum()), syst
    )


def test_modes_stand_in_their_layers_only(scan):
    table = assigned(scan).tables["unmixed_spectra"]
    total = {name: electrons(table, name, WINDOWS["CuO2"]) for name in NAMES}
    assert total["CuO2 lower"][0] > 20 * total["CuO2 lower"][1]
    upper, lower = total["CuO2 upper"], total["CuO2 lower"]
    assert abs(upper[0] - lower[0]) < 4 * np.hypot(upper[1], lower[1]) + 0.03 * lower[0]
    for name in ("BiO", "SrO"):
        assert abs(total[name][0]) < 4 * total[name][1] + 0.03 * lower[0]
    bismuth = {name: electrons(table, name, WINDOWS["BiO"]) for name in NAMES}
    assert bismuth["BiO"][0] > 20 * bismuth["BiO"][1]
    for name in ("CuO2 lower", "CuO2 upper", "Ca"):
        # The tail of the mode at 78 meV reaches this window.
        tail = 0.05 * total[name][0]
        assert abs(bismuth[name][0]) < tail + 0.03 * bismuth["BiO"][0] + 4 * bismuth[name][1]


def test_plain_means_mix_what_unmixing_takes_apart(scan):
    tables = assigned(scan).tables
    mixed, pure = tables["layer_spectra"], tables["unmixed_spectra"]
    background = electrons(pure, "everywhere", WINDOWS["CuO2"])[0]
    leaked = electrons(mixed, "SrO", WINDOWS["CuO2"])[0] - background
    own = electrons(pure, "CuO2 upper", WINDOWS["CuO2"])[0]
    assert leaked > 0.15 * own
    assert abs(electrons(pure, "SrO", WINDOWS["CuO2"])[0]) < 0.05 * own


def test_unknown_width_is_a_systematic_part(scan):
    known, unsure = (assigned(scan, localisation_fwhm_nm=width).tables for width in (0.2, None))
    assert (known["unmixed_spectra"]["BiO_syst_e"] == 0.0).all()
    assert unsure["unmixed_spectra"]["BiO_syst_e"].max() > 0.0
    assert (known["leakage"]["share_std"] == 0.0).all()
    assert unsure["leakage"]["share_std"].max() > 0.02
    np.testing.assert_allclose(unsure["leakage"].groupby("probe")["share"].sum(), 1.0)


def test_matrix_of_a_file(scan, tmp_path):
    path = tmp_path / "multislice.csv"
    layers = ("Ca", "CuO2", "SrO", "BiO")
    lines = [f"{a},{b},{0.7 if a == b else 0.1},0.02" for a in layers for b in layers]
    path.write_text("probe,source,share,share_std\n" + "\n".join(lines))
    tables = assigned(scan, leakage_file=str(path)).tables
    assert set(tables["leakage"]["origin"]) == {"multislice.csv"}
    spectra, means = tables["unmixed_spectra"], tables["layer_spectra"]
    mixed = sum((0.7 if name == "BiO" else 0.1) * spectra[f"{name}_e"] for name in layers)
    np.testing.assert_allclose(mixed, means["BiO_e"], rtol=1e-9)
    assert (spectra["BiO_syst_e"] > 0).all()


def test_figure(scan):
    tables = assigned(scan).tables
    figure = plot_unmixed(tables["leakage"], tables["unmixed_spectra"], window_mev=(15.0, 95.0))
    words = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert {"BiO", "CuO₂ lower", "CuO₂ upper"} <= set(words)
