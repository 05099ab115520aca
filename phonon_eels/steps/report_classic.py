"""What the report says of background and deconvolution on the classic route."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phonon_eels.rounding import number
from phonon_eels.steps.report_numbers import ReportTable, records, table_of

if TYPE_CHECKING:
    from phonon_eels.steps.spec import StepContext

ABSURD = 1e4
"""Chi-squared per channel above which a prediction is not a number to be printed."""


def classic_tables(context: StepContext) -> list[ReportTable | None]:
    """Return the shapes compared, what the deconvolution does to a peak and to noise, and its maxima."""
    if context.route != "classic":
        return []
    return [background_table(context), deconvolution_table(context), maxima_table(context)]


def background_table(context: StepContext) -> ReportTable | None:
    """Return every background's misfit and prediction, the one that was used marked."""
    used = str(context.summaries.get("subtract_zlp", {}).get("method", ""))
    rows = []
    for row in records(table_of(context, "subtract_zlp", "models")):
        held = number(row["held_out_chi2_per_channel"])
        name = str(row["method"])
        rows.append(
            (
                f"{name} (used)" if name == used else name,
                str(row["parameters"]),
                f"{number(row['chi2_per_dof']):.2f}",
                f"{number(row['delta_aic']):.1f}",
                f"{number(row['delta_bic']):.1f}",
                f"{held:.3g}" if held < ABSURD else "does not predict",
                f"{number(row['akaike_weight']):.2g}",
                f"{100.0 * number(row['failed']):.0f} %",
            )
        )
    header = ("shape", "parameters", "χ² per degree of freedom", "AIC above best", "BIC above best", "χ² per channel held out", "Akaike weight", "fits that failed")  # fmt: skip
    note = (
        "On the background's windows of up to 100 positions, AIC and BIC per spectrum. Windows cannot say what lies between them: a "
        "shape that describes them best may still be wrong under the modes, and a shape that does not predict channels held out "
        "bends to the noise."
    )
    return ReportTable("Backgrounds compared", header, tuple(rows), note) if rows else None


def deconvolution_table(context: StepContext) -> ReportTable | None:
    """Return, for each mode, what the deconvolution does to a peak put in there, and to error bars."""
    factors = {str(row["mode"]): row for row in records(table_of(context, "deconvolve", "std_factors"))}
    rows = []
    for row in records(table_of(context, "deconvolve", "injected_peak")):
        told = factors.get(str(row["mode"]), {})
        share = number(told.get("relative_std"))

        def factor(name: str, told: dict[str, object] = told, share: float = share) -> str:
            value = number(told.get(name))
            return f"{value:.2f} ± {value * share:.2f}" if value == value else "–"

        rows.append(
            (
                str(row["mode"]),
                f"{number(row['position_bias_mev']):+.2f} meV",
                f"{number(row['measured_shift_mev']):.2f} of {number(row['injected_shift_mev']):.2f} meV",
                f"{number(row['blurred_fwhm_mev']):.1f} → {number(row['measured_fwhm_mev']):.1f} meV (true {number(row['intrinsic_fwhm_mev']):.1f})",
                f"{number(row['area_ratio']):.3f}",
                factor("energy_std_factor"),
                factor("area_std_factor"),
            )
        )
    header = (
        "mode",
        "displaced by",
        "shift that arrives",
        "FWHM",
        "area left",
        "energy: σ over naive σ",
        "area: σ over naive σ",
    )
    note = (
        "A known peak was put into the mean spectrum at each mode. The last two columns: by how much a fit that takes channels as "
        "independent misjudges its deviations, for a Gaussian on a constant; fit_peaks carries the same noise through its own fit."
    )
    return ReportTable("What the deconvolution does", header, tuple(rows), note) if rows else None


def maxima_table(context: StepContext) -> ReportTable | None:
    """Return the maxima of the deconvolved mean spectrum; those that were not there before are no evidence."""
    rows = [
        (
            f"{number(row['energy_mev']):.1f} meV",
            f"{number(row['prominence_std']):.1f} σ",
            "seen before" if str(row["seen_before"]) == "True" else "NO EVIDENCE: seen only after the deconvolution",
        )
        for row in records(table_of(context, "deconvolve", "maxima"))
    ]
    note = "Splits and shoulders that only a deconvolution shows are no evidence of modes."
    return (
        ReportTable(
            "Maxima of the deconvolved mean spectrum", ("energy", "stands out by", "evidence"), tuple(rows), note
        )
        if rows
        else None
    )
