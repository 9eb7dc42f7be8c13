"""Quantiles and tails, against scipy.stats, over degrees of freedom from a half to infinity."""

import numpy as np
import pytest
from scipy import stats

from thetahat.distributions import chi2, fisher, norm, student

X = np.array([-20.0, -1.0, 0.0, 1e-3, 0.5, 1.0, 5.0, 40.0, np.nan])[:, None]
Q = np.array([0.0, 1e-100, 1e-10, 0.025, 0.5, 0.9, 0.975, 1 - 1e-12, 1.0, np.nan])[:, None]
DF = np.array([0.5, 1.0, 2.3, 10.0, 100.0, 1e5, 1e10, np.inf])


@pytest.mark.parametrize(
    ("own", "theirs"),
    [
        (norm.sf(X), stats.norm.sf(X)),
        (norm.pdf(X), stats.norm.pdf(X)),
        (norm.ppf(Q), stats.norm.ppf(Q)),
        (norm.isf(Q), stats.norm.isf(Q)),
        (student.sf(X, DF), stats.t.sf(X, DF)),
        (student.ppf(Q, DF), stats.t.ppf(Q, DF)),
        (chi2.sf(X, DF[:-1]), stats.chi2.sf(X, DF[:-1])),
        (chi2.ppf(Q, DF[:-1]), stats.chi2.ppf(Q, DF[:-1])),
        (fisher.sf(X, 3, DF[:-1]), stats.f.sf(X, 3, DF[:-1])),
    ],
)
def test_as_scipy_stats(own, theirs):
    np.testing.assert_allclose(own, theirs, rtol=1e-13, atol=0)


def test_of_nothing_explained_is_certain():
    assert float(fisher.sf(0.0, 3, np.inf)) == 1.0
    assert float(chi2.sf(0.0, 1)) == 1.0
