"""Period and phase against kemstem, an independent implementation that knows nothing of layers: Fourier peaks and phase lock-in."""

import numpy as np
import pytest

from tests.unit.lattice.scan_steps import superstructure
from tests.unit.lattice.scene import C_NM, make_scene

STEP_NM = 0.05
MARGIN = 24


@pytest.fixture(scope="module")
def both():
    """Return what the steps and what kemstem make of one dark-field image: period and lateral phase of each."""
    fourier = pytest.importorskip("kemstem.fourier", reason="kemstem is an optional test dependency")
    scene = make_scene(rows=128, columns=208, step_nm=STEP_NM, noise=0.1, seed=3, drift_nm=0.0)
    _, result = superstructure(scene.haadf, STEP_NM)
    pattern = fourier.prepare_fourier_pattern(scene.haadf - scene.haadf.mean(), edge_reduction="hann")
    size = np.abs(pattern)
    rows, columns = scene.haadf.shape
    # Slabs in antiphase put satellites between the lattice rows: odd orders of 1/c, 1/λ away along b.
    k = columns * STEP_NM / 2.578
    best = max(
        ((size[rows // 2 + round(order * rows * STEP_NM / C_NM) + dy, columns // 2 + round(k) + dx], order, dy, dx))
        for order in (1, 3, 5, 7, 9) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
    )  # fmt: skip
    start = np.array(
        [[rows // 2 + round(best[1] * rows * STEP_NM / C_NM) + best[2], columns // 2 + round(k) + best[3]]]
    )
    peak = fourier.refine_peaks_gf(size, start.astype(float), window_dimension=3)
    y, x = np.asarray(peak[0] if isinstance(peak, tuple) else peak, dtype=float)[0][:2]
    filtered = fourier.fourier_filter(np.fft.fftshift(np.fft.fft2(scene.haadf - scene.haadf.mean())), (y, x), 2.0)[0]
    return scene, result, columns * STEP_NM / (x - columns // 2), np.angle(filtered), (y, x)


def test_period_agrees(both):
    scene, result, period_nm, _, _ = both
    assert period_nm == pytest.approx(scene.period_nm, rel=0.02)
    assert result.summary["period_nm"]["value"] == pytest.approx(period_nm, rel=0.02)


def test_phase_agrees(both):
    """kemstem's filtered satellite has the lateral phase, but for a plane wave along c and a constant."""
    scene, result, _, phase, (y, _) = both
    rows = scene.haadf.shape[0]
    along_c = 2 * np.pi * (y - rows // 2) / rows * np.arange(rows)[:, None]
    ours = result.maps["lateral_phase_rad"].values
    difference = np.exp(1j * (phase - along_c - ours))[MARGIN:-MARGIN, MARGIN:-MARGIN]
    away = np.angle(difference / np.exp(1j * np.angle(difference.mean())))
    assert np.sqrt(np.mean(away**2)) < 0.3
