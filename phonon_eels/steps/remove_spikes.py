"""Find cosmic rays, hot, dead and saturated channels; repair them with what was expected, without invented noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.backends.outliers import clean_rows, find_in_rows
from phonon_eels.config.settings import RemoveSpikes
from phonon_eels.errors import DataError
from phonon_eels.forward.scan import electrons
from phonon_eels.kernels.outliers import DEAD, GOOD, GROWN, HOT, SATURATED, SPIKE
from phonon_eels.spectrum_image import SpectrumImage, StepResult
from phonon_eels.steps.maps import count_status, scan_dataset
from phonon_eels.steps.peak_spikes import spikes_on_peak
from phonon_eels.steps.spec import StepContext, StepSpec
from phonon_eels.steps.spike_survey import SPARED_FWHM, Survey, survey_scan

if TYPE_CHECKING:
    import pandas as pd

STATUS_MEANINGS = ("clean", "repaired", "saturated", "no_data")
LOWEST_LEVEL = 4.8  # standard deviations; keeps false alarms of both tests together below 1e-5 per channel
POWER = 0.6  # of the threshold: a spike as large as the threshold then fails to be found once in a hundred times
NARROW_FWHM = 3.5  # channels; a running median of seven takes out a zero-loss peak of such a width like a spike
LISTED = 1000  # spikes in the table, the largest


MOST_FLAGGED = 20_000_000
"""Channels that are kept in lists, 11 to 23 bytes each: more are no spikes, and would be beyond the memory that a step may take."""
CHUNK = 1_000_000


@dataclass(frozen=True)
class _Found:
    """Flagged channels of the scan as lists, in order of rows, columns, channels; each in the smallest type that holds it."""

    row: np.ndarray
    column: np.ndarray
    channel: np.ndarray
    flag: np.ndarray
    counts: np.ndarray
    expected: np.ndarray

    def sorted(self) -> _Found:
        order = np.lexsort((self.channel, self.column, self.row))
        parts = (self.row, self.column, self.channel, self.flag, self.counts, self.expected)
        return _Found(*(part[order] for part in parts))

    def of_rows(self, first: int, last: int) -> slice:
        """Return where the entries of some rows lie, the last one included."""
        low, high = np.searchsorted(self.row, [first, last + 1])
        return slice(int(low), int(high))

    def per_position(self, shape: tuple[int, ...], flag: int) -> np.ndarray:
        result = np.zeros(shape[:2], dtype=np.int32)
        for row in range(shape[0]):
            inside = self.of_rows(row, row)
            here = self.column[inside][self.flag[inside] == flag]
            result[row] = np.bincount(here, minlength=shape[1])
        return result

    def largest(self, number: int) -> np.ndarray:
        """Return which spikes and dead channels are farthest from what was expected, in their order; a part of the list at a time."""
        kept = np.empty(0, dtype=np.int64)
        for start in range(0, self.flag.size, CHUNK):
            flag = self.flag[start : start + CHUNK]
            chosen = np.concatenate([kept, start + np.flatnonzero((flag == SPIKE) | (flag == DEAD))])
            off = np.abs(self.counts[chosen].astype(np.float64) - self.expected[chosen])
            kept = np.sort(chosen[np.argsort(-off, kind="stable")[:number]])
        return kept


def remove_spikes(image: SpectrumImage, settings: RemoveSpikes, context: StepContext) -> StepResult:
    """Find and repair channels that hold what no electron of the spectrum has put there.

    A channel is a spike (or dead) if it leaves both expectations: that of its own neighbouring channels and that of
    the neighbouring positions along the row; on the zero-loss peak, if it leaves the fit of that peak (`peak_spikes`). `threshold_sigma` is the size of a spike that is found 99 times in 100:
    both tests decide at 0.6 of it (never below 4.8), where false alarms are rarer than 1e-5 per channel.

    Parameters
    ----------
    image
        Raw counts, (rows, columns, channels).
    settings
        See `RemoveSpikes`.

    Returns
    -------
    StepResult
        Repaired counts with `bad` True at every channel that is no measurement (image None if there is none),
        numbers per position, hot channels and the largest spikes as tables.

    Raises
    ------
    DataError
        If `protect_mev` leaves the energy axis, or so many channels are flagged that the noise model must be wrong.
    """
    if not settings.enabled:
        return StepResult(skipped="remove_spikes is off")
    protected = np.zeros(image.energy.n_channels, dtype=bool)
    if settings.protect_mev is not None:
        protected[image.energy.window(*settings.protect_mev, name="remove_spikes.protect_mev")] = True
    # The rows give the neighbours: a scan of one or two columns is looked at from the side.
    turned = image.shape[1] < 3 <= image.shape[0]
    counts, bad = (_turned(image.counts), _turned(image.bad)) if turned else (image.counts, image.bad)
    masked = np.zeros(image.shape[:2], dtype=bool) if image.masked is None else image.masked
    masked = masked.T if turned else masked
    survey = survey_scan(counts, image, masked, protected, settings, context)
    found = _find(counts, bad, masked, image, protected, survey, settings, context)
    if turned:
        found = _Found(found.column, found.row, found.channel, found.flag, found.counts, found.expected).sorted()
    if settings.on_zero_loss and image.variance is None:
        found = _with_peak(image, found, protected, survey, settings, context)
    maps, status = _maps(image, found)
    result = None
    if found.flag.size:
        result = image.with_(counts=_repaired(image, found, context), bad=_marked(image, found, context))
    summary = _summary(image, found, survey, settings)
    summary["status_counts"] = count_status(status, STATUS_MEANINGS)
    tables = {"hot_channels": survey.table, "spikes": _largest(image, found)}
    return StepResult(image=result, maps=maps, tables=tables, summary=summary, messages=_messages(image, found, survey))


def detection_level(threshold_sigma: float) -> float:
    """Return the significance at which both tests decide, for spikes of `threshold_sigma` to be found nearly always."""
    return min(threshold_sigma, max(POWER * threshold_sigma, LOWEST_LEVEL))


def _turned(array: Any) -> Any:
    return None if array is None else array.transpose(1, 0, 2)


def _find(
    counts: Any,
    bad: Any,
    masked: np.ndarray,
    image: SpectrumImage,
    protected: np.ndarray,
    survey: Survey,
    settings: RemoveSpikes,
    context: StepContext,
) -> _Found:
    """Judge every spectrum and keep what is flagged: spikes are rare, so the lists are short."""
    gain, dark = electrons(image)
    read = image.noise.read_noise_e**2
    level = detection_level(settings.threshold_sigma)
    per_readout = context.acquisition_settings.get("saturation_counts")
    saturation = np.inf if per_readout is None else float(per_readout) * max(image.acquisition.n_frames, 1)
    per_channel = np.where(protected, GROWN, GOOD).astype(np.uint8)
    per_channel[survey.hot] = np.where(protected[survey.hot], GROWN, HOT)
    hot_only = np.where(per_channel == HOT, HOT, GOOD).astype(np.uint8)

    def judge(first: int, block: np.ndarray, known: np.ndarray | None) -> tuple[np.ndarray, ...]:
        y = np.asarray(block, dtype=np.float64)
        z = np.ascontiguousarray((y - dark) / gain)
        state = np.broadcast_to(per_channel, z.shape).copy()
        state[y >= saturation] = SATURATED
        if known is not None:
            state[np.asarray(known) & (state != SATURATED)] = GROWN
        # What lies under the mask is no neighbour to expect anything from.
        hidden = masked[first : first + len(z)]
        z[hidden], state[hidden] = 0.0, GROWN
        cleaned, flags, expected = np.empty_like(z), np.zeros(z.shape, np.uint8), np.zeros_like(z)
        narrow = survey.zero_loss_half < SPARED_FWHM * NARROW_FWHM
        clean_rows(z, hot_only, read, 4.0 * survey.noise_scale, narrow, cleaned)
        find_in_rows(
            z, cleaned, state, read, survey.noise_scale, level, survey.half, survey.zero_loss_half,
            settings.grow_channels, flags, expected,
        )  # fmt: skip
        flags[hidden] = 0
        place = np.nonzero(flags)
        repaired = np.where(flags[place] == SATURATED, y[place], dark + gain * expected[place])
        return _compact((place[0] + first, place[1], place[2], flags[place], y[place], repaired), counts)

    parts: dict[int, list[np.ndarray]] = {}
    flagged = [0]

    def take(first: int, part: tuple[np.ndarray, ...]) -> None:
        parts[first] = list(part)
        flagged[0] += part[0].size
        if flagged[0] > MOST_FLAGGED:
            raise DataError(
                f"more than {MOST_FLAGGED} channels are flagged, those of {len(parts)} blocks of rows alone: no scan has that many spikes; "
                "give gain and read noise of the noise model (acquisition.gain, acquisition.read_noise_e), raise "
                "remove_spikes.threshold_sigma, or set remove_spikes.enabled=false"
            )

    context.backend.map_rows(judge, [counts, bad], progress=context.progress, take=take)
    in_order = [parts[first] for first in sorted(parts)]
    joined = []
    for _ in range(6):  # one list at a time, so that not all of them are there twice
        joined.append(np.concatenate([part.pop(0) for part in in_order]))
    return _Found(*joined)


def _compact(lists: tuple[np.ndarray, ...], counts: Any) -> tuple[np.ndarray, ...]:
    """Return rows, columns, channels, flags, counts and expectations in the smallest types that hold them."""
    places = (part.astype(np.min_scalar_type(size)) for part, size in zip(lists, counts.shape, strict=False))
    dtype = counts.dtype.newbyteorder("=")
    return (*places, lists[3], lists[4].astype(dtype), lists[5].astype(np.result_type(dtype, np.float32)))


def _with_peak(
    image: SpectrumImage, found: _Found, protected: np.ndarray, survey: Survey, settings: RemoveSpikes, context: StepContext
) -> _Found:  # fmt: skip
    """Add the spikes on the zero-loss peak, which only a fit of the peak can tell."""
    seen = image
    if found.flag.size:
        seen = image.with_(counts=_repaired(image, found, context), bad=_marked(image, found, context))
    untouched = protected.copy()
    untouched[survey.hot] = True
    level = detection_level(settings.threshold_sigma)
    more = spikes_on_peak(seen, untouched, level, context.backend)
    if not more.row.size:
        return found
    gain, dark = electrons(image)
    flag = np.full(more.row.size, SPIKE, dtype=np.uint8)
    expected: np.ndarray = dark + gain * more.expected_e
    added = _compact((more.row, more.column, more.channel, flag, more.counts, expected), image.counts)
    parts = (found.row, found.column, found.channel, found.flag, found.counts, found.expected)
    return _Found(*(np.concatenate(pair) for pair in zip(parts, added, strict=True))).sorted()


def _repaired(image: SpectrumImage, found: _Found, context: StepContext) -> Any:
    dtype = np.result_type(image.counts.dtype, np.float32)

    def block(counts: np.ndarray, rows: np.ndarray) -> np.ndarray:
        result = np.array(counts, dtype=dtype)
        inside, here = _of_rows(found, rows)
        result[here] = found.expected[inside]
        return result

    return context.backend.map_cube(block, [image.counts, _row_numbers(image)], dtype=dtype)


def _marked(image: SpectrumImage, found: _Found, context: StepContext) -> Any:
    shape = image.shape

    def block(counts: np.ndarray, rows: np.ndarray, known: np.ndarray | None) -> np.ndarray:
        result = np.zeros((rows.shape[0], *shape[1:]), dtype=bool) if known is None else np.array(known, dtype=bool)
        result[_of_rows(found, rows)[1]] = True
        return result

    return context.backend.map_cube(block, [image.counts, _row_numbers(image), image.bad], dtype=bool)


def _row_numbers(image: SpectrumImage) -> np.ndarray:
    return np.arange(image.shape[0]).reshape(-1, 1, 1)


def _of_rows(found: _Found, rows: np.ndarray) -> tuple[slice, tuple[np.ndarray, ...]]:
    """Which list entries belong to a block of rows, and where in the block."""
    first, last = (int(rows[0, 0, 0]), int(rows[-1, 0, 0])) if rows.size else (0, -1)
    inside = found.of_rows(first, last)
    return inside, (found.row[inside].astype(np.int64) - first, found.column[inside], found.channel[inside])


def _maps(image: SpectrumImage, found: _Found) -> tuple[Any, np.ndarray]:
    numbers = {flag: found.per_position(image.shape, flag) for flag in (SPIKE, DEAD, HOT, SATURATED, GROWN)}
    repaired = numbers[SPIKE] + numbers[DEAD] + numbers[HOT] + numbers[GROWN]
    status = np.where(numbers[SATURATED] > 0, 2, np.where(repaired > 0, 1, 0))
    values = {
        "spikes": (numbers[SPIKE], "1"),
        "dead_channels": (numbers[DEAD], "1"),
        "saturated_channels": (numbers[SATURATED], "1"),
        "repaired_channels": (repaired, "1"),
    }
    return scan_dataset(image, values, status, STATUS_MEANINGS), status


def _summary(image: SpectrumImage, found: _Found, survey: Survey, settings: RemoveSpikes) -> dict[str, Any]:
    spikes = int(np.count_nonzero(found.flag == SPIKE))
    return {
        "spikes": spikes,
        "spikes_per_channel": spikes / float(np.prod(image.shape)),
        "dead": int(np.count_nonzero(found.flag == DEAD)),
        "saturated": int(np.count_nonzero(found.flag == SATURATED)),
        "masked_channels": int(found.flag.size),
        "hot_channels": [int(channel) for channel in survey.hot],
        "detection_level_sigma": detection_level(settings.threshold_sigma),
        "noise_scale": survey.noise_scale,
        "spared_half_width_mev": survey.zero_loss_half * image.energy.dispersion_mev,
    }


def _largest(image: SpectrumImage, found: _Found) -> pd.DataFrame:
    import pandas as pd

    chosen = found.largest(LISTED)
    return pd.DataFrame(
        {
            "row": found.row[chosen].astype(np.int64),
            "column": found.column[chosen].astype(np.int64),
            "energy_loss_mev": image.energy.offset_mev + image.energy.dispersion_mev * found.channel[chosen],
            "kind": np.where(found.flag[chosen] == SPIKE, "spike", "dead"),
            "counts": found.counts[chosen].astype(np.float64),
            "expected_counts": found.expected[chosen].astype(np.float64),
        }
    )


def _messages(image: SpectrumImage, found: _Found, survey: Survey) -> tuple[str, ...]:
    messages = []
    spikes = int(np.count_nonzero(found.flag == SPIKE))
    if spikes > 1e-3 * np.prod(image.shape):
        messages.append(
            f"{spikes} spikes are more than one channel in a thousand: look at gain and read noise of the noise model, "
            "or raise remove_spikes.threshold_sigma"
        )
    if survey.noise_scale > 1.3 or survey.noise_scale < 0.7:
        messages.append(
            f"the noise is {survey.noise_scale:.2f} times what the noise model says; "
            "spikes were judged by the noise seen"
        )
    if survey.hot.size:
        messages.append(f"hot or dead in every spectrum: channels {', '.join(str(channel) for channel in survey.hot)}")
    if image.shape[0] < 3 and image.shape[1] < 3:
        messages.append("too few positions for a comparison with neighbours: spikes were judged by their spectra alone")
    return tuple(messages)


REMOVE_SPIKES = StepSpec(
    name="remove_spikes",
    run=remove_spikes,
    makes={"spikes": "1", "dead_channels": "1", "saturated_channels": "1", "repaired_channels": "1"},
    bytes_per_channel=40.0,
    reference="two expectations, significances from the deviance of the shifted Poisson law",
)
