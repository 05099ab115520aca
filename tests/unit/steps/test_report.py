"""`report`: everything there, anything missing, hostile words, and truth that the measurement contradicts."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from phonon_eels.config import load_material
from phonon_eels.config.settings import Report
from phonon_eels.spectrum_image import Acquisition, EnergyAxis, ScanAxis, SpectrumImage
from phonon_eels.steps import report_numbers as numbers
from phonon_eels.steps.report import REPORT, report
from phonon_eels.steps.report_truth import compare_with_truth
from phonon_eels.steps.spec import StepContext
from tests.unit.figures import made_up

QUICK = Report(figure_formats=("png",), dpi=50)


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words)).replace("\u00a0", " ")


@pytest.fixture(scope="module")
def scan() -> SimpleNamespace:
    return made_up.scan()


def image_of(scan: SimpleNamespace, **changes: object) -> SpectrumImage:
    image = SpectrumImage(
        counts=np.zeros((24, 40, 350), np.float32),
        energy=EnergyAxis(-60.0, 0.5, 350),
        scan=(ScanAxis("row", 0.08, 24), ScanAxis("column", 0.12, 40)),
        haadf=scan.haadf,
        acquisition=Acquisition(60.0, 35.0, 25.0, "on-axis", 293.0),
        title="scan 7",
    )
    return replace(image, **changes)


def context_of(scan: SimpleNamespace, folder=None, **changes: object) -> StepContext:
    parts = {"maps": scan.maps, "tables": scan.tables, "summaries": scan.summaries}
    return StepContext(material=load_material("bi2212"), backend=None, folder=folder, **{**parts, **changes})


@pytest.fixture(scope="module")
def full(scan, tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("scan7") / "report"
    folder.mkdir()
    summaries = {
        **scan.summaries,
        "ingest": {
            "messages": ["gain was assumed"],
            "skipped": None,
            "quality": [{"name": "zero-loss in range", "verdict": "pass", "value": 3.0, "unit": "meV"}],
            "provenance": {
                "inputs": {"spectra scan7.hspy": "ab" * 32},
                "versions": {"numpy": "9.9.9"},
                "time": "2026-11-21T10:00:00+00:00",
                "fingerprint": "cd" * 32,
                "settings": {"ingest": {"signal": None}},
            },
        },
        "calibrate": {"messages": [], "skipped": "calibrate.method is none"},
    }
    result = report(image_of(scan), QUICK, context_of(scan, folder, summaries=summaries, truth=made_up.truth()))
    return SimpleNamespace(result=result, folder=folder, page=Page((folder / "report.html").read_text("utf-8")))


def test_every_figure_is_drawn_and_saved(full) -> None:
    assert full.result.messages == ()
    assert set(full.result.summary["not_drawn"]) == {
        "width_maps", "status_align_zlp", "status_assign_layers", "status_map_superstructure", "checks", "quality", "estimators",
    }  # fmt: skip
    saved = {path.stem for path in (full.folder / "figures").iterdir()}
    assert saved == set(full.result.summary["figures"]) >= {"overview", "truth", "mode_maps", "modulation_spectrum"}
    pictures = [attrs for tag, attrs in full.page.tags if tag == "img"]
    assert len(pictures) == len(saved)
    assert all(attrs["src"].startswith("data:image/png;base64,") and attrs["alt"] for attrs in pictures)


def test_page_needs_nothing_from_outside(full) -> None:
    for tag, attrs in full.page.tags:
        assert tag not in {"script", "link", "iframe", "object"}
        for name in ("src", "href"):
            assert (attrs.get(name) or "#").startswith(("#", "data:image/png"))
    assert "http" not in (full.folder / "report.html").read_text("utf-8").replace("xhttp", "")


def test_headline_has_numbers_units_and_verdict(full) -> None:
    assert full.result.summary["verdict"] == "claim"
    for words in ("0.500 ± 0.040 meV", "0.42 to 0.58 meV", "p = 0.0004", "8 half-slab planes", "Verdict: claim"):
        assert words in full.page.text


def test_page_tells_steps_messages_checks_and_provenance(full) -> None:
    for words in (
        "gain was assumed", "calibrate.method is none", "register_frames not run", "zero-loss in range", "3 meV",
        "78.020 ± 0.030", "1.020 ± 0.050", "too few counts", "2.580 ± 0.010 nm", "ab" * 32, "cd" * 32, "numpy 9.9.9",
        "60 keV", "35 mrad", "on-axis", "peak of the projected phonon density", "ingest.signal", "2026-11-21T10:00:00",
    ):  # fmt: skip
        assert words in full.page.text, words


def test_same_results_same_page(scan, full, tmp_path) -> None:
    pages = []
    for name in ("a", "b"):
        folder = tmp_path / name / "report"
        folder.mkdir(parents=True)
        only = {"tables": {}, "maps": {"align_zlp": scan.maps["align_zlp"]}}
        report(image_of(scan), QUICK, context_of(scan, folder, **only))
        pages.append((folder / "report.html").read_bytes())
    assert pages[0] == pages[1]


def test_nothing_at_all_still_makes_a_page(scan) -> None:
    image = image_of(scan, haadf=None, acquisition=Acquisition(), title="")
    result = report(image, QUICK, context_of(scan, maps={}, tables={}, summaries={}))
    assert result.summary["verdict"] == "not testable: measure_modulation has no result"
    assert result.summary["not_drawn"]["lattice"].startswith("The file holds no HAADF image")
    assert result.summary["not_drawn"]["mode_maps"] == "fit_peaks did not run."
    assert result.messages == ()


@pytest.mark.parametrize(
    ("step", "figure"),
    [
        ("align_zlp", "zero_loss"),
        ("fit_peaks", "mode_maps"),
        ("fit_peaks", "mean_spectrum"),
        ("assign_layers", "layer_spectra"),
        ("measure_modulation", "phase_dependence"),
    ],
)
def test_a_skipped_step_leaves_its_reason_in_its_place(scan, tmp_path, step: str, figure: str) -> None:
    summaries = {step: {"skipped": "the HAADF is <absent>", "messages": []}}
    image = image_of(scan, haadf=None)
    result = report(image, QUICK, context_of(scan, tmp_path, summaries=summaries, maps={}, tables={}))
    assert not result.messages
    assert result.summary["not_drawn"][figure] == f"{step} was skipped: the HAADF is <absent>"
    assert (tmp_path / "report.html").read_text("utf-8").count("the HAADF is &lt;absent&gt;") >= 2  # figure and step
    untested = "the HAADF is <absent>" if step == "measure_modulation" else "measure_modulation has no result"
    assert result.summary["verdict"] == f"not testable: {untested}"


def test_hostile_words_are_words(scan, tmp_path) -> None:
    evil = "<script>alert('x')</script>$\\frac{"
    tables = {"fit_peaks": {"modes": scan.tables["fit_peaks"]["modes"].assign(label=evil)}}
    summaries = {**scan.summaries, "ingest": {"messages": [evil], "skipped": None}}
    report(image_of(scan, title=evil), QUICK, context_of(scan, tmp_path, tables=tables, summaries=summaries, maps={}))
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert page.text.count("<script>alert('x')</script>") >= 4


def test_a_table_that_cannot_be_drawn_costs_one_figure_and_is_said(scan) -> None:
    tables = {"measure_modulation": {"period_scan": scan.tables["measure_modulation"]["units"]}}
    result = report(image_of(scan), QUICK, context_of(scan, tables=tables, maps={}))
    assert len(result.messages) == 1
    assert "Other periods: This figure could not be drawn" in result.messages[0]


@pytest.mark.parametrize(
    ("claim", "status", "verdict"),
    [
        (True, "ok", "claim"),
        (False, "ok", "no modulation claimed"),
        (False, "not testable: 4 planes, 6 are needed", "not testable: 4 planes, 6 are needed"),
        (True, "not_testable", "not testable: not testable"),
    ],
)
def test_verdicts(scan, claim: bool, status: str, verdict: str) -> None:
    tables = {"measure_modulation": dict(scan.tables["measure_modulation"])}
    tables["measure_modulation"]["amplitudes"] = tables["measure_modulation"]["amplitudes"].assign(status=status)
    context = context_of(scan, tables=tables, summaries={"measure_modulation": {"claim": claim}})
    assert numbers.headline(context).verdict == verdict


def test_unknown_dipole_share_makes_the_amplitude_a_lower_bound(scan) -> None:
    for bound in (True, False):
        summaries = {"measure_modulation": {"claim": True, "primary": {"lower_bound": bound}}}
        sentence = numbers.headline(context_of(scan, summaries=summaries)).sentence
        assert ("is a lower bound: the share of dipole scattering is not known" in sentence) == bound


def test_truth_is_compared_only_where_identifiable(scan) -> None:
    table = compare_with_truth(context_of(scan, truth=made_up.truth()))
    quantities = list(table["quantity"])
    assert "energy of CuO78" in quantities
    assert "energy of BiO38" not in quantities  # its pair is compared instead
    assert "centroid of BiO38+CuO42" in quantities
    assert table["verdict"].str.startswith("agrees").all()
    row = table.set_index("quantity").loc["energy of CuO78"]
    assert row["pull"] == pytest.approx(0.02 / 0.03)


def test_truth_that_is_contradicted_is_said(scan, tmp_path) -> None:
    truth = made_up.truth()
    truth["modes"][2]["energy_mev"] = 77.0
    truth["modes"][2]["modulation_amplitude_mev"] = 0.9
    truth["modes"][2]["modulation_phase_rad"] = 3.0
    tables = {name: dict(value) for name, value in scan.tables.items()}
    del tables["fit_peaks"]["mean_spectrum"], tables["assign_layers"]
    for name in ("units", "phase_bins", "modulation_spectrum"):
        del tables["measure_modulation"][name]
    result = report(image_of(scan, haadf=None), QUICK, context_of(scan, truth=truth, maps={}, tables=tables))
    table = result.tables["truth_comparison"].set_index("quantity")["verdict"]
    wrong = set(table[table.str.startswith("disagrees")].index)
    amplitude, phase = "modulation amplitude of CuO78 in CuO2", "modulation phase of CuO78"
    assert wrong == {"energy of CuO78", amplitude, phase}
    assert any("energy of CuO78 disagrees with the truth: 78.020 ± 0.030 against 77 meV" in m for m in result.messages)


def test_phases_are_compared_on_the_circle(scan) -> None:
    truth = made_up.truth()
    truth["modes"][2]["modulation_phase_rad"] = 2 * np.pi
    table = compare_with_truth(context_of(scan, truth=truth)).set_index("quantity")
    assert table.loc["modulation phase of CuO78", "pull"] == pytest.approx(0.05 / 0.08)


def test_centroid_weighs_by_true_area() -> None:
    scan = made_up.scan(12, 12)
    truth = made_up.truth()
    truth["modes"][0]["scan_mean_area_e"], truth["modes"][1]["scan_mean_area_e"] = 300.0, 100.0
    table = compare_with_truth(context_of(scan, truth=truth)).set_index("quantity")
    assert table.loc["centroid of BiO38+CuO42", "truth"] == pytest.approx(39.0)
    assert table.loc["area ratio of BiO38+CuO42", "truth"] == pytest.approx(3.0)  # low over high


def test_no_truth_no_comparison(scan) -> None:
    assert compare_with_truth(context_of(scan)) is None


def test_wide_angles_forbid_the_word_mode() -> None:
    material = load_material("bi2212")
    narrow = Acquisition(60.0, 3.0, 3.0, "on-axis")
    assert numbers.peak_word(narrow, material) == "peak"
    wide = replace(narrow, convergence_semi_angle_mrad=35.0)
    assert numbers.peak_word(wide, material) == "peak of the projected phonon density"
    assert numbers.spanned_zones(replace(narrow, beam_energy_kev=None), material) is None
    # λ = 4.866 pm at 60 keV and a = 0.5415 nm put the boundary at 4.49 mrad.
    assert numbers.spanned_zones(narrow, material) == pytest.approx(3.0 / 4.493, rel=1e-3)


def test_spec_reads_every_other_step() -> None:
    assert REPORT.name == "report"
    assert "measure_modulation" in REPORT.needs
    assert "report" not in REPORT.needs
