"""Devices by name."""

import logging

import pytest

from phonon_eels.backends.select import select_backend
from phonon_eels.errors import DeviceError


def test_cpu_with_a_number_of_threads():
    backend = select_backend("cpu", 3)
    assert (backend.name, backend.threads) == ("cpu", 3)
    assert select_backend("cpu").threads >= 1


def test_auto_says_what_it_chose(caplog):
    with caplog.at_level(logging.INFO, logger="phonon_eels.backends.select"):
        select_backend("auto")
    assert "cpu" in caplog.text or "cuda" in caplog.text


def test_cuda_is_never_replaced_silently(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(DeviceError, match=r"device = cuda: .*use --device cpu"):
        select_backend("cuda")
