"""Acquisition and noise in HyperSpy's metadata tree, where HyperSpy users look for them.

What HyperSpy has no place for stands under the node `PhononEELS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phonon_eels.spectrum_image import Acquisition, NoiseModel, SpectrumImage

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
