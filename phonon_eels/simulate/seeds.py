"""Random numbers that depend on the seed and on what they are for, never on the order of the work."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What random numbers are for. Numbers are never reused, so that old seeds keep their meaning."""

    SCAN = 1
    ENERGY = 2
    ZERO_LOSS_WIDTH = 3
    ZERO_LOSS_TAILS = 4
    HAADF = 5
    FIXED_PATTERN = 6
    DETECTOR = 7
    SPIKES = 8


def generator(seed: int, stream: Stream, *block: int) -> np.random.Generator:
    """Return the generator of one stream and block, for example one row of one frame."""
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(int(stream), *block)))
