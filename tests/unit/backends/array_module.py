"""A stand-in for CuPy without a GPU: numpy behind arrays that are not numpy's, so that whatever CuPy would refuse is refused.

Arrays of the host are refused wherever an array of the device is meant, names and arguments that CuPy does not have are refused
where CuPy is installed to be asked (it can be imported without a GPU), and every array that crosses is counted.
"""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

import numpy as np
import scipy.fft

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.backends.cuda.device_memory import call_whole


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that numpy cannot read."""

    __hash__ = None

    def __init__(self, held: np.ndarray) -> None:
        self._held = np.asarray(held)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("an array of the device was handed to numpy without being brought back")

    def __array_function__(self, function: Any, *_: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} was called on an array of the device; use xp")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **words: Any) -> Any:
        assert method == "__call__"
        assert not words
        return wrapped(ufunc(*[unwrapped(value) for value in inputs]))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        theirs = _theirs("cupy", "ndarray")
        assert theirs is None or hasattr(theirs, name), f"cupy.ndarray has no {name}"
        found = getattr(self._held, name)
        if not callable(found):
            return wrapped(found) if isinstance(found, np.ndarray) else found
        return lambda *args, **words: wrapped(found(*unwrapped(args), **{k: unwrapped(v) for k, v in words.items()}))

    def __getitem__(self, key: Any) -> Any:
        return wrapped(self._held[unwrapped(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._held[unwrapped(key)] = unwrapped(value)

    def __len__(self) -> int:
        return len(self._held)


def wrapped(value: Any) -> Any:
    """Return what a function gave as arrays of the device; reductions stay there too, as CuPy's do."""
    if isinstance(value, tuple):  # also the named ones of linalg
        return tuple(wrapped(part) for part in value)
    return DeviceArray(value) if isinstance(value, np.ndarray | np.generic) else value


def unwrapped(value: Any) -> Any:
    """Return what is given to a function as numpy has it; arrays of the host are refused."""
    if isinstance(value, DeviceArray):
        return value._held
    if isinstance(value, tuple | list):
        return type(value)(unwrapped(part) for part in value)
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>: an array of the host among those of the device")
    return value


def _theirs(module: str, name: str) -> Any:
    """Return what CuPy has under a name, None where CuPy is not installed."""
    try:
        place = importlib.import_module(module)
    except ImportError:
        return None
    assert hasattr(place, name), f"{module} has no {name}"
    return getattr(place, name)


class Module:
    """A module of numpy or scipy, with the arrays and the names of CuPy's."""

    def __init__(self, ours: ModuleType, theirs: str) -> None:
        self._ours, self._name = ours, theirs
        self.crossed = {"in": 0, "out": 0}

    def asarray(self, array: np.ndarray) -> DeviceArray:
        """Bring an array to the device."""
        assert type(array) is np.ndarray
        self.crossed["in"] += 1
        return DeviceArray(array.copy())

    def asnumpy(self, array: DeviceArray) -> np.ndarray:
        """Bring an array back."""
        assert isinstance(array, DeviceArray), "what a function returns is no array of the device"
        self.crossed["out"] += 1
        return array._held.copy()

    def __getattr__(self, name: str) -> Any:
        ours, theirs = getattr(self._ours, name), _theirs(self._name, name)
        if isinstance(ours, ModuleType):
            return Module(ours, f"{self._name}.{name}")
        if not callable(ours):
            return ours

        def call(*args: Any, **words: Any) -> Any:
            try:
                accepted = inspect.signature(theirs)
            except (TypeError, ValueError):  # not installed, or of C
                pass
            else:
                accepted.bind(*args, **words)
            return wrapped(ours(*unwrapped(args), **{key: unwrapped(value) for key, value in words.items()}))

        return call


class FakeDevice(CpuBackend):
    """The processor, but whole-array work goes the way that it goes to a GPU."""

    def __init__(self, threads: int = 1, free_bytes: float = 1e12) -> None:
        super().__init__(threads)
        self.array_module = Module(np, "cupy")
        self.free_bytes = free_bytes
        self.called: list[str] = []

    @property
    def xp(self) -> Any:
        return self.array_module

    @property
    def fft(self) -> Any:
        return Module(scipy.fft, "cupyx.scipy.fft")

    def whole_array(self, function: Any, *arrays: Any, shared: Any = (), row_bytes: float | None = None) -> Any:
        self.called.append(function.__name__)
        return call_whole(self, function, arrays, tuple(shared), row_bytes, self.free_bytes)
