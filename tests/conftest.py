"""What every test needs. Kept light: the GPU machines run tests/parity with NumPy, SciPy, Numba and pytest alone."""

import os
from pathlib import Path

# Before anything imports NumPy: BLAS threads beside Numba's own oversubscribe the cores, and tests that compare
# times or bytes must not depend on how many there are.
for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
# No test opens a window.
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest  # noqa: E402 (after the environment is set)

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with measured files that are too large for the repository; the test is skipped where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("measured files are not here: this test wants them in ../shared/data (beside the repository)")
    return folder
