"""Richardson-Lucy against eXSpy: the same spectra, response and iterations, in one run.

Run: python benchmarks/bench_richardson_lucy.py [--quick]

512 channels, a response of 101 channels, 15 iterations. Prints the time per spectrum of both (ours on all cores, eXSpy as it
is, in as many threads as it takes), by the clock and of processors, their ratio, and the largest relative difference of the
results away from the edges, where the two differ by intent.
The programs take turns, and the best turn of each counts, so that other work on the machine hits both alike.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version

import numpy as np

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.backends.deconvolve import richardson_lucy_block
from phonon_eels.kernels.deconvolve import Response, make_response
from phonon_eels.kernels.lineshapes import split_pearson7

N_CHANNELS, PSF_HALF, ITERATIONS, INTERIOR = 512, 50, 15, slice(128, 384)


def simulate(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (spectra, channels) and the response."""
    channels = np.arange(N_CHANNELS)
    psf = split_pearson7(np.arange(-PSF_HALF, PSF_HALF + 1), 12.0, 1.6, 2.0)
    lines = sum(np.exp(-0.5 * ((channels - place) / 6.0) ** 2) for place in (180.0, 230.0, 300.0))
    mean = 40.0 + 2000.0 * np.convolve(lines, psf / psf.sum(), mode="same")
    return np.random.default_rng(1).poisson(np.broadcast_to(mean, (n, N_CHANNELS))).astype(float), psf


def ours(spectra: np.ndarray, response: Response, backend: CpuBackend, *, accelerate: bool = False) -> np.ndarray:
    """Deconvolve by the package, in all threads."""

    def block(_: int, rows: np.ndarray) -> np.ndarray:
        return richardson_lucy_block(rows, response, ITERATIONS, accelerate=accelerate)[0]

    return np.concatenate(backend.map_rows(block, [spectra]))


def theirs(spectra: np.ndarray, psf: np.ndarray) -> np.ndarray:
    """Deconvolve by eXSpy, whose response must be as long as the spectrum."""
    from exspy.signals import EELSSpectrum

    padded = np.zeros(N_CHANNELS)
    middle = N_CHANNELS // 2
    padded[middle - PSF_HALF : middle + PSF_HALF + 1] = psf
    signal = EELSSpectrum(spectra)
    result = signal.richardson_lucy_deconvolution(EELSSpectrum(padded), iterations=ITERATIONS, show_progressbar=False)
    return np.asarray(result.data)


def timed(call: Callable[[], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the result and the time it took, by the clock and of all processors."""
    began = np.array([time.perf_counter(), time.process_time()])
    result = call()
    return result, np.array([time.perf_counter(), time.process_time()]) - began


def main() -> None:
    """Time both and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer spectra and turns")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    n_ours, n_theirs, turns = (1000, 60, 3) if quick else (8000, 300, 7)
    spectra, psf = simulate(n_ours)
    response, backend = make_response(psf, PSF_HALF, N_CHANNELS), CpuBackend()
    ours(spectra[:8], response, backend)  # compiles
    own, other = [], []
    for _ in range(turns):
        result, spent = timed(lambda: ours(spectra, response, backend))
        own.append(spent / n_ours)
        reference, spent = timed(lambda: theirs(spectra[:n_theirs], psf))
        other.append(spent / n_theirs)
    difference = np.abs(result[:n_theirs, INTERIOR] / reference[:, INTERIOR] - 1.0).max()
    print(f"numba {version('numba')}, eXSpy {version('exspy')}; {N_CHANNELS} channels, response {psf.size}")
    ratios = np.array(other) / np.array(own)
    for k, clock in enumerate(("by the clock, both on all cores", "of processor time")):
        mine, peer = min(t[k] for t in own), min(t[k] for t in other)
        turn_by_turn = f"turn by turn {ratios[:, k].min():.0f} to {ratios[:, k].max():.0f}"
        print(
            f"{clock}: phonon_eels {1e6 * mine:.1f} us a spectrum, eXSpy {1e6 * peer:.0f}; ratio {peer / mine:.1f} ({turn_by_turn})"
        )
    print(f"{backend.threads} cores against one of eXSpy's: {backend.threads * peer / mine:.0f} times")
    print(f"largest relative difference in the interior: {difference:.1e}")


if __name__ == "__main__":
    main()
