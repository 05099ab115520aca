"""Every figure: what it shows of a result that is known, with parts missing, on lines and with unequal steps."""

import numpy as np
import pandas as pd
import pytest

from phonon_eels import figures
from phonon_eels.figures import lattice, maps, modulation, spectra
from tests.unit.figures import made_up


@pytest.fixture(scope="module")
def scan():
    return made_up.scan()


def texts(figure) -> str:
    """All words of a figure."""
    import matplotlib.text

    figure.draw_without_rendering()
    return " | ".join(t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text())


def images(figure) -> list:
    return [image for ax in figure.axes for image in ax.images]


def test_pixels_have_the_proportions_of_the_scan(scan) -> None:
    left, right, bottom, top = maps.scan_extent(scan.maps["fit_peaks"])
    assert (right - left) == pytest.approx(40 * 0.12)
    assert (bottom - top) == pytest.approx(24 * 0.08)
    assert bottom > top  # rows count downwards
    figure = figures.plot_mode_maps(scan.maps["fit_peaks"])
    assert all(ax.get_aspect() == 1.0 for ax in figure.axes if ax.images and len(ax.images[0].get_extent()))


def test_mode_maps_are_a_grid_of_value_and_std(scan) -> None:
    figure = figures.plot_mode_maps(scan.maps["fit_peaks"])
    assert len(images(figure)) == 3 * 4
    words = texts(figure)
    for word in ("energy", "std of energy", "area", "std of area", "meV", "e⁻", "BiO38", "CuO42", "CuO78", "1 nm"):
        assert word in words
    first = np.ma.masked_invalid(scan.maps["fit_peaks"]["energy_mev"].values[0])
    assert np.array_equal(images(figure)[0].get_array().mask, first.mask)


def test_failed_positions_are_hatched_and_good_maps_are_not(scan) -> None:
    from matplotlib.patches import Rectangle

    def hatched(figure) -> int:
        return sum(1 for patch in figure.findobj(Rectangle) if patch.get_hatch())

    assert hatched(figures.plot_mode_maps(scan.maps["fit_peaks"], ("area_e",))) == 6
    assert hatched(figures.plot_map(scan.maps["align_zlp"], "zlp_fwhm_mev")) == 0


def test_a_map_without_any_value_says_so(scan) -> None:
    empty = scan.maps["fit_peaks"].copy(deep=True)
    empty["energy_mev"].values[1] = np.nan
    assert "no value" in texts(figures.plot_mode_maps(empty, ("energy_mev",)))


@pytest.mark.parametrize(("rows", "columns"), [(1, 30), (30, 1)])
def test_lines_become_profiles_with_error_bars(rows: int, columns: int) -> None:
    line = made_up.scan(30, 40).maps["fit_peaks"].isel(row=slice(0, rows), column=slice(0, columns))
    figure = figures.plot_mode_maps(line, ("energy_mev", "area_e"))
    assert not images(figure)
    assert len(figure.axes) == 6
    assert all(ax.containers for ax in figure.axes)
    assert "position along the scan (nm)" in texts(figure)
    for ax, words in zip(figure.axes[:2], ("BiO38: energy\n(meV)", "BiO38: area\n(e⁻)"), strict=True):
        assert ax.get_ylabel() == words
        assert ax.yaxis.get_ticklabels()[0].get_visible()


@pytest.mark.parametrize(
    ("wanted", "nice"), [(1.3, 1.0), (0.99, 0.5), (2.0, 2.0), (7.0, 5.0), (0.03, 0.02), (np.nan, 1)]
)
def test_scale_bars_are_round(wanted: float, nice: float) -> None:
    assert maps.nice_length(wanted) == pytest.approx(nice)


def test_lengths_are_read_in_the_unit_one_expects() -> None:
    assert [maps.length_text(v) for v in (0.05, 2.0, 5000.0)] == ["50 pm", "2 nm", "5 µm"]


def test_status_counts_everything_declared_and_everything_there(scan) -> None:
    counts = dict(maps.status_counts(scan.maps["fit_peaks"]))
    assert counts == {"converged": 956, "at bound": 1, "not identifiable": 0, "too few counts": 3}
    odd = scan.maps["fit_peaks"].copy(deep=True)
    odd["status"].values[0, 0] = 9
    assert dict(maps.status_counts(odd))["status 9"] == 1
    assert "956 (99.6 %)" in texts(figures.plot_status(scan.maps["fit_peaks"]))


def test_status_meanings_survive_a_file() -> None:
    stored = made_up.scan(12, 12).maps["fit_peaks"]
    stored["status"].attrs["flag_meanings"] = '["converged", "at bound", "x", "y"]'  # a list of words comes back so
    assert maps.status_counts(stored)[1][0] == "at bound"


def test_shares_never_round_some_to_none() -> None:
    assert maps.percent(1, 10**6) == "< 0.1 %"
    assert maps.percent(10**6 - 1, 10**6) == "> 99.9 %"
    assert maps.percent(0, 10) == "0 %"


def test_mean_spectrum_shows_every_component_and_takes_the_zero_loss_peak_off() -> None:
    table = made_up.mean_spectrum()
    figure = figures.plot_mean_spectrum(table)
    words = texts(figure)
    for word in ("BiO38", "CuO42", "CuO78", "zero-loss peak", "background", "residual (σ)", "energy loss (meV)"):
        assert word in words
    log, loss = figure.axes[0], figure.axes[1]
    assert log.get_yscale() == "log"
    assert loss.get_yscale() == "linear"
    model = next(line for line in loss.lines if len(line.get_ydata()) > 2 and np.max(line.get_ydata()) > 140)
    assert np.max(model.get_ydata()) == pytest.approx(154, abs=3)  # two modes of 90 that overlap, without the tail


@pytest.mark.parametrize("missing", ["zlp_e", "background_e", "model_e", "residual_sigma", "counts_e_std"])
def test_mean_spectrum_bears_a_missing_column(missing: str) -> None:
    figures.plot_mean_spectrum(made_up.mean_spectrum().drop(columns=missing)).draw_without_rendering()


def test_layer_spectra_long_and_wide_are_the_same(scan) -> None:
    long = scan.tables["assign_layers"]["layer_spectra"]
    wide = pd.DataFrame({"energy_loss_mev": long["energy_loss_mev"].unique()})
    for layer, part in long.groupby("layer"):
        wide[f"{layer}_e"], wide[f"{layer}_std_e"] = part["mean_e"].to_numpy(), part["std_e"].to_numpy()
    a, b = spectra.layer_spectra_of(long), spectra.layer_spectra_of(wide)
    assert set(a) == set(b) == {"Ca", "CuO2", "SrO", "BiO"}
    assert all(np.array_equal(x, y) for layer in a for x, y in zip(a[layer], b[layer], strict=True))
    assert "CuO₂" in texts(figures.plot_layer_spectra(long, window_mev=(20, 100)))


def test_phase_dependence_puts_the_primary_first_and_draws_its_harmonic(scan) -> None:
    tables = scan.tables["measure_modulation"]
    shuffled = tables["phase_bins"].iloc[::-1]
    figure = figures.plot_phase_dependence(shuffled, tables["amplitudes"])
    first = figure.axes[0]
    assert "CuO78 in CuO₂ (primary)" in first.get_title()
    assert "0.500 ± 0.040 meV" in first.get_title()
    curve = next(line for line in first.lines if len(line.get_xdata()) == 200)
    top = curve.get_xdata()[np.argmax(curve.get_ydata())]
    assert abs(top) < 0.05  # a positive cosine part has its highest energy at the crest
    assert np.ptp(curve.get_ydata()) == pytest.approx(2 * made_up.AMPLITUDE_MEV, rel=0.01)


def test_units_hold_the_mean_and_its_confidence_region() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        ellipse = modulation.confidence_ellipse(rng.standard_normal((8, 2)) @ [[1.0, 0.5], [0.0, 0.3]])
        turn = np.exp(-1j * np.radians(ellipse["angle"])) * -complex(*ellipse["xy"])
        inside += (2 * turn.real / ellipse["width"]) ** 2 + (2 * turn.imag / ellipse["height"]) ** 2 < 1
    assert 0.91 < inside / 400 < 0.98  # 95 % by construction, ±3.7 binomial std
    assert modulation.confidence_ellipse(np.zeros((2, 2))) is None
    assert modulation.confidence_ellipse(np.zeros((5, 2))) is None


def test_modulation_spectrum_names_its_templates(scan) -> None:
    table = scan.tables["measure_modulation"]["modulation_spectrum"]
    words = texts(figures.plot_modulation_spectrum(table, mode_energies_mev={"CuO78": 78.0}))
    for word in ("energy shift", "CuO₂", "BiO", "CuO78", "cosine", "sine", "e⁻ per channel"):
        assert word in words


def test_crests_are_where_the_phase_is_zero() -> None:
    x = np.linspace(0, 4 * np.pi, 81)
    figure = figures.plot_lattice(np.ones((20, 81)) + 0.01 * x, None, None, extent=(0, 4 * np.pi, 1, 0))
    ax = figure.axes[0]
    lattice.draw_wave_fronts(ax, np.tile(x, (20, 1)), (0, 4 * np.pi, 1, 0))
    solid, dashed = (np.concatenate([p.vertices[:, 0] for p in c.get_paths()]) for c in ax.collections)
    assert np.ptp(np.cos(solid)) < 0.1
    assert np.cos(solid).mean() > 0.95
    assert np.cos(dashed).mean() < -0.95


@pytest.mark.parametrize(
    ("phase", "wrapped"), [(0.0, 0.0), (2 * np.pi, 0.0), (np.pi, np.pi), (-np.pi, np.pi), (4.0, 4 - 2 * np.pi)]
)
def test_phases_are_wrapped(phase: float, wrapped: float) -> None:
    assert lattice.wrap(phase) == pytest.approx(wrapped)


def test_lattice_shows_as_many_panels_as_there_are_results(scan) -> None:
    layers, wave = scan.maps["assign_layers"], scan.maps["map_superstructure"]
    counts = [
        sum(bool(ax.get_title()) for ax in figures.plot_lattice(scan.haadf, *parts).axes)
        for parts in ((None, None), (layers, None), (layers, wave))
    ]
    assert counts == [1, 2, 3]
    assert "crest" in texts(figures.plot_lattice(scan.haadf, layers, wave))


def test_zero_loss_shows_maps_std_and_drift(scan) -> None:
    figure = figures.plot_zero_loss(scan.maps["align_zlp"])
    words = texts(figure)
    for word in ("zero-loss centre", "std of centre", "zero-loss FWHM", "row (nm)", "meV"):
        assert word in words
    figures.plot_zero_loss(scan.maps["align_zlp"].drop_vars("zlp_center_mev_std")).draw_without_rendering()


def test_truth_far_off_is_an_arrow_at_the_rim() -> None:
    row = {"quantity": "period", "measured": 2.7, "std": 0.001, "truth": 2.5, "pull": 200.0, "unit": "nm"}
    figure = figures.plot_truth(pd.DataFrame([{**row, "verdict": "disagrees"}]))
    assert any(line.get_marker() == ">" for line in figure.axes[0].lines)
    assert "truth 2.5 nm" in texts(figure)


def test_classic_route_shades_its_windows() -> None:
    table = made_up.mean_spectrum()[["energy_loss_mev", "counts_e", "background_e"]]
    figure = figures.plot_classic_route(
        {"subtract_zlp": table, "other": pd.DataFrame()}, windows_mev=[(26, 43), (188, 236)]
    )
    assert len(figure.axes) == 1
    assert len(figure.axes[0].patches) == 1  # the second window lies outside of the axis


@pytest.mark.parametrize("left_out", ["haadf", "layers", "mean_spectrum", "peaks", "phase_bins", "amplitudes"])
def test_overview_bears_a_missing_part(scan, left_out: str) -> None:
    tables = scan.tables["measure_modulation"]
    parts = {
        "haadf": scan.haadf,
        "layers": scan.maps["assign_layers"],
        "mean_spectrum": scan.tables["fit_peaks"]["mean_spectrum"],
        "peaks": scan.maps["fit_peaks"],
        "phase_bins": tables["phase_bins"],
        "amplitudes": tables["amplitudes"],
    }
    figures.plot_overview(**{**parts, left_out: None}, mode="CuO78").draw_without_rendering()


def test_overview_of_nothing_says_so() -> None:
    assert "no result" in texts(figures.plot_overview())
