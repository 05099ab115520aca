"""HyperSpy models fitted by the component fit: the same optimum as `multifit`, the same curves, everything stored."""

import warnings

import hyperspy.api as hs
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hyperspy.components1d import (
    Arctan,
    Exponential,
    Gaussian,
    Lorentzian,
    Offset,
    Polynomial,
    PowerLaw,
    Voigt,
)

import phonon_eels
from phonon_eels.component_fit.model import Component
from phonon_eels.component_fit.result import STATUS_WORDS
from phonon_eels.errors import ConfigError
from phonon_eels.signals import PhononEELS, fit_model, fit_signal

STEP = 0.0005
ENERGIES = 0.015 + STEP * np.arange(180)  # eV
NEVER_FAR = 1e-3  # of a deviation: both stop before the last digit


def _background(kind):
    return {
        "exponential": [Exponential(A=60.0, tau=0.03), Offset(5.0)],
        "power_law": [PowerLaw(A=60.0 * 0.06**1.5, r=2.0), Offset(5.0)],
        "polynomial": [Polynomial(order=2)],
    }[kind]


def _level(kind):
    from_middle = ENERGIES - 0.06
    return {
        "exponential": 60.0 * np.exp(-from_middle / 0.02) + 10.0,
        "power_law": 40.0 * (ENERGIES / 0.06) ** -1.5 + 5.0,
        "polynomial": 50.0 - 300.0 * from_middle + 2e4 * from_middle**2,
    }[kind]


def _signal(kind="exponential", binned=False, shape=(2, 3), gain=1.0, dark=0.0, units="eV", seed=0):
    """Return Poisson counts of a Gaussian at 40 meV and a Lorentzian at 80 meV."""
    mean = np.empty((*shape, ENERGIES.size))
    for place in np.ndindex(*shape):
        off = (ENERGIES - 0.040 - 0.0005 * sum(place)) / 0.003
        mean[place] = (2.0 + 0.2 * sum(place)) / (0.003 * np.sqrt(2.0 * np.pi)) * np.exp(-0.5 * off**2)
        mean[place] += 2.5 * 0.003 / np.pi / ((ENERGIES - 0.080) ** 2 + 0.003**2)
        mean[place] += _level(kind)
    counts = gain * np.random.default_rng(seed).poisson(mean) + dark
    signal = hs.signals.Signal1D(counts.astype(float))
    axis = signal.axes_manager.signal_axes[0]
    factor = {"eV": 1.0, "meV": 1e3}[units]
    axis.offset, axis.scale, axis.units, axis.is_binned = ENERGIES[0] * factor, STEP * factor, units, binned
    return signal


def _model(signal, kind="exponential"):
    model = signal.create_model()
    model.extend([Gaussian(centre=0.041, sigma=0.0035), Lorentzian(centre=0.079, gamma=0.0025), *_background(kind)])
    return model


@pytest.mark.parametrize("binned", [False, True])
@pytest.mark.parametrize("kind", ["exponential", "power_law", "polynomial"])
def test_the_optimum_is_that_of_multifit(kind, binned):
    signal = _signal(kind, binned)
    ours, theirs = _model(signal, kind), _model(signal, kind)
    fit = fit_model(ours, likelihood="least_squares")
    assert (fit.status == STATUS_WORDS.index("converged")).all()
    for mine, other in zip(ours, theirs, strict=True):
        for a, b in zip(mine.parameters, other.parameters, strict=True):
            assert a.map["is_set"].all()
            b._create_array()
            # From beside our optimum: HyperSpy's starts of its own would end it elsewhere or nowhere.
            b.map["values"] = a.map["values"] * (1.0 if not b.free else 1.002 if b.name == "centre" else 1.02)
            b.map["is_set"] = True
    theirs.multifit(optimizer="lm", ftol=1e-14, xtol=1e-14, gtol=1e-14, show_progressbar=False, iterpath="serpentine")
    for mine, other in zip(ours, theirs, strict=True):
        for a, b in zip(mine.parameters, other.parameters, strict=True):
            if not b.free:
                continue
            assert np.abs((a.map["values"] - b.map["values"]) / b.map["std"]).max() < NEVER_FAR, (mine.name, a.name)
            np.testing.assert_allclose(a.map["std"], b.map["std"], rtol=1e-3, err_msg=f"{mine.name}.{a.name}")
    np.testing.assert_allclose(ours.chisq.data, theirs.chisq.data, rtol=1e-6)
    np.testing.assert_array_equal(ours.dof.data, theirs.dof.data)


@pytest.mark.parametrize("units", ["eV", "meV"])
@pytest.mark.parametrize("binned", [False, True])
def test_the_model_draws_the_fitted_curve(units, binned):
    """Every conversion at once: HyperSpy's own functions with the values written back are the fit's curve, detector numbers included."""
    signal = _signal(binned=binned, gain=2.5, dark=170.0, units=units)
    unit = {"eV": 1.0, "meV": 1e3}[units]
    model = signal.create_model()
    model.extend([
        Voigt(centre=0.041 * unit, sigma=0.002 * unit, gamma=0.002 * unit), Gaussian(centre=0.08 * unit, sigma=0.003 * unit),
        Lorentzian(centre=0.08 * unit, gamma=0.003 * unit), Exponential(tau=0.03 * unit), Offset(200.0),
    ])  # fmt: skip
    model.set_signal_range(0.02 * unit, 0.1 * unit)
    model.remove_signal_range(0.055 * unit, 0.06 * unit)
    fit = fit_model(model, gain=2.5, dark_level=170.0, read_noise_e=0.5)
    assert fit.usable.all()
    drawn = model.as_signal(show_progressbar=False).data
    used = model._channel_switches
    first, last = np.flatnonzero(used)[[0, -1]]
    for place in np.ndindex(2, 3):
        curve = 2.5 * fit.curve(*place) + 170.0
        within = used[first : last + 1]
        np.testing.assert_allclose(drawn[place][used], curve[within], rtol=1e-9)
    residual = signal.data[..., used] - drawn[..., used]
    assert np.abs(residual.mean()) < 0.5
    assert (residual**2).mean() < 1.2 * 2.5**2 * ((signal.data[..., used] - 170.0) / 2.5).mean()


def test_deviations_of_amplitudes_are_those_of_many_scans():
    """A and tau, A and r, come from parameters at the middle of the window and their covariance."""
    signal = _signal("power_law", shape=(20, 20))
    model = _model(signal, "power_law")
    fit_model(model)
    law = model[2]
    log_a = np.log(law.A.map["values"])
    told = law.A.map["std"] / law.A.map["values"]
    assert np.std(log_a) == pytest.approx(np.median(told), rel=0.15)  # 400 draws: 3.5 %, and told varies by position


def test_twins_fixed_and_bounds_are_kept():
    signal = _signal()
    model = signal.create_model()
    low, high, third = Gaussian(centre=0.041, sigma=0.0035), Gaussian(centre=0.079, sigma=0.0025), Gaussian(centre=0.06)
    model.extend([low, high, third, Exponential(A=60.0, tau=0.03), Offset(5.0)])
    high.sigma.twin, high.sigma.twin_function_expr = low.sigma, "1.5 * x + 0.0001"
    low.centre.bmin, low.centre.bmax = 0.0395, 0.0401
    third.centre.value, third.sigma.value, third.A.value = 0.06, 0.002, 0.05
    for parameter in third.parameters:
        parameter.free = False
    fit = fit_model(model)
    assert fit.usable.all()
    np.testing.assert_allclose(high.sigma.map["values"], 1.5 * low.sigma.map["values"] + 0.0001, rtol=1e-12)
    np.testing.assert_allclose(high.sigma.map["std"], 1.5 * low.sigma.map["std"], rtol=1e-12)
    assert (low.centre.map["values"] <= 0.0401 * (1.0 + 1e-12)).all()
    bound = fit.status == STATUS_WORDS.index("at_bound")
    assert bound.any()
    assert np.isnan(low.centre.map["std"][bound]).all()
    assert (third.A.map["values"] == 0.05).all()
    np.testing.assert_allclose(third.centre.map["values"], 0.06, rtol=1e-14)
    assert np.isnan(third.sigma.map["std"]).all()
    assert third not in [component for component in model if component.free_parameters]


def test_a_fixed_or_tied_amplitude_of_both_kinds():
    signal = _signal()
    model = _model(signal)
    model[2].A.free = model[2].tau.free = False
    model[2].A.value, model[2].tau.value = 60.0 * np.exp(3.0), 0.02
    fit_model(model)
    np.testing.assert_allclose(model[2].A.map["values"], 60.0 * np.exp(3.0), rtol=1e-12)
    np.testing.assert_allclose(model[2].tau.map["values"], 0.02, rtol=1e-12)
    assert np.isnan(model[2].A.map["std"]).all()
    model[2].A.free = True
    model[2].tau.free = False
    fit_model(model)
    np.testing.assert_allclose(model[2].tau.map["values"], 0.02, rtol=1e-12)
    assert (model[2].A.map["std"] > 0.0).all()


def test_positions_without_a_fit_and_what_plots():
    signal = _signal()
    signal.data[1, 2] = np.nan
    model = _model(signal)
    fit = phonon_eels.fit_model(model)
    assert STATUS_WORDS[fit.status.reshape(2, 3)[1, 2]] == "no_data"
    centre = model[0].centre
    assert not centre.map["is_set"][1, 2]
    assert np.isnan(centre.map["values"][1, 2])
    assert centre.map["is_set"].sum() == 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Agg cannot be shown
        model.plot()
        centre.plot()
    plt.close("all")
    model.store("fitted")  # all of it can be kept with the signal


def test_any_scan_any_storage():
    """Four scan axes, a single spectrum and a lazy signal; the order of HyperSpy's axes is kept."""
    whole = _signal(shape=(2, 3))
    model = _model(whole)
    fit_model(model)
    values = model[0].centre.map["values"]
    lazy = _model(whole.as_lazy())
    fit_model(lazy)
    np.testing.assert_array_equal(lazy[0].centre.map["values"], values)
    deep = hs.signals.Signal1D(whole.data.reshape(2, 1, 3, 1, -1))
    deep.axes_manager.signal_axes[0].update_from(
        whole.axes_manager.signal_axes[0], attributes=["scale", "offset", "units"]
    )
    model = _model(deep)
    fit_model(model)
    np.testing.assert_array_equal(model[0].centre.map["values"].reshape(2, 3), values)
    single = _model(whole.inav[1, 1])
    fit_model(single)
    assert single[0].centre.value == pytest.approx(values[1, 1], abs=3e-6)  # starts from a mean of its own
    assert single[0].centre.std > 0.0


def test_variance_of_the_metadata_counts():
    signal = _signal()
    noise = signal.deepcopy()
    noise.data = np.maximum(signal.data, 4.0)
    signal.metadata.set_item("Signal.Noise_properties.variance", noise)
    model = _model(signal)
    fit = fit_model(model, likelihood="least_squares")
    assert np.median(fit.pearson_chi2 / (180 - 9)) == pytest.approx(1.0, abs=0.15)


def _refused(match, change, kind="exponential", **how):
    model = _model(_signal(kind, shape=(2,)), kind)
    change(model)
    with pytest.raises(ConfigError, match=match):
        fit_model(model, **how)


def test_what_the_fit_does_not_know_is_named():
    def unknown(model):
        model.append(Arctan())
        model[-1].name = "my_step"

    _refused("'my_step' is a Arctan, which the fit does not know; it knows HyperSpy's Gaussian", unknown)
    _refused(r"Exponential.A is fixed and tau is not", lambda m: setattr(m[2].A, "free", False))
    _refused(r"Exponential.A: the fit can keep an amplitude positive", lambda m: setattr(m[2].A, "bmax", 10.0))
    _refused(r"Exponential.tau: bounds must be positive", lambda m: setattr(m[2].tau, "bmin", -1.0))
    _refused(r"PowerLaw.origin must be fixed at 0", lambda m: setattr(m[2].origin, "value", 0.001), "power_law")
    _refused("inside the fitted range", lambda m: setattr(m[2].left_cutoff, "value", 0.02), "power_law")
    _refused("all coefficients free", lambda m: setattr(m[2].a1, "free", False), "polynomial")
    _refused("no straight line", lambda m: _twin(m[0].A, m[1].A, "x**2"))
    _refused("is a twin of Exponential.A", lambda m: _twin(m[0].A, m[2].A, "x"))
    _refused("no active component", lambda m: [m.remove(c) for c in list(m)])
    _refused("active at some positions only", lambda m: setattr(m[0], "active_is_multidimensional", True))
    _refused("one Offset of the model must hold it", lambda m: m.remove(m[3]), dark_level=3.0)

    def at_places(model):
        model[0].sigma.free = False
        model[0].sigma._create_array()
        model[0].sigma.map["values"] = [0.003, 0.004]
        model[0].sigma.map["is_set"] = True

    _refused("Gaussian.sigma is fixed at different values at different positions", at_places)
    inactive = _model(_signal(shape=(2,)))
    inactive.append(Arctan())
    inactive[-1].active = False
    assert fit_model(inactive).usable.all()


def _twin(parameter, other, expression):
    parameter.twin = other
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parameter.twin_function_expr = expression


def test_components_on_a_signal():
    """The function on any signal, the method on the registered type; energies in meV whatever the axis."""
    peaks = [
        Component("gaussian", "low", {"centre": 41.0, "fwhm": 8.0}),
        Component("lorentzian", "high", {"centre": 79.0, "fwhm": 6.0}),
        Component("exponential", "tail"),
        Component("offset", "floor"),
    ]
    signal = _signal()
    maps = fit_signal(signal, peaks, acquisition={"gain": 1.0, "scan_step_nm": 1.0})
    assert maps["low_centre_mev"].data == pytest.approx(40.0 + 0.5 * np.add.outer([0, 1], [0, 1, 2]), abs=0.8)
    assert maps.dataset["high_area"].attrs["units"] == "electrons"
    assert maps.dataset["low_centre_mev_std"].attrs["units"] == "meV"
    assert (maps["low_centre_mev_std"].data > 0.0).all()
    assert maps.tables["parameters"].set_index("parameter").loc["low_fwhm_mev", "positions"] == 6
    typed = PhononEELS(signal.data, axes=[axis.get_axis_dictionary() for axis in signal.axes_manager._axes])
    again = typed.fit_components(peaks, {"gain": 1.0, "scan_step_nm": 1.0})
    np.testing.assert_array_equal(again["low_centre_mev"].data, maps["low_centre_mev"].data)
    assert "set acquisition.gain" in " ".join(fit_signal(signal, peaks, acquisition={"scan_step_nm": 1.0}).messages)
