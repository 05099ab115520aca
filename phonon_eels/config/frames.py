"""Settings of the step that adds frames."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from phonon_eels.config.base import Fraction, Frozen, Positive


class RegisterFrames(Frozen):
    """Measure scan drift on the HAADF of each frame and add the frames with integer shifts (fast path)."""

    enabled: bool = True
    upsample_factor: int = Field(default=20, ge=1, le=1000)
    """Drift is measured to 1/upsample_factor of a position."""
    split: Literal["all", "odd", "even", "first", "last"] = "all"
    """Which frames to add: all, every second (odd: the first, third, …), or one half of them. Positions and channels are those of all frames."""
    halves: Literal["both", "odd_even", "first_last", "none"] = "both"
    """Sums of half the frames each that are kept beside the sum: the report says how well energies repeat, and whether a modulation
    stands in odd and even frames, and in the first and the last half of the dose."""
    max_step_fraction: Fraction = 0.5
    """Largest jump between frames, as a fraction of the lattice period seen in the HAADF; larger ones are taken as period jumps and corrected."""
    largest_step_nm: Positive = 0.11
    """Scans with a wider step see the columns of atoms too coarsely for a registration that could be trusted: their frames are added
    in place. A larger value takes the word of the HAADF nevertheless."""
    reject_poor_frames: bool = True
    """Leave out frames of poor quality: counts, likeness to the others, sharpness of the HAADF or drift within the frame. A frame counts
    whole or not at all, because weights between would make of the counts what no counting law describes."""
    rejection_sigma: Positive = 5.0
    """How far from the median of all frames a frame is poor, in robust standard deviations of the frames."""
    align_energy: bool = True
    """Bring the zero-loss peak of each frame and position to the same channel (integer shift, noise untouched) before adding."""
    fast_path: bool = False
    """Let fits take the sum for one frame, twice as fast; what the added blur does then goes into the zero-loss width."""
