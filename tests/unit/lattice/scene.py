"""A small dark-field image of Bi2212 with known planes, made without the package's own simulator or lattice code."""

from dataclasses import dataclass, field

import numpy as np

HEIGHTS = {"Ca": 0.0, "CuO2": 0.1645, "SrO": 0.3367, "BiO": 0.6104}
Z = {"Ca": 20, "CuO2": 29, "SrO": 38, "BiO": 83}
WAVE = {"BiO": 0.035, "SrO": 0.032, "CuO2": 0.027, "Ca": 0.025, "gap": 0.0}
C_NM = 3.0861
COLUMN_NM = 0.27075


@dataclass
class Scene:
    """An image and what is true of it."""

    haadf: np.ndarray
    step_nm: float
    label: np.ndarray  # names
    slab: np.ndarray
    side: np.ndarray
    lateral_phase: np.ndarray
    outward_phase: np.ndarray
    edge_distance_nm: np.ndarray  # from the nearest boundary between labels
    period_nm: float
    extra: dict = field(default_factory=dict)


def make_scene(
    rows=64,
    columns=96,
    step_nm=0.05,
    *,
    period_nm=2.578,
    amplitude=1.0,
    tilt_deg=0.0,
    transpose=False,
    noise=0.05,
    sigma_nm=0.055,
    phase0=0.7,
    origin_nm=0.4,
    scale=1.0,
    contrast=1.0,
    column_depth=0.9,
    drift_nm=0.0,
    row_jitter_nm=0.0,
    in_plane_nm=0.035,
    wedge=0.0,
    seed=0,
    mode="slab",
):
    """Return a scene; the noise is in units of the strongest contrast of the image."""
    rng = np.random.default_rng(seed)
    i, j = np.mgrid[0:rows, 0:columns].astype(float)
    x, y = (i - rows / 2) * step_nm, (j - columns / 2) * step_nm
    if transpose:
        x, y = y, x
    angle = np.deg2rad(tilt_deg)
    s = (np.cos(angle) * x + np.sin(angle) * y) / scale + origin_nm
    t = (-np.sin(angle) * x + np.cos(angle) * y) / scale
    # drift: a smooth wander of the true place of the probe along c, over the whole scan
    progress = (i * columns + j) / (rows * columns)
    s = s + drift_nm * np.sin(2 * np.pi * 0.7 * progress + 0.4)
    s = s + (row_jitter_nm * rng.standard_normal(rows))[:, None] * np.ones(columns)
    planes = _planes(s.min() - 1.0, s.max() + 1.0)
    lateral = 2 * np.pi * t / period_nm + phase0
    signal = np.zeros_like(s)
    displaced = np.empty((len(planes), *s.shape))
    for k, (name, slab, side, z) in enumerate(planes):
        sign = (-1.0) ** slab if mode == "slab" else (-1.0) ** slab * (side or 1)
        u = 0.0 if name == "gap" else amplitude * sign * WAVE[name] * np.cos(lateral)
        displaced[k] = z + u
        if name == "gap":
            continue
        bunch = amplitude * sign * (in_plane_nm if name in ("BiO", "SrO") else 0.0) * np.sin(lateral)
        column = 1.0 + column_depth * np.cos(2 * np.pi * (t - bunch) / COLUMN_NM)
        signal += (Z[name] / 83) ** 1.7 * column * np.exp(-0.5 * ((s - displaced[k]) / sigma_nm) ** 2)
    for k, (name, *_rest) in enumerate(planes):  # a gap lies midway between the planes that face it
        if name == "gap" and 0 < k < len(planes) - 1:
            displaced[k] = 0.5 * (displaced[k - 1] + displaced[k + 1])
    order = np.argsort(np.abs(s[None] - displaced), axis=0)
    best, second = order[0], order[1]
    pick = lambda index: np.take_along_axis(displaced, index[None], axis=0)[0]  # noqa: E731
    edge = 0.5 * np.abs(np.abs(s - pick(best)) - np.abs(s - pick(second)))
    names = np.array([p[0] for p in planes])[best]
    ideal = s - (pick(best) - np.array([p[3] for p in planes])[best])
    slab = np.floor(ideal / (C_NM / 2)).astype(int)
    side = np.where(ideal - C_NM / 2 * (slab + 0.5) > 0, 1, -1)
    flip = np.where(slab % 2 == 0, 1, -1) * side
    outward = lateral + np.where(flip > 0, 0.0, np.pi)
    image = 20.0 + 100.0 * contrast * signal * (1 + wedge * (t / np.ptp(t)))
    image += noise * 100.0 * rng.standard_normal(image.shape)
    return Scene(image, step_nm, names, slab, side, lateral, outward, edge, period_nm, {"s": s, "t": t})


def _planes(low, high):
    found = []
    for slab in range(int(low / C_NM * 2) - 3, int(high / C_NM * 2) + 4):
        middle = C_NM / 2 * (slab + 0.5)
        found.append(("gap", slab, 0, middle + C_NM / 4))
        for name, height in HEIGHTS.items():
            for side in (-1, 1) if height else (0,):
                found.append((name, slab, side, middle + side * height))
    return sorted((p for p in found if low <= p[3] <= high), key=lambda p: p[3])
