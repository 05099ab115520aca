"""Every switch of the simulation does something, and off means off."""

import numpy as np
import pytest

from phonon_eels.config import SimulationSettings, load_material, load_simulation
from phonon_eels.errors import ConfigError
from phonon_eels.simulate import simulate
from phonon_eels.simulate.spectra import density_table, modulation_of

MATERIAL = load_material("bi2212")

# Everything that can be off is off: what is left is the same spectrum wherever the same atoms are.
OFF = {
    "scan": dict.fromkeys(
        ("drift_row_nm", "drift_column_nm", "wander_nm", "line_jitter_nm", "flyback_nm", "frame_jump_nm"), 0.0
    )
    | {"rows": 14, "columns": 6, "c_origin_nm": 0.4},
    "energy": {"zero_mev": 0.0, "drift_mev": 0.0, "jitter_mev": 0.0, "channels": 300, "offset_mev": -40.0},
    "zero_loss": {"width_wander": 0.0, "tail_wander": 0.0, "haadf_slope": 0.0},
    "phonons": {"dechannelled_fraction": 0.0, "background_e_per_mev": 0.0},
    "modulation": {"energy_enabled": False},
    "structure": {"corrugation": 0.0},
    "thickness": {"wedge_rows": 0.0, "wedge_columns": 0.0},
    "haadf": {"noise": False},
    "detector": {"poisson": False, "read_noise_e": 0.0, "fixed_pattern": 0.0, "spike_rate": 0.0},
}

SWITCHES = [
    ("scan", {"drift_row_nm": 0.2}),
    ("scan", {"wander_nm": 0.05}),
    ("scan", {"wave_c_nm": 0.05}),
    ("scan", {"rotation_rad": 0.2}),
    ("energy", {"zero_mev": 0.5}),
    ("energy", {"drift_mev": 1.0}),
    ("energy", {"jitter_mev": 0.1}),
    ("zero_loss", {"width_wander": 0.02}),
    ("zero_loss", {"tail_wander": 0.02}),
    ("zero_loss", {"haadf_slope": 0.05}),
    ("zero_loss", {"shape": "pseudo_voigt"}),
    ("zero_loss", {"shape": "gaussian_exponential"}),
    ("zero_loss", {"shape": "split_gaussian"}),
    ("phonons", {"area_e": 0.0}),
    ("phonons", {"temperature_k": 100.0}),
    ("phonons", {"shape": "skewed"}),
    ("phonons", {"shape": "table"}),
    ("phonons", {"energies_mev": {"CuO78": 76.0}}),
    ("phonons", {"fwhms_mev": {"CuO78": 6.0}}),
    ("phonons", {"relative_areas": {"CuO78": 0.1}}),
    ("phonons", {"localisation_fwhm_nm": 0.3}),
    ("phonons", {"dechannelled_fraction": 0.1}),
    ("phonons", {"dipole_fraction": 0.5}),
    ("phonons", {"multiphonon": 1.0}),
    ("phonons", {"background_e_per_mev": 2.0}),
    ("phonons", {"background_e_per_mev": 2.0, "background_slope": 0.01}),
    ("modulation", {"energy_enabled": True}),
    ("modulation", {"energy_enabled": True, "phase_rule": "in_phase"}),
    ("modulation", {"modes": {"CuO42": {"weight": 0.2}}}),
    ("modulation", {"modes": {"CuO42": {"width": 0.2}}}),
    ("modulation", {"energy_enabled": True, "modes": {"CuO42": {"second_harmonic_mev": 0.5}}}),
    ("structure", {"corrugation": 1.0}),
    ("structure", {"corrugation": 1.0, "breathing": True}),
    ("structure", {"corrugation": 1.0, "period_nm": 2.2}),
    ("structure", {"corrugation": 1.0, "phase_rad": 2.0}),
    ("thickness", {"wedge_rows": 0.2}),
    ("thickness", {"wedge_columns": 0.2}),
    ("acquisition", {"probe_fwhm_nm": 0.15}),
    ("detector", {"poisson": True}),
    ("detector", {"gain": 3.0}),
    ("detector", {"dark_level": 5.0}),
    ("detector", {"read_noise_e": 1.0}),
    ("detector", {"psf_fwhm_channels": 1.5}),
    ("detector", {"fixed_pattern": 0.01}),
    ("detector", {"spike_rate": 1e-3}),
    ("detector", {"saturation_counts": 5000.0}),
    ("detector", {"dtype": "uint16"}),
]
IMAGE_ONLY = [
    ("haadf", {"noise": True}),
    ("haadf", {"electrons": 50.0}),
    ("haadf", {"exponent": 2.0}),
    ("haadf", {"vibration_nm": 0.03}),
    ("haadf", {"background": 0.6}),
    ("structure", {"lateral_offset": {"SrO": 0.25}}),
    ("structure", {"corrugation": 1.0, "bunching_nm": {}}),
    ("scan", {"line_jitter_nm": 0.02}),
    ("scan", {"flyback_nm": 0.1}),
    ("scan", {"drift_column_nm": 0.1}),
    ("scan", {"wave_b_nm": 0.05}),
]


def made(section=None, change=None, base=OFF):
    tree = {name: dict(values) for name, values in base.items()}
    if section:
        tree[section] = {**tree.get(section, {}), **change}
    return simulate(SimulationSettings.model_validate(tree), MATERIAL)


@pytest.fixture(scope="module")
def plain():
    return made()


@pytest.fixture(scope="module")
def wavy():
    return made("structure", {"corrugation": 1.0})


@pytest.mark.parametrize(("section", "change"), SWITCHES, ids=lambda v: v if isinstance(v, str) else "-".join(v))
def test_switch_changes_the_spectra(section, change, plain):
    counts, before = made(section, change).image.counts.astype(float), plain.image.counts.astype(float)
    assert not np.array_equal(counts, before)
    assert np.isfinite(counts).all()
    if change != {"dtype": "uint16"}:  # rounding changes no number by more than a half
        assert np.abs(counts - before).max() > 0.5


@pytest.mark.parametrize(("section", "change"), IMAGE_ONLY, ids=lambda v: v if isinstance(v, str) else "-".join(v))
def test_switch_changes_the_image(section, change, plain, wavy):
    before = wavy if change.get("corrugation") else plain
    assert np.abs(made(section, change).image.haadf - before.image.haadf).max() > 0.5


def test_everything_off_leaves_one_spectrum_per_height(plain):
    counts = plain.image.counts
    assert counts == pytest.approx(np.broadcast_to(counts[:, :1], counts.shape), rel=1e-6)
    maps = plain.truth_maps
    for name, value in {"zlp_center_mev": 0.0, "zlp_fwhm_mev": 7.5, "zlp_tail_loss": 1.6, "zlp_tail_gain": 1.9}.items():
        assert maps[name].values == pytest.approx(value, abs=1e-12), name
    assert maps["thickness"].values == pytest.approx(1.0)


def test_no_modulation_means_none_at_all():
    """Energies of the null twin are the same number everywhere, whatever amplitudes the settings name."""
    null = made(
        "modulation", {"energy_enabled": False, "modes": {"CuO42": {"energy_mev": 3.0, "second_harmonic_mev": 1.0}}}
    )
    energy = null.truth_maps["energy_mev"]
    for mode in MATERIAL.modes:
        values = energy.sel(mode=mode.name).values
        assert values[np.isfinite(values)] == pytest.approx(mode.energy_mev, abs=1e-9)
    assert all(mode["modulation_amplitude_mev"] == 0.0 for mode in null.truth["modes"])
    assert np.array_equal(null.image.counts, made().image.counts)


def test_primary_mode_is_modulated_by_default():
    waves = modulation_of(SimulationSettings(), MATERIAL)
    assert waves["CuO78"].energy_mev == 1.0
    assert waves["CuO42"].energy_mev == 0.0


def test_unknown_mode_is_refused_by_name():
    settings = SimulationSettings.model_validate({"modulation": {"modes": {"Cu78": {"energy_mev": 1.0}}}})
    with pytest.raises(ConfigError, match=r"modulation.modes names the mode 'Cu78'.*use Sr22, BiO38"):
        simulate(settings, MATERIAL)


def test_density_of_states_from_a_file(tmp_path):
    path = tmp_path / "dos.txt"
    np.savetxt(path, [[-1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    settings = SimulationSettings.model_validate({"phonons": {"shape": "table", "table": str(path)}})
    values, low, step = density_table(settings)
    places = low + step * np.arange(len(values))
    assert values == pytest.approx(np.interp(places, [-1, 0, 2], [0, 1, 0], left=0, right=0))
    path.write_text("1 2 3\n4 5 6\n")
    with pytest.raises(ConfigError, match=r"phonons.table = .*dos.txt: cannot be used.*two columns"):
        density_table(settings)


def test_settings_file_errors_name_the_key(tmp_path):
    path = tmp_path / "simulation.yaml"
    path.write_text("scan: {row: 10}\n")
    with pytest.raises(ConfigError, match=r"simulation.yaml: unknown key scan.row; did you mean rows\?"):
        load_simulation(path)
    assert load_simulation(None, ["scan.rows=7"]).scan.rows == 7
