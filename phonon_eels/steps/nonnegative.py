"""Non-negative matrix factorisation of scaled spectra, row by row of the scan: memory does not grow with it.

Hierarchical alternating least squares (Cichocki and Phan 2009, doi:10.1587/transfun.E92.A.708): components and their
shares are improved in turn, each by exact coordinate steps. Values may be negative (dark-corrected counts), the
factors not. Starts from the principal components, so the result does not depend on chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

PASSES = 60
"""Most passes over the scan; fewer where the components no longer change."""
SETTLED = 1e-4
"""Relative change of the components in one pass at which they count as settled."""
SWEEPS = 30

ScaledRows = Callable[[Callable[[np.ndarray], Any]], Iterator[Any]]
"""Calls a function on every scaled row (columns, channels) of the scan and gives the results in order."""


def components(rows: ScaledRows, principal: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the non-negative components, (components, channels) of unit length, and the passes that it took.

    Parameters
    ----------
    rows
        The scan, in units of its noise.
    principal
        Principal components in columns, (channels, components).
    """
    spectra = _start(principal)
    for number in range(1, PASSES + 1):
        before, gram = spectra, spectra @ spectra.T

        def look(
            row: np.ndarray, spectra: np.ndarray = spectra, gram: np.ndarray = gram
        ) -> tuple[np.ndarray, np.ndarray]:
            shares = nonnegative_shares(row @ spectra.T, gram)
            return shares.T @ row, shares.T @ shares

        products, weights = np.zeros_like(spectra), np.zeros_like(gram)
        for product, weight in rows(look):
            products += product
            weights += weight
        spectra = nonnegative_shares(products.T, weights, spectra.T).T
        length = np.linalg.norm(spectra, axis=1, keepdims=True)
        # A component that has vanished starts anew where it was: it stays in the count that was chosen.
        spectra = np.where(length > 0.0, spectra / np.maximum(length, 1e-300), before)
        if np.linalg.norm(spectra - before) < SETTLED * np.linalg.norm(before):
            return spectra, number
    return spectra, PASSES


def nonnegative_shares(overlap: np.ndarray, gram: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Return the non-negative least-squares shares, (n, components), by coordinate descent.

    Parameters
    ----------
    overlap
        (n, components), data times components.
    gram
        (components, components), components times components.
    """
    shares = np.zeros_like(overlap) if start is None else np.array(start)
    for _ in range(SWEEPS):
        largest = 0.0
        for k in range(gram.shape[0]):
            step = (overlap[:, k] - shares @ gram[:, k]) / max(gram[k, k], 1e-300)
            new = np.maximum(shares[:, k] + step, 0.0)
            largest = max(largest, float(np.abs(new - shares[:, k]).max(initial=0.0)))
            shares[:, k] = new
        if largest <= 1e-10 * max(float(np.abs(shares).max(initial=0.0)), 1e-300):
            break
    return shares


def _start(principal: np.ndarray) -> np.ndarray:
    """The larger of the positive and the negative part of each principal component, on a floor so that none is stuck at 0."""
    positive, negative = np.maximum(principal, 0.0), np.maximum(-principal, 0.0)
    larger = np.where((positive**2).sum(axis=0) >= (negative**2).sum(axis=0), positive, negative).T
    larger = larger + 1e-3 * np.abs(principal).mean()
    return np.asarray(larger / np.linalg.norm(larger, axis=1, keepdims=True))
