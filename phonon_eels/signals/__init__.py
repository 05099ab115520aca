"""HyperSpy's surface: the signal type "PhononEELS", maps as signals, fitted models as HyperSpy models.

>>> import hyperspy.api as hs                                          # doctest: +SKIP
>>> s = hs.load("scan.hspy"); s.set_signal_type("PhononEELS")          # doctest: +SKIP
>>> s.align_zlp(); maps = s.fit_peaks(); maps["energy_mev"].plot()     # doctest: +SKIP
>>> maps.to_model().plot()                                             # doctest: +SKIP
>>> m = s.create_model(); m.append(hs.model.components1D.Gaussian())   # doctest: +SKIP
>>> fit_model(m); m.plot()       # instead of m.multifit()             # doctest: +SKIP
"""

from phonon_eels.signals.maps import PhononMaps
from phonon_eels.signals.model_fit import fit_model
from phonon_eels.signals.spectrum import LazyPhononEELS, PhononEELS, fit_signal, register_nion_reader

__all__ = ["LazyPhononEELS", "PhononEELS", "PhononMaps", "fit_model", "fit_signal", "register_nion_reader"]
