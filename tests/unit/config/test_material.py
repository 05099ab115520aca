"""What a material file may leave out."""

from phonon_eels.config import load_material
from phonon_eels.config.material import Mode


def test_prior_of_the_energy_has_the_scale_of_the_mode() -> None:
    plasmon = Mode(name="P29", energy_mev=29_000.0, bounds_mev=(25_000.0, 34_000.0), fwhm_mev=9000.0)
    assert plasmon.prior_energy_std_mev == 1500.0
    told = Mode(
        name="P29", energy_mev=29_000.0, bounds_mev=(25_000.0, 34_000.0), fwhm_mev=9000.0, prior_energy_std_mev=7.0
    )
    assert told.prior_energy_std_mev == 7.0
    assert load_material("bi2212").modes[0].prior_energy_std_mev == 1.5
