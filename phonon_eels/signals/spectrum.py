"""The signal type "PhononEELS": HyperSpy signals with the steps of this package as methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from exspy.signals import EELSSpectrum, LazyEELSSpectrum

from phonon_eels.component_fit.model import Component
from phonon_eels.config import Material, Settings, load_material
from phonon_eels.config.load import settings_from_tree
from phonon_eels.errors import DataError
from phonon_eels.io.export import signal_dictionary
from phonon_eels.io.haadf import find_haadf
from phonon_eels.io.metadata import known_noise
from phonon_eels.io.read import to_spectrum_image
from phonon_eels.io.vendor import FileSignal
from phonon_eels.signals.maps import PhononMaps
from phonon_eels.spectrum_image import SpectrumImage, StepResult
from phonon_eels.steps.maps import mark_masked
from phonon_eels.steps.registry import find_step
from phonon_eels.steps.spec import StepContext

_ALIGNED = "PhononEELS.align_zlp"


class PhononEELS(EELSSpectrum):
    """Vibrational EELS: (rows, columns), a line scan, a single spectrum, or frames of them, in detector counts.

    Methods leave the counts alone. What `align_zlp` finds stands in the metadata (``PhononEELS.align_zlp``), so it
    survives saving; where the detector's gain, dark level and read noise are not known they are measured, and stand
    under ``PhononEELS.noise``.
    """

    _signal_type = "PhononEELS"
    _alias_signal_types: ClassVar = ["phonon EELS", "vibrational EELS"]

    @classmethod
    def from_spectrum_image(cls, image: SpectrumImage) -> PhononEELS:
        """Return the signal of a spectrum image of this package; lazy counts give a lazy signal.

        Parameters
        ----------
        image
            Its frames are taken instead of their sum where it has any.
        """
        data = image.counts if image.frames is None else image.frames
        extra = {} if image.haadf is None else {"haadf": np.ascontiguousarray(image.haadf)}
        parts = signal_dictionary(image, data, extra)
        parts["metadata"]["Signal"]["signal_type"] = cls._signal_type
        kind = LazyPhononEELS if hasattr(data, "dask") else PhononEELS
        return kind(data, axes=parts["axes"], metadata=parts["metadata"])

    def to_spectrum_image(self, acquisition: Mapping[str, Any] | None = None) -> SpectrumImage:
        """Return the package's own spectrum image.

        The HAADF image of ``PhononEELS.haadf`` comes with it, unless the signal was cropped along the scan, which
        HyperSpy does to the spectra alone.

        Parameters
        ----------
        acquisition
            What the metadata do not say, or say wrongly: keys of the settings' section `acquisition`.

        Raises
        ------
        InputFileError
            If an axis has no unit or the wrong one.
        ConfigError
            If a key of `acquisition` is not allowed.
        """
        return spectrum_image_of(self, acquisition)

    def align_zlp(self, acquisition: Mapping[str, Any] | None = None, **settings: Any) -> PhononMaps:
        """Fit the zero-loss peak at every position and keep its centres as energy origins; counts are not moved.

        Parameters
        ----------
        acquisition
            As for `to_spectrum_image`.
        **settings
            Keys of the settings' section `align_zlp`, as ``search_window_mev=(-30, 30)``.

        Returns
        -------
        PhononMaps
            Centre, FWHM, tails and counts of the peak, with standard deviations.

        Raises
        ------
        PhononEELSError
            As the steps `ingest` and `align_zlp`.
        """
        image = self._ingested(acquisition)
        result = _run("align_zlp", image, {"alignment": "coordinate", **settings}, _context())
        assert result.maps is not None
        names = ("zlp_center_mev", "zlp_center_mev_std", "zlp_counts", "status")
        kept: dict[str, Any] = {name: np.asarray(result.maps[name].values) for name in names}
        for name in names:
            self.metadata.set_item(f"{_ALIGNED}.{name}", kept[name])
        for name, value in result.summary["reference"].items():
            self.metadata.set_item(f"{_ALIGNED}.reference.{name}", float(value))
        noise = known_noise(image.noise)
        for name, value in noise.pop("source", {}).items():
            self.metadata.set_item(f"PhononEELS.noise.source.{name}", value)
            self.metadata.set_item(f"PhononEELS.noise.{name}", noise[name])
        return PhononMaps(result)

    def fit_peaks(
        self,
        material: str | Material = "bi2212",
        acquisition: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> PhononMaps:
        """Fit the material's modes to the raw counts of every position (forward route).

        Parameters
        ----------
        material
            Name of a shipped material, path of a YAML file, or a `Material`.
        acquisition
            As for `to_spectrum_image`; ``{"temperature_k": 100}`` sets the occupation of the modes.
        **settings
            Keys of the settings' section `fit_peaks`.

        Returns
        -------
        PhononMaps
            Energies, areas and widths with deviations; ``.to_model()`` hands the fit back as a HyperSpy model.

        Raises
        ------
        DataError
            If `align_zlp` was not called, or the signal was cropped along the scan since.
        """
        modes = load_material(material) if isinstance(material, str) else material
        image = self._ingested(acquisition)
        result = _run("fit_peaks", image, settings, self._aligned_context(image, modes))
        from phonon_eels.signals.fitted_model import fitted_model

        return PhononMaps(result, partial(fitted_model, self, image, result, modes))

    def fit_components(
        self,
        components: Sequence[Component],
        acquisition: Mapping[str, Any] | None = None,
        *,
        likelihood: Literal["poisson", "least_squares"] = "poisson",
        window_mev: tuple[float, float] | None = None,
    ) -> PhononMaps:
        """Fit peaks and backgrounds of one's own to every position; `fit_signal`, as a method."""
        return fit_signal(self, components, acquisition=acquisition, likelihood=likelihood, window_mev=window_mev)

    def remove_spikes(self, acquisition: Mapping[str, Any] | None = None, **settings: Any) -> PhononEELS:
        """Return a signal with cosmic rays and hot channels repaired, see the step `remove_spikes`.

        Which channels were repaired is lost on the way into a HyperSpy signal, which has no mask; fits that must leave
        them out go through `phonon_eels.run`.
        """
        image = self._ingested(acquisition)
        result = _run("remove_spikes", image, settings, _context())
        mended = self.from_spectrum_image(image if result.image is None else result.image)
        if not self._lazy:
            mended.compute(show_progressbar=False)
        return mended

    def _ingested(self, acquisition: Mapping[str, Any] | None) -> SpectrumImage:
        """Check the counts and measure what is not known of the detector."""
        image = self.to_spectrum_image(acquisition)
        given = settings_from_tree({"acquisition": dict(acquisition or {})}, "acquisition").acquisition.model_dump()
        result = _run("ingest", image, {"quality": "warn"}, _context(acquisition_settings=given))
        assert result.image is not None
        return result.image

    def _aligned_context(self, image: SpectrumImage, material: Material) -> StepContext:
        """Return what `fit_peaks` needs of an earlier `align_zlp`."""
        from phonon_eels.steps.maps import scan_dataset

        found = self.metadata.get_item(_ALIGNED)
        if found is None:
            raise DataError("the zero-loss peak is not known yet: call s.align_zlp() before s.fit_peaks()")
        units = {"zlp_center_mev": "meV", "zlp_center_mev_std": "meV", "zlp_counts": "electrons"}
        arrays = {name: np.asarray(found.get_item(name)) for name in (*units, "status")}
        shape = arrays["status"].shape
        if shape != image.shape[:2]:
            raise DataError(
                f"align_zlp was called on a scan of {shape} positions (rows, columns), this one has "
                f"{image.shape[:2]}: call s.align_zlp() again"
            )
        from phonon_eels.forward.scan import STATUS_MEANINGS

        values = {name: (arrays[name], unit) for name, unit in units.items()}
        maps = scan_dataset(image, values, arrays["status"], STATUS_MEANINGS)
        reference = found.get_item("reference").as_dictionary()
        return _context(material=material, maps={"align_zlp": maps}, summaries={"align_zlp": {"reference": reference}})


class LazyPhononEELS(PhononEELS, LazyEELSSpectrum):
    """Vibrational EELS that stays on the disk: steps read it block by block."""

    _lazy = True


def spectrum_image_of(signal: Any, acquisition: Mapping[str, Any] | None = None) -> SpectrumImage:
    """Return the spectrum image of any HyperSpy signal with an energy axis; parameters as `PhononEELS.to_spectrum_image`."""
    settings = settings_from_tree({"acquisition": dict(acquisition or {})}, "acquisition").acquisition
    place = Path(str(signal.metadata.General.title or "signal"))
    axes = tuple(_plain_axis(axis) for axis in signal.axes_manager._axes)
    tree = signal.metadata.as_dictionary()
    item = FileSignal(0, signal.data, axes, tree, signal.original_metadata.as_dictionary(), flags_meant=True)
    image = to_spectrum_image(item, place, settings)
    haadf = signal.metadata.get_item("PhononEELS.haadf")
    if haadf is None or np.shape(haadf) != image.shape[:2]:
        return image
    return image.with_(**find_haadf([item], item, image, place))


def fit_signal(
    signal: Any,
    components: Sequence[Component],
    *,
    acquisition: Mapping[str, Any] | None = None,
    likelihood: Literal["poisson", "least_squares"] = "poisson",
    window_mev: tuple[float, float] | None = None,
) -> PhononMaps:
    """Fit a sum of peaks and backgrounds to every spectrum of a HyperSpy signal whose axis is an energy.

    Parameters
    ----------
    signal
        Any Signal1D over at most two scan axes, lazy or not. Its axis needs the unit eV or meV; nothing is aligned.
    components
        As `phonon_eels.fit_components` takes them; energies and widths in meV.
    acquisition
        What the metadata do not say: gain, dark_level, read_noise_e, energy_unit ….
    likelihood, window_mev
        As `phonon_eels.component_fit.image.fit_image`.

    Returns
    -------
    PhononMaps
        ``maps["peak_centre_mev"].plot()``; deviations end in ``_std``, ``maps.tables["parameters"]`` holds means, and
        ``maps.messages`` what there is to say.

    Raises
    ------
    ConfigError, DataError, InputFileError
        If components make no sense, or the signal has no energy axis.
    """
    from phonon_eels.backends.select import select_backend
    from phonon_eels.component_fit.image import fit_image

    image = spectrum_image_of(signal, acquisition)
    return PhononMaps(
        fit_image(image, components, likelihood=likelihood, window_mev=window_mev, backend=select_backend("auto"))
    )


def register_nion_reader() -> None:
    """Let ``hs.load("scan.ndata1")`` find the Nion reader for the rest of this program.

    RosettaSciIO has no entry point for readers of other packages, only a list in memory, which this function extends
    (once). Without it: ``hs.load(path, file_format=phonon_eels.io.rosetta)``.
    """
    import rsciio

    from phonon_eels.io.rosetta import SPECIFICATION

    if not any(plugin["name"] == SPECIFICATION["name"] for plugin in rsciio.IO_PLUGINS):
        rsciio.IO_PLUGINS.append(dict(SPECIFICATION))


def _run(step: str, image: SpectrumImage, settings: Mapping[str, Any], context: StepContext) -> StepResult:
    """Run a step with settings given by key, checked as those of a file are."""
    section = getattr(settings_from_tree({step: dict(settings)}, f"s.{step}()"), step)
    return mark_masked(find_step(step).load().run(image, section, context), image, estimates=step != "ingest")


def _context(**changes: Any) -> StepContext:
    from phonon_eels.backends.select import select_backend

    material = changes.pop("material", None) or load_material(Settings().material)
    return StepContext(material=material, backend=select_backend("auto"), route="forward", **changes)


def _plain_axis(axis: Any) -> dict[str, Any]:
    """Return HyperSpy's axis as the dictionary that readers give; "t.Undefined" units count as none."""
    tree = dict(axis.get_axis_dictionary())
    tree["units"] = axis.units if isinstance(axis.units, str) else ""
    tree["name"] = axis.name if isinstance(axis.name, str) else ""
    return tree
