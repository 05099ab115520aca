"""Acquisition and noise in HyperSpy's metadata tree, where HyperSpy users look for them.

What HyperSpy has no place for stands under the node `PhononEELS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from phonon_eels.spectrum_image import Acquisition, NoiseModel, Source, SpectrumImage

NOISE_FIELDS = ("gain", "dark_level", "read_noise_e", "noise_correlation")


def known_noise(noise: NoiseModel) -> dict[str, Any]:
    """Return what is given or measured of a noise model; left out is what nobody should take for known."""
    known = {name: getattr(noise, name) for name in NOISE_FIELDS if noise.source.get(name, "assumed") != "assumed"}
    if known:
        known["source"] = {name: noise.source[name] for name in known}
    if noise.denoised:
        known["denoised"] = True
    return known


def metadata_tree(image: SpectrumImage, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return HyperSpy's metadata of a spectrum image.

    Parameters
    ----------
    extra
        More entries of the node `PhononEELS`.
    """
    acquisition = image.acquisition
    eels = _present(collection_angle=acquisition.collection_semi_angle_mrad, dwell_time=acquisition.dwell_time_s)
    tem = _present(
        beam_energy=acquisition.beam_energy_kev,
        convergence_angle=acquisition.convergence_semi_angle_mrad,
        microscope=acquisition.instrument,
        acquisition_mode="STEM",
    )
    if eels:
        tem["Detector"] = {"EELS": eels}
    if acquisition.temperature_k is not None:
        tem["Stage"] = {"temperature": acquisition.temperature_k}
    signal: dict[str, Any] = {"signal_type": "EELS", "quantity": "Electrons (Counts)"}
    noise = known_noise(image.noise)
    if "gain" in noise:
        # HyperSpy's model: variance = (gain_factor * counts + gain_offset) * correlation_factor.
        dark = image.noise.gain * image.noise.dark_level
        read_variance = (image.noise.gain * image.noise.read_noise_e) ** 2
        signal["Noise_properties"] = {
            "Variance_linear_model": {
                "gain_factor": image.noise.gain,
                "gain_offset": read_variance - dark,
                "correlation_factor": 1.0,
            }
        }
    ours = {"schema_version": 1, **_present(geometry=acquisition.geometry), "n_frames": acquisition.n_frames}
    if noise:
        ours["noise"] = noise
    ours.update(extra or {})
    return {
        "General": {"title": image.title},
        "Signal": signal,
        "Acquisition_instrument": {"TEM": tem},
        "PhononEELS": ours,
    }


def _present(**entries: Any) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if value is not None}


def acquisition_to_json(acquisition: Acquisition) -> dict[str, Any]:
    """Return all fields, None where unknown."""
    return {name: getattr(acquisition, name) for name in Acquisition.__dataclass_fields__}


def noise_to_json(noise: NoiseModel) -> dict[str, Any]:
    """Return all fields; where each comes from stands under `source`."""
    return {
        **{name: getattr(noise, name) for name in NOISE_FIELDS},
        "denoised": noise.denoised,
        "source": dict(noise.source),
    }


def file_acquisition(metadata: Mapping[str, Any], original: Mapping[str, Any]) -> Acquisition:
    """Return what a file says about the acquisition; zero and absent both mean unknown.

    Parameters
    ----------
    metadata
        HyperSpy's metadata tree; angles in it are semi-angles.
    original
        The vendor's own tree (Velox leaves the beam energy only there).
    """
    instrument = _branch(metadata, "Acquisition_instrument")
    tem = _branch(instrument, "TEM") or _branch(instrument, "SEM")
    eels = _branch(_branch(tem, "Detector"), "EELS")
    ours = _branch(metadata, "PhononEELS")
    volts = _number(_branch(original, "Optics"), "AccelerationVoltage")
    geometry = ours.get("geometry")
    name = tem.get("microscope")
    dwell_places = ((eels, "dwell_time"), (tem, "dwell_time"), (eels, "exposure"))
    dwell = [_number(tree, key, {"s": 1.0, "ms": 1e-3, "us": 1e-6}) for tree, key in dwell_places]
    return Acquisition(
        beam_energy_kev=_number(tem, "beam_energy", {"kv": 1.0, "kev": 1.0, "v": 1e-3}) or (volts and volts / 1e3),
        convergence_semi_angle_mrad=_number(tem, "convergence_angle", {"mr": 1.0, "mrad": 1.0, "rad": 1e3}),
        collection_semi_angle_mrad=_number(eels, "collection_angle", {"mr": 1.0, "mrad": 1.0, "rad": 1e3}),
        geometry=geometry if geometry in ("on-axis", "off-axis") else None,
        temperature_k=_number(_branch(tem, "Stage"), "temperature"),
        dwell_time_s=next((value for value in dwell if value), None),
        n_frames=int(_number(ours, "n_frames") or _number(eels, "frame_number") or 1),
        instrument=str(name) if name else None,
    )


def file_noise(metadata: Mapping[str, Any], original: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Source]]:
    """Return what a file says about the detector, and where each value comes from."""
    ours = _branch(_branch(metadata, "PhononEELS"), "noise")
    values: dict[str, Any] = {}
    source: dict[str, Source] = {}
    for name in NOISE_FIELDS:
        value = ours.get(name)
        if value is not None and math.isfinite(float(value)):
            values[name] = float(value)
            source[name] = "measured" if _branch(ours, "source").get(name) == "measured" else "given"
    if ours.get("denoised"):
        values["denoised"] = True
    gain = camera_gain(metadata, original)
    if "gain" not in values and gain is not None:
        values["gain"], source["gain"] = gain, "given"
    return values, source


def electrons_per_count(original: Mapping[str, Any]) -> float | None:
    """Return DigitalMicrograph's intensity calibration where it is in electrons: electrons per detector count."""
    tree: Any = original
    for name in ("ImageList", "TagGroup0", "ImageData", "Calibrations", "Brightness"):
        tree = _branch(tree, name)
    return _number(tree, "Scale") if str(tree.get("Units", "")).strip() in ("e-", "e", "e⁻", "electrons") else None


def camera_gain(metadata: Mapping[str, Any], original: Mapping[str, Any]) -> float | None:
    """Return detector counts per electron as a file gives them, or None.

    DigitalMicrograph calibrates intensities in electrons, so its scale is electrons per count. RosettaSciIO hands that
    scale on as HyperSpy's `gain_factor`, which means variance over counts, hence counts per electron: the reciprocal.
    The data say so too: on the measured spectrum image with the scale 0.1285 variance over mean is 5 to 20, not 0.13.
    """
    conversion = electrons_per_count(original)
    if conversion:
        return 1.0 / conversion
    model = _branch(_branch(_branch(metadata, "Signal"), "Noise_properties"), "Variance_linear_model")
    factor = _number(model, "gain_factor")
    # 1 is what HyperSpy and DigitalMicrograph write when nobody has said anything.
    return None if factor is None or factor == 1.0 else factor


def _branch(tree: Any, name: str) -> Mapping[str, Any]:
    found = tree.get(name) if isinstance(tree, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _number(tree: Mapping[str, Any], name: str, units: Mapping[str, float] | None = None) -> float | None:
    """Return a positive finite number, in the unit that stands beside it (EMSA/MAS), else None."""
    try:
        value = float(tree[name])
    except (KeyError, TypeError, ValueError):
        return None
    unit = str(tree.get(f"{name}_units", "")).strip().lower()
    if units is not None and unit:
        if unit not in units:
            return None
        value *= units[unit]
    return value if math.isfinite(value) and value > 0.0 else None
