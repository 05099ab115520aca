"""What a material file may say."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from phonon_eels.config.base import Fraction, Frozen, NonNegative, Positive, Window


class Crystal(Frozen):
    """Lattice parameters and the direction of the beam."""

    a_nm: Positive
    b_nm: Positive
    c_nm: Positive
    projection: str = "[100]"


class Layer(Frozen):
    """One atomic plane of a slab; the slab is symmetric about the plane at height 0."""

    name: str
    height_nm: NonNegative
    atomic_number: int = Field(ge=1, le=118)


class Superstructure(Frozen):
    """Displacement wave along b."""

    period_nm: Positive
    period_bounds_nm: Window
    antiphase_slabs: bool = True
    """Neighbouring slabs (c/2 apart) are in antiphase."""
    antiphase_planes: bool = True
    """The two planes of a kind within a slab are in antiphase at equal lateral position."""
    phases_0_or_pi: bool = False
    """The average structure has a mirror that leaves every structure-locked scalar the phases 0 and π only."""
    displacement_nm: dict[str, float] = Field(default_factory=dict)


class Mode(Frozen):
    """A peak of the loss spectrum. `energy_mev` is intrinsic: before occupation and instrument."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    energy_mev: Positive
    bounds_mev: Window
    fwhm_mev: Positive
    layers: dict[str, NonNegative] = Field(default_factory=dict)
    relative_area: NonNegative = 1.0
    prior_energy_std_mev: Positive = 1.5
    """Default: a sixth of the width of `bounds_mev`, whatever the scale of the mode."""
    label: str = ""
    source: str = ""

    @model_validator(mode="before")
    @classmethod
    def _prior_by_bounds(cls, given: Any) -> Any:
        if isinstance(given, dict) and "prior_energy_std_mev" not in given:
            bounds = given.get("bounds_mev")
            if (
                isinstance(bounds, list | tuple)
                and len(bounds) == 2
                and all(isinstance(b, int | float) for b in bounds)
            ):
                return {**given, "prior_energy_std_mev": abs(bounds[1] - bounds[0]) / 6.0 or 1.0}
        return given

    @model_validator(mode="after")
    def _inside_bounds(self) -> Mode:
        if not self.bounds_mev[0] < self.energy_mev < self.bounds_mev[1]:
            raise ValueError(
                f"energy_mev = {self.energy_mev:g} of mode {self.name} must lie inside bounds_mev {self.bounds_mev}"
            )
        return self


class PrimaryTest(Frozen):
    """The one modulation that is tested without a penalty for many tests; declared before the data are seen."""

    mode: str
    layer: str


class Localisation(Frozen):
    """Width of the region around a plane from which its modes are excited (impact part)."""

    fwhm_nm: Positive
    std_nm: NonNegative = 0.0


class GapTemplate(Frozen):
    """Superconducting gap against superstructure phase: mean · [1 + (p/2) cos(φ - phase)]."""

    mean_mev: Positive
    modulation: Fraction
    modulation_std: NonNegative
    is_peak_to_peak: bool = True
    phase_rad: float = 0.0


class Gap(Frozen):
    """Literature on the gap modulation."""

    template: GapTemplate
    source: str = ""


class Material(Frozen):
    """A layered crystal, or (without crystal and layers) just a set of modes."""

    schema_version: Literal[1] = 1
    name: str
    title: str = ""
    crystal: Crystal | None = None
    layers: tuple[Layer, ...] = ()
    superstructure: Superstructure | None = None
    modes: tuple[Mode, ...] = Field(min_length=1, max_length=8)
    pairs: tuple[tuple[str, str], ...] = ()
    """Neighbouring modes closer than the resolution, reported as centroid, splitting and area ratio."""
    primary_test: PrimaryTest | None = None
    localisation: Localisation | None = None
    gap: Gap | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Material:
        names = [mode.name for mode in self.modes]
        if len(set(names)) != len(names):
            raise ValueError(f"mode names must differ, got {names}")
        energies = [mode.energy_mev for mode in self.modes]
        if energies != sorted(energies):
            raise ValueError("modes must be listed from low to high energy_mev")
        layers = {layer.name for layer in self.layers}
        for mode in self.modes:
            for name in mode.layers:
                if layers and name not in layers:
                    raise ValueError(f"mode {mode.name} names layer {name}; the layers are {sorted(layers)}")
        used = [name for pair in self.pairs for name in pair] + ([self.primary_test.mode] if self.primary_test else [])
        for name in used:
            if name not in names:
                raise ValueError(f"pairs and primary_test may name only the modes {names}, got {name}")
        return self
