"""Sessions as napari layers: names, units, scales in nm, colours. No Qt."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.viewer.sessions import Session, energy_name

if TYPE_CHECKING:
    import xarray as xr

Layer = tuple[Any, dict[str, Any], str]
"""Data, keywords and kind of a layer, as napari's readers hand them over."""

KEY = "phonon_eels"
"""Where a layer's metadata hold its `Session` ("session"), what it shows ("name", "step", "mode") and its unit."""

FIRST = frozenset(
    {
        ("ingest", "haadf"), ("window", "window"), ("window", "preview"), ("align_zlp", "zlp_shift_mev"), ("assign_layers", "layer"),
        ("map_superstructure", "phase_rad"), ("fit_peaks", "status"), ("fit_peaks", "energy_mev"),
        ("fit_peaks", "apparent_energy_mev"), ("fit_peaks", "energy_mev_std"), ("fit_peaks", "apparent_energy_mev_std"),
        ("fit_peaks", "area_e"),
    }
)  # fmt: skip
"""(step, name) of what is shown first; of the modes only the primary one."""

SELECTION_COLOUR = "#00E5FF"
NOTHING = (0.0, 0.0, 0.0, 0.0)
WINDOW_SAMPLE_ROWS = 8
PREVIEW_BYTES = 500_000_000
"""Counts above this are not read to show a file."""
PREVIEW_SIDE = 64


def session_of(layer: Any) -> Session | None:
    """Return the session that a layer belongs to, None for layers of others."""
    entry = getattr(layer, "metadata", {}).get(KEY)
    return entry["session"] if isinstance(entry, dict) else None


def placed(session: Session, step: str, name: str, unit: str = "", **more: Any) -> dict[str, Any]:
    """Return the keywords that every layer of a session has: place and scale in nm, and where it comes from."""
    row, column = session.image.scan
    return {
        "scale": session.scale_nm,
        "translate": (row.offset_nm, column.offset_nm),
        "units": ("nm", "nm"),
        "axis_labels": ("row", "column"),
        "metadata": {KEY: {"session": session, "step": step, "name": name, "unit": unit, **more}},
    }


def layers_of(session: Session) -> list[Layer]:
    """Return all layers of a session, the lowest first; only the HAADF is shown (the energy window where there is none).

    Energies, widths and areas of every mode, their σ, status, layers of the crystal, phase of the superstructure,
    zero-loss shift, energy window and HAADF, as far as there are results.
    """
    haadf = list(_haadf(session))
    return [
        *haadf,
        *_window(session, shown=not haadf),
        *_zero_loss(session),
        *_lattice(session),
        # napari's list begins with the topmost layer: there the primary mode's energies shall stand.
        *reversed(list(_mode_maps(session))),
    ]


def first_layers(session: Session) -> list[Layer]:
    """Return the layers that are there once a scan is opened: what the crystal looks like, and the primary mode; see `filling`."""
    maps = session.maps("fit_peaks")
    first = FIRST if maps is None else FIRST - {("align_zlp", "zlp_shift_mev")}
    mode = None if maps is None else _ranked_modes(session, maps)[0]

    def wanted(entry: Mapping[str, Any]) -> bool:
        return entry.get("mode", mode) == mode and (entry["step"], entry["name"]) in first

    return [layer for layer in layers_of(session) if wanted(layer[1]["metadata"][KEY])]


def names_to_come(session: Session, known: Collection[str]) -> list[str]:
    """Return the names of the maps that are to become layers later, those that napari's list shows first at the front.

    Parameters
    ----------
    known
        Names of the layers that are there, and of those that the user took away.
    """
    return [keywords["name"] for _, keywords, _ in reversed(layers_of(session)) if keywords["name"] not in known]


def maps_of(session: Session) -> dict[str, np.ndarray]:
    """Return the title and the values, (rows, columns), of every map of a session that has a number at each position."""
    return {
        keywords["name"]: np.asarray(values, dtype=float)
        for values, keywords, kind in layers_of(session)
        if kind == "image" and keywords["metadata"][KEY]["step"] != "window"
    }


def image_layer(
    session: Session,
    values: Any,
    title: str,
    *,
    unit: str,
    limits: tuple[float, float],
    colormap: str,
    step: str,
    name: str,
    **more: Any,
) -> Layer:
    """Return a map as an image layer with its unit in the title; hidden until it is asked for."""
    keywords = placed(session, step, name, unit, **more)
    low, high = limits if limits[1] > limits[0] else (limits[0], limits[0] + 1.0)
    title = f"{title} ({unit})" if unit and unit != "1" else title
    keywords |= {"name": title, "colormap": colormap, "contrast_limits": (low, high), "visible": False}
    return values, keywords, "image"


def _haadf(session: Session) -> Iterator[Layer]:
    from phonon_eels.figures.style import robust_limits

    if session.image.haadf is None:
        return
    values = np.asarray(session.image.haadf, dtype=float)
    layer = image_layer(
        session, values, "HAADF", unit="", limits=robust_limits(values, 0.5, 99.8), colormap="gray", step="ingest", name="haadf"
    )  # fmt: skip
    layer[1].update(visible=True, gamma=0.7)
    yield layer


def default_window(session: Session) -> tuple[float, float]:
    """Return the energies that the first window map shows: those of the primary mode where the axis reaches it."""
    axis, material = session.image.energy, session.material
    modes = {mode.name: mode.bounds_mev for mode in material.modes}
    wanted = material.primary_test.mode if material.primary_test else material.modes[-1].name
    low, high = modes[wanted]
    if axis.offset_mev < low and high < axis.last_mev:
        return low, high
    return axis.offset_mev + 0.8 * (axis.last_mev - axis.offset_mev), axis.last_mev


def window_title(low_mev: float, high_mev: float) -> str:
    """Return the name of the map of an energy window."""
    return f"window {low_mev:.1f} … {high_mev:.1f} meV"


def _window(session: Session, shown: bool) -> Iterator[Layer]:
    """Lazy: napari reads the counts when the layer is first shown. The spectrum panel replaces it by its own window.

    Of large files, which would keep the window waiting while they are read, a preview is shown instead.
    """
    from phonon_eels.figures.style import robust_limits
    from phonon_eels.forward.scan import electrons

    window = default_window(session)
    gain, dark = electrons(session.image)
    axis, counts = session.image.energy, session.image.counts
    first, end = (int(np.clip(round(axis.channel(edge)), 0, axis.n_channels - 1)) for edge in window)

    def electrons_of(rows: int, columns: int) -> Any:
        """Every so many rows and columns; the others are not read."""
        return (counts[::rows, ::columns, first : end + 1].sum(axis=2) - dark * (end + 1 - first)) / gain

    large = counts.nbytes > PREVIEW_BYTES
    every = -(-max(session.shape) // PREVIEW_SIDE) if large else 1
    some = np.asarray(electrons_of(max(session.shape[0] // WINDOW_SAMPLE_ROWS, 1), every))
    keywords: dict[str, Any] = {"unit": "e⁻", "limits": robust_limits(some), "colormap": "inferno", "step": "window"}
    layer = image_layer(
        session, electrons_of(1, 1), window_title(*window), **keywords, name="window", window_mev=window
    )
    layer[1]["visible"] = shown and not large
    yield layer
    if large and shown:
        title = f"{window_title(*window)}, every {every}th position"
        values = np.asarray(electrons_of(every, every))
        preview = image_layer(session, values, title, **keywords, name="preview", window_mev=window)
        preview[1]["scale"] = tuple(every * step for step in session.scale_nm)
        preview[1]["visible"] = True
        yield preview


def _zero_loss(session: Session) -> Iterator[Layer]:
    from phonon_eels.figures.style import robust_limits, symmetric_limits

    maps = session.maps("align_zlp")
    if maps is None:
        return
    center = np.asarray(maps["zlp_center_mev"].values, dtype=float)
    shift = center - float(np.nanmedian(center))
    fwhm = np.asarray(maps["zlp_fwhm_mev"].values, dtype=float)
    yield image_layer(
        session, shift, "zero-loss shift", unit="meV", limits=symmetric_limits(shift), colormap="PuOr",
        step="align_zlp", name="zlp_shift_mev",
    )  # fmt: skip
    yield image_layer(
        session, fwhm, "zero-loss FWHM", unit="meV", limits=robust_limits(fwhm), colormap="plasma", step="align_zlp",
        name="zlp_fwhm_mev",
    )  # fmt: skip


def _mode_maps(session: Session) -> Iterator[Layer]:
    """The primary mode's layers first; its shift from the scan's mean beside its energy, in diverging colours."""
    from phonon_eels.figures.maps import mode_limits
    from phonon_eels.figures.style import robust_limits, std_limits, symmetric_limits

    maps = session.maps("fit_peaks")
    if maps is None:
        return
    energy = energy_name(maps)
    words = {energy: "energy", "fwhm_mev": "FWHM", "area_e": "area"}
    colours = {energy: "viridis", "fwhm_mev": "plasma", "area_e": "magma"}
    modes = _ranked_modes(session, maps)
    first = modes[0]
    for mode in modes:
        part = maps.sel(mode=mode, drop=True)
        for name, word in words.items():
            word = f"apparent {word}" if name.startswith("apparent") else word
            values = np.asarray(part[name].values, dtype=float)
            unit = _unit(part[name].attrs.get("units"))
            yield image_layer(
                session, values, f"{mode} {word}", unit=unit, limits=mode_limits(part, name), colormap=colours[name],
                step="fit_peaks", name=name, mode=mode,
            )  # fmt: skip
            std = np.asarray(part[f"{name}_std"].values, dtype=float)
            if np.isfinite(std).any():
                yield image_layer(
                    session, std, f"{mode} {word} σ", unit=unit, limits=std_limits(std), colormap="cividis",
                    step="fit_peaks", name=f"{name}_std", mode=mode,
                )  # fmt: skip
            if name == energy and mode == first:
                shift = values - _mean_energy(session, mode, values)
                best = np.where(std <= np.nanmedian(std), shift, np.nan) if np.isfinite(std).any() else shift
                yield image_layer(
                    session, shift, f"{mode} shift from the mean", unit="meV", limits=symmetric_limits(best),
                    colormap="PuOr", step="fit_peaks", name="shift_mev", mode=mode,
                )  # fmt: skip
        yield flag_layer(session, part["mode_status"], f"{mode} status", "fit_peaks", "mode_status", mode=mode)
    yield from _pair_maps(session, maps)
    goodness = np.asarray(maps["deviance_per_dof"].values, dtype=float)
    yield image_layer(
        session, goodness, "χ² per degree of freedom", unit="", limits=robust_limits(goodness), colormap="cividis",
        step="fit_peaks", name="deviance_per_dof",
    )  # fmt: skip
    yield flag_layer(session, maps["status"], "status of the fit", "fit_peaks", "status")


def _pair_maps(session: Session, maps: xr.Dataset) -> Iterator[Layer]:
    """Centroid, splitting and area ratio of every close pair, each with its deviation, and what can be told of the pair."""
    from phonon_eels.figures.style import robust_limits, std_limits

    if "pair_status" not in maps:
        return
    words = {"centroid_mev": "centroid", "splitting_mev": "splitting", "area_ratio": "area ratio"}
    colours = {"centroid_mev": "viridis", "splitting_mev": "plasma", "area_ratio": "magma"}
    for pair in (str(name) for name in maps["pair"].values):
        part = maps.sel(pair=pair, drop=True)
        for key, word in words.items():
            name = key if key in part else f"apparent_{key}"
            title = f"{pair} {'apparent ' if name != key else ''}{word}"
            values, std = (np.asarray(part[n].values, dtype=float) for n in (name, f"{name}_std"))
            keywords: dict[str, Any] = {"unit": _unit(part[name].attrs.get("units")), "step": "fit_peaks", "mode": pair}
            yield image_layer(
                session, values, title, limits=robust_limits(values), colormap=colours[key], name=name, **keywords
            )
            yield image_layer(
                session, std, f"{title} σ", limits=std_limits(std), colormap="cividis", name=f"{name}_std", **keywords
            )
        yield flag_layer(session, part["pair_status"], f"{pair} status", "fit_peaks", "pair_status", mode=pair)


def _mean_energy(session: Session, mode: str, values: np.ndarray) -> float:
    table = session.table("fit_peaks", "modes")
    if table is not None and "energy_mev" in table:
        row = table[table["mode"] == mode]
        if len(row):
            return float(row["energy_mev"].iloc[0])
    return float(np.nanmedian(values)) if np.isfinite(values).any() else 0.0


def _ranked_modes(session: Session, maps: xr.Dataset) -> list[str]:
    names = [str(mode) for mode in maps["mode"].values]
    primary = session.material.primary_test.mode if session.material.primary_test else None
    return sorted(names, key=lambda name: name != primary)


def _lattice(session: Session) -> Iterator[Layer]:
    from phonon_eels.figures.lattice import layer_legend, wrap

    layers, wave = session.maps("assign_layers"), session.maps("map_superstructure")
    if wave is not None and "phase_rad" in wave:
        yield image_layer(
            session, wrap(wave["phase_rad"].values), "superstructure phase", unit="rad", limits=(-np.pi, np.pi),
            colormap="twilight", step="map_superstructure", name="phase_rad",
        )  # fmt: skip
        yield flag_layer(session, wave["status"], "status of the superstructure", "map_superstructure", "status")
    if layers is not None and "layer" in layers:
        colours = layer_legend(layers)
        yield flag_layer(session, layers["layer"], "layers", "assign_layers", "layer", colours=colours)


def flag_layer(
    session: Session,
    array: xr.DataArray,
    title: str,
    step: str,
    name: str,
    *,
    colours: Any = None,
    **more: Any,
) -> Layer:
    """Return a map of flags as a labels layer whose words stand in the status bar; label = flag + 1, since 0 is "nothing".

    Without `colours` the first flag (all is well) is grey, the others are told apart with every kind of colour vision.
    """
    import pandas as pd

    from phonon_eels.figures.maps import flag_names
    from phonon_eels.figures.style import FAILED, PALETTE

    words = flag_names(array)
    values = np.asarray(array.values, dtype=float)
    labels = np.where(np.isfinite(values), np.nan_to_num(values) + 1, 0).astype(np.uint8)
    shades = ["#8a8f94", *PALETTE[1:], PALETTE[0]]
    colour = {
        flag: colours[word] if colours else shades[i % len(shades)] for i, (flag, word) in enumerate(words.items())
    }
    keywords = placed(session, step, name, flags=words, **more)
    keywords |= {
        "name": title,
        "colormap": _label_colours([colour.get(flag, FAILED) for flag in range(max(words, default=0) + 1)]),
        "features": pd.DataFrame({"index": [0, *[f + 1 for f in words]], "meaning": ["", *words.values()]}),
        "opacity": 0.45,
        "visible": False,
    }
    return labels, keywords, "labels"


def _label_colours(colours: list[str]) -> Any:
    """Return the colours of labels 1, 2, …; 0 is transparent.

    The cyclic kind: for a dictionary of colours napari compiles code, which takes seconds per layer.
    """
    from napari.utils.colormaps import CyclicLabelColormap

    return CyclicLabelColormap(colors=[NOTHING, *colours])


def selection_layer(session: Session, mask: np.ndarray, title: str) -> Layer:
    """Return positions that something was chosen by (a phase bin, a part of a histogram) as a labels layer."""
    keywords = placed(session, "selection", "selection")
    keywords |= {
        "name": title,
        "colormap": _label_colours([SELECTION_COLOUR]),
        "opacity": 1.0,
    }
    return mask.astype(np.uint8), keywords, "labels"


def _unit(unit: Any) -> str:
    return {"electrons": "e⁻", "electrons/channel": "e⁻/channel", "1": ""}.get(str(unit), str(unit or ""))
