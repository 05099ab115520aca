"""Layer labels and boundaries over seeded scans of the package's simulator, against its truth."""

import numpy as np
import pytest

from phonon_eels.config import SimulationSettings, load_material
from phonon_eels.lattice.layers import find_layers, label_positions
from phonon_eels.simulate.crystal import crystal_scene
from phonon_eels.simulate.haadf import haadf

pytestmark = pytest.mark.statistics
BI2212 = load_material("bi2212")


def _scan(seed, step_nm=0.06, electrons=500.0, rotation_rad=0.0, **scan):
    """Return simulated scene and dark-field image."""
    settings = SimulationSettings.model_validate(
        {
            "seed": seed,
            "scan": {
                "rows": 96, "columns": 96, "row_step_nm": step_nm, "column_step_nm": step_nm,
                "rotation_rad": rotation_rad,
                "c_origin_nm": 0.37 * seed, "b_origin_nm": 0.61 * seed, **scan,
            },
            "haadf": {"electrons": electrons},
        }
    )  # fmt: skip
    scene = crystal_scene(settings, BI2212)
    return scene, haadf(scene, np.random.default_rng(seed)).astype(float)


def _score(scene, image):
    """Return share of right labels (the gap counts as BiO, as in the truth) and mean error along c in nm."""
    scan = scene.settings.scan
    model = find_layers(
        image, np.arange(scan.rows) * scan.row_step_nm, np.arange(scan.columns) * scan.column_step_nm, BI2212
    )
    labels = label_positions(model)
    layer = np.where(labels.layer == len(model.stack.names), model.stack.anchor, labels.layer)
    off = labels.c_position_nm - scene.truth["c_position_nm"].values
    off -= model.stack.repeat_nm * np.round(np.median(off) / model.stack.repeat_nm)
    return np.mean(layer == scene.truth["layer"].values), np.abs(off).mean()


@pytest.mark.parametrize(("electrons", "wanted"), [(500.0, 0.97), (500.0 / 16.0, 0.90)], ids=["realistic", "4 x noise"])
def test_labels_and_boundaries_at_06_angstrom(electrons, wanted):
    scores = np.array([_score(*_scan(seed, electrons=electrons)) for seed in range(6)])
    assert scores[:, 0].min() >= wanted
    assert scores[:, 1].mean() < 0.01  # 0.1 Å: boundaries are lines of constant c in that frame


@pytest.mark.parametrize("rotation", [0.12, -0.2])
def test_turned_scans_are_as_good(rotation):
    right, off = _score(*_scan(1, rotation_rad=rotation))
    assert right >= 0.97
    assert off < 0.01


def test_drifting_scan_is_followed():
    right, off = _score(*_scan(2, drift_row_nm=0.2, drift_column_nm=0.1, wander_nm=0.008))
    assert right >= 0.97
    assert off < 0.01
