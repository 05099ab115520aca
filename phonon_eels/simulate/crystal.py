"""Planes and columns of a layered crystal seen along [100], displaced by the superstructure.

Coordinates: b across, c along the stack, c = 0 in the middle of a van der Waals gap. The mirror plane of slab n
(Ca in Bi2212) lies at (n + 1/2) c/2. Each plane belongs to a slab and to a side of it: +1 where its outward
normal points along +c, −1 where it points along −c, 0 for the mirror plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.config import Material, SimulationSettings
from phonon_eels.config.material import Crystal
from phonon_eels.errors import ConfigError
from phonon_eels.simulate.scan import ProbePath, probe_path

if TYPE_CHECKING:
    import xarray as xr

REACH_NM = 1.2
"""Planes this far outside the field of view still count: further than any signal or probe tail reaches."""


@dataclass(frozen=True)
class PlaneStack:
    """Atomic planes from low to high c, every array (planes,).

    Attributes
    ----------
    slab
        Number of the slab.
    side
        +1 or −1: direction of the outward normal along c; 0: the mirror plane.
    layer
        Index into the material's layers.
    height_nm
        Coordinate along c without displacement.
    amplitude_nm
        Displacement along +c is ``amplitude_nm · cos θ``, with θ the lateral phase.
    outward_shift_rad
        Phase counted along the outward normal (0 where the plane is displaced outward most) less the lateral phase:
        0 or π. The mirror plane counts as side +1.
    modulation_shift_rad
        The same for the phase that the mode energies follow; it differs for the in-phase impostor.
    turned
        True in slabs turned by 90°, whose superstructure runs along the beam: no displacement, no modulation.
    """

    slab: np.ndarray
    side: np.ndarray
    layer: np.ndarray
    height_nm: np.ndarray
    amplitude_nm: np.ndarray
    outward_shift_rad: np.ndarray
    modulation_shift_rad: np.ndarray
    turned: np.ndarray

    @property
    def half_slab(self) -> np.ndarray:
        """Number of the half-slab: 2 · slab, + 1 on the upper side."""
        return 2 * self.slab + (self.side > 0)


@dataclass(frozen=True)
class Scene:
    """The crystal in the scan.

    Attributes
    ----------
    settings, material
        What it was made from.
    period_nm
        Period of the superstructure.
    planes
        All planes in reach of the field of view.
    path
        Where the probe stood.
    thickness
        Thickness over its mean, (rows, columns).
    truth
        Maps over (row, column) of frame 0: layer, slab, side, coordinates and phases.
    """

    settings: SimulationSettings
    material: Material
    period_nm: float
    planes: PlaneStack
    path: ProbePath
    thickness: np.ndarray
    truth: xr.Dataset

    def lateral_phase(self, b_nm: np.ndarray) -> np.ndarray:
        """Phase θ of the displacement wave in rad at lateral coordinates in nm."""
        return lateral_phase(self.settings, self.period_nm, b_nm)


def lateral_phase(settings: SimulationSettings, period_nm: float, b_nm: np.ndarray) -> np.ndarray:
    """Phase θ = 2πb/λ + φ0 of the displacement wave in rad."""
    return 2.0 * np.pi * b_nm / period_nm + settings.structure.phase_rad


def crystal_of(material: Material) -> Crystal:
    """Return the lattice, or say that the material has none.

    Raises
    ------
    ConfigError
        If the material file has no crystal or no layers.
    """
    if material.crystal is None or not material.layers:
        raise ConfigError(
            f"material {material.name}: a simulation needs `crystal` and `layers`, which this file does not have; "
            f"add them as in bi2212.yaml, or use material: bi2212"
        )
    return material.crystal


def superstructure_period_nm(settings: SimulationSettings, material: Material) -> float:
    """Return the period of the displacement wave; without a superstructure the lattice parameter b, as a scale."""
    if settings.structure.period_nm is not None:
        return settings.structure.period_nm
    if material.superstructure is None:
        return crystal_of(material).b_nm
    return material.superstructure.period_nm


def planes_between(settings: SimulationSettings, material: Material, low_nm: float, high_nm: float) -> PlaneStack:
    """Return the planes with heights in [low, high] along c, from low to high.

    Parameters
    ----------
    low_nm, high_nm
        Range along c.

    Raises
    ------
    ConfigError
        If the material has no crystal.
    """
    half_cell = 0.5 * crystal_of(material).c_nm
    found = []
    for slab in range(int(np.floor(low_nm / half_cell)) - 1, int(np.ceil(high_nm / half_cell)) + 1):
        for index, layer in enumerate(material.layers):
            for side in (-1, 1) if layer.height_nm > 0 else (0,):
                height = (slab + 0.5) * half_cell + side * layer.height_nm
                if low_nm <= height <= high_nm:
                    found.append((height, slab, side, index))
    found.sort()
    numbers = np.array([entry[1:] for entry in found], dtype=int).reshape(len(found), 3)
    return _displaced(settings, material, np.array([entry[0] for entry in found]), *numbers.T)


def _displaced(
    settings: SimulationSettings,
    material: Material,
    height_nm: np.ndarray,
    slab: np.ndarray,
    side: np.ndarray,
    index: np.ndarray,
) -> PlaneStack:
    """Add displacement and phase rules to bare planes."""
    upward = np.where(side < 0, -1, 1)  # the mirror plane goes with the upper side
    wave = material.superstructure
    parity = np.where((slab % 2 == 1) & (wave is None or wave.antiphase_slabs), -1, 1)
    # Direction of the displacement at θ = 0: a rigid undulation moves both sides of a slab alike, breathing oppositely.
    direction = parity * upward if settings.structure.breathing else parity
    amplitude = np.zeros(len(slab))
    if wave is not None:
        names = [layer.name for layer in material.layers]
        by_layer = np.array([wave.displacement_nm.get(name, 0.0) for name in names])
        amplitude = settings.structure.corrugation * by_layer[index] * direction
    turned = np.isin(slab, settings.structure.turned_slabs)
    amplitude = np.where(turned, 0.0, amplitude)
    rule = settings.modulation.phase_rule
    if rule == "material":
        rule = "outward" if wave is None or wave.antiphase_planes else "slab"
    outward = direction * upward
    modulation = {"outward": outward, "slab": parity, "in_phase": np.ones(len(slab), dtype=int)}[rule]
    return PlaneStack(
        slab=slab,
        side=side,
        layer=index,
        height_nm=height_nm,
        amplitude_nm=amplitude,
        outward_shift_rad=np.where(outward > 0, 0.0, np.pi),
        modulation_shift_rad=np.where(modulation > 0, 0.0, np.pi),
        turned=turned,
    )


def crystal_scene(settings: SimulationSettings, material: Material) -> Scene:
    """Put the crystal into the scan.

    Parameters
    ----------
    settings
        Grid, drift, superstructure and thickness.
    material
        Crystal, layers, superstructure.

    Returns
    -------
    Scene
        Planes, places of the probe and true maps.

    Raises
    ------
    ConfigError
        If the material has no crystal or no layers.
    """
    period_nm = superstructure_period_nm(settings, material)
    path = probe_path(settings, period_nm)
    # A whole slab more on either side: every position then has all planes of its own half-slab.
    reach = max(REACH_NM, 0.5 * crystal_of(material).c_nm)
    planes = planes_between(settings, material, path.c_nm.min() - reach, path.c_nm.max() + reach)
    thickness = _thickness(settings)
    truth = _true_maps(settings, material, period_nm, planes, path, thickness)
    return Scene(settings, material, period_nm, planes, path, thickness, truth)


def _thickness(settings: SimulationSettings) -> np.ndarray:
    scan, wedge = settings.scan, settings.thickness
    rows = np.linspace(-0.5, 0.5, scan.rows) if scan.rows > 1 else np.zeros(1)
    columns = np.linspace(-0.5, 0.5, scan.columns) if scan.columns > 1 else np.zeros(1)
    return (1.0 + wedge.wedge_rows * rows[:, None]) * (1.0 + wedge.wedge_columns * columns[None, :])


def _true_maps(
    settings: SimulationSettings,
    material: Material,
    period_nm: float,
    planes: PlaneStack,
    path: ProbePath,
    thickness: np.ndarray,
) -> xr.Dataset:
    """Maps of frame 0 that an analysis of layers and superstructure has to find."""
    import xarray as xr

    b_nm, c_nm = path.b_nm[0], path.c_nm[0]
    theta = lateral_phase(settings, period_nm, b_nm)
    nearest, distance, warped = _nearest_plane(planes, theta, c_nm)
    c_lattice = crystal_of(material).c_nm
    # A half-slab ends at the displaced mirror plane, so it is told from the warped coordinate.
    slab = np.floor(2.0 * warped / c_lattice).astype(int)
    upper = warped >= (slab + 0.5) * 0.5 * c_lattice
    # One phase for all planes of a half-slab; the mirror plane belongs to both halves and is not asked.
    entries = zip(planes.half_slab, planes.side, planes.outward_shift_rad, strict=True)
    by_half = {int(half): shift for half, side, shift in entries if side != 0}
    half_slab = 2 * slab + upper
    shift = np.array([by_half[half] for half in half_slab.ravel().tolist()]).reshape(slab.shape)
    side = np.where(planes.side[nearest] == 0, 0, np.where(upper, 1, -1))
    dims = ("row", "column")
    names = [layer.name for layer in material.layers]
    flags = {"flag_values": list(range(len(names))), "flag_meanings": " ".join(names)}

    def put(values: np.ndarray, unit: str, meaning: str, **more: object) -> tuple[object, ...]:
        return (dims, values, {"units": unit, "long_name": meaning, **more})

    return xr.Dataset(
        {
            "layer": put(planes.layer[nearest].astype(np.int16), "1", "layer of the nearest displaced plane", **flags),
            "layer_distance_nm": put(distance, "nm", "distance to that plane along +c"),
            "slab": put(slab.astype(np.int16), "1", "number of the slab"),
            "half_slab": put(half_slab.astype(np.int16), "1", "2 slab, + 1 on the upper side"),
            "outward": put(side.astype(np.int16), "1", "outward normal along c, 0 at the mirror plane"),
            "b_nm": put(b_nm, "nm", "probe along b"),
            "c_nm": put(c_nm, "nm", "probe along c, rigid crystal"),
            "c_position_nm": put(warped, "nm", "probe along c in the frame where planes are flat"),
            "c_fraction": put(
                np.mod(warped / c_lattice, 1.0), "1", "that as a fraction of c; 0 is the van der Waals gap"
            ),
            "lateral_phase_rad": put(np.mod(theta, 2 * np.pi), "rad", "phase of the wave of even slabs"),
            "phase_rad": put(np.mod(theta + shift, 2 * np.pi), "rad", "phase counted outward, 0 at the outward crest"),
            "thickness": put(thickness, "1", "thickness over its mean"),
        },
        coords={
            "row": ("row", settings.scan.row_step_nm * np.arange(settings.scan.rows), {"units": "nm"}),
            "column": ("column", settings.scan.column_step_nm * np.arange(settings.scan.columns), {"units": "nm"}),
        },
    )


def _nearest_plane(
    planes: PlaneStack, theta: np.ndarray, c_nm: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index of the nearest displaced plane, signed distance to it, and c where all planes are put back flat."""
    nearest = np.zeros(c_nm.shape, dtype=int)
    distance = np.full(c_nm.shape, np.inf)
    warped = np.array(c_nm, copy=True)
    cosine = np.cos(theta)
    below = planes.height_nm[0] + planes.amplitude_nm[0] * cosine
    for p in range(len(planes.height_nm)):
        place = planes.height_nm[p] + planes.amplitude_nm[p] * cosine
        closer = np.abs(c_nm - place) < np.abs(distance)
        nearest[closer] = p
        distance = np.where(closer, c_nm - place, distance)
        if p:
            inside = (c_nm >= below) & (c_nm < place)
            fraction = (c_nm - below) / (place - below)
            flat = planes.height_nm[p - 1] + fraction * (planes.height_nm[p] - planes.height_nm[p - 1])
            warped = np.where(inside, flat, warped)
        below = place
    return nearest, distance, warped
