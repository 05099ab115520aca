"""The decorator of all kernels."""

import importlib
import os
import pkgutil
import subprocess
import sys

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from phonon_eels import backends, kernels
from phonon_eels.kernels import device
from phonon_eels.kernels.likelihood import dot
from phonon_eels.kernels.linear import cholesky

FOLDER = (
    "from phonon_eels.kernels import device; import numba; print(device._cache_by_sources(), numba.config.CACHE_DIR)"
)


def _python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    ).stdout.split()


@pytest.mark.skipif(device.UNDER_SIMULATOR, reason="under the simulator nothing is compiled")
def test_kernels_are_compiled_release_the_lock_and_divide_like_numpy():
    options = cholesky.targetoptions
    assert options["nogil"]
    assert options["error_model"] == "numpy"
    assert not options.get("parallel", False)


@pytest.mark.skipif(device.UNDER_SIMULATOR, reason="under the simulator nothing is compiled")
def test_no_kernel_starts_threads_or_keeps_the_lock():
    """Numba's own threads are not safe in Dask's (its workqueue layer crashes): blocks of rows are the one level of parallelism."""
    seen = 0
    for package in (kernels, backends):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".cuda" in found.name or ".workers" in found.name:
                continue
            module = importlib.import_module(found.name)
            for name, thing in vars(module).items():
                if isinstance(thing, Dispatcher):
                    seen += 1
                    assert thing.targetoptions["nogil"], f"{found.name}.{name}"
                    assert not thing.targetoptions.get("parallel", False), f"{found.name}.{name}"
    assert seen > 60


@pytest.mark.skipif(device.UNDER_SIMULATOR, reason="under the simulator nothing is compiled")
def test_only_reducing_kernels_may_reorder_sums():
    assert "reassoc" not in cholesky.targetoptions["fastmath"]
    assert "reassoc" in dot.targetoptions["fastmath"]
    # Neither may assume that there are no NaN: missing channels are NaN.
    assert {"nnan", "ninf", "fast"}.isdisjoint(dot.targetoptions["fastmath"])
    assert np.isnan(dot(np.array([1.0, np.nan]), np.array([1.0, 1.0])))


def _script(folder, code, *more):
    """Return the words that a file of kernels prints, compiled into a cache of its own."""
    script = folder / "kernels.py"
    script.write_text(code)
    return subprocess.run(
        [sys.executable, str(script), *more], capture_output=True, text=True, check=True,
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache")},
    ).stdout.split()  # fmt: skip


INNER_OUTER = """
import sys, numpy as np
from phonon_eels.kernels.device import kernel, inlined
@inlined(reducing=False)
def least(x):
    return x[0]
@kernel
def inner(x):
    for i in range(x.shape[0]):
        x[i] = least(x) + i
    return 0
@kernel
def outer(x):
    inner(x)
    return inner(x)
x = np.ones(3)
outer(x)
if len(sys.argv) > 1:
    outer(x.astype(np.float32)); inner(x)
count = lambda k: (len(k.overloads), len(k._part.overloads), sum(k.stats.cache_hits.values()), sum(k._part.stats.cache_hits.values()))
print(*x, *count(outer), *count(inner), *count(least))
"""


@pytest.mark.skipif(device.UNDER_SIMULATOR, reason="under the simulator nothing is compiled")
def test_kernels_within_others_are_no_routines_of_their_own_and_are_read_from_the_cache(tmp_path):
    """In a second process the whole comes from the cache, and parts for a caller of another type, too."""

    def run(*more):
        found = _script(tmp_path, INNER_OUTER, *more)
        return [float(value) for value in found[:3]], [int(value) for value in found[3:]]

    # Calls from Python, callers in kernels; the same from the cache: of the outer kernel, the inner, the inlined one.
    assert run() == ([1.0, 2.0, 3.0], [1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0])
    assert run() == ([1.0, 2.0, 3.0], [1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    assert run("more") == ([1.0, 2.0, 3.0], [2, 0, 1, 0, 1, 1, 0, 0, 0, 2, 0, 1])
    assert run("more") == ([1.0, 2.0, 3.0], [2, 0, 2, 0, 1, 0, 1, 0, 0, 0, 0, 0])


APART_AND_NOT = """
import re, numpy as np
from phonon_eels.kernels.device import apart, kernel
@kernel
def within(x):
    for i in range(x.shape[0]):
        x[i] += 1.0
    return 0
@apart
def beside(x):
    for i in range(x.shape[0]):
        x[i] *= 2.0
    return 0
@kernel
def outer(x):
    within(x)
    return beside(x)
x = np.ones(3)
outer(x)
(code,) = outer.inspect_asm().values()
print(x.sum(), *("yes" if re.search(f"^_Z.*{name}.*:$", code, re.M) else "no" for name in ("within", "beside")))
print(*("yes" if re.search(f"[.]globl[ \t]+_Z.*{name}", code) else "no" for name in ("within", "beside", "outer")))
"""


@pytest.mark.skipif(device.UNDER_SIMULATOR, reason="under the simulator nothing is compiled")
def test_parts_are_known_to_the_whole_alone_and_stay_apart_where_told(tmp_path):
    """LLVM changes what is handed to a routine only if nobody else can call it."""
    assert _script(tmp_path, APART_AND_NOT) == ["12.0", "no", "yes", "no", "no", "yes"]


def test_compiled_code_is_kept_by_the_sources_of_all_kernels(tmp_path):
    home = {"XDG_CACHE_HOME": str(tmp_path), "NUMBA_CACHE_DIR": ""}
    folder, used = _python(FOLDER, **home)
    assert folder == used
    assert folder.startswith(str(tmp_path / "phonon_eels" / "kernels-"))
    assert _python(FOLDER, **home)[0] == folder


def test_folder_the_user_has_chosen_is_left_alone(tmp_path):
    assert _python(FOLDER, NUMBA_CACHE_DIR=str(tmp_path)) == ["None", str(tmp_path)]


def test_under_the_simulator_kernels_stay_plain_python():
    kind = "from phonon_eels.kernels.linear import cholesky; from phonon_eels.kernels.likelihood import dot; "
    kind += "print(type(cholesky).__name__, type(dot).__name__)"
    assert _python(kind, NUMBA_ENABLE_CUDASIM="1") == ["function", "function"]
