"""Tables of the report on background and deconvolution."""

import pandas as pd
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import load_material
from phonon_eels.steps.report_classic import classic_tables
from phonon_eels.steps.spec import StepContext


@pytest.fixture
def context():
    shape = {"parameters": 2, "delta_bic": 0.0, "akaike_weight": 0.5, "failed": 0.25}
    models = pd.DataFrame(
        [
            {
                "method": "exponential",
                "chi2_per_dof": 1.1,
                "delta_aic": 0.0,
                "held_out_chi2_per_channel": 3e31,
                **shape,
            },
            {"method": "power_law", "chi2_per_dof": 4.0, "delta_aic": 90.0, "held_out_chi2_per_channel": 5.5, **shape},
        ]
    )
    factors = pd.DataFrame(
        [{"mode": "CuO78", "energy_std_factor": 1.87, "area_std_factor": 1.7, "relative_std": 0.035}]
    )
    peak = {"position_bias_mev": -0.4, "injected_shift_mev": 1.0, "measured_shift_mev": 0.9, "intrinsic_fwhm_mev": 4.0}
    peak |= {"mode": "CuO78", "blurred_fwhm_mev": 11.0, "measured_fwhm_mev": 7.0, "area_ratio": 0.99}
    maxima = pd.DataFrame({"energy_mev": [40.5, 46.0], "prominence_std": [30.0, 4.0], "seen_before": [True, False]})
    tables = {
        "subtract_zlp": {"models": models},
        "deconvolve": {"std_factors": factors, "injected_peak": pd.DataFrame([peak]), "maxima": maxima},
    }
    return StepContext(
        load_material("bi2212"), CpuBackend(1), "classic", tables=tables,
        summaries={"subtract_zlp": {"method": "power_law"}},
    )  # fmt: skip


def test_models_factors_and_maxima_are_shown(context):
    models, peaks, maxima = classic_tables(context)
    assert [row[0] for row in models.rows] == ["exponential", "power_law (used)"]
    assert [row[5] for row in models.rows] == ["does not predict", "5.5"]
    assert [row[3] for row in models.rows] == ["0.0", "90.0"]
    assert peaks.rows[0][1] == "-0.40 meV"
    assert peaks.rows[0][5] == "1.87 ± 0.07"
    assert [row[2].startswith("NO EVIDENCE") for row in maxima.rows] == [False, True]


def test_forward_route_has_none_of_them(context):
    assert classic_tables(StepContext(context.material, context.backend, "forward", tables=context.tables)) == []
