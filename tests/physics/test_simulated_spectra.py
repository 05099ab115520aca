"""Invariants of the forward model: electrons are conserved, gain follows loss, widths are what they are called."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq

from phonon_eels.config import SimulationSettings, load_material
from phonon_eels.simulate import crystal_scene
from phonon_eels.simulate.lines import response, response_area
from phonon_eels.simulate.spectra import forward_model
from phonon_eels.simulate.truth import response_fwhm_mev
from phonon_eels.units import thermal_energy_mev

MATERIAL = load_material("bi2212")
SHAPES = ("split_pearson7", "pseudo_voigt", "gaussian_exponential", "split_gaussian")
KT = thermal_energy_mev(293.0)

BARE = {
    "scan": {"rows": 3, "columns": 4, "c_origin_nm": 0.6},
    "energy": {"zero_mev": 0.0, "drift_mev": 0.0, "jitter_mev": 0.0},
    "zero_loss": {"width_wander": 0.0, "tail_wander": 0.0, "haadf_slope": 0.0},
    "phonons": {"background_e_per_mev": 0.0},
    "modulation": {"energy_enabled": False},
    "thickness": {"wedge_rows": 0.0, "wedge_columns": 0.0},
}


def model(**sections):
    tree = {name: dict(section) for name, section in BARE.items()}
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section}
    return forward_model(crystal_scene(SimulationSettings.model_validate(tree), MATERIAL))


@pytest.mark.parametrize("shape", SHAPES)
def test_zero_loss_peak_keeps_its_electrons(shape):
    wide = {"offset_mev": -1500.0, "channels": 6000}
    made = model(energy=wide, zero_loss={"shape": shape, "electrons": 1e5}, phonons={"area_e": 0.0})
    # A Lorentzian of 5 % has 8e-5 of the electrons beyond 1.5 eV.
    assert made.expected_row(0, 0).sum(axis=1) == pytest.approx(1e5, rel=1e-4)


def test_convolution_keeps_the_phonons_electrons():
    made = model(energy={"offset_mev": -700.0, "channels": 2800})
    seen = made.expected_row(0, 0).sum(axis=1) - model(
        energy={"offset_mev": -700.0, "channels": 2800}, phonons={"area_e": 0.0}
    ).expected_row(0, 0).sum(axis=1)
    planted = made.loss_spectra(0, 0).sum(axis=1) * made.grid.step_mev
    # The response's own tails beyond the axis hold back some 1e-5.
    assert seen == pytest.approx(planted, rel=2e-4)


def test_area_is_that_of_the_loss_side():
    made = model()
    area = made.mode_sums(0)[0]
    loss = made.loss_spectra(0, 1)
    above = loss[:, made.grid.zero + 1 :].sum(axis=1) + 0.5 * loss[:, made.grid.zero]
    # Tails of the oscillators beyond the grid: E0 Γ / (2 top²) of each.
    assert above * made.grid.step_mev == pytest.approx(area[:, 1].sum(axis=0), rel=1.5e-2)
    assert (above * made.grid.step_mev < area[:, 1].sum(axis=0)).all()


@pytest.mark.parametrize("shape", ["oscillator", "skewed", "table"])
@pytest.mark.parametrize("temperature_k", [100.0, 293.0])
def test_detailed_balance_holds_once(shape, temperature_k):
    made = model(phonons={"shape": shape, "temperature_k": temperature_k})
    spectrum, zero = made.loss_spectra(0, 0)[0], made.grid.zero
    steps = np.arange(8, 720)
    energies = made.grid.step_mev * steps
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = spectrum[zero - steps] / spectrum[zero + steps]
    seen = spectrum[zero + steps] > 1e-6 * spectrum.max()
    assert seen.sum() > 200
    assert ratio[seen] == pytest.approx(np.exp(-energies[seen] / thermal_energy_mev(temperature_k)), rel=1e-9)


def test_oscillator_against_quadrature():
    """A lone plane's 78 meV line, seen through the response, against a convolution done the slow way."""
    names = [mode.name for mode in MATERIAL.modes]
    alone = dict.fromkeys(names, 0.0) | {"CuO78": 1.0}
    common = {"relative_areas": alone, "dechannelled_fraction": 0.0}
    made = model(phonons=common, energy={"zero_mev": 0.37})
    without = model(phonons={"area_e": 0.0}, energy={"zero_mev": 0.37})
    seen = (made.expected_row(0, 0) - without.expected_row(0, 0))[0]
    electrons = made.mode_sums(0)[0][names.index("CuO78"), 0, 0]
    mode = MATERIAL.modes[names.index("CuO78")]

    def line(energy):
        chi = mode.energy_mev * mode.fwhm_mev
        chi /= (energy**2 - mode.energy_mev**2) ** 2 + (mode.fwhm_mev * energy) ** 2
        return chi * (energy / -np.expm1(-energy / KT) if energy else KT)

    norm = quad(line, 0, 500, points=[78], limit=400)[0] + quad(line, 500, np.inf)[0]
    area = response_area(0, 7.5, 1.6, 1.9)
    for channel in (40, 220, 276, 300):
        centre = -60.0 + 0.5 * channel - 0.37
        fine = np.linspace(-150, 300, 45_001)
        values = np.array([line(e) for e in fine]) / norm * electrons
        parts = []
        for shift in np.linspace(-0.25, 0.25, 5):
            kernel = np.array([response(centre + shift - e, 0, 7.5, 1.6, 1.9, 0.0) for e in fine]) / area
            parts.append(np.trapezoid(values * kernel, fine))
        expected = 0.5 * np.dot([7, 32, 12, 32, 7], parts) / 90  # Boole's rule over the channel
        assert seen[channel] == pytest.approx(expected, rel=2e-4), channel


@pytest.mark.parametrize("shape", SHAPES)
def test_fwhm_of_the_zero_loss_peak(shape):
    fine = {"offset_mev": -20.0, "dispersion_mev": 0.02, "channels": 2001}
    made = model(energy=fine, zero_loss={"shape": shape, "fwhm_mev": 7.5}, phonons={"area_e": 0.0})
    spectrum = made.expected_row(0, 0)[0]
    energies = made.axis.energies_mev
    above = np.flatnonzero(spectrum >= 0.5 * spectrum.max())
    width = energies[above[-1]] - energies[above[0]]
    assert width == pytest.approx(response_fwhm_mev(made), abs=0.05)
    if shape != "gaussian_exponential":
        assert width == pytest.approx(7.5, abs=0.05)
    assert energies[np.argmax(spectrum)] == pytest.approx(0.0, abs=0.03), "the centre is the mode"


def test_pearson_tails_have_their_own_exponents():
    loss, gain = 1.6, 1.9
    for x, m in ((60.0, loss), (-60.0, gain)):
        slope = np.log(response(2 * x, 0, 7.5, loss, gain, 0.0) / response(x, 0, 7.5, loss, gain, 0.0)) / np.log(2.0)
        assert slope == pytest.approx(-2 * m, rel=0.01)
    assert brentq(lambda x: response(x, 0, 7.5, loss, gain, 0.0) - 0.5, 0, 20) == pytest.approx(3.75)
    numeric = quad(lambda x: response(x, 0, 7.5, loss, gain, 0.0), -np.inf, 0)[0]
    numeric += quad(lambda x: response(x, 0, 7.5, loss, gain, 0.0), 0, np.inf)[0]
    assert response_area(0, 7.5, loss, gain) == pytest.approx(numeric, rel=1e-7)


def test_energy_shift_moves_the_whole_spectrum():
    """Drift by exactly three channels is the same spectrum three channels on."""
    still, moved = model(), model(energy={"zero_mev": 1.5})
    assert moved.expected_row(0, 0)[:, 3:] == pytest.approx(still.expected_row(0, 0)[:, :-3], rel=1e-9)


def test_channels_are_integrals_whatever_their_width():
    narrow = model(energy={"offset_mev": -60.0, "dispersion_mev": 0.25, "channels": 700}).expected_row(0, 0)
    wide = model(energy={"offset_mev": -59.625, "dispersion_mev": 1.0, "channels": 175}).expected_row(0, 0)
    assert wide == pytest.approx(narrow.reshape(4, 175, 4).sum(axis=2), rel=3e-5)


def test_two_losses_add_their_energies():
    wide = {"offset_mev": -150.0, "channels": 1000}
    one = model(energy=wide, phonons={"multiphonon": 0.0})
    two = model(energy=wide, phonons={"multiphonon": 1.0})
    added = (two.expected_row(0, 0) - one.expected_row(0, 0))[0]
    energies = one.axis.energies_mev
    total = one.loss_spectra(0, 0)[0].sum() * one.grid.step_mev
    assert added.sum() == pytest.approx(total**2 / (2 * 2e5), rel=0.01), "half of I0 (P/I0)²"
    # At a CuO2 plane 42 + 42 meV land between 80 and 90, and 42 + 78 at 120.
    for low, high, expected in ((70, 100, 84), (105, 135, 120)):
        inside = (energies > low) & (energies < high)
        assert energies[inside][np.argmax(added[inside])] == pytest.approx(expected, abs=2.5)


def test_dipole_part_is_constant_and_keeps_its_share():
    made = model(scan={"rows": 112}, phonons={"dipole_fraction": 1.0})
    area = made.mode_sums(0)[0]
    assert np.ptp(area, axis=(1, 2)) == pytest.approx(0.0, abs=1e-9)
    impact = model(scan={"rows": 112}, phonons={"dipole_fraction": 0.0}).mode_sums(0)[0]
    assert area.mean(axis=(1, 2)) == pytest.approx(impact.mean(axis=(1, 2)), rel=0.05)


def test_each_plane_speaks_at_its_own_energy():
    """On the crest of a CuO2 plane its mode lies A higher; half a period on, A lower; its partner the other way."""
    made = model(
        scan={"rows": 112, "columns": 60, "c_origin_nm": 0.0335},
        modulation={"energy_enabled": True, "primary_energy_mev": 2.0},
    )
    truth = made.scene.truth
    energy = made.mode_sums(0)[1][-1]
    on = (truth["layer"].values == 1) & (np.abs(truth["layer_distance_nm"].values) < 0.03)
    phase = truth["phase_rad"].values[on]
    design = np.stack([np.ones(on.sum()), np.cos(phase), np.sin(phase)], axis=1)
    mean, cosine, sine = np.linalg.lstsq(design, energy[on], rcond=None)[0]
    from phonon_eels.simulate.truth import attenuation

    assert mean == pytest.approx(78.0, abs=0.02)
    assert cosine == pytest.approx(2.0 * attenuation(made)["CuO78"], rel=0.01)
    assert sine == pytest.approx(0.0, abs=0.01)
