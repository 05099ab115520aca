import numpy as np
import pytest

from phonon_eels.component_fit.fit import fit_components, refit_components
from phonon_eels.component_fit.model import Component
from phonon_eels.component_fit.result import STATUS_WORDS
from phonon_eels.component_fit.where import positions_where
from phonon_eels.errors import ConfigError
from tests.unit.component_fit.made_up import ENERGIES, counts, three_gaussians


@pytest.fixture(scope="module")
def scan():
    scan = counts((3, 4)).astype(float)
    scan[0, 0] = 0.0
    return scan


@pytest.fixture(scope="module")
def fitted(scan):
    return fit_components(scan, ENERGIES, three_gaussians())


def test_expressions(fitted):
    empty = np.zeros((3, 4), bool)
    empty[0, 0] = True
    assert STATUS_WORDS[fitted.status[0, 0]] == "no_data"
    for text in ("status != converged", "no_data == status", "not status == converged", "not (b.centre > 0)"):
        np.testing.assert_array_equal(positions_where(fitted, text), empty, err_msg=text)
    np.testing.assert_array_equal(positions_where(fitted, "b.centre.std < 1e9 and -1 < p_value <= 1"), ~empty)
    middle = float(np.nanmedian(fitted.deviance))
    np.testing.assert_array_equal(positions_where(fitted, f"deviance > {middle!r}"), fitted.deviance > middle)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("status != finished", "with one of converged"),
        ("status > converged", "by == or !="),
        ("__import__('os').system('true') == 0", "is no number"),
        ("deviance", "is no comparison"),
        ("deviance in p_value", "compare by"),
        ("d.centre > 3", "none of status"),
        ("deviance >", "cannot read"),
        ("True == True", "is no number"),
        ("1 + 1 > deviance", "is no number"),
        ("deviance > 1 or " * 100, "at most 500"),
    ],
)
def test_anything_else_is_refused(fitted, text, message):
    with pytest.raises(ConfigError, match=message):
        positions_where(fitted, text)


def test_refit_changes_only_what_was_asked_for_and_only_for_the_better(scan, fitted):
    values, status = fitted.values.copy(), fitted.status.copy()
    values[1, 1:3] += 5.0
    status[1, 1:3] = STATUS_WORDS.index("max_iterations")
    hurt = type(fitted)(**{**vars(fitted), "values": values, "status": status})
    mended = refit_components(hurt, "status == max_iterations", scan, ENERGIES, three_gaussians())
    assert (mended.status[1, 1:3] == 0).all()
    np.testing.assert_allclose(mended.deviance[1, 1:3], fitted.deviance[1, 1:3], atol=1e-3)
    assert (np.abs(mended.values - fitted.values)[1, 1:3] / fitted.std[1, 1:3]).max() < 0.02
    others = np.ones((3, 4), bool)
    others[1, 1:3] = False
    np.testing.assert_array_equal(mended.values[others], fitted.values[others])
    same = refit_components(fitted, "p_value < -1", scan, ENERGIES, three_gaussians())
    np.testing.assert_array_equal(same.values, fitted.values)
    with pytest.raises(ConfigError, match="another model"):
        refit_components(fitted, "p_value < 1", scan, ENERGIES, [Component("offset", "floor")])
