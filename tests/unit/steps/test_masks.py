"""Masked positions: no step fits or averages them, every map says so, and vacuum becomes a reference."""

from dataclasses import replace

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Settings
from phonon_eels.errors import DataError
from phonon_eels.io.cubes import read_image, write_image
from phonon_eels.spectrum_image import REGIONS
from phonon_eels.steps.align_zlp import align_zlp
from phonon_eels.steps.assign_layers import assign_layers
from phonon_eels.steps.calibrate import calibrate
from phonon_eels.steps.deconvolve import deconvolve
from phonon_eels.steps.denoise import denoise
from phonon_eels.steps.fit_peaks import fit_peaks
from phonon_eels.steps.ingest import ingest
from phonon_eels.steps.maps import mark_masked
from phonon_eels.steps.normalise import normalise
from phonon_eels.steps.remove_spikes import remove_spikes
from phonon_eels.steps.subtract_zlp import subtract_zlp
from phonon_eels.steps.vacuum import known_reference, reference_of_scan, vacuum_reference
from tests.unit.forward.spectra import SEPARATED, context_of, material_of, simulated, with_results

MATERIAL = material_of(*SEPARATED)
BACKEND = CpuBackend(1)


@pytest.fixture(scope="module")
def marked():
    """Two columns of vacuum, one masked position of the sample that holds rubbish."""
    simulation = simulated(
        6, 8, material=MATERIAL, energy={"jitter_mev": 0.2}, phonons={"area_e": 8e3},
        detector={"poisson": True, "gain": 1.0, "read_noise_e": 1.0},
    )  # fmt: skip
    image = simulation.image
    regions = np.zeros((6, 8), np.uint8)
    regions[:, :2] = REGIONS.index("vacuum")
    regions[4, 5] = REGIONS.index("contamination")
    counts = np.array(image.counts)
    peak = np.exp(-0.5 * ((image.energy.energies_mev - 2.0) / 3.0) ** 2)
    counts[:, :2] = np.random.default_rng(5).poisson(2e4 * peak, (6, 2, peak.size))
    counts[4, 5] = 50_000
    return image.with_(counts=counts, regions=regions)


def masked_out(result, image, *names):
    """Every map is NaN (or says masked) exactly where the mask is."""
    result = mark_masked(result, image)
    words = result.maps["status"].attrs["flag_meanings"].split()
    here = result.maps["status"].values == words.index("masked")
    np.testing.assert_array_equal(here, image.masked)
    for name in names:
        values = result.maps[name].values
        assert np.isnan(values[..., image.masked]).all(), name
        assert np.isfinite(values[..., ~image.masked]).all(), name
    return result


def test_ingest_counts_the_regions_and_leaves_them_out_of_the_mean(marked):
    context = context_of(MATERIAL)
    settings = Settings().ingest.model_copy(update={"quality": "warn"})
    result = ingest(marked, settings, context)
    assert result.summary["regions"] == {
        "sample": 35, "vacuum": 12, "hole": 0, "contamination": 1, "edge": 0, "excluded": 0,
    }  # fmt: skip
    assert any("13 positions are masked (12 vacuum, 1 contamination)" in m for m in result.messages)
    alone = ingest(marked.with_(counts=marked.counts[:, 2:4], scan=(marked.scan[0], replace(marked.scan[1], n=2)),
                                regions=None, haadf=None), settings, context)  # fmt: skip
    ours = result.summary["mean_spectrum_zero_loss"]
    assert ours["fwhm_mev"] == pytest.approx(alone.summary["mean_spectrum_zero_loss"]["fwhm_mev"], rel=0.02)
    assert ours["position_mev"] == pytest.approx(alone.summary["mean_spectrum_zero_loss"]["position_mev"], abs=0.2)
    np.testing.assert_array_equal(result.image.counts, marked.counts)


def test_results_of_the_sample_do_not_depend_on_what_lies_under_the_mask(marked):
    context = context_of(MATERIAL)
    other = marked.with_(counts=np.where(marked.masked[..., None], 7, marked.counts))
    fits = []
    for image in (marked, other):
        aligned = masked_out(align_zlp(image, Settings().align_zlp, context), image, "zlp_center_mev", "zlp_fwhm_mev")
        here = with_results(context, align_zlp=aligned)
        fit = fit_peaks(image, Settings().fit_peaks, here)
        assert not any("could not be fitted" in message for message in (*aligned.messages, *fit.messages))
        fits.append(masked_out(fit, image, "area_e", "background_e"))
        code = fits[-1].maps["mode_status"].attrs["flag_meanings"].split().index("masked")
        assert (fits[-1].maps["mode_status"].values[:, image.masked] == code).all()
        assert fits[-1].summary["status_counts"]["masked"] == 13
        assert fits[-1].summary["mode_status_counts"][SEPARATED[0]]["masked"] == 13
    for name in ("energy_mev", "area_e"):
        np.testing.assert_array_equal(fits[0].maps[name], fits[1].maps[name])
    assert fits[0].tables["modes"].equals(fits[1].tables["modes"])
    assert fits[0].tables["mean_spectrum"].equals(fits[1].tables["mean_spectrum"])


def test_calibration_and_layers_honour_the_mask(marked):
    context = context_of(MATERIAL)
    aligned = align_zlp(marked, Settings().align_zlp, context)
    here = with_results(context, align_zlp=aligned)
    zero = calibrate(marked, Settings().calibrate.model_copy(update={"method": "zero"}), here)
    center = aligned.maps["zlp_center_mev"].values
    assert zero.summary["zero_mev"]["value"] == pytest.approx(float(np.nanmean(center)))
    big = simulated(40, 40, detector={"poisson": False})
    regions = np.zeros((40, 40), np.uint8)
    regions[:10] = 1
    haadf = np.array(big.image.haadf)
    haadf[:10] = 1e3  # no lattice: a bright blot of contamination
    image = big.image.with_(haadf=haadf, regions=regions)
    layers = assign_layers(image, Settings().assign_layers, context_of())
    assert layers.skipped is None
    marked_layers = mark_masked(layers, image)
    assert marked_layers.summary["status_counts"]["masked"] == 400
    clean = assign_layers(big.image, Settings().assign_layers, context_of())
    moved = layers.maps["c_position_nm"].values[15:] - clean.maps["c_position_nm"].values[15:]
    assert np.abs(moved - np.median(moved)).max() < 0.03


def test_spikes_under_the_mask_are_not_touched(marked):
    counts = np.array(marked.counts)
    counts[2, 0, 200] += 30_000
    counts[2, 4, 200] += 30_000
    result = remove_spikes(marked.with_(counts=counts), Settings().remove_spikes, context_of(MATERIAL))
    assert np.asarray(result.image.counts)[2, 0, 200] == counts[2, 0, 200]
    assert np.asarray(result.image.counts)[2, 4, 200] < 10_000


def test_classic_route_honours_the_mask(marked):
    context = context_of(MATERIAL, route="classic")
    aligned = align_zlp(marked, Settings().align_zlp, context)
    assert np.isnan(np.asarray(aligned.image.counts)[marked.masked]).all()
    context = with_results(context, align_zlp=aligned)
    scaled = normalise(aligned.image, Settings().normalise, context)
    context = with_results(context, normalise=scaled)
    smooth = denoise(scaled.image, Settings().denoise.model_copy(update={"method": "pca"}), context)
    window = {"output_window_mev": (20.0, 100.0), "windows_mev": ((20.0, 28.0), (95.0, 110.0))}
    loss = subtract_zlp(scaled.image, Settings().subtract_zlp.model_copy(update=window), context)
    sharp = deconvolve(scaled.image, Settings().deconvolve.model_copy(update={"iterations": 2}), context)
    for result in (scaled, smooth, loss, sharp):
        counts = np.asarray(result.image.counts)
        assert np.isnan(counts[marked.masked]).all()
        assert np.isfinite(counts[~marked.masked]).any()
        if result.maps is not None and "status" in result.maps:
            masked_out(result, result.image)


def test_regions_survive_the_disk(marked, tmp_path):
    write_image(marked, tmp_path)
    back = read_image(tmp_path)
    np.testing.assert_array_equal(back.regions, marked.regions)
    assert back.regions.dtype == np.uint8


def test_vacuum_becomes_a_reference(marked):
    context = context_of(MATERIAL)
    aligned = align_zlp(marked, Settings().align_zlp, context)
    reference = known_reference(with_results(context, align_zlp=aligned))
    assert reference.n_spectra == 12
    assert reference.n_too_close == 12
    assert 0.0 < reference.distance_nm < 1.0
    assert any("12 of 12 spectra lie closer to the sample than 2 µm" in message for message in aligned.messages)
    planted = marked.counts[:, :2].sum(axis=(0, 1))
    assert reference.electrons.sum() == pytest.approx(planted.sum(), rel=1e-6)
    top = reference.energies_mev[np.argmax(reference.electrons)]
    assert abs(top) < 1.0
    np.testing.assert_allclose(reference.variance, reference.electrons + 12 * 1.0, rtol=1e-6, atol=1e-6)
    centre = float(np.sum(reference.energies_mev * reference.electrons) / reference.electrons.sum())
    assert abs(centre) < 0.1


def test_vacuum_of_a_file_of_its_own(marked):
    columns = marked.scan[1]
    vacuum = marked.with_(
        counts=marked.counts[:, :2], regions=None, haadf=None, scan=(marked.scan[0], replace(columns, n=2))
    )
    reference = reference_of_scan(vacuum, marked, BACKEND)
    assert reference.n_spectra == 12
    assert np.isnan(reference.distance_nm)
    assert "of a file of their own" in reference.sentence
    context = replace(context_of(MATERIAL), vacuum=vacuum)
    result = ingest(marked, Settings().ingest.model_copy(update={"quality": "warn"}), context)
    context = with_results(context_of(MATERIAL), ingest=result)
    aligned = align_zlp(marked, Settings().align_zlp, context)
    known = known_reference(with_results(context, align_zlp=aligned))
    assert known.n_spectra == 12
    assert np.isnan(known.distance_nm)
    stretched = vacuum.with_(energy=replace(vacuum.energy, dispersion_mev=0.7))
    with pytest.raises(DataError, match=r"the vacuum scan has 0\.7 meV per channel, the scan 0\.5"):
        reference_of_scan(stretched, marked, BACKEND)


def test_distance_from_the_sample_is_measured(marked):
    far = marked.with_(scan=(replace(marked.scan[0], step_nm=1000.0), replace(marked.scan[1], step_nm=3000.0)))
    center = np.full((6, 8), 2.0)
    reference = vacuum_reference(far, center, BACKEND)
    assert reference.n_too_close == 0
    assert reference.distance_nm == pytest.approx(4500.0)
    assert "mean distance 4.5e+03 nm from the sample" in reference.sentence
    with pytest.raises(DataError, match="no position is marked as vacuum"):
        vacuum_reference(marked.with_(regions=None), center, BACKEND)
    with pytest.raises(DataError, match="no zero-loss peak was found in the vacuum region"):
        vacuum_reference(marked, np.full((6, 8), np.nan), BACKEND)
