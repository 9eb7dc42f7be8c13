"""A mixed fit that was saved answers as the fit itself, without a row of its data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import thetahat as th

R = np.random.default_rng(5)
N = 90
DATA = pd.DataFrame(
    {"x": R.random(N), "z": R.random(N), "g": R.integers(0, 6, N), "h": R.choice(list("abc"), N)}
)
DATA["y"] = np.sin(5 * DATA["x"]) + R.normal(size=6)[DATA["g"]] + 0.4 * R.normal(size=N)
DATA["k"] = R.poisson(np.exp(0.3 + 0.5 * R.normal(size=6)[DATA["g"]]))
NEW = DATA.head(7).assign(x=lambda d: 0.9 * d["x"])

QUESTIONS = {
    "estimates": lambda f: f.estimates,
    "covariance": lambda f: f.covariance(),
    "errors": lambda f: f.standard_errors(),
    "freedom": lambda f: f.degrees_of_freedom(),
    "test of several": lambda f: str(f.test([f"{name} = 0" for name in f.names[:2]])),
    "known groups": lambda f: f.predict(NEW, level=0.9),
    "new values": lambda f: f.predict(NEW, level=0.9, kind="prediction"),
    "average groups": lambda f: f.predict(NEW, groups="average", level=0.9),
    "random effects": lambda f: f.random_effects(),
    "components": lambda f: f.variance_components(intervals="wald"),
    "smooths": lambda f: f.smooths(),
    "curve": lambda f: f.curve("s(x)", derivative=True),
    "draws": lambda f: f.sample(2, NEW, seed=3),
    "log-likelihood": lambda f: f.log_likelihood,
    "criteria": lambda f: f.criteria,
    "summary": lambda f: str(f.summary()),
}
FITS = {
    "correlated, crossed": ("y ~ x + (x | g) + (1 | h)", {}),
    "smooth beside random": ("y ~ s(x, k=6) + (1 | g)", {"reml": True}),
    "surface": ("y ~ te(x, z, k=4)", {"reml": True}),
    "Laplace, nested": ("k ~ x + (1 | g/h)", {"family": "poisson"}),
    "quadrature": ("k ~ x + (1 | g)", {"family": "poisson", "quadrature": 9}),
    "of a scale": ("y ~ x + (1 | g)", {"scale": "~ (1 | h)", "on_failure": "return"}),
    "compound symmetry": ("y ~ x + cs(0 + h | g)", {}),
}


def said(ask, fit):
    """Every digit of an answer, or the refusal."""
    try:
        return np.asarray(ask(fit)).tolist()
    except th.errors.ThetahatError as error:
        return type(error).__name__, str(error)


@pytest.fixture(scope="module", params=FITS)
def both(request, tmp_path_factory):
    formula, settings = FITS[request.param]
    fit = th.fit(formula, DATA, **settings)
    path = fit.save(tmp_path_factory.mktemp("mixed") / "a.thetahat")
    return fit, th.load(path), path


def test_a_loaded_mixed_fit_answers_with_the_same_bits(both):
    """The fit itself is the oracle: known groups, average ones, effects, curves and their tests."""
    fit, again, _ = both
    for name, ask in QUESTIONS.items():
        assert repr(said(ask, again)) == repr(said(ask, fit)), name


def test_what_needs_the_rows_is_refused_until_they_are_there(both):
    fit, again, path = both
    for ask in (lambda f: f.predict(), lambda f: f.r_squared(), lambda f: f.profile(f.names[0])):
        with pytest.raises(th.errors.ThetahatError, match=r"needs the data|residual variance"):
            ask(again)
    attached = th.load(path, DATA)
    assert attached.objective.value(fit.theta) == pytest.approx(fit.objective.value(fit.theta), abs=1e-10)
    with pytest.raises(th.errors.DataError, match="other data"):
        th.load(path, DATA.assign(y=DATA["y"] + 1, k=DATA["k"] + 1))


def test_a_loaded_mixed_fit_is_saved_to_the_same_bytes(both, tmp_path):
    _, again, path = both
    assert again.save(tmp_path / "b.thetahat").read_bytes() == path.read_bytes()


def test_a_file_holds_no_response(both):
    """No value of y stands in it; a thin plate spline holds the values of its own variable, centred."""
    _, _, path = both
    raw = path.read_bytes()
    assert not any(np.float64(v).tobytes() in raw for v in DATA["y"])


def test_a_factor_too_large_for_a_file_is_refused_by_name(tmp_path, monkeypatch):
    """Values of known groups come back; their intervals need the data."""
    monkeypatch.setattr("thetahat.io.mixed.DENSE", 1)
    fit = th.fit("y ~ x + (1 | g)", DATA)
    again = th.load(fit.save(tmp_path / "a.thetahat"))
    assert np.array_equal(again.predict(NEW), fit.predict(NEW))
    with pytest.raises(th.errors.BadArgument, match=r"needs the data.*th\.load"):
        again.predict(NEW, level=0.9)
