from phonon_eels import simulate as simulate
from phonon_eels.component_fit.fit import fit_components as fit_components
from phonon_eels.component_fit.fit import refit_components as refit_components
from phonon_eels.component_fit.model import Component as Component
from phonon_eels.component_fit.model import Tie as Tie
from phonon_eels.config import Settings as Settings
from phonon_eels.io.read import read as read
from phonon_eels.io.results import read_results as read_results
from phonon_eels.pipeline import run as run
from phonon_eels.pipeline import run_step as run_step
from phonon_eels.pipeline.gather import gather_settings as gather_settings
from phonon_eels.pipeline.gather import sample_path as sample_path
from phonon_eels.spectrum_image import Acquisition as Acquisition
from phonon_eels.spectrum_image import EnergyAxis as EnergyAxis
from phonon_eels.spectrum_image import NoiseModel as NoiseModel
from phonon_eels.spectrum_image import ScanAxis as ScanAxis
from phonon_eels.spectrum_image import SpectrumImage as SpectrumImage
from phonon_eels.spectrum_image import StepResult as StepResult

__version__: str
from phonon_eels.signals.model_fit import fit_model as fit_model
