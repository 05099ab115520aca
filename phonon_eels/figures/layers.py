"""Layers taken apart: leakage between them, their own spectra, and every mode's profile across the unit cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.figures import style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EVERYWHERE = "everywhere"
LEAST_AREA = 0.2


@style.styled
def plot_unmixed(
    leakage: pd.DataFrame,
    spectra: pd.DataFrame,
    *,
    window_mev: tuple[float, float],
    mode_energies_mev: Mapping[str, float] | None = None,
    width_mm: float = style.PAGE_MM,
) -> Figure:
    """Return the leakage matrix beside the layers' own spectra with statistical (dark) and systematic (light) bands.

    Parameters
    ----------
    leakage
        probe, source, share, share_std.
    spectra
        energy_loss_mev, then for every component ``_e``, ``_std_e``, ``_syst_e``.
    window_mev
        Range that is shown.
    """
    figure = style.new_figure(width_mm, 0.55 * width_mm)
    left, right = figure.subplots(1, 2, width_ratios=[1.0, 1.5])
    _draw_matrix(left, leakage)
    _draw_spectra(right, spectra, window_mev, mode_energies_mev or {})
    style.panel_letters(figure, (left, right))
    return figure


def _draw_matrix(ax: Axes, leakage: pd.DataFrame) -> None:
    probes, sources = (list(dict.fromkeys(leakage[name].astype(str))) for name in ("probe", "source"))
    value, std = np.full((2, len(probes), len(sources)), np.nan)
    for row in leakage.to_dict("records"):
        place = (probes.index(str(row["probe"])), sources.index(str(row["source"])))
        value[place], std[place] = row["share"], row["share_std"]
    ax.imshow(value, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for (i, j), share in np.ndenumerate(value):
        if np.isfinite(share) and share > 0.0005:
            words = f"{100 * share:.1f}\n±{100 * std[i, j]:.1f}"
            ax.text(j, i, words, ha="center", va="center", fontsize=5.5, color="white" if share > 0.6 else style.INK)
    ax.set_xticks(range(len(sources)), [style.layer_text(name) for name in sources], rotation=35, ha="right")
    ax.set_yticks(range(len(probes)), [style.layer_text(name) for name in probes])
    ax.set(xlabel="comes from", ylabel="seen on", title="share of the layers' signal (%)")


def _draw_spectra(ax: Axes, spectra: pd.DataFrame, window: tuple[float, float], modes: Mapping[str, float]) -> None:
    names = [str(c).removesuffix("_std_e") for c in spectra.columns if str(c).endswith("_std_e")]
    names = [name for name in names if name != EVERYWHERE and np.isfinite(spectra[f"{name}_e"]).any()]
    if not names:
        style.empty_note(ax, "the scan does not tell\nthe layers apart")
        return
    inside = spectra[(spectra["energy_loss_mev"] >= window[0]) & (spectra["energy_loss_mev"] <= window[1])]
    energy = np.asarray(inside["energy_loss_mev"], dtype=float)
    curves = {name: np.asarray(inside[f"{name}_e"], dtype=float) for name in names}
    above = energy > window[0] + 0.2 * (window[1] - window[0])
    step = 1.1 * max(float(np.nanmax(np.abs(curve[above]), initial=1e-9)) for curve in curves.values())
    for k, (name, colour) in enumerate(style.colours(names).items()):
        offset = k * step
        std, syst = (np.asarray(inside[f"{name}_{kind}_e"], dtype=float) for kind in ("std", "syst"))
        ax.axhline(offset, color=style.MUTED, linewidth=0.4)
        both = np.hypot(std, syst)
        ax.fill_between(
            energy, offset + curves[name] - both, offset + curves[name] + both, color=colour, alpha=0.15, linewidth=0
        )
        ax.fill_between(
            energy, offset + curves[name] - std, offset + curves[name] + std, color=colour, alpha=0.35, linewidth=0
        )
        ax.plot(energy, offset + curves[name], color=colour, linewidth=0.8)
        ax.annotate(
            style.layer_text(name), (1.0, offset), xycoords=("axes fraction", "data"), xytext=(2, 0),
            textcoords="offset points", color=colour, va="center",
        )  # fmt: skip
    for name, place in modes.items():
        if window[0] <= place <= window[1]:
            ax.axvline(place, color="#cccccc", linewidth=0.5, zorder=0)
            ax.annotate(
                style.literal(name), (place, 1.0), xycoords=("data", "axes fraction"), xytext=(0, -2),
                textcoords="offset points", rotation=90, ha="right", va="top", fontsize=5, color=style.MUTED,
            )  # fmt: skip
    ax.set(xlim=window, ylim=(-0.25 * step, (len(names) + 0.35) * step), xlabel="energy loss (meV)")
    ax.set(ylabel="electrons per channel on a lone plane", title="each layer's own spectrum, set apart")


@style.styled
def plot_profiles(
    profiles: pd.DataFrame,
    mode_layers: pd.DataFrame,
    heights_nm: Mapping[str, float],
    *,
    width_mm: float = style.PAGE_MM,
) -> Figure:
    """Return area and energy of every mode against the distance from the middle of the slab, and the layers of each mode.

    Parameters
    ----------
    profiles
        mode, from_middle_nm, area_e, area_e_std, energy_mev (or apparent_energy_mev) and its ``_std``.
    mode_layers
        mode, layer, share, share_std.
    heights_nm
        Layer → height over the middle of the slab, drawn as lines.
    """
    figure = style.new_figure(width_mm, 0.38 * width_mm)
    areas, energies, shares = figure.subplots(1, 3, width_ratios=[1.0, 1.0, 1.1])
    modes = list(dict.fromkeys(profiles["mode"].astype(str))) if len(profiles) else []
    if not modes:
        for ax in (areas, energies, shares):
            style.empty_note(ax, "no profiles")
        return figure
    energy = "energy_mev" if "energy_mev" in profiles else "apparent_energy_mev"
    for name, colour in style.colours(modes).items():
        part = profiles[profiles["mode"] == name]
        scale = float(part["area_e"].max()) or 1.0
        areas.errorbar(
            part["from_middle_nm"],
            part["area_e"] / scale,
            yerr=part["area_e_std"] / scale,
            color=colour,
            label=style.literal(name),
        )
        weight = part[f"{energy}_std"] ** -2.0
        middle = float((part[energy] * weight).sum() / weight.sum()) if np.isfinite(weight).any() else 0.0
        shown = part[
            part["area_e"] > LEAST_AREA * scale
        ]  # elsewhere there is hardly anything whose energy could be told
        energies.errorbar(shown["from_middle_nm"], shown[energy] - middle, yerr=shown[f"{energy}_std"], color=colour)
    for ax in (areas, energies):
        for layer, height in heights_nm.items():
            ax.axvline(height, color="#cccccc", linewidth=0.5, zorder=0)
            ax.annotate(
                style.layer_text(layer), (height, 0.0), xycoords=("data", "axes fraction"), xytext=(1, 2),
                textcoords="offset points", fontsize=5, color=style.MUTED,
            )  # fmt: skip
        ax.set_xlabel("from the middle of the slab (nm)")
    areas.set(ylabel="area over the largest", ylim=(0, 1.45))
    areas.legend(ncols=3, loc="upper center", fontsize=5, columnspacing=0.8)
    energies.set(ylabel="energy less its mean (meV)")
    _draw_shares(shares, mode_layers, modes)
    style.panel_letters(figure, (areas, energies, shares))
    return figure


def _draw_shares(ax: Axes, table: pd.DataFrame, modes: list[str]) -> None:
    layers = [name for name in dict.fromkeys(table["layer"].astype(str)) if name != EVERYWHERE]
    width = 0.8 / max(len(layers), 1)
    for k, (layer, colour) in enumerate(style.layer_colours(layers).items()):
        part = table[table["layer"] == layer].set_index("mode").reindex(modes)
        places = np.arange(len(modes)) + (k - 0.5 * (len(layers) - 1)) * width
        ax.bar(
            places,
            part["share"],
            width,
            yerr=part["share_std"],
            color=colour,
            label=style.layer_text(layer),
            error_kw={"elinewidth": 0.7},
        )
    ax.axhline(0, color=style.MUTED, linewidth=0.5)
    ax.set_xticks(range(len(modes)), [style.literal(name) for name in modes], rotation=35, ha="right")
    ax.set(ylabel="share of the localised area", ylim=(min(-0.1, ax.get_ylim()[0]), 1.35))
    ax.legend(ncols=4, loc="upper center", fontsize=5.5, columnspacing=0.8)
