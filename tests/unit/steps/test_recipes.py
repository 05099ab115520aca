"""The two shipped settings files."""

from pathlib import Path

import pytest

from phonon_eels.config import Settings, load_settings


def recipe(repository: Path, name: str) -> Settings:
    return load_settings(repository / "pipelines" / "recipes" / f"{name}.yaml")


def test_group_recipe_has_the_published_defaults(repository: Path) -> None:
    settings = recipe(repository, "pku2021")
    assert settings.route == "classic"
    assert settings.align_zlp.alignment == "resample"
    assert settings.subtract_zlp.method == "pearson7"
    assert settings.subtract_zlp.windows_mev == ((26.0, 43.0), (188.0, 236.0))
    assert settings.deconvolve.method == "richardson_lucy"
    assert settings.deconvolve.iterations == 10
    assert settings.deconvolve.psf_half_width_mev == 100.0
    assert settings.denoise.method == "none"


def test_forward_recipe_is_the_default_route(repository: Path) -> None:
    assert recipe(repository, "forward") == Settings(align_zlp={"alignment": "coordinate"})


@pytest.mark.parametrize("name", ["pku2021", "forward"])
def test_every_setting_has_a_reason_beside_it(repository: Path, name: str) -> None:
    text = (repository / "pipelines" / "recipes" / f"{name}.yaml").read_text("utf-8")
    assert text.count("#") > 8
    assert "arXiv:2506.14127" in text or name == "forward"
