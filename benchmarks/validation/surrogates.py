"""Scans on the level of scores: thousands of them from the information that one analysed scan of a route left.

A position's score is g = F · (what is there - where it was linearised) + noise with covariance F. Everything that the
estimators make of the scores is linear in them, so a surrogate needs no refit: noise is drawn for the estimators' sums
directly, and artefacts are fields of false energy and width that are put into the scores. F, the share of every row and the
false energy that a change of the mode's signal brings (`leak`) are those of the route (template_forward.csv, template_classic.csv).
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.signal import lfilter

from phonon_eels.lattice.inference import antiphase_and_inphase, balanced_weights
from phonon_eels.steps.modulation_defences import inphase_verdict

FOLDER = Path(__file__).parent
COLUMN_STEP_NM = 0.1
PERIOD_NM = 2.578
FWHM_MEV = 4.5
WIDTH_PRIOR = 0.2 * FWHM_MEV
ENERGY_PRIOR_MEV = 10.0
N_BINS = 8
WANDER_POSITIONS = 150.0
CORRELATED_POSITIONS = 40.0
PATTERN = (-1.0, 1.0, 1.0, -1.0)
"""Outward signs of consecutive half-slab planes."""


def template_file(route: str, small: bool = False) -> Path:
    """Return where the template of a route lies; `small`: that of scans like those of whole_scans.py."""
    return FOLDER / f"template_{route}{'_small' if small else ''}.csv"


FORWARD = template_file("forward")


@dataclass(frozen=True)
class Artefacts:
    """Sizes of what is wrong with a scan; 0 is off. Energies in meV.

    The false energies are what a fit without any zero-loss nuisance would make of the wander (SCIENCE §9: +1 % FWHM moves
    the modes by 0.13 meV, +1 % tail exponent moves 78 meV by up to 0.4 meV); the fit of this program leaves less.
    """

    correlated: float = 0.0
    """Error correlated over 40 positions along the scan."""
    drift: float = 0.0
    """Random walk of the energy over the scan that the alignment did not take out."""
    width_wander: float = 0.0
    """Slow false energy and 1.5 times as much false width."""
    tail_wander: float = 0.0
    thickness: float = 0.0
    """Relative change of the signal across the scan; a false energy of as many meV beside it."""
    corrugation: float = 0.0
    """Relative change of the signal with the plane's own phase: the plane moves out of the rows that are read."""
    wave_b: float = 0.0
    """Error of the phase that follows the phase itself, rad."""
    wave_c: float = 0.0
    """Relative change of the signal with the lateral phase, opposite in the planes of a slab."""
    weight: float = 0.0
    """Relative modulation of the intensity along the outward normal."""
    between_units: float = 0.0
    """Every plane's own true amplitude scatters by that much: strain, disorder, stacking."""


ARTEFACTS = {
    "none": Artefacts(),
    "correlated noise": Artefacts(correlated=0.3),
    "zero-loss drift": Artefacts(drift=0.3),
    "width wander": Artefacts(width_wander=0.2),
    "tail wander": Artefacts(tail_wander=0.2),
    "thickness gradient": Artefacts(thickness=0.3),
    "corrugation": Artefacts(corrugation=0.3),
    "scan wave b": Artefacts(wave_b=0.3),
    "scan wave c": Artefacts(wave_c=0.3),
    "weight modulation": Artefacts(weight=0.3),
    "planes differ": Artefacts(between_units=0.15),
    "all together": Artefacts(0.3, 0.3, 0.2, 0.2, 0.3, 0.3, 0.3, 0.3, 0.3, 0.15),
}


def slow_noise(random: np.random.Generator, draws: int, n: int) -> np.ndarray:
    """Return noise of unit variance that changes over `WANDER_POSITIONS`, (draws, n): four running means, near a Gaussian."""
    width = round(WANDER_POSITIONS * np.sqrt(12.0 / 4.0))
    noise, impulse = random.normal(size=(draws, n)), np.zeros(n)
    impulse[0] = 1.0
    for _ in range(4):
        noise = uniform_filter1d(noise, width, axis=1, mode="wrap")
        impulse = uniform_filter1d(impulse, width, mode="wrap")
    return noise / np.sqrt((impulse**2).sum())


@dataclass
class Scan:
    """Geometry of one scan and the linear estimators on it."""

    units: int
    periods: float
    dose: float = 1.0
    artefacts: Artefacts = field(default_factory=Artefacts)
    template: Path = FORWARD
    column_step_nm: float = COLUMN_STEP_NM

    def __post_init__(self) -> None:
        with self.template.open() as file:
            leak = re.search(r"leak (\S+)", file.readline())
            table = list(csv.DictReader(file))
        by_unit: dict[int, list[dict[str, str]]] = {}
        for row in table:
            by_unit.setdefault(int(row["half_slab"]), []).append(row)
        whole = list(by_unit.values())
        self.columns = round(self.periods * PERIOD_NM / self.column_step_nm)
        self.sign = np.resize(PATTERN, self.units)
        rows = [(u, r) for u in range(self.units) for r in whole[u % len(whole)]]
        self.unit = np.repeat([u for u, _ in rows], self.columns)
        share = np.array([abs(float(r["signed_share"])) for _, r in rows])
        info = np.array([[float(r[key]) for key in ("info_ee", "info_ew", "info_ww")] for _, r in rows])
        self.phase = np.tile(2 * np.pi * np.arange(self.columns) * self.column_step_nm / PERIOD_NM + 0.6, len(rows))
        self.share = np.repeat(share, self.columns)
        self.rows = len(rows)
        a = self.artefacts
        outward = np.cos(self.phase) * self.sign[self.unit]
        across = np.tile(np.linspace(-0.5, 0.5, self.columns), self.rows)
        signal = 1.0 + a.thickness * across + (a.corrugation + a.weight) * outward
        wave_c = a.wave_c * np.cos(self.phase) * np.where(self.unit % 2 == 0, 1.0, -1.0)
        signal += wave_c
        # Beside its neighbours the mode's own signal changes with the wave, and the route takes that for so much energy.
        self.leaked = float(leak[1] if leak else 0.0) * self.share * ((a.corrugation + a.weight) * outward + wave_c)
        self.info = np.repeat(info, self.columns, axis=0) * self.dose * np.maximum(signal, 0.05)[:, None]
        self._estimators()

    def _estimators(self) -> None:
        """Regressors as the analysis believes them, and every unit's features: sums of scores that estimators read.

        Features of a unit: energy scores against 1, cos, sin; width scores against the same; energy scores by bin of phase.
        """
        believed = self.phase + self.artefacts.wave_b * np.cos(self.phase)
        sign = self.sign[self.unit]
        wave = np.stack([np.cos(believed), np.sin(believed)]) * sign * self.share
        self.truth = np.stack([np.cos(self.phase), np.sin(self.phase)]) * sign * self.share
        basis = np.vstack([np.ones_like(self.phase), wave])
        outward = np.mod(believed + np.where(sign < 0, np.pi, 0.0), 2 * np.pi)
        bins = np.floor(outward / (2 * np.pi) * N_BINS)
        binned = (bins == np.arange(N_BINS)[:, None]) * self.share
        nothing = np.zeros_like(basis)
        self.by_energy = np.vstack([basis, nothing, binned])  # (features, positions)
        self.by_width = np.vstack([nothing, basis, np.zeros_like(binned)])
        self.joint, self.covariance, self.bin_information = [], [], []
        for u in range(self.units):
            here = self.unit == u
            covariance = self._against(here, self.by_energy[:, here], self.by_width[:, here])
            top = covariance[:6, :6]
            prior = np.diag([ENERGY_PRIOR_MEV**-2.0] * 3 + [WIDTH_PRIOR**-2.0] * 3)
            self.joint.append(np.linalg.inv(top + prior)[1:3])
            self.covariance.append(covariance)
            self.bin_information.append(np.diag(covariance)[6:])
        self.alone = [np.linalg.inv(c[:3, :3])[1:] for c in self.covariance]

    def _against(self, here: np.ndarray, by_energy: np.ndarray, by_width: np.ndarray) -> np.ndarray:
        """Return the features' response to fields of energy and width, (features, fields)."""
        ee, ew, ww = self.info[here].T
        left_e, left_w = self.by_energy[:, here], self.by_width[:, here]
        return (left_e * ee + left_w * ew) @ by_energy.T + (left_e * ew + left_w * ww) @ by_width.T

    def fields(self, random: np.random.Generator, draws: int) -> np.ndarray | None:
        """Return false energies, (draws, positions), or None where there are none."""
        a, n = self.artefacts, self.phase.size
        total = np.zeros((draws, n))
        if a.correlated:
            memory = np.exp(-1.0 / CORRELATED_POSITIONS)
            kick = a.correlated * np.sqrt(1 - memory**2) * random.normal(size=(draws, n + 200))
            total += lfilter([1.0], [1.0, -memory], kick, axis=1)[:, 200:]
        if a.drift:
            total += a.drift * np.cumsum(random.normal(size=(draws, n)), axis=1) / np.sqrt(n)
        for size in (a.width_wander, a.tail_wander):
            if size:
                total += size * slow_noise(random, draws, n)
        if a.thickness:
            total += a.thickness * np.tile(np.linspace(-0.5, 0.5, self.columns), self.rows)
        return total if total.any() else None

    def features(self, random: np.random.Generator, draws: int) -> tuple[np.ndarray, np.ndarray]:
        """Return every unit's features without modulation, (draws, units, features), and their change per meV of it.

        The second is (units, features, 2): response to the cos and sin component of a true modulation.
        """
        result = np.empty((draws, self.units, len(self.by_energy)))
        response = np.empty((self.units, len(self.by_energy), 2))
        false = self.fields(random, draws)
        wander = 1.5 if self.artefacts.width_wander else 0.0
        for u in range(self.units):
            here = self.unit == u
            real = self.truth[:, here]
            response[u] = self._against(here, real, 0.0 * real)
            values, vectors = np.linalg.eigh(self.covariance[u])
            root = vectors * np.sqrt(np.maximum(values, 0.0))
            result[:, u] = random.normal(size=(draws, len(values))) @ root.T
            result[:, u] += self._against(here, self.leaked[None, here], 0.0 * self.leaked[None, here])[:, 0]
            own = self.artefacts.between_units * random.normal(size=(draws, 2))
            result[:, u] += own @ response[u].T
            if false is not None:
                ee, ew, ww = self.info[here].T
                left_e, left_w = self.by_energy[:, here], self.by_width[:, here]
                against = left_e * (ee + wander * ew) + left_w * (ew + wander * ww)
                result[:, u] += false[:, here] @ against.T
        return result, response

    def joint_units(self, features: np.ndarray) -> np.ndarray:
        """Return the joint fit's amplitude of every unit, (draws, units, 2)."""
        return np.einsum("uij,duj->dui", np.stack(self.joint), features[..., :6])

    def alone_units(self, features: np.ndarray) -> np.ndarray:
        """Return every unit's amplitude from the energy scores alone: the modulation spectrum projected on a shift."""
        return np.einsum("uij,duj->dui", np.stack(self.alone), features[..., :3])

    def regression_p(self, features: np.ndarray, signed: bool = True) -> np.ndarray:
        """Return the p-value of a regression with positions as units and Fisher's deviations, (draws,)."""
        covariance = np.stack([a[:, 1:] for a in self.alone])
        values = self.alone_units(features)
        precision = np.linalg.inv(covariance)
        sign = np.ones(self.units) if signed else self.sign
        total = precision.sum(axis=0)
        mean = np.einsum("uij,duj,u->di", precision, values, sign) @ np.linalg.inv(total)
        return np.exp(-0.5 * np.einsum("di,ij,dj->d", mean, total, mean))

    def bins_p(self, features: np.ndarray) -> np.ndarray:
        """Return the p-value of energies in bins of phase being equal (Fisher's deviations), (draws,)."""
        from scipy.stats import chi2

        means = features[..., 0] / np.stack([c[0, 0] for c in self.covariance])
        level = np.stack([c[6:, 0] for c in self.covariance])
        bins = (features[..., 6:] - means[..., None] * level).sum(axis=1)
        information = np.stack(self.bin_information).sum(axis=0)
        energy = bins / information
        middle = (energy * information).sum(axis=1, keepdims=True) / information.sum()
        return chi2.sf(((energy - middle) ** 2 * information).sum(axis=1), N_BINS - 1)


@dataclass(frozen=True)
class Tests:
    """The program's tests over planes for many draws at once, every array (draws,)."""

    p_value: np.ndarray
    stopped: np.ndarray
    """True where the in-phase null channel forbids a claim."""


def tested_planes(units: np.ndarray, sign: np.ndarray) -> Tests:
    """Return what `antiphase_and_inphase` and `inphase_verdict` say of many draws, (draws, n, 2).

    The same formulas for arrays; the first draws are compared with the program's own functions every time.
    """
    n = units.shape[1]
    weights = balanced_weights(sign)
    value, p = _one_sample(n * weights[:, None] * units, n - 1)
    design = np.column_stack([np.ones(n), sign])
    both = np.einsum("kn,dni->dki", np.linalg.inv(design.T @ design) @ design.T, units)
    rest = units - np.einsum("nk,dki->dni", design, both)
    covariance = np.einsum("dni,dnj->dij", rest, rest) / (n - 2) / n
    if sign.sum():
        covariance *= n * np.linalg.inv(design.T @ design)[1, 1]
    p_inphase = _tail(both[:, 1], covariance, n - 2)
    small = np.hypot(*both[:, 1].T) < np.hypot(*value.T) / 3.0
    tests = Tests(p, (p_inphase <= 0.01) & ~small)
    for draw in range(min(len(units), 5)):
        antiphase, inphase = antiphase_and_inphase(units[draw], sign)
        np.testing.assert_allclose(p[draw], antiphase.p_value, rtol=1e-9)
        assert tests.stopped[draw] == (inphase_verdict(antiphase, inphase)[0] == "fail")
    return tests


def _one_sample(vectors: np.ndarray, dof: int) -> tuple[np.ndarray, np.ndarray]:
    mean = vectors.mean(axis=1)
    rest = vectors - mean[:, None]
    return mean, _tail(mean, np.einsum("dni,dnj->dij", rest, rest) / (dof * (dof + 1)), dof)


def _tail(value: np.ndarray, covariance: np.ndarray, dof: int) -> np.ndarray:
    f = np.einsum("di,di->d", value, np.linalg.solve(covariance, value[..., None])[..., 0]) * (dof - 1) / (2.0 * dof)
    return (1.0 + 2.0 * f / (dof - 1)) ** (-0.5 * (dof - 1))
