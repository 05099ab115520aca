"""A file that a setting names belongs to what makes a result stale."""

from phonon_eels.pipeline.staleness import named_files


def test_content_counts(tmp_path):
    path = tmp_path / "gap.csv"
    settings = {"measure_modulation": {"gap": {"curve_file": str(path), "map_file": None}, "phase_bins": 8}}
    missing = named_files(settings)
    path.write_text("first")
    first = named_files(settings)
    path.write_text("second")
    assert list(first) == ["measure_modulation.gap.curve_file gap.csv"]
    assert len({*missing.values(), *first.values(), *named_files(settings).values()}) == 3
    assert named_files({"report": {"dpi": 150}}) == {}
