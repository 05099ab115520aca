"""What `ingest` finds of the detector is what every later step counts with: gain, dark level, read noise, shared noise."""

from dataclasses import replace

import numpy as np
import pytest

from phonon_eels.config import Settings
from phonon_eels.lattice.layer_spectra import average_layers
from phonon_eels.spectrum_image import NoiseModel
from phonon_eels.steps.align_zlp import align_zlp
from phonon_eels.steps.calibrate import mean_aligned_spectrum
from phonon_eels.steps.deconvolve import deconvolve
from phonon_eels.steps.fit_peaks import fit_peaks
from phonon_eels.steps.frame_sum import measure_energies
from phonon_eels.steps.ingest import ingest
from phonon_eels.steps.normalise import normalise
from phonon_eels.steps.remove_spikes import remove_spikes
from phonon_eels.steps.subtract_zlp import subtract_zlp
from tests.unit.forward.spectra import SEPARATED, context_of, material_of, simulated, with_results

MATERIAL = material_of(*SEPARATED)
GAIN, DARK, READ, SPREAD = 2.5, 80.0, 4.0, 1.0
WINDOWS = {"output_window_mev": (25.0, 95.0), "windows_mev": ((25.0, 31.0), (95.0, 110.0))}


@pytest.fixture(scope="module")
def scan():
    """Raw numbers of a detector that nobody has described, as they come from the file."""
    made = simulated(
        32, 64, material=MATERIAL, phonons={"area_e": 6e3},
        detector={"poisson": True, "gain": GAIN, "dark_level": DARK, "read_noise_e": READ, "psf_fwhm_channels": SPREAD},
    )  # fmt: skip
    return made.image.with_(noise=NoiseModel()), made.image.noise


@pytest.fixture(scope="module")
def found(scan):
    """The scan as `ingest` leaves it."""
    context = context_of(MATERIAL)
    return ingest(scan[0], Settings().ingest.model_copy(update={"quality": "warn"}), context)


def told(image, **changes):
    """The image with another noise model."""
    return image.with_(noise=replace(image.noise, **changes))


def aligned(image):
    return align_zlp(image, Settings().align_zlp, context_of(MATERIAL))


def median(result, name):
    return float(np.nanmedian(result.maps[name].values))


@pytest.fixture(scope="module")
def peaks(found):
    return aligned(found.image)


@pytest.fixture(scope="module")
def fits(found, peaks):
    context = with_results(context_of(MATERIAL), align_zlp=peaks)
    return fit_peaks(found.image, Settings().fit_peaks, context), context


def test_ingest_finds_all_four_and_says_that_it_measured_them(scan, found):
    noise, truth = found.image.noise, scan[1]
    said = found.summary["noise"]
    for name in ("gain", "dark_level", "read_noise_e", "noise_correlation"):
        assert noise.source[name] == said[name]["status"] == "measured"
        value, std = getattr(noise, name), said[name]["std"]
        assert said[name]["value"] == value == pytest.approx(getattr(truth, name), rel=0.15)
        assert name == "noise_correlation" or abs(value - getattr(truth, name)) < 4.0 * std
    assert noise.noise_correlation > 1.5


def test_zero_loss_fits_count_with_what_was_found(found, peaks):
    image = found.image
    assert median(peaks, "chi2_per_dof") == pytest.approx(1.0, abs=0.1)
    unshared = aligned(told(image, noise_correlation=1.0))
    assert median(unshared, "chi2_per_dof") < 0.8  # channels are quieter than independent ones would be
    std = median(peaks, "zlp_center_mev_std")
    coarser = aligned(told(image, gain=2.0 * image.noise.gain))
    assert median(coarser, "zlp_center_mev_std") == pytest.approx(2.0**0.5 * std, rel=0.05)
    assert median(coarser, "zlp_counts") == pytest.approx(0.5 * median(peaks, "zlp_counts"), rel=0.01)
    assert median(aligned(told(image, read_noise_e=160.0)), "zlp_center_mev_std") > 1.3 * std
    assert median(aligned(told(image, dark_level=0.0)), "zlp_counts") > 1.005 * median(peaks, "zlp_counts")


def test_forward_fits_count_with_what_was_found(found, peaks, fits):
    image, (fit, context) = found.image, fits
    model = fit.summary["model"]
    assert model["shift_e"] == pytest.approx(image.noise.read_noise_e**2)
    assert model["noise_correlation"] == pytest.approx(image.noise.noise_correlation)
    assert 0.2 < fit.summary["median_p_value"] < 0.8

    def again(**changes):
        other = told(image, **changes)
        return fit_peaks(other, Settings().fit_peaks, with_results(context, align_zlp=aligned(other)))

    std = np.nanmedian(fit.maps["area_e_std"].values / fit.maps["area_e"].values)

    def relative(result):
        return np.nanmedian(result.maps["area_e_std"].values / result.maps["area_e"].values)

    assert again(noise_correlation=1.0).summary["median_p_value"] > 0.99
    # Half of the electrons: between counting's root of 2 and the 2 of read noise, which is given in electrons.
    assert 1.95**0.5 < relative(again(gain=2.0 * image.noise.gain)) / std < 2.0
    assert relative(again(read_noise_e=3.0 * image.noise.read_noise_e)) > 1.1 * std
    background = median(fit, "background_e")
    offset = median(again(dark_level=image.noise.dark_level - 10.0), "background_e") - background
    assert offset == pytest.approx(10.0 / image.noise.gain, rel=0.05)


def test_the_viewer_fits_with_the_model_of_the_results(fits):
    from phonon_eels.forward.model import model_from_description

    model = model_from_description(fits[0].summary["model"], MATERIAL)
    assert model.shift_e == fits[0].summary["model"]["shift_e"]
    assert model.lags.size > 1


def test_spikes_are_judged_by_the_noise_that_was_found(found):
    settings = Settings().remove_spikes
    result = remove_spikes(found.image, settings, context_of(MATERIAL))
    noise = found.image.noise
    assert result.summary["noise_scale"] == pytest.approx(noise.noise_correlation**-0.5, rel=0.01)
    quiet = remove_spikes(told(found.image, noise_correlation=1.0), settings, context_of(MATERIAL))
    assert quiet.summary["noise_scale"] == 1.0


def test_frames_layers_and_calibration_count_with_what_was_found(found, peaks):
    image = found.image
    noise = image.noise
    context = with_results(context_of(MATERIAL), align_zlp=peaks)
    _, electrons, variance, _ = mean_aligned_spectrum(image, context)
    assert variance.sum() == pytest.approx(electrons.sum() + 32 * 64 * electrons.size * noise.read_noise_e**2, rel=0.01)
    spectra = average_layers(image, np.zeros((32, 64), int), 1, None, context.backend)
    z = (np.asarray(image.counts, dtype=float) - noise.dark_level) / noise.gain
    np.testing.assert_allclose(spectra.mean_e[0], z.mean(axis=(0, 1)), rtol=1e-9)
    # Where no electrons arrive, the dark level that was found leaves means just below zero: such a channel has what reading adds.
    counting = z.mean(axis=(0, 1)).clip(min=0.0) / noise.noise_correlation
    wanted = (counting + noise.read_noise_e**2) / z[..., 0].size
    np.testing.assert_allclose(spectra.std_e[0] ** 2, wanted, rtol=1e-9)
    frames = image.with_(frames=np.asarray(image.counts)[None].repeat(2, axis=0))
    one, two = (measure_energies(told(frames, gain=gain), context) for gain in (noise.gain, 2.0 * noise.gain))
    assert two.counts[0] == pytest.approx(0.5 * one.counts[0], rel=0.2)
    assert np.median(two.std) > 1.3 * np.median(one.std)


def test_classic_steps_carry_what_was_found(found):
    whole = found.image
    scan_here = (replace(whole.scan[0], n=4), replace(whole.scan[1], n=6))
    image = whole.with_(counts=np.asarray(whole.counts)[:4, :6], scan=scan_here, haadf=None)
    context = context_of(MATERIAL, route="classic")

    def chain(image):
        peaks = align_zlp(image, Settings().align_zlp, context)
        here = with_results(context, align_zlp=peaks)
        scaled = normalise(peaks.image, Settings().normalise, here)
        here = with_results(here, normalise=scaled)
        loss = subtract_zlp(scaled.image, Settings().subtract_zlp.model_copy(update=WINDOWS), here)
        sharp = deconvolve(
            loss.image,
            Settings().deconvolve.model_copy(update={"iterations": 3}),
            with_results(here, subtract_zlp=loss),
        )
        return peaks, scaled, loss, sharp

    ours = chain(image)
    louder = chain(told(image, read_noise_e=2.0 * image.noise.read_noise_e))
    smaller = chain(told(image, gain=2.0 * image.noise.gain))
    for number in range(4):
        mine, loud, small = (
            float(np.nanmedian(np.asarray(run[number].image.variance))) for run in (ours, louder, smaller)
        )
        assert loud > 1.1 * mine, number
        assert small != pytest.approx(mine, rel=0.1), number
    extra = float(np.nanmedian(np.asarray(louder[0].image.variance) - np.asarray(ours[0].image.variance)))
    # Resampling takes a part of every channel's noise away, at most to the sum of the squared weights.
    assert 0.6 < extra / (3.0 * image.noise.read_noise_e**2) < 1.01
    alone = chain(told(image, noise_correlation=1.0))
    for number in (2, 3):
        shared, single = (np.asarray(run[number].maps["noise_draws"].values, dtype=float) for run in (ours, alone))
        next_shared, next_single = (float(np.mean(d[:, 1:] * d[:, :-1]) / np.mean(d**2)) for d in (shared, single))
        assert next_shared > next_single + 0.1
        assert np.mean(shared**2) < np.mean(single**2)
    scale = float(np.nansum(np.asarray(smaller[1].image.counts)) / np.nansum(np.asarray(ours[1].image.counts)))
    assert scale == pytest.approx(1.0, abs=0.05)  # counts over zero-loss counts know no gain


def test_the_hyperspy_signal_counts_with_what_was_found(scan, found):
    from phonon_eels.signals.spectrum import PhononEELS

    signal = PhononEELS.from_spectrum_image(scan[0].with_(counts=np.asarray(scan[0].counts)))
    signal.align_zlp()
    for name in ("gain", "dark_level", "read_noise_e", "noise_correlation"):
        assert signal.metadata.get_item(f"PhononEELS.noise.{name}") == pytest.approx(getattr(found.image.noise, name))


@pytest.mark.slow
def test_every_step_records_the_noise_that_it_counted_with(scan, tmp_path):
    from phonon_eels.io.export import write_hspy
    from phonon_eels.io.results import read_summary
    from phonon_eels.pipeline.execute import run_step

    image = scan[0]
    path = write_hspy(image.with_(counts=np.asarray(image.counts), haadf=None), tmp_path / "scan.hspy")
    settings = Settings().model_copy(update={"ingest": Settings().ingest.model_copy(update={"quality": "warn"})})
    folder = tmp_path / "results" / "scan"
    for step in ("ingest", "register_frames", "remove_spikes", "align_zlp"):
        run_step(folder, step, settings, input_path=path if step == "ingest" else None)
    measured = {name: entry["value"] for name, entry in read_summary(folder / "ingest")["summary"]["noise"].items()}
    for step in ("remove_spikes", "align_zlp"):
        used = read_summary(folder / step)["summary"]["noise_used"]
        assert used["source"] == dict.fromkeys(measured, "measured")
        assert {name: used[name] for name in measured} == pytest.approx(measured)
