"""Values and their standard deviations as they are printed."""

from __future__ import annotations

import pytest

from phonon_eels.rounding import plus_minus


@pytest.mark.parametrize(
    ("value", "std", "text"),
    [
        (78.0213, 0.0314, "78.021 ± 0.031 meV"), (78.0, 1.234, "78.0 ± 1.2 meV"), (900.0, 23.0, "900 ± 23 meV"),
        (2.0, 0.0999, "2.00 ± 0.10 meV"), (0.00143, 0.0069, "0.0014 ± 0.0069 meV"),
        (200254.0, 151.3, "(2.0025 ± 0.0015)·10⁵ meV"), (5.4e-7, 6.3e-6, "(0.5 ± 6.3)·10⁻⁶ meV"),
        (-2.0e6, 3.0e7, "(-0.2 ± 3.0)·10⁷ meV"), (0.0, 2.0e-6, "(0.0 ± 2.0)·10⁻⁶ meV"),
        (78.3, 2e-6, "78.3000000 ± 0.0000020 meV"), (78.3, 2e-5, "78.300000 ± 0.000020 meV"),
        (1.0, float("nan"), "1 meV (no std)"), (1e5, 5e-324, "1e+05 meV (no std)"), (float("nan"), 1.0, "–"), (None, None, "–"), (2.5, None, "2.5 meV"),
    ],
)  # fmt: skip
def test_numbers_carry_two_digits_of_their_std(value, std, text: str) -> None:
    assert plus_minus(value, std, "meV") == text
