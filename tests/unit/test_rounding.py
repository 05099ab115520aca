"""Values and their standard deviations as they are printed."""

from __future__ import annotations

import pytest

from phonon_eels.rounding import plus_minus


@pytest.mark.parametrize(
    ("value", "std", "text"),
    [
        (78.0213, 0.0314, "78.021 ± 0.031 meV"), (78.0, 1.234, "78.0 ± 1.2 meV"), (900.0, 23.0, "900 ± 23 meV"),
        (2.0, 0.0999, "2.00 ± 0.10 meV"), (0.00143, 0.0069, "0.0014 ± 0.0069 meV"),
        (1.0, float("nan"), "1 meV (no std)"), (float("nan"), 1.0, "–"), (None, None, "–"), (2.5, None, "2.5 meV"),
    ],
)  # fmt: skip
def test_numbers_carry_two_digits_of_their_std(value, std, text: str) -> None:
    assert plus_minus(value, std, "meV") == text
