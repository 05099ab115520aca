"""Vacuum reference and spectra in one minimisation: at its optimum, without traces of blocks, telling where both disagree."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from phonon_eels.forward.information import model_at
from phonon_eels.forward.vacuum import FACTOR_STD
from tests.unit.forward.joint_scenes import common_std, finished, fitted, scene


@pytest.fixture(scope="module")
def one():
    own = scene()
    image, reference = own.draw(np.random.default_rng(31), 0.2)
    return own, image, *fitted(own, image, reference)


def test_same_optimum_as_minimising_both_at_once(one):
    """One spectrum and its reference by a general least-squares routine, all parameters in one vector."""
    own, image, _, joint, _ = one
    model, reference = joint.model, joint.reference
    spectrum, z = reference.spectrum, np.asarray(image.counts[0, 0, own.zero + own.channels], dtype=float)
    free = np.flatnonzero(model.free(True))
    last = finished(own, image, joint)
    first, precision = last.params[0, 0].copy(), model.prior_precision()[free]
    mean = model.prior_mean()[free]
    scale = np.sqrt(np.diag(joint.reference.covariance))
    steps = last.std[0, 0][free]

    def residuals(x):
        params, beta = first.copy(), reference.beta + scale * x[free.size :]
        params[free] += steps * x[: free.size]
        values, jacobian = model_at(model, params, first)
        peak = params[0] * jacobian[0]
        more = np.exp((beta - reference.beta) @ reference.basis(model.energies_mev - params[1]))
        expected = values + peak * (more - 1.0)
        deviance = 2.0 * (np.where(z > 0.0, z * np.log(np.maximum(z, 1.0) / expected), 0.0) - (z - expected))
        prior = np.sqrt(precision) * (params[free] - mean)
        vacuum = spectrum._misfit(beta)[1]
        return np.concatenate(
            [np.sign(z - expected) * np.sqrt(np.maximum(deviance, 0.0)), prior, vacuum, beta / FACTOR_STD]
        )

    start = np.zeros(free.size + reference.beta.size)
    direct = least_squares(residuals, start, xtol=1e-10, ftol=1e-12)
    energies = slice(8 + 3, 8 + 6)
    moved = direct.x[energies]  # in deviations of the energies
    assert joint.reference.settled
    assert np.abs(moved).max() < 0.05, moved
    assert (residuals(start) ** 2).sum() - 2.0 * direct.cost < 0.3


def test_joint_is_better_known_and_does_not_move_far(one):
    own, image, (before, model), joint, _ = one
    after = finished(own, image, joint)
    told, was = common_std(joint.model, after), common_std(model, before)
    assert (told < was).all()
    whole = np.hypot(after.energies(after.std)[0, 0], told)
    assert (np.abs(after.energies()[0, 0] - own.truth_mev[0, 0]) < 4.0 * whole).all()
    assert joint.reference.tension_p > 1e-3
    assert joint.reference.joint


def test_a_scan_tells_the_shape_and_threads_leave_no_trace():
    own = scene(4, 2)
    image, reference = own.draw(np.random.default_rng(32), 1.0)
    (before, model), joint, _ = fitted(own, image, reference)
    again = fitted(own, image, reference, threads=2)[1]
    np.testing.assert_array_equal(joint.reference.beta, again.reference.beta)
    np.testing.assert_array_equal(joint.reference.covariance, again.reference.covariance)
    assert joint.reference.settled
    # Eight positions know the shape better than a reference of one position's electrons: expected 0.57, 0.70, 0.52.
    assert (common_std(joint.model, joint.fit) < 0.85 * common_std(model, before)).all()


def test_another_peak_in_the_vacuum_is_told():
    own = scene(2, 2, shape="gaussian_exponential", skirt_share=0.05)
    image, reference = own.draw(np.random.default_rng(33), 1.0)
    assert fitted(own, image, reference)[1].reference.tension_p < 1e-6
