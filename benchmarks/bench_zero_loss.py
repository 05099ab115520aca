"""Zero-loss centres against eXSpy's sub-channel alignment: the same spectra, in one run.

Run: python benchmarks/bench_zero_loss.py [--quick]

512 channels of 0.5 meV, a split Pearson VII of 8 meV whose centre wanders by 0.4 meV and whose width by 2 %. Prints spectra per
second of the fast estimate, of maximum likelihood and of eXSpy's `align_zero_loss_peak`, and for several peak counts
what is left of the wandering after alignment (rms, in channels), beside the Cramér-Rao bound with height, centre, width and
both tails free. The programs take turns; the best turn of each counts. Rates are of the estimates alone: search and shape
of the scan are found once before (their time is printed too), resampling comes after.

eXSpy cuts a window of ± 3 units of the axis out for its correlation: ± 3 eV where the axis is in eV (all of this spectrum), ± 3 meV,
less than the width of the peak, where it is in meV as vibrational data have it. Both are printed; the rate is that in eV.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from importlib.metadata import version

import numpy as np

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.forward.zero_loss import (
    estimate_shape,
    fit_zero_loss,
    refined_shape,
    score_zero_loss,
    search_peaks,
)
from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.spectrum_image import EnergyAxis, NoiseModel, ScanAxis, SpectrumImage

AXIS = EnergyAxis(-64.0, 0.5, 512)
FWHM, TAIL_LOSS, TAIL_GAIN, HALF_WIDTH_FWHM = 8.0, 1.6, 1.9, 1.5


def peaks(height: float, center: np.ndarray, log_width: np.ndarray, loss: float = 0.0, gain: float = 0.0) -> np.ndarray:
    """Return expected electrons, averaged over channels, (…, channels)."""
    total = np.zeros((*center.shape, AXIS.n_channels))
    for place in (np.arange(8) + 0.5) / 8 - 0.5:
        x = AXIS.energies_mev + AXIS.dispersion_mev * place - center[..., None]
        stretched = x * np.exp(-log_width[..., None])
        total += split_pearson7(stretched, FWHM, TAIL_LOSS * np.exp(loss), TAIL_GAIN * np.exp(gain)) / 8
    return height * total


def simulate(height: float, rows: int, columns: int) -> tuple[SpectrumImage, np.ndarray, np.ndarray]:
    """Return a scan, its true centres, and its spectra without noise."""
    rng = np.random.default_rng([7, int(height)])
    center, log_width = 0.4 * rng.normal(size=(rows, columns)), 0.02 * rng.normal(size=(rows, columns))
    mean = peaks(height, center, log_width)
    scan = (ScanAxis("row", 0.1, rows), ScanAxis("column", 0.1, columns))
    return SpectrumImage(rng.poisson(mean).astype(float), AXIS, scan, NoiseModel()), center, mean


def bound_mev(height: float) -> float:
    """Return the Cramér-Rao bound of the centre, everything else free, in the window of the fit."""
    inside = np.abs(AXIS.energies_mev) <= HALF_WIDTH_FWHM * FWHM + 0.1
    zero = np.zeros(())

    def model(parameters: np.ndarray) -> np.ndarray:
        log_height, center, width, loss, gain = parameters
        return peaks(height * np.exp(log_height), zero + center, zero + width, loss, gain)[inside]

    steps = np.diag([1e-4, 1e-3, 1e-4, 1e-3, 1e-3])
    jacobian = np.array([(model(s) - model(-s)) / (2.0 * s.sum()) for s in steps])
    return float(np.sqrt(np.linalg.inv((jacobian / model(np.zeros(5))) @ jacobian.T)[1, 1]))


def exspy_residual(image: SpectrumImage, mean: np.ndarray, unit: str) -> tuple[float, float]:
    """Align by eXSpy on an axis in eV or meV; return what is left of the wandering (rms, meV) and the seconds it took.

    What is left is measured on the spectra without noise, moved along with the noisy ones: no noise of ours enters.
    """
    from exspy.signals import EELSSpectrum

    def on_axis(counts: np.ndarray) -> EELSSpectrum:
        signal = EELSSpectrum(np.array(counts))
        axis, size = signal.axes_manager[-1], {"eV": 1e3, "meV": 1.0}[unit]
        axis.scale, axis.offset, axis.units = AXIS.dispersion_mev / size, AXIS.offset_mev / size, unit
        return signal

    signal, clean = on_axis(image.counts), on_axis(mean)
    began = time.perf_counter()
    signal.align_zero_loss_peak(subpixel=True, print_stats=False, show_progressbar=False)
    seconds = time.perf_counter() - began
    signal = on_axis(image.counts)
    signal.align_zero_loss_peak(subpixel=True, print_stats=False, show_progressbar=False, also_align=[clean])
    moved = np.asarray(clean.data)
    energies = {"eV": 1e3, "meV": 1.0}[unit] * clean.axes_manager[-1].axis
    near = np.abs(energies - energies[moved[0, 0].argmax()]) < 1.5 * FWHM
    centroid = (moved[..., near] * energies[near]).sum(-1) / moved[..., near].sum(-1)
    return float(centroid.std()), seconds


def main() -> None:
    """Time all three and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer spectra and turns")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows, columns, turns = (30, 50, 2) if quick else (100, 100, 4)
    backend, window = CpuBackend(), slice(0, AXIS.n_channels)
    print(f"numba {version('numba')}, eXSpy {version('exspy')}; {backend.threads} threads, {AXIS.n_channels} channels")
    for height in (1e2, 1e3, 1e4, 1e5, 1e6):
        image, center, mean = simulate(height, rows, columns)
        began = time.perf_counter()
        search = search_peaks(image, window, backend)
        guess = estimate_shape(image, search, backend)
        few = SpectrumImage(image.counts[:8], AXIS, (ScanAxis("row", 0.1, 8), image.scan[1]), image.noise)
        shape = refined_shape(few, search_peaks(few, window, backend), guess, HALF_WIDTH_FWHM, False, backend)
        preparation = time.perf_counter() - began
        seconds: dict[str, list[float]] = {"fast": [], "ml": [], "exspy": []}
        for _ in range(turns if height == 1e4 else 1):
            began = time.perf_counter()
            fast = score_zero_loss(image, window, shape, height, HALF_WIDTH_FWHM, backend)
            seconds["fast"].append(time.perf_counter() - began)
            began = time.perf_counter()
            _, alignment, fit = fit_zero_loss(image, search, guess, HALF_WIDTH_FWHM, False, backend)
            seconds["ml"].append(time.perf_counter() - began)
            theirs, took = exspy_residual(image, mean, "eV")
            seconds["exspy"].append(took)
        left = {
            "fast": AXIS.offset_mev + fast.params[..., 1] - center,
            "maximum likelihood": AXIS.offset_mev + 0.5 * alignment.channel + fit.params[..., 1] - center,
        }
        narrow, _ = exspy_residual(image, mean, "meV")
        bound, step = bound_mev(height), AXIS.dispersion_mev
        words = ", ".join(
            f"{name} {value.std() / step:.4f} ({value.std() / bound:.2f} of the bound)" for name, value in left.items()
        )
        print(
            f"peak {height:.0e}: rms left, channels: {words}, eXSpy {theirs / step:.3f} on an axis in eV, {narrow / step:.3f} in meV"
        )
        ours = left["maximum likelihood"].std()
        print(
            f"  eXSpy leaves {theirs / ours:.0f} times as much as maximum likelihood (eV), {narrow / ours:.0f} times (meV)"
        )
        if height == 1e4:
            rate = {name: image.shape[0] * image.shape[1] / min(times) for name, times in seconds.items()}
            print(
                f"  spectra/s: fast {rate['fast']:.0f} ({rate['fast'] / rate['exspy']:.0f} x eXSpy), maximum likelihood "
                f"{rate['ml']:.0f} ({rate['ml'] / rate['exspy']:.0f} x), eXSpy {rate['exspy']:.0f}; search and shape once: "
                f"{1e3 * preparation:.0f} ms"
            )


if __name__ == "__main__":
    main()
