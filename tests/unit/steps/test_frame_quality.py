"""Which frames are worth adding, and that masks keep out of registration."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from phonon_eels.config.frames import RegisterFrames
from phonon_eels.steps.frame_drift import sharpness
from phonon_eels.steps.maps import mark_masked
from phonon_eels.steps.register_frames import register_frames
from tests.unit.steps.test_register_frames import SHIFTS, context, make


def test_blurred_frames_and_frames_that_drift_within_are_left_out_unless_told_otherwise():
    shifts = np.concatenate([SHIFTS, SHIFTS[:3]])
    image = make(shifts=shifts, energy=np.zeros(7), shape=(54, 30))
    images = image.haadf_frames.copy()
    images[2] = gaussian_filter(images[2], 2.0)
    rows, columns = np.mgrid[0:54, 0:30].astype(float)
    images[5] = map_coordinates(images[5], [rows, columns + 8.0 * (rows / 53.0 - 0.5)], order=1, mode="nearest")
    image = image.with_(haadf_frames=images)
    result = register_frames(image, RegisterFrames(), context())
    table = result.tables["drift"]
    assert table["weight"].tolist() == [1, 1, 0, 1, 1, 0, 1]
    assert table["sharpness"].iloc[2] < 0.8 < table["sharpness"].drop([2, 5]).min()
    assert set(result.summary["rejected"]) == {"2", "5"}
    assert result.summary["n_frames_used"] == 5
    everything = register_frames(image, RegisterFrames(reject_poor_frames=False), context())
    assert everything.tables["drift"]["weight"].tolist() == [1] * 7
    assert everything.summary["rejected"] == {}
    lenient = register_frames(image, RegisterFrames(rejection_sigma=500.0), context())
    assert lenient.summary["n_frames_used"] == 7


def test_sharpness_is_the_contrast_that_is_left():
    """Blur by a known transfer: a frame with half of the contrast has half, whatever its noise and its dose."""
    rng = np.random.default_rng(4)
    scene_here = 5.0 + np.sin(2.0 * np.pi * np.arange(40) / 7.0)[None] * np.ones((40, 1))
    frames = np.stack([rng.normal(scene_here, 0.3) for _ in range(6)])
    frames[4] = 3.0 * rng.normal(5.0 + 0.5 * (scene_here - 5.0), 0.3)
    found = sharpness(frames, np.zeros((6, 2)))
    np.testing.assert_allclose(np.delete(found, 4), 1.1, atol=0.06)  # the others' mean holds the poor one
    assert found[4] == pytest.approx(0.5, abs=0.04)


def test_what_lies_under_the_mask_moves_no_frame():
    image = make()
    regions = np.zeros((24, 22), np.uint8)
    regions[:6, 10:] = 2
    masked = regions > 0
    rng = np.random.default_rng(12)
    frames, images = image.frames.copy(), image.haadf_frames.copy()
    for f, shift in enumerate(SHIFTS):
        # The mask follows the specimen: rubbish lies under it in the first frame's positions and in the frame's own.
        under = masked & np.roll(masked, tuple(shift), axis=(0, 1))
        frames[f, under] = rng.integers(0, 60_000, frames[f, under].shape)
        images[f, under] = 50.0 * rng.random(int(under.sum()))
    image = image.with_(regions=regions)
    results = [register_frames(image.with_(frames=f, haadf_frames=h), RegisterFrames(), context())
               for f, h in ((image.frames, image.haadf_frames), (frames, images))]  # fmt: skip
    assert results[0].tables["drift"].equals(results[1].tables["drift"])
    assert results[0].summary == results[1].summary
    one, two = (mark_masked(result, image) for result in results)
    for name in one.maps.data_vars:
        np.testing.assert_array_equal(one.maps[name].values, two.maps[name].values, err_msg=name)
    shown = ~results[0].image.masked
    np.testing.assert_array_equal(
        np.asarray(results[0].image.halves)[:, shown], np.asarray(results[1].image.halves)[:, shown]
    )
    table = results[1].tables["drift"]
    np.testing.assert_allclose(table["row_shift_nm"] / 0.05, SHIFTS[:, 0], atol=0.2)
    np.testing.assert_allclose(table["column_shift_nm"] / 0.05, SHIFTS[:, 1], atol=0.2)
