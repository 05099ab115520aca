"""A finished forward fit as a HyperSpy model: same curves, every parameter stored at every position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from hyperspy.models.model1d import Model1D

from phonon_eels.config import Material
from phonon_eels.errors import DataError
from phonon_eels.signals.components import SHAPE_PARAMETERS, PhononBackground, PhononMode, PhononZeroLoss
from phonon_eels.units import MEV_PER_ENERGY_UNIT

if TYPE_CHECKING:
    import xarray as xr
    from hyperspy.signal import BaseSignal

    from phonon_eels.spectrum_image import SpectrumImage, StepResult


def fitted_model(signal: BaseSignal, image: SpectrumImage, fit: StepResult, material: Material) -> Model1D:
    """Return the model of `fit_peaks` over the signal's spectra.

    Positions without a fit hold NaN. The parameters of the zero-loss peak's shape are twins of the peak's own in every
    component, so that a fit in HyperSpy keeps them equal. Widths of the modes are part of the components, not
    parameters, as they are shared by the scan.

    Parameters
    ----------
    signal
        Signal whose counts were fitted; its axis in eV or meV.
    image
        The same as the fit took it: gain, dark level, energy axis.
    fit
        Result of `fit_peaks` on the forward route.
    """
    assert fit.maps is not None
    told, maps = fit.summary["model"], fit.maps
    if told["settings"]["background"] not in ("none", "constant", "linear"):
        raise DataError(
            f"a fit with fit_peaks.background = {told['settings']['background']} has no HyperSpy component for its "
            "background; fit with none, constant or linear to hand the model to HyperSpy"
        )
    axis = signal.axes_manager.signal_axes[0]
    scale_mev = MEV_PER_ENERGY_UNIT.get(str(axis.units), image.energy.dispersion_mev / axis.scale)
    units = {"mev_per_unit": scale_mev, "per_value": float(axis.scale) if axis.is_binned else 1.0}
    model = Model1D(signal)
    shape = dict(zip(("fwhm_mev", "tail_loss", "tail_gain"), told["zero_loss"], strict=True))
    peak = PhononZeroLoss(**shape, dispersion_mev=told["dispersion_mev"], **units)
    background = PhononBackground(**units)
    modes = [
        PhononMode(_description(told, number, maps, image, material), **units) for number in range(len(told["modes"]))
    ]
    for component, name in zip([peak, background, *modes], ["zero_loss", "background", *told["modes"]], strict=True):
        component.name = str(name)
        model.append(component)
    gain, dark = image.noise.gain, image.noise.dark_level
    _store(peak.height, maps, "zlp_height_e", signal, gain)
    for name in SHAPE_PARAMETERS:
        _store(getattr(peak, name), maps, f"zlp_{name}", signal)
    _store(background.constant, maps, "background_e", signal, gain, dark)
    _store(background.ramp, maps, "background_ramp_e", signal, gain)
    background.ramp.free = bool(told["settings"]["background"] == "linear")
    for number, mode in enumerate(modes):
        _store(mode.area, maps.isel(mode=number), "area_e", signal, gain)
        _store(mode.energy_mev, maps.isel(mode=number), "fitted_energy_mev", signal)
        for name in SHAPE_PARAMETERS:
            getattr(mode, name).twin = getattr(peak, name)
    background.center_mev.twin = peak.center_mev
    _fitted_range(model, told, maps, scale_mev)
    model.fetch_stored_values()
    return model


def _description(
    told: dict[str, Any], number: int, maps: xr.Dataset, image: SpectrumImage, material: Material
) -> dict[str, Any]:
    """What a mode's line is tabulated from, over every channel that any position can have."""
    center = maps["zlp_center_mev"].values
    found = (center[np.isfinite(center)] - image.energy.offset_mev) / image.energy.dispersion_mev
    low, high = int(np.floor(found.min() + 0.5)), int(np.floor(found.max() + 0.5))
    by_name = {mode.name: mode for mode in material.modes}
    return {
        "first_channel": -high,
        "n_channels": image.energy.n_channels + high - low,
        "dispersion_mev": float(told["dispersion_mev"]),
        "zero_loss": [float(value) for value in told["zero_loss"]],
        "thermal_mev": float(told["thermal_mev"]),
        "bounds_mev": [float(value) for value in by_name[told["modes"][number]].bounds_mev],
        "fwhm_mev": float(told["fwhm_mev"][number]),
        "line_shape": str(told["settings"]["line_shape"]),
    }


def _store(
    parameter: Any, maps: xr.Dataset, name: str, signal: BaseSignal, factor: float = 1.0, offset: float = 0.0
) -> None:
    """Put a map into the parameter's own map, in the signal's navigation shape."""
    shape = tuple(signal.axes_manager._navigation_shape_in_array)
    values = np.asarray(maps[name].values, dtype=float) * factor + offset
    std = np.asarray(maps[f"{name}_std"].values, dtype=float) * factor
    parameter._create_array()
    parameter.map["values"] = values.reshape(shape or (1,))
    parameter.map["std"] = std.reshape(shape or (1,))
    parameter.map["is_set"] = np.isfinite(values).reshape(shape or (1,))


def _fitted_range(model: Model1D, told: dict[str, Any], maps: xr.Dataset, scale_mev: float) -> None:
    """Limit the model to the channels that were fitted, around the median zero-loss peak."""
    zero = float(np.nanmedian(maps["zlp_center_mev"].values))
    first = told["first_channel"] * told["dispersion_mev"] + zero
    last = first + (told["n_channels"] - 1) * told["dispersion_mev"]
    axis = model.axis
    model.set_signal_range(max(first / scale_mev, axis.low_value), min(last / scale_mev, axis.high_value))
