"""Results of a step as HyperSpy signals that plot, with deviations, units and statuses at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.errors import DataError
from phonon_eels.spectrum_image import StepResult

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from hyperspy.model import BaseModel
    from hyperspy.signal import BaseSignal


class PhononMaps(Mapping[str, "BaseSignal"]):
    """Maps of one step: ``maps["energy_mev"]`` is a HyperSpy signal, ``maps["energy_mev_std"]`` its deviation.

    Maps over the modes are stacks with the mode as navigation axis, so ``maps["energy_mev"].plot()`` has a slider. A
    line scan gives profiles, a single spectrum numbers over the modes.

    Attributes
    ----------
    dataset
        The same maps as xarray dataset.
    tables
        Name → pandas table.
    summary, messages
        Numbers of the whole scan, and what the step had to say.
    """

    def __init__(self, result: StepResult, model_maker: Callable[[], BaseModel] | None = None) -> None:
        if result.maps is None:
            raise DataError(f"the step made no maps: {result.skipped or 'it only changes the spectra'}")
        self.dataset: xr.Dataset = result.maps
        self.tables: Mapping[str, pd.DataFrame] = dict(result.tables)
        self.summary: Mapping[str, Any] = dict(result.summary)
        self.messages = tuple(result.messages)
        self._model_maker = model_maker

    def __getitem__(self, name: str) -> BaseSignal:
        if name not in self.dataset:
            raise KeyError(f"{name!r} is none of the maps {', '.join(self)}")
        return _as_signal(self.dataset, name)

    def __iter__(self) -> Iterator[str]:
        return iter(str(name) for name in self.dataset.data_vars)

    def __len__(self) -> int:
        return len(self.dataset.data_vars)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{n} {name}s" for name, n in self.dataset.sizes.items())
        return f"<PhononMaps, {sizes}: {', '.join(self)}>"

    @property
    def modes(self) -> tuple[str, ...]:
        """Names of the modes in the order of the navigation axis, empty for maps without modes."""
        return tuple(str(name) for name in self.dataset["mode"].values) if "mode" in self.dataset.coords else ()

    def to_model(self) -> BaseModel:
        """Return the fit as a HyperSpy model of the spectra, every parameter stored at every position.

        Raises
        ------
        DataError
            If these are no maps of `fit_peaks`.
        """
        if self._model_maker is None:
            raise DataError("only maps of fit_peaks carry a model; call s.fit_peaks().to_model()")
        return self._model_maker()


def _as_signal(dataset: xr.Dataset, name: str) -> BaseSignal:
    """Make a HyperSpy signal of one map, without the scan axes of length one."""
    from hyperspy.signals import BaseSignal, Signal1D, Signal2D

    variable = dataset[name]
    scan = [axis for axis in ("row", "column") if variable.sizes[axis] > 1]
    kept = [axis for axis in ("frame", "mode", "pair", "parameter", "other_parameter", *scan) if axis in variable.dims]
    data = np.asarray(variable.transpose(*[axis for axis in variable.dims if axis not in kept], *kept).values)
    data = data.reshape([variable.sizes[axis] for axis in kept] or [1])
    axes = [_axis(dataset, axis, axis not in scan) for axis in kept]
    if not scan and axes:
        axes[-1]["navigate"] = False
    kind = {2: Signal2D, 1: Signal1D}.get(len(scan), Signal1D if axes else BaseSignal)
    unit = str(variable.attrs.get("units", "1"))
    signal = kind(data, **({"axes": axes} if axes else {}))
    signal.metadata.General.title = name
    signal.metadata.Signal.quantity = name if unit == "1" else f"{name} ({unit})"
    for axis, title in (("mode", "modes"), ("pair", "pairs"), ("parameter", "parameters")):
        if axis in kept:
            signal.metadata.set_item(f"PhononEELS.{title}", [str(own) for own in dataset[axis].values])
    if "flag_meanings" in variable.attrs:
        signal.metadata.set_item("PhononEELS.flag_meanings", str(variable.attrs["flag_meanings"]))
    return signal


def _axis(dataset: xr.Dataset, name: str, navigate: bool) -> dict[str, Any]:
    places = dataset[name].values
    if places.dtype.kind in "iuf" and places.size > 1:
        offset, scale = float(places[0]), float(places[1] - places[0])
    else:
        offset, scale = 0.0, 1.0
    return {
        "name": {"row": "y", "column": "x"}.get(name, name),
        "units": "nm" if name in ("row", "column") else "",
        "offset": offset,
        "scale": scale,
        "size": int(places.size),
        "navigate": navigate,
    }
