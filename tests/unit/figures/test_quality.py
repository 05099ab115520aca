"""The picture of the checks: every verdict has its colour, the gain its band, and what is missing is said."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from phonon_eels.config import Settings
from phonon_eels.figures import plot_checks, plot_quality
from phonon_eels.figures.quality import VERDICTS
from phonon_eels.steps.ingest import ingest
from tests.unit.forward.spectra import context_of, simulated


def drawn(image):
    result = ingest(image, Settings().ingest.model_copy(update={"quality": "warn"}), context_of())
    figure = plot_quality(
        result.tables["quality"], result.tables["mean_spectrum"], result.tables["gain_by_bin"], result.maps,
        result.summary["noise"], result.summary["mean_spectrum_zero_loss"],
    )  # fmt: skip
    return result, figure


def test_picture_of_a_scan():
    image = simulated(10, 12, detector={"poisson": True, "gain": 2.0, "read_noise_e": 1.0}).image
    image = image.with_(noise=type(image.noise)())
    result, figure = drawn(image)
    mean, gain, counts, verdicts = figure.axes[:4]
    np.testing.assert_allclose(mean.lines[0].get_ydata(), np.asarray(image.counts).mean(axis=(0, 1)), rtol=1e-6)
    table = result.tables["gain_by_bin"]
    assert table["bin_channels"].tolist()[0] == 1
    measured = result.summary["noise"]["gain"]
    assert measured["status"] == "measured"
    assert next(text.get_text() for text in gain.texts) == f"gain {measured['value']:.3g}\n(measured)"
    assert counts.images
    colours = [line.get_color() for line in verdicts.lines]
    assert colours == [VERDICTS[verdict] for verdict in result.tables["quality"]["verdict"]]


def test_picture_without_gain_and_without_maps():
    figure = plot_quality(
        pd.DataFrame({"check": ["finite"], "verdict": ["fail"]}),
        pd.DataFrame({"energy_loss_mev": [0.0, 1.0], "mean_counts": [np.nan, 1.0]}),
        pd.DataFrame(columns=["bin_channels", "variance_over_mean", "variance_over_mean_std"]),
    )
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert any("the gain could not be measured" in text for text in words)
    assert any("no map" in text for text in words)


def test_every_check_has_its_picture_in_the_colour_of_its_verdict():
    image = simulated(10, 12, detector={"poisson": True, "gain": 2.0, "read_noise_e": 1.0}, scan={"frames": 2}).image
    result, _ = drawn(image.with_(noise=type(image.noise)()))
    tables, checks = result.tables, result.tables["quality"]
    assert {"axis_order", "fixed_pattern", "frame_drift"} <= set(checks["check"])
    figure = plot_checks(
        checks, tables["check_pictures"], tables["mean_spectrum"], tables["gain_by_bin"], result.maps, result.summary["noise"],
        result.summary["mean_spectrum_zero_loss"],
    )  # fmt: skip
    shown = figure.axes[: len(checks)]
    for ax, check in zip(shown, checks.to_dict("records"), strict=True):
        assert ax.get_title(loc="left").startswith(
            f"{check['check'].removesuffix('_e').replace('_', ' ')}: {check['verdict']}"
        )
        assert ax.spines["left"].get_edgecolor()[:3] == pytest.approx(to_rgb(VERDICTS[check["verdict"]]), abs=0.01)
        assert ax.lines or ax.images or ax.patches or ax.containers, check["check"]
        assert not ax.texts, f"{check['check']}: {[text.get_text() for text in ax.texts]}"
