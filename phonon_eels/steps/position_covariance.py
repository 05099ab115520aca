"""What the covariance of each position's fit adds to the maps of `fit_peaks` on the forward route."""

from __future__ import annotations

import numpy as np

from phonon_eels.backends.base import Backend
from phonon_eels.config import Material
from phonon_eels.forward.covariance import PositionCovariance, fit_covariance, mode_parameters
from phonon_eels.forward.model import ForwardModel
from phonon_eels.forward.scan import Alignment, ScanFit
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.spectrum_image import SpectrumImage
from phonon_eels.steps.covariance_maps import CovarianceMaps, Told, empty_covariance
from phonon_eels.steps.pair_maps import PairMaps, pair_maps, pairs_in
from phonon_eels.steps.peak_maps import Values


def local_parameters(model: ForwardModel) -> list[tuple[int, str, str]]:
    """Return number, name and unit of the parameters of zero-loss peak and background that are fitted."""
    shape = [
        ("zlp_height_e", "electrons/channel"),
        ("zlp_center_mev", "meV"),
        ("zlp_log_width", "1"),
        ("zlp_log_tail_loss", "1"),
        ("zlp_log_tail_gain", "1"),
        ("background_e", "electrons/channel"),
    ]
    if model.background.nonlinear:
        shape += [("background_slope", "1"), ("background_bend", "1")]
    else:
        shape += [("background_ramp_e", "electrons/channel/100 meV"), ("", "")]
    return [(k, *shape[k]) for k in np.flatnonzero(model.free_local).tolist()]


def position_covariance(
    image: SpectrumImage,
    model: ForwardModel,
    alignment: Alignment,
    fit: ScanFit,
    material: Material,
    good: np.ndarray,
    label: np.ndarray,
    prior_std_mev: np.ndarray,
    backend: Backend,
    *,
    whole: bool,
) -> Told:
    """Return the maps, from one more look at every spectrum (two if `whole`).

    Parameters
    ----------
    fit
        The fit with free energies.
    good
        Where it converged, (rows, columns).
    label
        (modes, rows, columns) what can be told of each mode, numbers of `peak_maps.IDENTIFIABILITY`.
    prior_std_mev
        (modes,) prior deviations that the energies had in the fit.
    whole
        Also return the covariance of all parameters.
    """
    pairs = pairs_in(material, model.mode_names)
    modes = sorted({mode for pair in pairs for mode in pair})
    kept = mode_parameters(model.n_modes, modes)
    blocks: dict[int, PairMaps] = {}
    bounds: Values = {
        f"{name}_crb": (np.full(good.shape, np.nan), unit) for _, name, unit in local_parameters(model)
    }  # fmt: skip

    def take(first_row: int, block: PositionCovariance) -> None:
        here = slice(first_row, first_row + len(block.bound))
        for number, name, _ in local_parameters(model):
            bounds[f"{name}_crb"][0][here] = np.where(good[here], block.bound[..., number], np.nan)
        if pairs:
            blocks[first_row] = _pairs_of(block, fit.at(here), model, modes, pairs, label[:, here])

    fit_covariance(
        image, model, alignment, fit, backend, kept, take, prior_std_mev=prior_std_mev, with_held=True
    )  # fmt: skip
    covariance = _whole(image, model, alignment, fit, good, prior_std_mev, backend) if whole else None
    ratio = np.where(good, fit.pearson_chi2 / np.maximum(fit.chi2_mean - fit.chi2_taken, 1.0), np.nan)
    return Told(bounds, _joined(blocks) if pairs else None, covariance, ratio)


def _pairs_of(
    block: PositionCovariance,
    fit: ScanFit,
    model: ForwardModel,
    modes: list[int],
    pairs: list[tuple[int, int]],
    label: np.ndarray,
) -> PairMaps:
    own = [[modes.index(m) + k * len(modes) for k in (0, 1) for m in pair] for pair in pairs]
    matrices = np.stack([block.covariance[..., places, :][..., :, places] for places in own])
    fitted = np.isfinite(fit.energies(fit.std))
    return pair_maps(pairs, model.mode_names, fit.areas(), fit.energies(), matrices, fitted, label)


def _joined(blocks: dict[int, PairMaps]) -> PairMaps:
    """Put blocks of rows together."""
    parts = [blocks[row] for row in sorted(blocks)]
    values = {
        name: (np.concatenate([part.values[name][0] for part in parts], axis=1), unit)
        for name, (_, unit) in parts[0].values.items()
    }
    flags = {
        name: (np.concatenate([part.flags[name][0] for part in parts], axis=1), words)
        for name, (_, words) in parts[0].flags.items()
    }
    return PairMaps(parts[0].names, values, flags)


def _whole(
    image: SpectrumImage,
    model: ForwardModel,
    alignment: Alignment,
    fit: ScanFit,
    good: np.ndarray,
    prior_std_mev: np.ndarray,
    backend: Backend,
) -> CovarianceMaps:
    names = [(name, unit) for _, name, unit in local_parameters(model)]
    names += [(f"{mode}.area_e", "electrons") for mode in model.mode_names]
    names += [(f"{mode}.energy_mev", "meV") for mode in model.mode_names]
    found = empty_covariance(names, good.shape)
    modes = np.arange(N_LOCAL, N_LOCAL + 2 * model.n_modes)
    kept = np.concatenate([np.flatnonzero(model.free_local), modes]).astype(np.int64)

    def take(first_row: int, block: PositionCovariance) -> None:
        here = slice(first_row, first_row + len(block.bound))
        std = np.where(good[here][..., None], fit.std[here][..., kept], np.nan)
        # As small as the fit's own deviations, which are of the point before its last short step.
        own = np.sqrt(np.diagonal(block.covariance, axis1=-2, axis2=-1))
        scaled = block.covariance * (std / own)[..., :, None] * (std / own)[..., None, :]
        found.values[:, :, here] = np.moveaxis(scaled, (2, 3), (0, 1))

    fit_covariance(
        image, model, alignment, fit, backend, kept, take, prior_std_mev=prior_std_mev, with_held=False
    )  # fmt: skip
    return found
