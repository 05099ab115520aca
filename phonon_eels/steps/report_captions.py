"""Captions of the report's figures: what is seen, and what must not be read into it."""

from __future__ import annotations

OVERVIEW = (
    "HAADF with the layers in colour, mean loss spectrum with its fit, map of the energy of {mode}, and energy "
    "against superstructure phase with the fitted harmonic. Parts without a result are left out."
)
LATTICE = (
    "HAADF image (brightness as its square root), the same with every position's layer, and with the "
    "superstructure phase counted along each plane's outward normal (0: displaced outward). Solid and dashed "
    "lines: crests and troughs of the displacement wave of one slab."
)
MEAN_SPECTRUM = (
    "Mean of all fitted positions in electrons per channel. a: counts and fit with zero-loss peak, background and"
    " the fitted {plural}. b: counts less zero-loss peak and background, with every component. Below: residual in"
    " standard deviations; the grey band is ±2 σ."
)
LINE_SPECTRA = (
    "Spectra along the line, each drawn from its own zero-loss peak (interpolated for this figure only; the fit takes "
    "the counts as they are). a: every position. b: means of neighbouring positions. The zero-loss peak is cut off."
)
LAYER_SPECTRA = (
    "a: mean spectrum of the positions of each layer, set apart (on a log scale by factors). b: its difference "
    "from the mean of all layers. Bands: ±1 standard deviation of the mean. Grey lines: fitted energies."
)
UNMIXED = (
    "a: which layers are seen on each layer, with the deviation that the width of localisation (or a file) leaves. b: each layer's own "
    "spectrum, what leaks in from the others and what is the same everywhere taken off; dark bands: counting noise, light "
    "bands: with the systematic part. Zero-loss tail and background that follow a layer's thickness or elastic contrast stay in it."
)
PROFILES = (
    "a: area of the fitted {plural} against the distance from the middle of the slab, over the largest. b: their energies where the area is "
    "at least a fifth of the largest. c: layers that the area comes from. Bars: standard deviations."
)
MODE_MAPS = (
    "For every mode: fitted energy ({word}) with its standard deviation, and area with its standard deviation. "
    "Colours span 2–98 % of the values, of energies those of the better-determined half. Hatched grey: no value, "
    "see the status."
)
BINNED_MAPS = (
    "Energies of bins of positions that are just large enough for the standard deviation asked for, mode by mode, with their "
    "standard deviations and the number of positions in each bin. Where the whole scan is one bin the target may be missed."
)
TEMPERATURE_MAP = (
    "Temperature from the energy-gain and the energy-loss side of every position, with its standard deviation: half the 68 % interval "
    "of its profile likelihood. Blank: the counts of the position do not determine it. The third map counts deviations from the "
    "stage's temperature."
)
LIMIT_MAPS = (
    "Cramér-Rao bounds: the least standard deviation that any unbiased estimate of a mode's energy and area could have at each "
    "position, from the counts alone, with the zero-loss peak, the background and all other modes marginalised. Energies are left out where the bound is above four times that of the best positions."
)
WIDTH_MAPS = "Fitted intrinsic FWHM of every mode with its standard deviation."
MODULATION_SPECTRUM = (
    "Lock-in of every energy channel at the superstructure's wavevector, planes added with the sign of their "
    "outward normal; no peak model is involved. A shift of a peak looks like the derivative of the spectrum, a "
    "change of weight like the spectrum."
)
PHASE_DEPENDENCE = (
    "Mean energy in bins of the superstructure phase with standard deviations, and the first harmonic (band: ±1 "
    "standard deviation). Bins share planes: the p-value comes from the planes, not from the scatter of the bins."
)
UNITS = (
    "Every half-slab plane's complex amplitude of the energy, mean (+) and 95 % confidence ellipse of the mean. "
    "The planes are the units of replication: an ellipse around zero means no modulation."
)
ESTIMATORS = (
    "The primary amplitude by joint fit, lock-in of every channel, regression of the map and bins of phase (left), and their "
    "differences from the joint fit, formed plane by plane (right)."
)
GAP = (
    "Above: energy of the primary mode against superstructure phase. Below: the gap against the same phase, with the band of its "
    "harmonic. Only the phases are compared, and by symmetry that is one bit at most."
)
PERIOD_SCAN = (
    "Test statistic when another period is assumed. Descriptive only: the period of the test is that of the HAADF"
    " image and was not chosen by this curve."
)
ZERO_LOSS = "Centre and FWHM of the fitted zero-loss peak with standard deviations, and their course through the scan."
CLASSIC = (
    "Mean spectra of the classic route. Shaded: windows in which the background was fitted. Deconvolved spectra "
    "are for display: a splitting seen only here is no evidence."
)
STATUS = "Where the step succeeded and where it did not, and why; no position is dropped."
TRUTH = "Distance of every measured quantity from what was simulated, in standard deviations; grey: ±1 and ±3."
REGIONS = (
    "Positions that the user marked; they are not fitted, not averaged, and every map says masked there. In brackets: "
    "how many positions."
)
QUALITY = (
    "a: mean of all positions in detector counts, with the zero-loss peak as found and the dark level. b: variance "
    "over mean for channel bins of growing width; the gain (band) is where it settles. c: counts of every position, "
    "hatched where the spectrum is empty. Dots: every check, passed, warned, failed; the sentences stand in the table."
)
CHECKS = (
    "Green: passed, amber: warned, red: failed. Maps: positions concerned. Histograms and highest channels: the middle row of the "
    "scan. Lines: what the fits use (dark level, gain, read noise). Fixed pattern: mean spectrum less a running parabola."
)
