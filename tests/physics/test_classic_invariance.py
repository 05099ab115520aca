"""The classic steps do not depend on units: energies, dispersion, scale of the counts, type of the numbers."""

import numpy as np
import pytest

from phonon_eels.config.settings import Deconvolve, Normalise, SubtractZlp
from phonon_eels.spectrum_image import NoiseModel, SpectrumImage
from phonon_eels.steps.deconvolve import deconvolve
from phonon_eels.steps.normalise import normalise
from phonon_eels.steps.spec import StepContext
from phonon_eels.steps.subtract_zlp import subtract_zlp
from tests.unit.steps.classic_scans import axis, context_of, elastic, image_of, noisy_image, phonons

CLEAR = SubtractZlp(windows_mev=((14.0, 24.0), (110.0, 150.0)))


def chain(image: SpectrumImage, context: StepContext | None = None) -> SpectrumImage:
    context = context or context_of()
    image = normalise(image, Normalise(), context).image
    image = subtract_zlp(image, CLEAR, context).image
    return deconvolve(image, Deconvolve(), context).image


def phonon_area(image: SpectrumImage, low: float, high: float) -> np.ndarray:
    inside = (image.energy.energies_mev >= low) & (image.energy.energies_mev <= high)
    return np.asarray(image.counts)[..., inside].sum(axis=-1)


@pytest.mark.parametrize("dispersion_mev", [0.5, 2.0])
def test_dispersion(dispersion_mev: float) -> None:
    """The same counts in wider channels: the share of electrons in the phonons stays."""

    def noise_free(dispersion: float) -> SpectrumImage:
        energy = axis(dispersion)
        mean = dispersion * (elastic(energy.energies_mev, 1e6) + phonons(energy.energies_mev, 2e3))
        return image_of(np.broadcast_to(mean, (1, 2, mean.size)).copy(), energy)

    reference = phonon_area(chain(noise_free(1.0)), 66.0, 90.0)
    assert phonon_area(chain(noise_free(dispersion_mev)), 66.0, 90.0) == pytest.approx(reference, rel=0.06)


@pytest.mark.parametrize("factor", [0.1285, 40.0])
def test_gain_of_the_detector(factor: float) -> None:
    plain = noisy_image(2, 2)
    scaled = plain.with_(counts=factor * plain.counts, noise=NoiseModel(gain=factor))
    want, have = chain(plain), chain(scaled)
    largest = float(np.abs(np.asarray(want.counts)).max())
    assert np.asarray(have.counts) == pytest.approx(np.asarray(want.counts), abs=2e-3 * largest)
    assert np.asarray(have.variance) == pytest.approx(np.asarray(want.variance), rel=2e-2)


@pytest.mark.parametrize("dtype", [np.uint16, np.int64, np.float32, np.float64])
def test_type_of_the_numbers(dtype: type) -> None:
    plain = noisy_image(1, 2)
    small = plain.with_(counts=(plain.counts // 4).astype(np.int32))
    typed = small.with_(counts=small.counts.astype(dtype))
    assert np.array_equal(np.asarray(chain(typed).counts), np.asarray(chain(small).counts))


def test_order_of_the_positions() -> None:
    image = noisy_image(3, 4)
    turned = image.with_(counts=image.counts[::-1, ::-1])
    straight = np.asarray(chain(image).counts)
    assert np.array_equal(np.asarray(chain(turned).counts)[::-1, ::-1], straight)


def test_counts_of_the_loss_spectrum_survive_deconvolution() -> None:
    context = context_of()
    loss = subtract_zlp(normalise(noisy_image(2, 3), Normalise(), context).image, CLEAR, context).image
    result = deconvolve(loss, Deconvolve(), context).image
    before, after = np.asarray(loss.counts).sum(axis=-1), np.asarray(result.counts).sum(axis=-1)
    assert after == pytest.approx(before, rel=0.05)
