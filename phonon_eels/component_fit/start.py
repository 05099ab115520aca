"""Where every position starts: the mean spectrum, fitted from several starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phonon_eels.backends.components import evaluate_spectrum
from phonon_eels.component_fit.model import WIDTHS, ComponentModel
from phonon_eels.errors import DataError

START_SEED = 20240611
"""The starts are the same for every scan and every position."""


@dataclass(frozen=True)
class SharedStart:
    """The fit of the mean spectrum and the one Gauss-Newton step that all positions share.

    Attributes
    ----------
    params
        (parameters,).
    mean
        Model of the mean spectrum, (filled channels,).
    projection
        (rows, channels up to a multiple of 16), float32 so that it stays in the nearest cache, times the residuals of a
        spectrum: its Gauss-Newton step (parameters up to a multiple of 4), then one sum per pair of parameters, what is left of
        the residuals times the model's second derivative; rows up to a multiple of 8.
    pairs
        (pairs, 5) parameters with a second derivative between them, the amplitude both are scaled by, or -1, and which of the
        free parameters they are.
    series
        (rows and two more, parameters up to a multiple of 8): what a product of two steps adds to the step (pairs), the inverse of
        the normal matrix (parameters), the weight of each parameter in a norm, and the
        inverse root of the Fisher matrix's diagonal.
    """

    params: np.ndarray
    mean: np.ndarray
    projection: np.ndarray
    pairs: np.ndarray
    series: np.ndarray


def no_start(n_params: int) -> SharedStart:
    """Return what stands for a shared start where each position has its own."""
    return SharedStart(
        np.empty(n_params), np.empty(0), np.empty((0, 0), np.float32), np.empty((0, 5), np.int64), np.empty((0, 0))
    )


def evaluate_model(model: ComponentModel, params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the model (filled channels,) and its derivatives (parameters, filled channels)."""
    axis = model.axis
    rows, value = np.zeros((params.size, axis.shape[1])), np.empty(axis.shape[1])
    evaluate_spectrum(
        model.table, model.owner, model.affine, axis, model.channel_mev, np.array(params, dtype=float), rows, value
    )
    return value, rows


def jittered_starts(model: ComponentModel, params: np.ndarray, n_starts: int) -> np.ndarray:
    """Return starts around one, itself first: centres moved by part of the width, widths and rates by a factor; none that is fixed."""
    random = np.random.default_rng(START_SEED)
    low, high = model.bounds[:2]
    starts = np.tile(params, (n_starts, 1))
    fixed = model.owner == -1
    for k in range(1, n_starts):
        for _, first, count in model.table:
            for p in range(first, first + count):
                word = model.names[p].rpartition(".")[2]
                draw = random.uniform(-1.0, 1.0)
                if word == "centre":
                    starts[k, p] += 0.5 * draw * params[first + 2]
                elif word in WIDTHS or word in ("rate", "rate_2", "exponent"):
                    starts[k, p] *= 2.0**draw
                elif word == "fraction":
                    starts[k, p] = 0.5 + 0.45 * draw
    starts[:, fixed] = params[fixed]
    return np.clip(starts, low, high)


def fit_mean(model: ComponentModel, spectrum: np.ndarray, variance: np.ndarray, n_starts: int = 6) -> np.ndarray:
    """Fit one spectrum by SciPy's bounded least squares from several starts; return the best parameters.

    Parameters
    ----------
    spectrum, variance
        (channels,); channels that are not finite are left out.

    Raises
    ------
    DataError
        If no channel is usable, or no start leads anywhere.
    """
    from scipy.optimize import least_squares

    n = model.energies_mev.size
    good = np.isfinite(spectrum) & np.isfinite(variance) & (variance > 0.0)
    free = model.free
    if good.sum() <= free.size:
        raise DataError(
            f"the mean spectrum has {good.sum()} usable channels for {free.size} free parameters; widen the window"
        )
    root = 1.0 / np.sqrt(variance[good])
    low, high = model.bounds[:2, free]
    best: tuple[float, np.ndarray] | None = None
    for start in jittered_starts(model, _guess(model, spectrum, good), n_starts):
        base = model.with_tied(_linear(model, start, spectrum, good, root))
        size = np.maximum(np.abs(base[free]), 1e-3 * np.maximum(np.nanmax(np.abs(spectrum[good])), 1e-12))

        def residual(theta: np.ndarray, base: np.ndarray = base) -> np.ndarray:
            params = base.copy()
            params[free] = theta
            return np.asarray(
                np.nan_to_num((evaluate_model(model, params)[0][:n][good] - spectrum[good]) * root, nan=1e12)
            )

        def slopes(theta: np.ndarray, base: np.ndarray = base) -> np.ndarray:
            params = base.copy()
            params[free] = theta
            return np.asarray(np.nan_to_num((evaluate_model(model, params)[1][free, :n][:, good] * root).T))

        margin = np.where(np.isfinite(high - low), 1e-9 * (high - low), 1e-9)  # SciPy starts strictly inside
        inside = np.clip(base[free], low + margin, high - margin)
        found = least_squares(residual, inside, slopes, bounds=(low, high), x_scale=size, max_nfev=300)
        if np.isfinite(found.cost) and (best is None or found.cost < best[0] * (1.0 - 1e-6)):
            base[free] = found.x
            best = (float(found.cost), model.with_tied(base))
    if best is None:
        raise DataError(
            "the mean spectrum could not be fitted from any start; look at the components' starts and bounds"
        )
    return best[1]


def _guess(model: ComponentModel, spectrum: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Fill the starts that the data must tell, amplitudes apart."""
    params = model.start.copy()
    span = model.energies_mev[-1] - model.energies_mev[0]
    level = float(np.log(max(np.median(spectrum[good]), 1e-12)))
    for _, first, count in model.table:
        for p in range(first, first + count):
            if np.isfinite(params[p]):
                continue
            word = model.names[p].rpartition(".")[2]
            guess = {"rate": 2.0 / span, "rate_2": 8.0 / span}.get(word, 0.0)
            params[p] = level if model.amplitude[p, 0] == 2 else (1.0 if model.amplitude[p, 0] == 1 else guess)
    return np.clip(model.with_tied(params), *model.bounds[:2])


def _linear(
    model: ComponentModel, params: np.ndarray, spectrum: np.ndarray, good: np.ndarray, root: np.ndarray
) -> np.ndarray:
    """Set areas and amplitudes that have no start by bounded linear least squares."""
    from scipy.optimize import lsq_linear

    n = model.energies_mev.size
    free = model.free
    linear = free[(model.amplitude[free, 0] == 1) & ~np.isfinite(model.start[free])]
    if linear.size == 0:
        return params
    zero = params.copy()
    zero[linear] = 0.0
    ones = params.copy()
    ones[linear] = 1.0
    rest = spectrum[good] - evaluate_model(model, zero)[0][:n][good]
    rows = evaluate_model(model, ones)[1][linear, :n][:, good]
    low, high = model.bounds[:2, linear]
    out = params.copy()
    out[linear] = lsq_linear((rows * root).T, rest * root, bounds=(low, high)).x
    return out


def shared_start(model: ComponentModel, params: np.ndarray, variance: np.ndarray) -> SharedStart:
    """Prepare the first two orders of the optimum around the fit of the mean spectrum.

    Parameters
    ----------
    variance
        (channels,) of one position of mean strength.
    """
    value, rows = evaluate_model(model, params)
    n, free = model.energies_mev.size, model.free
    usable = np.isfinite(variance) & (variance > 0.0)
    weight = np.zeros(value.size)
    weight[:n][usable] = 1.0 / variance[usable]
    mean = np.where(weight > 0.0, value, 0.0)
    jacobian = np.where(weight > 0.0, rows[free], 0.0)
    scale = np.sqrt(np.einsum("pi,i,pi->p", jacobian, weight, jacobian))
    scale[~(scale > 0.0)] = np.inf
    unit = jacobian / scale[:, None]
    inverse = np.linalg.pinv((unit * weight) @ unit.T, rcond=1e-10)
    step = inverse @ (unit * weight) / scale[:, None]
    pairs, curves = _second_derivatives(model, params, rows, weight)
    filled = params.size + (-params.size) % 4
    n_pairs = len(pairs) + (-len(pairs) - filled) % 8
    projection = np.zeros((filled + n_pairs, value.size))
    projection[free] = step
    projection[filled : filled + len(pairs)] = curves * weight - ((curves * weight) @ jacobian.T) @ step
    series = np.zeros((n_pairs + filled + 2, filled + (-filled) % 8))
    half = np.where(pairs[:, 0] == pairs[:, 1], 0.5, 1.0)
    series[: len(pairs), free] = -half[:, None] * (curves @ step.T)
    series[n_pairs + free[:, None], free] = inverse / np.outer(scale, scale)
    spread = np.diag(series[n_pairs : n_pairs + filled])
    series[-2, :filled] = np.divide(1.0, spread, out=np.zeros(filled), where=spread > 0.0)
    series[-1, free] = 1.0 / scale
    filling = ((0, 0), (0, -value.size % 16))
    return SharedStart(params, mean, np.pad(projection, filling).astype(np.float32), pairs, series)


def _second_derivatives(
    model: ComponentModel, params: np.ndarray, rows: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of parameters, amplitudes apart, and the model's second derivative to each, (pairs, filled channels).

    One-sided differences of the derivatives: their error only moves a start.
    """
    shape = [p for p in model.free if model.amplitude[p, 0] == 0]
    size = {p: 1e-5 * max(abs(params[p]), 1e-3) for p in shape}
    moved = {p: evaluate_model(model, params + size[p] * np.eye(params.size)[p])[1] for p in shape}
    place = {p: k for k, p in enumerate(model.free)}
    pairs, curves = [], []
    for k, a in enumerate(shape):
        for b in shape[k:]:
            curve = np.where(weight > 0.0, (moved[a][b] - rows[b]) / size[a], 0.0)
            if not np.isfinite(curve).all() or np.abs(curve).max() <= 1e-6 * np.abs(rows[b]).max() / max(
                abs(params[a]), 1e-3
            ):
                continue
            owner = model.amplitude[a, 1] if model.amplitude[a, 1] == model.amplitude[b, 1] else -1
            scaled_by = owner if owner >= 0 and model.amplitude[owner, 0] == 1 else -1
            pairs.append((a, b, scaled_by, place[a], place[b]))
            curves.append(curve)
    return np.array(pairs, np.int64).reshape(-1, 5), np.array(curves).reshape(-1, weight.size)


def scaled_start(model: ComponentModel, params: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Return the start scaled to each position's counts, (positions, parameters)."""
    out = np.tile(params, (ratio.size, 1))
    out[:, model.amplitude[:, 0] == 1] *= ratio[:, None]
    out[:, model.amplitude[:, 0] == 2] += np.log(ratio)[:, None]
    return np.asarray(np.clip(out, *model.bounds[:2]))
