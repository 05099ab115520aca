"""The sum of frames is fitted with the sum of their models, each at its own zero-loss origin."""

from dataclasses import replace

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config.frames import RegisterFrames
from phonon_eels.config.settings import AlignZlp
from phonon_eels.errors import DataError
from phonon_eels.forward.frames import REACH_CHANNELS, frame_pairs, in_mev
from phonon_eels.forward.information import model_at
from phonon_eels.forward.scan import Alignment, fit_scan
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.spectrum_image import Acquisition, EnergyAxis, NoiseModel, ScanAxis, SpectrumImage
from phonon_eels.steps.align_zlp import align_zlp, frames_of
from phonon_eels.steps.register_frames import register_frames
from tests.unit.forward.spectra import SEPARATED, context_of, material_of, model_of, simulated, start_params

MATERIAL = material_of(*SEPARATED)


@pytest.fixture(scope="module")
def one():
    """A position, its model and its parameters."""
    simulation = simulated(1, 1, material=MATERIAL)
    model = model_of(simulation, MATERIAL)
    params = start_params(simulation, model)[0, 0]
    return simulation, model, params


def moved(params, by_mev):
    return np.concatenate([params[:1], params[1:2] + by_mev, params[2:]])


def test_pairs_have_the_mean_the_variance_and_the_skewness_of_the_frames():
    offsets = np.random.default_rng(1).uniform(-0.5, 0.7, (9, 2, 3)) ** 3
    pairs, too_far = frame_pairs(offsets)
    centred = offsets - offsets.mean(axis=0)
    for power, wanted in (
        (0, np.ones((2, 3))),
        (1, np.zeros((2, 3))),
        (2, (centred**2).mean(axis=0)),
        (3, (centred**3).mean(axis=0)),
    ):
        found = pairs[..., 1] * pairs[..., 0] ** power + pairs[..., 3] * pairs[..., 2] ** power
        np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert not too_far.any()


def test_frames_left_out_and_frames_far_away():
    offsets = np.array([[0.2], [-0.2], [np.nan]])[:, None]
    assert frame_pairs(offsets)[0][0, 0] == pytest.approx([-0.2, 0.5, 0.2, 0.5])
    assert frame_pairs(offsets[:1])[0][0, 0] == pytest.approx([0.0, 0.5, 0.0, 0.5])
    far = np.array([0.0, 0.0, 2.0 * REACH_CHANNELS])[:, None, None]
    pairs, too_far = frame_pairs(far)
    assert too_far.all()
    assert pairs[0, 0] == pytest.approx([0.0, 0.5, 0.0, 0.5])


def test_model_and_derivatives_are_sums_over_the_frames(one):
    _, model, params = one
    offsets = np.array([-0.6, 0.3, 0.3])[:, None, None]  # two places: the pair is exact
    pair = in_mev(frame_pairs(offsets)[0][0, 0], model.dispersion_mev)
    value, jacobian = model_at(replace(model, frames=pair), params)
    shifted = [model_at(model, moved(params, by * model.dispersion_mev), params) for by in offsets.ravel()]
    np.testing.assert_allclose(value, np.mean([s[0] for s in shifted], axis=0), rtol=1e-10)
    np.testing.assert_allclose(jacobian, np.mean([s[1] for s in shifted], axis=0), rtol=1e-9, atol=1e-9)
    assert np.abs(value - model_at(model, params)[0]).max() > 1e-3 * value.max()


@pytest.mark.parametrize(("fwhm_channels", "bound"), [(3.0, 4e-4), (5.0, 5e-5)])
def test_a_pair_stands_for_many_frames(fwhm_channels, bound):
    offsets = np.linspace(-0.5, 0.5, 21)[:, None, None]
    low, first, high, second = frame_pairs(offsets)[0][0, 0]
    channels, sigma = np.arange(-20.0, 21.0), fwhm_channels / 2.3548

    def peak(at):
        return np.exp(-0.5 * ((channels - at) / sigma) ** 2)

    wanted = np.mean([peak(at) for at in offsets.ravel()], axis=0)
    assert np.abs(first * peak(low) + second * peak(high) - wanted).max() < bound
    assert np.abs(peak(0.0) - wanted).max() > 20.0 * bound


@pytest.mark.statistics
def test_energies_and_width_of_a_sum_are_those_of_its_frames(one):
    """Poisson counts of frames a whole channel apart: their model is unbiased, that of one frame is too wide by far."""
    _, model, params = one
    n = 120
    offsets = np.array([-1.0, 0.2, 0.8])[:, None, None]
    pair = in_mev(frame_pairs(offsets)[0], model.dispersion_mev)
    mean = model_at(replace(model, frames=pair[0, 0]), params)[0]
    counts = np.random.default_rng(3).poisson(np.broadcast_to(mean, (n, 1, mean.size))).astype(float)
    axis = EnergyAxis(float(model.energies_mev[0]), model.dispersion_mev, mean.size)
    image = SpectrumImage(counts, axis, (ScanAxis("row", 0.1, n), ScanAxis("column", 0.1, 1)))
    place = Alignment(np.full((n, 1), -model.first_channel), np.full((n, 1), params[1]))
    found = {}
    for name, frames in (("frames", np.broadcast_to(pair, (n, 1, 4))), ("one", None)):
        free = replace(model, log_width_std=10.0)
        fit = fit_scan(
            image, free, replace(place, frames=frames), params, CpuBackend(1), free_energies=True, max_iterations=60
        )
        found[name] = ((fit.params - params) / fit.std)[:, 0]
    for k in (1, 2, *range(N_LOCAL + 3, N_LOCAL + 6)):
        assert abs(found["frames"][:, k].mean()) < 4.0 / np.sqrt(n)
        assert found["frames"][:, k].std() == pytest.approx(1.0, abs=0.27)  # 99.99 % of 120
    assert found["one"][:, 2].mean() > 10.0 / np.sqrt(n)


def frames_of_a_narrow_peak(n_frames=8, size=10, seed=5):
    """Frames whose peak, 2.5 channels wide, lies anywhere between channels."""
    rng = np.random.default_rng(seed)
    center = 40.0 + rng.uniform(-2.0, 2.0, (n_frames, size, size, 1))
    channels = np.arange(80.0)
    fine = np.stack([split_pearson7(channels - center + d, 2.5, 4.0, 4.0) for d in np.linspace(-0.45, 0.45, 10)])
    cube = rng.poisson(4e4 * fine.mean(axis=0) + 0.5)
    scan = (ScanAxis("row", 0.05, size), ScanAxis("column", 0.05, size))
    return SpectrumImage(
        cube.sum(axis=0), EnergyAxis(-20.0, 0.5, 80), scan, NoiseModel(), Acquisition(n_frames=n_frames), frames=cube
    )


def test_the_zero_loss_width_is_that_of_the_frames():
    """From files' counts through both steps; by the fast path the blur of adding is in the width."""
    image, widths = frames_of_a_narrow_peak(), {}
    for fast in (False, True):
        registered = register_frames(image, RegisterFrames(fast_path=fast), context_of(MATERIAL))
        context = replace(context_of(MATERIAL), maps={"register_frames": registered.maps})
        aligned = align_zlp(registered.image, AlignZlp(), context)
        widths[fast] = aligned.summary["zlp_fwhm_mev"]["value"] / 0.5
        assert ("fast_path" in " ".join(registered.messages)) == fast
        classic = align_zlp(registered.image, AlignZlp(alignment="coordinate"), replace(context, route="classic"))
        assert classic.summary["zlp_fwhm_mev"]["value"] / 0.5 == pytest.approx(widths[True] if fast else 2.57, rel=0.02)
    # A channel's own width is in the model, 1/√12 channel of the rounding of frames is not.
    assert widths[False] == pytest.approx(2.5, rel=0.008)
    assert widths[True] > 1.015 * 2.5


def test_offsets_of_another_scan_are_refused():
    image = frames_of_a_narrow_peak(n_frames=3)
    registered = register_frames(image, RegisterFrames(), context_of(MATERIAL))
    context = replace(context_of(MATERIAL), maps={"register_frames": registered.maps})
    assert frames_of(registered.image, context).shape == (10, 10, 4)
    other = frames_of_a_narrow_peak(n_frames=3, size=9)
    with pytest.raises(DataError, match=r"offsets for \[10, 10\] rows and columns"):
        frames_of(other, context)
