"""What is fitted to every spectrum of a scan: window, lines, bounds, priors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from phonon_eels.config import Material
from phonon_eels.config.settings import FitPeaks
from phonon_eels.errors import DataError
from phonon_eels.forward.background import SHAPE_STD, Background, make_background
from phonon_eels.forward.noise import shared_noise
from phonon_eels.forward.recipe import Recipe, read_recipe, recipe_modes
from phonon_eels.forward.vacuum import VacuumReference, factor_table, make_grid, reference_from_description
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.likelihood import GAUSSIAN, POISSON
from phonon_eels.kernels.lineshapes import EVEN_SHARE
from phonon_eels.kernels.response import ModeTables, ZeroLossShape, build_mode_tables
from phonon_eels.spectrum_image import EnergyAxis

DEFAULT_GAIN_SIDE_FWHM = 8.0
DEFAULT_LOSS_SIDE_FWHM = 4.0


@dataclass(frozen=True)
class ForwardModel:
    """The model of one spectrum, shared by all positions.

    Attributes
    ----------
    first_channel
        First channel of the window, counted from the zero-loss channel.
    energies_mev
        Energy loss of the window's channels, from the centre of the zero-loss channel, (n,).
    dispersion_mev
        Width of a channel.
    zero_loss
        Reference shape of the zero-loss peak; None on the classic route, where it has been removed.
    tables
        Lines of the modes.
    mode_names, mode_energies_mev, bounds_mev, fwhm_mev
        The modes: names, energies at which they are linearised or started, (modes, 2) bounds, intrinsic widths.
    free_local
        (8,) which of height, shift, width, two tails and the background's level, slope and bend are fitted.
    log_width_std, log_tail_std
        Prior standard deviations around the reference shape.
    poisson
        Shifted Poisson likelihood of raw counts, or least squares with known variances.
    shift_e
        Variance of the read noise, electrons squared.
    background
        What lies under the peaks.
    background_shape
        Slope and bend of the background of the scan's mean; the prior of those of a position.
    noise_correlation
        True gain over the variance / mean of single channels.
    factor
        (phases, channels + 2 PAD) zero-loss peak over its split Pearson VII, or (0, 0).
    vacuum
        What the factor was made from, or None.
    frames
        Where the zero-loss peaks lay of the frames that were added, (4,) of `forward.frames` in meV, in the model of one position;
        (0,) for one frame.
    recipe
        Energies that are fixed or tied, or None.
    lorentzian_share
        Of pseudo-Voigt and Voigt lines.
    """

    first_channel: int
    energies_mev: np.ndarray
    dispersion_mev: float
    zero_loss: ZeroLossShape | None
    tables: ModeTables
    mode_names: tuple[str, ...]
    mode_energies_mev: np.ndarray
    bounds_mev: np.ndarray
    fwhm_mev: np.ndarray
    free_local: np.ndarray
    log_width_std: float
    log_tail_std: float
    poisson: bool
    shift_e: float
    background: Background
    background_shape: tuple[float, float] = (0.0, 0.0)
    noise_correlation: float = 1.0
    factor: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    vacuum: VacuumReference | None = None
    frames: np.ndarray = field(default_factory=lambda: np.zeros(0))
    recipe: Recipe | None = None
    lorentzian_share: float = EVEN_SHARE

    @property
    def n_modes(self) -> int:
        """Number of modes."""
        return len(self.mode_names)

    @property
    def n_params(self) -> int:
        """Parameters of one spectrum, fixed ones included."""
        return N_LOCAL + 3 * self.n_modes

    @property
    def likelihood(self) -> int:
        """The kernel's code of the likelihood."""
        return POISSON if self.poisson else GAUSSIAN

    @property
    def reference(self) -> np.ndarray:
        """FWHM and tail exponents of the reference shape, (3,), and behind them `frames`."""
        if self.zero_loss is None:
            return np.array([1.0, 1.5, 1.5])
        shape = [self.zero_loss.fwhm_mev, self.zero_loss.tail_loss, self.zero_loss.tail_gain]
        return np.array([*shape, *self.frames])

    def free(self, energies: bool) -> np.ndarray:
        """Return which parameters are fitted per position, as `free_where` has them; the intrinsic widths never are."""
        return self.free_where(np.full(self.n_modes, energies))

    def free_where(self, fitted: np.ndarray) -> np.ndarray:
        """Return how the kernels fit each parameter (`least_squares.fit_one`) where the energies `fitted`, (…, modes), are."""
        first, modes = N_LOCAL + self.n_modes, self.n_modes
        codes = np.zeros((*fitted.shape[:-1], self.n_params), np.int8)
        codes[..., :N_LOCAL], codes[..., N_LOCAL:first] = self.free_local, 1
        codes[..., first : first + modes] = fitted if self.recipe is None else self.recipe.codes(fitted, first)
        return codes

    def design(self, fitted: np.ndarray | None = None) -> np.ndarray:
        """Return the derivatives of all parameters to those that are fitted, (parameters, fitted).

        Parameters
        ----------
        fitted
            (modes,) whose energies are; default all that may be.
        """
        codes = self.free_where(np.ones(self.n_modes, bool) if fitted is None else fitted)
        kept = np.flatnonzero(codes > 0)
        design = (np.arange(codes.size)[:, None] == kept).astype(float)
        for follower in np.flatnonzero(codes < 0):
            design[follower] = design[-int(codes[follower]) - 1]
        return design

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper bounds. Areas may turn negative: clipping them would bias every sum over positions."""
        modes = self.n_modes
        reach = 2.0 * self.dispersion_mev
        if modes == 0 and self.zero_loss is not None:
            # The search for the peak is off by more than that at few counts; the tables of modes reach no further.
            reach = max(reach, 0.5 * self.zero_loss.fwhm_mev)
        low = [0.0, -reach, -0.5, -0.5, -0.5, -np.inf, *self.background.lower]
        high = [np.inf, reach, 0.5, 0.5, 0.5, np.inf, *self.background.upper]
        spread = 0.5 * self.fwhm_mev
        lower = np.concatenate([low, np.full(modes, -np.inf), self.bounds_mev[:, 0], -spread])
        upper = np.concatenate([high, np.full(modes, np.inf), self.bounds_mev[:, 1], spread])
        return lower, upper

    def prior_precision(self, energy_prior_std_mev: np.ndarray | None = None) -> np.ndarray:
        """Return the prior precisions, (parameters,); `energy_prior_std_mev` (modes,), infinite for no prior."""
        precision = np.zeros(self.n_params)
        precision[2] = self.log_width_std**-2.0
        precision[3:5] = self.log_tail_std**-2.0
        if self.background.nonlinear:
            precision[6:8] = SHAPE_STD**-2.0
        if energy_prior_std_mev is not None:
            own = (
                energy_prior_std_mev**-2.0 if self.recipe is None else self.recipe.gathered(energy_prior_std_mev**-2.0)
            )
            precision[N_LOCAL + self.n_modes : N_LOCAL + 2 * self.n_modes] = own
        return precision

    def prior_mean(self, energies_mev: np.ndarray | None = None) -> np.ndarray:
        """Return the centres of the priors, (parameters,); `energies_mev` (modes,) default to those of the model."""
        mean = np.zeros(self.n_params)
        if self.background.nonlinear:
            mean[6:8] = self.background_shape
        own = self.mode_energies_mev if energies_mev is None else energies_mev
        own = own if self.recipe is None else self.recipe.held(own)
        mean[N_LOCAL + self.n_modes : N_LOCAL + 2 * self.n_modes] = own
        return mean

    @property
    def lags(self) -> np.ndarray:
        """Correlations of the noise that channels share; see `forward.noise.shared_noise`."""
        return shared_noise(self.noise_correlation) if self.poisson else np.zeros(0)

    def with_energies(self, energies_mev: np.ndarray) -> ForwardModel:
        """Return the model started elsewhere."""
        return replace(self, mode_energies_mev=self.inside(energies_mev))

    def inside(self, energies_mev: np.ndarray) -> np.ndarray:
        """Return energies, (…, modes), brought inside the bounds, as the recipe has them."""
        clipped = np.clip(energies_mev, self.bounds_mev[:, 0], self.bounds_mev[:, 1])
        return clipped if self.recipe is None else self.recipe.held(clipped)


def fit_window(
    settings: FitPeaks, material: Material, energy: EnergyAxis, zero_channel: float, zero_loss_fwhm_mev: float
) -> np.ndarray:
    """Return the window's channels relative to the zero-loss channel.

    Raises
    ------
    DataError
        If a window that was asked for leaves the axis, or the default one reaches none of the modes.
    """
    zero_mev = energy.offset_mev + energy.dispersion_mev * round(zero_channel)
    if settings.window_mev is not None:
        low, high = settings.window_mev
        energy.window(low + zero_mev, high + zero_mev, "fit_peaks.window_mev (from the zero-loss peak)")
    else:
        low = -DEFAULT_GAIN_SIDE_FWHM * zero_loss_fwhm_mev if settings.gain_side else -2.0 * zero_loss_fwhm_mev
        high = max(mode.bounds_mev[1] for mode in material.modes)
        high += DEFAULT_LOSS_SIDE_FWHM * max(zero_loss_fwhm_mev, max(mode.fwhm_mev for mode in material.modes))
        low = max(low, energy.offset_mev - zero_mev)
        high = min(high, energy.last_mev - zero_mev)
    lowest = material.modes[0].energy_mev
    if high < lowest:
        raise DataError(
            f"the energy axis ends {high:g} meV above the zero-loss peak, below the first mode of material "
            f"{material.name} ({lowest:g} meV); record a wider axis, mend the unit of this one, or give another material"
        )
    highest = material.modes[-1].energy_mev
    if highest < 0.5 * zero_loss_fwhm_mev:
        raise DataError(
            f"all modes of material {material.name} ({lowest:g} to {highest:g} meV) lie inside the zero-loss peak, which is "
            f"{zero_loss_fwhm_mev:.4g} meV wide; give a material of your own with the peaks of this energy range, "
            "as `material: my.yaml` (an example is docs/examples/lsmo_plasmons.yaml)"
        )
    first = int(np.ceil(low / energy.dispersion_mev - 1e-9))
    last = int(np.floor(high / energy.dispersion_mev + 1e-9))
    return np.arange(first, last + 1)


def modes_in_window(material: Material, highest_mev: float) -> list[int]:
    """Return the indices of the modes whose energies the window reaches."""
    return [index for index, mode in enumerate(material.modes) if mode.energy_mev < highest_mev]


def build_forward_model(
    settings: FitPeaks,
    material: Material,
    channels: np.ndarray,
    dispersion_mev: float,
    zero_loss: ZeroLossShape | None,
    thermal_mev: float | None,
    *,
    energies_mev: np.ndarray | None = None,
    fwhm_mev: np.ndarray | None = None,
    shift_e: float = 0.0,
    background_shape: tuple[float, float] | None = None,
    noise_correlation: float = 1.0,
    vacuum: VacuumReference | None = None,
    lorentzian_share: float | None = None,
) -> ForwardModel:
    """Build the model of a scan.

    Parameters
    ----------
    channels
        Window relative to the zero-loss channel, consecutive.
    zero_loss
        Reference zero-loss peak, or None on the classic route.
    thermal_mev
        k_B T, or None for lines without occupation (classic route).
    energies_mev, fwhm_mev
        Starting energies and intrinsic widths of the modes in the window; default the material's.
    shift_e
        Variance of the read noise in electrons squared.
    background_shape
        Slope and bend of the background as the mean spectrum has them; default where a search for them starts.
    noise_correlation
        See `NoiseModel`.
    vacuum
        The zero-loss peak as measured beside the specimen, which `zero_loss` then only stretches.
    lorentzian_share
        Of pseudo-Voigt and Voigt lines; default that of the settings, else even.

    Raises
    ------
    ConfigError
        If what the settings hold of energies and widths does not go with the material.
    """
    every = recipe_modes(settings, material)
    chosen = [every[i] for i in modes_in_window(material, float(channels[-1] * dispersion_mev))]
    names = tuple(mode.name for mode in chosen)
    bounds = np.array([mode.bounds_mev for mode in chosen], dtype=float)
    starts = np.array([mode.energy_mev for mode in chosen]) if energies_mev is None else np.asarray(energies_mev)
    recipe = read_recipe(settings, material, names)
    if recipe is not None:
        bounds = recipe.bounds(bounds, names)
        starts = recipe.held(np.clip(starts, *bounds.T))
    widths = np.array([mode.fwhm_mev for mode in chosen]) if fwhm_mev is None else np.asarray(fwhm_mev)
    narrowest = float(widths.min()) if zero_loss is None else min(float(widths.min()), zero_loss.fwhm_mev)
    reach = 30.0 * (float(widths.max()) if zero_loss is None else zero_loss.fwhm_mev)
    grid = make_grid(channels, dispersion_mev, narrowest, reach, vacuum if zero_loss is not None else None)
    share = (settings.lorentzian_share or EVEN_SHARE) if lorentzian_share is None else lorentzian_share
    tables = build_mode_tables(grid, zero_loss, bounds, widths, thermal_mev, settings.line_shape, share)
    peak = zero_loss is not None
    background = background_of(settings, channels * dispersion_mev, zero_loss, thermal_mev)
    return ForwardModel(
        first_channel=int(channels[0]),
        energies_mev=channels * dispersion_mev,
        dispersion_mev=dispersion_mev,
        zero_loss=zero_loss,
        tables=tables,
        mode_names=names,
        mode_energies_mev=starts,
        bounds_mev=bounds,
        fwhm_mev=widths,
        free_local=np.array([*[peak] * 5, *background.free], dtype=np.int8),
        log_width_std=settings.log_width_std,
        log_tail_std=settings.tail_std,
        poisson=peak,
        shift_e=shift_e,
        background=background,
        background_shape=background.start if background_shape is None else background_shape,
        noise_correlation=noise_correlation,
        factor=factor_table(grid, vacuum if peak else None, tables.values.shape[3]),
        vacuum=vacuum if peak else None,
        recipe=recipe,
        lorentzian_share=share,
    )


def background_of(
    settings: FitPeaks, energies_mev: np.ndarray, zero_loss: ZeroLossShape | None, thermal_mev: float | None
) -> Background:
    """Return the background that the settings ask for."""
    fwhm = abs(float(energies_mev[1] - energies_mev[0])) if zero_loss is None else zero_loss.fwhm_mev
    tied = thermal_mev if settings.background_gain_side == "detailed_balance" else None
    return make_background(settings.background, energies_mev, fwhm, tied)


def rebuilt(
    model: ForwardModel,
    settings: FitPeaks,
    material: Material,
    thermal_mev: float | None,
    energies_mev: np.ndarray,
    fwhm_mev: np.ndarray,
) -> ForwardModel:
    """Return the model with other energies and intrinsic widths, its tables made anew."""
    first = model.first_channel
    return build_forward_model(
        settings, material, np.arange(first, first + model.energies_mev.size), model.dispersion_mev, model.zero_loss,
        thermal_mev, energies_mev=energies_mev, fwhm_mev=fwhm_mev, shift_e=model.shift_e,
        background_shape=model.background_shape, noise_correlation=model.noise_correlation, vacuum=model.vacuum,
        lorentzian_share=model.lorentzian_share,
    )  # fmt: skip


def describe(model: ForwardModel, settings: FitPeaks, thermal_mev: float | None) -> dict[str, Any]:
    """Return everything `model_from_description` needs, ready for JSON."""
    shape = model.zero_loss
    return {
        "first_channel": model.first_channel,
        "n_channels": int(model.energies_mev.size),
        "dispersion_mev": model.dispersion_mev,
        "zero_loss": None if shape is None else [shape.fwhm_mev, shape.tail_loss, shape.tail_gain],
        "thermal_mev": thermal_mev,
        "modes": list(model.mode_names),
        "energies_mev": model.mode_energies_mev.tolist(),
        "fwhm_mev": model.fwhm_mev.tolist(),
        "shift_e": model.shift_e,
        "background_shape": list(model.background_shape),
        "noise_correlation": model.noise_correlation,
        "lorentzian_share": model.lorentzian_share,
        "vacuum": None if model.vacuum is None else model.vacuum.describe(),
        "settings": settings.model_dump(mode="json"),
    }


def model_from_description(description: Mapping[str, Any], material: Material) -> ForwardModel:
    """Build the model that an earlier `fit_peaks` used."""
    first = int(description["first_channel"])
    shape = description["zero_loss"]
    return build_forward_model(
        FitPeaks.model_validate(description["settings"]),
        material,
        np.arange(first, first + int(description["n_channels"])),
        float(description["dispersion_mev"]),
        None if shape is None else ZeroLossShape(*shape),
        description["thermal_mev"],
        energies_mev=np.array(description["energies_mev"]),
        fwhm_mev=np.array(description["fwhm_mev"]),
        shift_e=float(description["shift_e"]),
        background_shape=tuple(description["background_shape"]) if "background_shape" in description else None,
        noise_correlation=float(description.get("noise_correlation", 1.0)),
        vacuum=reference_from_description(description["vacuum"]) if description.get("vacuum") else None,
        lorentzian_share=description.get("lorentzian_share"),
    )
