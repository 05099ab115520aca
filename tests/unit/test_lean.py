"""Steps start without libraries that they do not use, and leave no trace of that."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from phonon_eels.backends.cuda.find import why_no_cuda
from phonon_eels.cli import main
from phonon_eels.cli.lean import UNUSED, without_unused_libraries
from phonon_eels.io.cubes import write_image
from phonon_eels.kernels.device import UNDER_SIMULATOR
from phonon_eels.steps.registry import REGISTRY, find_step
from tests.unit.fake_steps import small_image


def test_a_library_counts_as_missing_only_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    name = UNUSED[0]
    monkeypatch.delitem(sys.modules, name, raising=False)
    with (
        without_unused_libraries(reads_counts=True),
        pytest.raises(ModuleNotFoundError, match="import of sparse halted"),
    ):
        __import__(name)
    assert name not in sys.modules


def test_a_loaded_library_stays() -> None:
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in (*UNUSED, "dask")}
    with without_unused_libraries(reads_counts=False):
        assert all(sys.modules[name] is module for name, module in before.items())
    assert all(sys.modules[name] is module for name, module in before.items())


def test_reading_maps_needs_none_of_them(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from phonon_eels.cli.lean import UNUSED, without_unused_libraries
with without_unused_libraries(reads_counts=False):
    import xarray as xr
    from phonon_eels.io.results import read_maps, write_maps
    write_maps(xr.Dataset({{"status": ("row", [0, 1])}}), Path({str(tmp_path / "maps.nc")!r}))
    assert read_maps(Path({str(tmp_path / "maps.nc")!r}))["status"].values.tolist() == [0, 1]
loaded = [name for name in (*UNUSED, "dask", "scipy.stats", "hyperspy", "rsciio") if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_small_scan_needs_no_dask_arrays(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
import numpy as np
from phonon_eels.cli.lean import UNUSED, load_xarray_alone, without_dask, without_unused_libraries
from phonon_eels.io.cubes import read_image
folder = Path({str(tmp_path)!r})
with without_unused_libraries(reads_counts=True):
    load_xarray_alone()
    import xarray as xr
    image = read_image(folder, in_memory_bytes=1e6)
    assert type(image.counts) is np.ndarray and image.counts.sum() == 30.0
    with without_dask():
        xr.Dataset({{"status": ("row", [0, 1])}}).to_netcdf(folder / "maps.nc", engine="h5netcdf")
    loaded = [name for name in (*UNUSED, "dask") if name in sys.modules and sys.modules[name] is not None]
    assert not loaded, loaded
    large = read_image(folder, in_memory_bytes=100.0)
    assert type(large.counts).__module__.startswith("dask") and large.counts.sum().compute() == 30.0
"""
    write_image(small_image(), tmp_path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_steps_on_the_zero_loss_peak_load_no_optimisers() -> None:
    code = """
import sys
import phonon_eels.steps.align_zlp, phonon_eels.steps.remove_spikes
loaded = [name for name in ("scipy.optimize", "scipy.fft", "scipy.special", "scipy.stats", "dask", "hyperspy") if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_looks_for_garbage_while_libraries_load() -> None:
    code = """
import gc
from phonon_eels.cli.lean import load_libraries
began = []
gc.callbacks.append(lambda phase, info: began.append(info))
load_libraries("align_zlp")
assert not began, began
assert gc.isenabled() and gc.get_freeze_count() > 50_000
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_program_leaves_the_collector_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    before = gc.get_threshold()
    assert main(["schema"]) == 0
    assert capsys.readouterr().out.startswith("{")
    assert (gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()) == (before, True, 0)


def test_the_forward_route_loads_no_kernels_of_the_classic_one() -> None:
    code = """
import sys
import phonon_eels.steps.fit_peaks
loaded = [name for name in sys.modules if "component" in name and name.startswith("phonon_eels")]
loaded += [name for name in ("scipy.stats", "dask", "hyperspy") if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_settings_are_checked_without_reading_their_descriptions() -> None:
    code = """
import linecache
from phonon_eels.config import load_settings, json_schema
load_settings(overrides=["align_zlp.fit_half_width_fwhm=2"])
assert not linecache.cache, list(linecache.cache)
assert "description" in json_schema()
assert any(name.endswith("settings.py") for name in linecache.cache)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_numba_asks_for_no_device_where_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str) -> None:
        raise OSError(name)

    monkeypatch.delenv("NUMBA_CUDA_DRIVER", raising=False)
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.setattr("ctypes.CDLL", no_library)
    monkeypatch.setitem(sys.modules, "numba", None)
    assert why_no_cuda() == "no CUDA device with its driver was found"
    monkeypatch.setenv("NUMBA_CUDA_DRIVER", "/opt/libcuda.so")
    assert "numba-cuda is not installed" in str(why_no_cuda())


def test_which_steps_read_no_spectra() -> None:
    assert [entry.name for entry in REGISTRY if not entry.reads_counts] == ["map_superstructure", "report"]
    assert find_step("ingest").reads_counts


@pytest.mark.skipif(UNDER_SIMULATOR, reason="under the simulator nothing is compiled")
def test_a_compiled_kernel_loads_no_compiler() -> None:
    code = """
import sys
import numpy as np
from phonon_eels.kernels.linear import cholesky
matrix = np.array([[4.0, 2.0], [2.0, 5.0]])
cholesky(matrix, 2)
loaded = [name for name in ("numba.np.arraymath", "numba.np.npyimpl", "scipy.linalg") if name in sys.modules]
print(matrix[1].tolist(), loaded)
"""
    first, again = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert again == "[1.0, 2.0] []\n"
    assert first.startswith("[1.0, 2.0]")


@pytest.mark.skipif(UNDER_SIMULATOR, reason="under the simulator nothing is compiled")
def test_a_kernel_from_the_cache_goes_into_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "outer.py").write_text(
        "from phonon_eels.kernels.device import kernel\n"
        "from phonon_eels.kernels.linear import cholesky\n\n\n"
        "@kernel\n"
        "def factors(matrix, n):\n"
        "    return cholesky(matrix, n) + 1\n"
    )
    code = """
import sys
import numpy as np
from phonon_eels.kernels.linear import cholesky
from outer import factors
if sys.argv[1] == "alone":
    cholesky(np.eye(2), 2)
else:
    matrix = np.array([[4.0, 2.0], [2.0, 5.0]])
    print(factors(matrix, 2), matrix[1].tolist(), *(sum(k.stats.cache_hits.values()) for k in (cholesky, factors)))
"""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    _, first, again = (
        subprocess.run(
            [sys.executable, "-c", code, word], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for word in ("alone", "inside", "inside")
    )
    assert first == "1 [1.0, 2.0] 0 0\n"  # as a part, which a kernel called from Python does not leave behind
    assert again == "1 [1.0, 2.0] 0 1\n"


@pytest.mark.skipif(UNDER_SIMULATOR, reason="under the simulator nothing is compiled")
def test_a_stored_driver_allocates_without_the_compiler_of_arrays(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(
        "import numpy as np\n"
        "from phonon_eels.kernels.device import kernel\n\n\n"
        "@kernel\n"
        "def allocates(n):\n"
        "    scratch = np.empty((2, n))\n"
        "    scratch[:] = 3.0\n"
        "    return scratch.sum() ** 2\n"
    )
    code = """
import sys
from driver import allocates
print(allocates(2), "numba.np.arrayobj" in sys.modules)
try:
    allocates(-1)
except ValueError as problem:
    print(problem)
"""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    first, again = (
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert first == "144.0 True\nnegative dimensions not allowed\n"
    assert again == "144.0 False\nnegative dimensions not allowed\n"
