"""What a recipe may hold of the modes while they are fitted: energies, widths and shapes that are fixed or tied."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from phonon_eels.config.base import Frozen, Positive


class FixedSeparation(Frozen):
    """One mode at a fixed distance from another: energy of `mode` = energy of `from_mode` + separation."""

    mode: str
    from_mode: str
    separation_mev: float
    """In meV; negative where `mode` lies below `from_mode`."""


class PeakRecipe(Frozen):
    """Parameters that `fit_peaks` holds or ties, on both routes."""

    fixed_energies_mev: dict[str, Positive] = Field(default_factory=dict)
    """Mode → energy that it keeps at every position, in meV from the zero of the scale, inside the material's bounds."""
    fixed_separation_mev: tuple[FixedSeparation, ...] = ()
    """Modes that keep their distance from another one at every position: they share one energy, and its deviation."""
    fixed_fwhm_mev: dict[str, Positive] = Field(default_factory=dict)
    """Mode → full width at half maximum that it keeps, in meV: forward the intrinsic one, classic the one of the loss spectrum."""
    same_fwhm: tuple[Annotated[tuple[str, ...], Field(min_length=2)], ...] = ()
    """Groups of modes of one width, which is fitted."""
    lorentzian_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """pseudo_voigt: Lorentzian share of the area; voigt: Lorentzian FWHM over that of the line. Default: fitted; forward one share
    for all modes, to the mean spectrum."""

    @model_validator(mode="after")
    def _one_rule_for_each(self) -> PeakRecipe:
        moving = [tie.mode for tie in self.fixed_separation_mev]
        for name in moving:
            if moving.count(name) > 1:
                raise ValueError(
                    f"fixed_separation_mev gives mode {name} more than once; give one distance for each mode"
                )
            if name in self.fixed_energies_mev:
                raise ValueError(
                    f"mode {name} is in fixed_energies_mev and in fixed_separation_mev; leave it out of one of them"
                )
        self._no_circle()
        grouped = [name for group in self.same_fwhm for name in group]
        for name in grouped:
            if grouped.count(name) > 1:
                raise ValueError(
                    f"same_fwhm names mode {name} more than once; write all modes of one width in one group"
                )
            if name in self.fixed_fwhm_mev:
                raise ValueError(
                    f"mode {name} is in fixed_fwhm_mev and in same_fwhm; to fix the width of a group give it for each of its "
                    "modes in fixed_fwhm_mev"
                )
        return self

    def _no_circle(self) -> None:
        above = {tie.mode: tie.from_mode for tie in self.fixed_separation_mev}
        for start in above:
            path = [start]
            while path[-1] in above:
                path.append(above[path[-1]])
                if path[-1] == start:
                    raise ValueError(
                        f"fixed_separation_mev goes round in a circle: {' → '.join(path)}; leave one of these modes free"
                    )
                if len(path) > len(above) + 1:
                    break

    @property
    def holds_energies(self) -> bool:
        """Whether an energy is fixed or tied."""
        return bool(self.fixed_energies_mev or self.fixed_separation_mev)

    @property
    def named_modes(self) -> dict[str, str]:
        """Mode → the first key that names it."""
        named = dict.fromkeys((n for group in self.same_fwhm for n in group), "same_fwhm")
        named |= dict.fromkeys(self.fixed_fwhm_mev, "fixed_fwhm_mev")
        named |= {n: "fixed_separation_mev" for tie in self.fixed_separation_mev for n in (tie.mode, tie.from_mode)}
        return named | dict.fromkeys(self.fixed_energies_mev, "fixed_energies_mev")
