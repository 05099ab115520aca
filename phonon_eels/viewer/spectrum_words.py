"""A fitted spectrum in words and tables: what stands beside the plot, and what is exported. No Qt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.errors import OutputError
from phonon_eels.figures.marks import Panel
from phonon_eels.figures.spectrum_panels import spectrum_panels
from phonon_eels.rounding import plus_minus
from phonon_eels.steps.spectrum_fit import SpectrumFit

if TYPE_CHECKING:
    import pandas as pd

STORED_TOLERANCE_SIGMA = 0.5
PICTURES = (".png", ".svg", ".pdf")
FORMATS = (".csv", *PICTURES, ".hspy")
Stored = Mapping[str, Mapping[str, float | str]]


def values_html(fit: SpectrumFit | None, stored: Stored, title: str, remark: str = "") -> str:
    """Return the values of a fit as a small table; where results are stored, theirs are the values.

    Parameters
    ----------
    stored
        Mode → what the results say (`Session.stored`), empty for regions.
    title
        Which spectrum it is.
    remark
        What else is to be said.
    """
    from phonon_eels.figures.style import colours

    parts = [f"<b>{escape(title)}</b>"]
    if fit is None:
        parts.append(f"<br>{escape(remark)}" if remark else "")
        return "".join(parts)
    shade = colours(fit.mode_names)
    parts.append(
        f"<br>{_words(fit.status)} · χ²/dof {fit.chi2_per_dof:.2f} · background "
        f"{plus_minus(fit.background_e / fit.n_positions, fit.background_std_e / fit.n_positions)} e⁻"
    )
    rows, n = [], fit.n_positions
    for m, name in enumerate(fit.mode_names):
        values = stored.get(name) or {
            "energy_mev": fit.energy_mev[m], "energy_mev_std": fit.energy_std_mev[m], "area_e": fit.area_e[m] / n,
            "area_e_std": fit.area_std_e[m] / n, "status": fit.mode_status[m],
        }  # fmt: skip
        rows.append(
            f"<tr><td style='color:{shade[name]}'><b>{escape(name)}</b>&nbsp;</td>"
            f"<td align='right'>{_unbroken(values['energy_mev'], values['energy_mev_std'])}&nbsp;&nbsp;</td>"
            f"<td align='right'>{_unbroken(values['area_e'], values['area_e_std'])}&nbsp;&nbsp;</td>"
            f"<td align='right'>{fit.fwhm_mev[m]:.2f}&nbsp;&nbsp;</td><td>{_words(str(values['status'])).replace(' ', '&nbsp;')}</td></tr>"
        )
    head = "".join(
        f"<th align='right'>{word}&nbsp;&nbsp;<br>{unit}&nbsp;&nbsp;</th>"
        for word, unit in (
            ("", ""),
            ("energy", "(meV)"),
            ("area" if n == 1 else "area/position", "(e⁻)"),
            ("FWHM", "(meV)"),
        )
    )
    parts.append(
        f"<table cellspacing='0' cellpadding='1'><tr>{head}<th align='left'>status</th></tr>{''.join(rows)}</table>"
    )
    notes = [remark, *_notes(fit, stored)]
    parts.append("".join(f"<div style='color:#9a5b00'>{escape(note)}</div>" for note in notes if note))
    return "".join(parts)


def _notes(fit: SpectrumFit, stored: Stored) -> list[str]:
    away = [name for name in fit.mode_names if name in stored and _differs(fit, name, stored[name])]
    if not away:
        return []
    return [
        f"Values are the stored ones; the curves, fitted anew here, lie elsewhere for {', '.join(away)} "
        f"(more than {STORED_TOLERANCE_SIGMA:g} σ, or another status)."
    ]


def _differs(fit: SpectrumFit, name: str, stored: Mapping[str, float | str]) -> bool:
    m = fit.mode_names.index(name)
    energy, std = float(stored["energy_mev"]), float(stored["energy_mev_std"])
    if np.isfinite(energy) != np.isfinite(fit.energy_mev[m]):
        return True
    return bool(np.isfinite(energy) and abs(fit.energy_mev[m] - energy) > STORED_TOLERANCE_SIGMA * std)


def _unbroken(value: float | str, std: float | str) -> str:
    return plus_minus(value, std).replace(" ", "&nbsp;")


def _words(status: str) -> str:
    return status.replace("_", " ")


def spectrum_columns(
    energy_loss_mev: np.ndarray, counts_e: np.ndarray, fit: SpectrumFit | None
) -> dict[str, np.ndarray]:
    """Return a spectrum as `mean_spectrum` of `fit_peaks` has it: counts, model, residual and every part, in electrons."""
    if fit is None:
        return {"energy_loss_mev": energy_loss_mev, "counts_e": counts_e}
    return {
        "energy_loss_mev": fit.energy_loss_mev,
        "counts_e": fit.counts_e,
        "counts_e_std": fit.std_e,
        "model_e": fit.model_e,
        "residual_sigma": fit.residual_sigma,
        **{f"{name}_e": values for name, values in fit.components_e.items()},
    }


def spectrum_table(energy_loss_mev: np.ndarray, counts_e: np.ndarray, fit: SpectrumFit | None) -> pd.DataFrame:
    """Return the columns of a spectrum as a table."""
    import pandas as pd

    return pd.DataFrame(spectrum_columns(energy_loss_mev, counts_e, fit))


def values_table(fit: SpectrumFit) -> pd.DataFrame:
    """Return one row per mode: energy, area and width with deviations and status."""
    import pandas as pd

    return pd.DataFrame(
        {
            "mode": fit.mode_names, "energy_mev": fit.energy_mev, "energy_mev_std": fit.energy_std_mev,
            "area_e": fit.area_e, "area_e_std": fit.area_std_e, "fwhm_mev": fit.fwhm_mev, "status": fit.mode_status,
        }
    )  # fmt: skip


def export(
    path: Path,
    spectra: Sequence[tuple[str, np.ndarray, np.ndarray, SpectrumFit | None]],
    panels: Sequence[Panel] = (),
) -> list[Path]:
    """Write spectra as a table, the figure that is shown, or the first as a HyperSpy signal; the ending says which.

    Parameters
    ----------
    spectra
        (title, energy_loss_mev, counts_e, fit) of the one that is shown, then the pinned ones.
    panels
        What the figure shows; default: the first spectrum on a logarithmic axis.

    Returns
    -------
    list of Path
        The files; beside a table of spectra stands one of the fitted values, where there was a fit.

    Raises
    ------
    OutputError
        If the ending is another one, or the file cannot be written.
    """
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise OutputError(f"{path}: the ending says the format; use one of {', '.join(FORMATS)}")
    try:
        if ending == ".csv":
            return _write_tables(path, spectra)
        title, energy, counts, fit = spectra[0]
        if ending in PICTURES:
            table = spectrum_columns(energy, counts, fit)
            return [_write_picture(path, panels or spectrum_panels(table, counts=(energy, counts)), title)]
        return [_write_signal(path, title, energy, counts)]
    except OSError as problem:
        raise OutputError(f"{path} cannot be written ({problem}); choose another folder") from problem


def _write_tables(path: Path, spectra: Sequence[tuple[str, Any, Any, SpectrumFit | None]]) -> list[Path]:
    import pandas as pd

    from phonon_eels.io.results import write_table

    def together(tables: Sequence[tuple[str, pd.DataFrame]]) -> pd.DataFrame:
        return pd.concat([table.assign(spectrum=title) for title, table in tables], ignore_index=True)

    write_table(together([(title, spectrum_table(*rest)) for title, *rest in spectra]), path, "viewer")
    fits = [(title, values_table(fit)) for title, _, _, fit in spectra if fit is not None]
    if not fits:
        return [path]
    beside = path.with_name(f"{path.stem}_values.csv")
    write_table(together(fits), beside, "viewer")
    return [path, beside]


def _write_picture(path: Path, panels: Sequence[Panel], title: str) -> Path:
    from phonon_eels.figures import plot_panels, save_figure

    save_figure(plot_panels(panels, title=title), path)
    return path


def _write_signal(path: Path, title: str, energy: np.ndarray, counts: np.ndarray) -> Path:
    from phonon_eels.io.export import write_hspy
    from phonon_eels.spectrum_image import EnergyAxis, ScanAxis, SpectrumImage

    axis = EnergyAxis(float(energy[0]), float((energy[-1] - energy[0]) / max(energy.size - 1, 1)), energy.size)
    scan = (ScanAxis("row", 1.0, 1), ScanAxis("column", 1.0, 1))
    return write_hspy(SpectrumImage(np.nan_to_num(counts)[None, None], axis, scan, title=title), path)
