"""A made-up result of every step, small and seeded, in the shapes that the steps promise."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

MODES = {"BiO38": (38.0, "BiO"), "CuO42": (42.0, "CuO2"), "CuO78": (78.0, "CuO2")}
PERIOD_NM = 2.578
STACK = ("BiO", "SrO", "CuO2", "Ca", "CuO2", "SrO", "BiO", "gap")
LAYERS = ("Ca", "CuO2", "SrO", "BiO", "gap")
AMPLITUDE_MEV = 0.5


def scan(rows: int = 24, columns: int = 40, row_step: float = 0.08, column_step: float = 0.12) -> SimpleNamespace:
    """Everything: haadf, maps, tables, summaries, as `report` finds them in its context."""
    rng = np.random.default_rng(5)
    y, x = np.arange(rows) * row_step, np.arange(columns) * column_step
    height = np.mod(y / 1.543, 1.0)
    labels = np.array([LAYERS.index(STACK[int(h * len(STACK))]) for h in height])
    layer = np.repeat(labels[:, None], columns, axis=1)
    lateral = np.repeat((2 * np.pi * x / PERIOD_NM)[None, :], rows, axis=0)
    outward = np.where(height < 0.5, 1, -1)[:, None] * np.ones((rows, columns))
    phase = np.angle(np.exp(1j * (lateral + np.pi * (outward < 0))))
    haadf = np.array([5.0 if LAYERS[k] == "BiO" else 1.5 for k in labels])[:, None] + 0.4 * np.cos(lateral)
    haadf = haadf + 0.2 * rng.standard_normal((rows, columns))
    coordinates = {"row": ("row", y, {"units": "nm"}), "column": ("column", x, {"units": "nm"})}
    maps = {
        "align_zlp": _zlp(rng, rows, columns, coordinates),
        "fit_peaks": _peaks(rng, phase, coordinates),
        "assign_layers": xr.Dataset(
            {
                "layer": _labels(layer.astype(np.int16), LAYERS),
                "status": _labels(np.zeros((rows, columns), np.int16), ("ok", "mixed")),
            },
            coordinates,
        ),
        "map_superstructure": xr.Dataset(
            {
                "phase_rad": _field(phase, "rad"),
                "lateral_phase_rad": _field(np.angle(np.exp(1j * lateral)), "rad"),
                "status": _labels(np.zeros((rows, columns), np.int16), ("ok",)),
            },
            coordinates,
        ),
    }
    return SimpleNamespace(haadf=haadf, maps=maps, tables=tables(rng), summaries=summaries(), extent_nm=(x[-1], y[-1]))


def _field(values: np.ndarray, unit: str, dims: tuple[str, ...] = ("row", "column")) -> Any:
    return (dims, values, {"units": unit})


def _labels(values: np.ndarray, names: tuple[str, ...]) -> Any:
    return (
        ("row", "column"),
        values,
        {"units": "1", "flag_values": list(range(len(names))), "flag_meanings": " ".join(names)},
    )


def _zlp(rng: np.random.Generator, rows: int, columns: int, coordinates: Any) -> xr.Dataset:
    drift = 0.3 * np.sin(np.arange(rows) / 6)[:, None] + 0.05 * rng.standard_normal((rows, columns))
    width = 7.5 + 0.05 * rng.standard_normal((rows, columns))
    flat = np.full((rows, columns), 0.02)
    return xr.Dataset(
        {
            "zlp_center_mev": _field(drift, "meV"),
            "zlp_center_mev_std": _field(flat * (1 + 0.1 * rng.random((rows, columns))), "meV"),
            "zlp_fwhm_mev": _field(width, "meV"),
            "zlp_fwhm_mev_std": _field(flat, "meV"),
            "status": _labels(np.zeros((rows, columns), np.int16), ("ok", "no_peak")),
        },
        coordinates,
    )


def _peaks(rng: np.random.Generator, phase: np.ndarray, coordinates: Any) -> xr.Dataset:
    shape = (len(MODES), *phase.shape)
    centre = np.array([energy for energy, _ in MODES.values()])[:, None, None]
    energy = centre + 0.4 * rng.standard_normal(shape)
    energy[2] += AMPLITUDE_MEV * np.cos(phase)
    status = np.zeros(phase.shape, np.int16)
    status[2, 3:6], status[10, 10] = 3, 1
    energy[:, status > 0] = np.nan
    area = 900 + 60 * rng.standard_normal(shape)
    dims = ("mode", "row", "column")
    return xr.Dataset(
        {
            "energy_mev": _field(energy, "meV", dims),
            "energy_mev_std": _field(
                np.where(np.isfinite(energy), 0.4 + 0.05 * rng.random(shape), np.nan), "meV", dims
            ),
            "fwhm_mev": _field(np.broadcast_to(np.float64(4.2), shape).copy(), "meV", dims),
            "area_e": _field(np.where(np.isfinite(energy), area, np.nan), "e", dims),
            "area_e_std": _field(np.where(np.isfinite(energy), 60.0, np.nan), "e", dims),
            "energy_mev_crb": _field(np.where(np.isfinite(energy), 0.2, np.nan), "meV", dims),
            "area_e_crb": _field(np.where(np.isfinite(energy), 55.0, np.nan), "e", dims),
            "status": _labels(status, ("converged", "at_bound", "not_identifiable", "too_few_counts")),
        },
        {**coordinates, "mode": list(MODES)},
    )


def mean_spectrum() -> pd.DataFrame:
    """Mean spectrum with its fit, 0.5 meV channels."""
    rng = np.random.default_rng(6)
    energy = np.arange(-60.0, 115.0, 0.5)
    zlp = 4e5 / (1 + (energy / 3.75) ** 2 * 0.54) ** 1.7
    columns = {"energy_loss_mev": energy, "zlp_e": zlp, "background_e": np.full_like(energy, 6.0)}
    model = zlp + 6.0
    for mode, (centre, _) in MODES.items():
        columns[f"{mode}_e"] = 90 * np.exp(-0.5 * ((energy - centre) / 3.6) ** 2)
        model = model + columns[f"{mode}_e"]
    std = np.sqrt(model / 900)
    noise = rng.standard_normal(energy.size)
    columns |= {"model_e": model, "counts_e": model + std * noise, "counts_e_std": std, "residual_sigma": noise}
    return pd.DataFrame(columns)


def tables(rng: np.random.Generator) -> dict[str, dict[str, pd.DataFrame]]:
    """Tables by step."""
    return {
        "fit_peaks": {"mean_spectrum": mean_spectrum(), "modes": _modes(), "pairs": _pairs()},
        "assign_layers": {"layer_spectra": _layer_spectra(rng), **_unmixed()},
        "measure_modulation": _modulation(rng),
    }


def _unmixed() -> dict[str, pd.DataFrame]:
    base = mean_spectrum()
    spectra: dict[str, Any] = {"energy_loss_mev": base["energy_loss_mev"]}
    for name, mode in (("BiO", "BiO38"), ("CuO2 upper", "CuO78")):
        spectra |= {f"{name}_e": base[f"{mode}_e"], f"{name}_std_e": 0.6, f"{name}_syst_e": 0.3}
    names = ("BiO", "CuO2 upper")
    leakage = [
        {"probe": a, "source": b, "share": 0.9 if a == b else 0.1, "share_std": 0.02, "origin": "haadf"}
        for a in names for b in names
    ]  # fmt: skip
    return {"unmixed_spectra": pd.DataFrame(spectra), "leakage": pd.DataFrame(leakage)}


def with_std(name: str, value: float, std: float) -> dict[str, float]:
    """A number and its standard deviation as two columns."""
    return {name: value, f"{name}_std": std}


def _modes() -> pd.DataFrame:
    rows = []
    for mode, (energy, _) in MODES.items():
        word = "centroid only" if energy < 50 else "identifiable"
        rows.append(
            {
                "mode": mode,
                "label": f"mode <{mode}>",
                **with_std("energy_mev", energy + 0.02, 0.03),
                **with_std("fwhm_mev", 4.2, 0.1),
                **with_std("area_e", 900.0, 4.0),
                "n_positions": 956,
                "identifiable": word,
            }
        )
    return pd.DataFrame(rows)


def _pairs() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "pair": "BiO38+CuO42",
                **with_std("centroid_mev", 40.02, 0.02),
                **with_std("splitting_mev", 3.9, 0.2),
                **with_std("area_ratio", 1.02, 0.05),
                "identifiable": "identifiable",
            }
        ]
    )


def _layer_spectra(rng: np.random.Generator) -> pd.DataFrame:
    base = mean_spectrum()
    parts = []
    for index, layer in enumerate(LAYERS[:4]):
        mean = base["model_e"] + 8 * index * base["CuO78_e"] / 90 + 0.3 * rng.standard_normal(len(base))
        parts.append(
            pd.DataFrame({"layer": layer, "energy_loss_mev": base["energy_loss_mev"], "mean_e": mean, "std_e": 0.6})
        )
    return pd.concat(parts, ignore_index=True)


def _modulation(rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    phases = -np.pi + (np.arange(8) + 0.5) * np.pi / 4
    bins, amplitudes, units = [], [], []
    for mode, layer, size, role in (
        ("CuO78", "CuO2", AMPLITUDE_MEV, "primary"),
        ("CuO42", "CuO2", 0.1, "secondary"),
        ("BiO38", "BiO", 0.0, "secondary"),
    ):
        for p in phases:
            value = MODES[mode][0] + size * np.cos(p) + 0.06 * rng.standard_normal()
            bins.append({"mode": mode, "layer": layer, "phase_rad": p, "energy_mev": value, "energy_mev_std": 0.06})
        significant = size > 0.3
        amplitudes.append(
            {
                "mode": mode,
                "layer": layer,
                **with_std("amplitude_mev", size, 0.04),
                "amplitude_low_mev": max(size - 0.08, 0),
                "amplitude_high_mev": size + 0.08,
                **with_std("phase_rad", 0.05, 0.08),
                **with_std("cos_mev", size, 0.04),
                **with_std("sin_mev", 0.0, 0.04),
                "p_value": 0.0004 if significant else 0.4,
                "p_value_holm": np.nan if role == "primary" else 0.8,
                "n_units": 8,
                "method": "hotelling",
                "status": "ok",
                "role": role,
            }
        )
        for half_slab in range(8):
            cos, sin = size + 0.1 * rng.standard_normal(), 0.1 * rng.standard_normal()
            numbers = {**with_std("cos_mev", cos, 0.1), **with_std("sin_mev", sin, 0.1), "n_positions": 40}
            units.append({"half_slab": half_slab, "mode": mode, "layer": layer, **numbers})
    energy = np.arange(20.0, 100.0, 0.5)
    shape = np.exp(-0.5 * ((energy - 78) / 3.6) ** 2) * (energy - 78)
    spectrum = pd.concat(
        [
            pd.DataFrame(
                {
                    "layer": layer,
                    "energy_loss_mev": energy,
                    "cos_e": factor * shape + 0.5 * rng.standard_normal(energy.size),
                    "sin_e": 0.5 * rng.standard_normal(energy.size),
                    "std_e": 0.5,
                    "shift_template_e": factor * shape,
                }
            )
            for layer, factor in (("CuO2", 1.0), ("BiO", 0.0))
        ],
        ignore_index=True,
    )
    periods = np.linspace(1.8, 3.6, 37)
    period_scan = pd.DataFrame(
        {"period_nm": periods, "statistic": 20 * np.exp(-(((periods - PERIOD_NM) / 0.2) ** 2)) + 1}
    )
    return {
        "phase_bins": pd.DataFrame(bins),
        "amplitudes": pd.DataFrame(amplitudes),
        "units": pd.DataFrame(units),
        "modulation_spectrum": spectrum,
        "period_scan": period_scan,
        **_gap(),
        **_profiles(),
    }


def _profiles() -> dict[str, pd.DataFrame]:
    heights = {"CuO78": 0.1645, "BiO38": 0.6104}
    profiles = [
        {
            "mode": mode, "from_middle_nm": c, **with_std("area_e", 900 * np.exp(-(((c - height) / 0.13) ** 2)) + 20, 9.0),
            **with_std("energy_mev", float(mode[-2:]), 0.1),
        }
        for mode, height in heights.items() for c in np.arange(0.03, 0.75, 0.06)
    ]  # fmt: skip
    layers = [
        {
            "mode": mode, "layer": layer, **with_std("area_e", 40.0, 5.0), "area_e_syst": 1.0,
            **with_std("share", np.nan if layer == "everywhere" else float(layer[:2] == mode[:2]), 0.02),
        }
        for mode in heights for layer in ("CuO2", "SrO", "BiO", "everywhere")
    ]  # fmt: skip
    return {"profiles": pd.DataFrame(profiles), "mode_layers": pd.DataFrame(layers)}


def _gap() -> dict[str, pd.DataFrame]:
    phase = np.linspace(-np.pi, np.pi, 25)
    numbers = {"value": 0.05, "std": 0.08, "low": -0.2, "high": 0.3, "unit": "rad"}
    said = {"quantity": "phase of energy less phase of gap", **numbers, "sentence": "In phase; that is one bit."}
    curve = {"kind": "harmonic", "phase_rad": phase, "gap_mev": 38 + 1.7 * np.cos(phase), "gap_std_mev": 0.2}
    return {"gap": pd.DataFrame([said]), "gap_curve": pd.DataFrame(curve)}


def summaries() -> dict[str, dict[str, Any]]:
    """Summaries by step."""

    def quantity(value: float, std: float, unit: str) -> dict[str, Any]:
        return {"value": value, "std": std, "unit": unit, "status": "ok"}

    return {
        "align_zlp": {"zlp_fwhm_mev": quantity(7.5, 0.01, "meV")},
        "map_superstructure": {"period_nm": quantity(2.58, 0.01, "nm"), "direction_rad": quantity(0.0, 0.01, "rad")},
        "measure_modulation": {
            "claim": True,
            "primary": {
                "mode": "CuO78",
                "layer": "CuO2",
                "amplitude": quantity(AMPLITUDE_MEV, 0.04, "meV"),
                "p_value": 0.0004,
            },
        },
    }


def truth() -> dict[str, Any]:
    """What the simulator writes beside its file."""
    return {
        "schema_version": 1,
        "modes": [
            {
                "name": mode,
                "energy_mev": energy,
                "fwhm_mev": 4.0,
                "layers": {layer: 1.0},
                "modulation_amplitude_mev": AMPLITUDE_MEV if mode == "CuO78" else 0.0,
                "modulation_phase_rad": 0.0,
            }
            for mode, (energy, layer) in MODES.items()
        ],
        "superstructure": {"period_nm": PERIOD_NM},
    }
