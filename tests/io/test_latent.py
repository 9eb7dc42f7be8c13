"""A fit of a likelihood of one's own with latent variables that was saved answers as the fit itself, without a row of its
data, once its function is given again."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import thetahat as th

R = np.random.default_rng(11)
N = 160
WHO = R.integers(0, 20, N)
DATA = pd.DataFrame({"x": R.random(N), "g": [f"group {i}" for i in WHO], "h": R.integers(0, 4, N)})
DATA["y"] = 1 + DATA["x"] + 0.8 * R.normal(size=20)[WHO] * (1 + DATA["x"]) + 0.4 * R.normal(size=N)
DATA["k"] = R.poisson(np.exp(0.3 + 0.6 * R.normal(size=20)[WHO] + 0.4 * (DATA["h"] == 1)))
DATA["t"] = R.integers(0, 45, N)
DATA["w"] = R.integers(1, 3, N)
NEW = DATA.head(7).assign(x=lambda d: 0.9 * d["x"])
FRESH = DATA.head(9).assign(g=lambda d: "new " + d["g"], h=9)


@th.model(a=1.0, s=1.0, sigma=th.positive(0.4), b=th.latent(by="g", sd=(0.5, 0.3), names=("level", "slope")))
def line(batch, a, s, sigma, b):
    """A line of each group."""
    return th.families.Normal().at(a + s * batch["x"] + b[:, 0] + b[:, 1] * batch["x"], sigma)


@th.model(a=0.1, b=th.latent(by="g", sd=0.5), c=th.latent(by="h", sd=0.5), target="k")
def crossed(batch, a, b, c):
    return th.families.Poisson().at(torch.exp(a + b + c))


@th.model(a=0.1, b=th.latent(by="g", sd=0.5), target="k", measure="mass")
def log_p(batch, a, b):
    return th.families.Poisson().log_prob(batch["k"], torch.exp(a + b))


@th.model(
    a=0.1,
    b=th.latent(along="t", covariance="rw1", sd=0.1),
    c=th.latent(by="g", along="h", covariance="ar1"),
    target="k",
)
def series(batch, a, b, c):
    return th.families.Poisson().at(torch.exp(a + b + c))


FITS = {
    "series": (series, {}),
    "a vector": (line, {}),
    "crossed": (crossed, {"weights": "w"}),
    "quadrature": (log_p, {"quadrature": 9}),
}
QUESTIONS = {
    "estimates": lambda f: f.estimates,
    "covariance": lambda f: f.covariance(),
    "errors": lambda f: f.standard_errors(),
    "known groups": lambda f: f.predict(NEW, level=0.9),
    "new values": lambda f: f.predict(NEW, level=0.9, kind="prediction"),
    "average groups": lambda f: f.predict(NEW, groups="average", level=0.9),
    "random effects": lambda f: f.random_effects(),
    "components": lambda f: f.variance_components(intervals="wald"),
    "draws": lambda f: f.sample(2, NEW, seed=3),
    "score of new groups": lambda f: str(f.score(FRESH)),
    "log-likelihood": lambda f: f.log_likelihood,
    "criteria": lambda f: f.criteria,
    "summary": lambda f: str(f.summary()),
}


def said(ask, fit):
    """Every digit of an answer, or the refusal."""
    try:
        return np.asarray(ask(fit)).tolist()
    except th.errors.ThetahatError as error:
        return type(error).__name__, str(error)


@pytest.fixture(scope="module", params=FITS)
def both(request, tmp_path_factory):
    own, settings = FITS[request.param]
    fit = th.fit(own, DATA[["x", "g", "h", "y", "k", "w", "t"]], **settings)
    path = fit.save(tmp_path_factory.mktemp("latent") / "a.thetahat")
    return fit, th.load(path, model=own), path, own


def test_a_loaded_fit_answers_with_the_same_bits(both):
    """The fit itself is the oracle: known groups, average ones, effects, components."""
    fit, again, _, own = both
    answered = {name: said(ask, fit) for name, ask in QUESTIONS.items()}
    for name, ask in QUESTIONS.items():
        assert repr(said(ask, again)) == repr(answered[name]), name
    refused = [name for name, answer in answered.items() if isinstance(answer, tuple)]
    predictions = {"known groups", "new values", "average groups", "draws"}
    assert set(refused) <= {log_p: predictions, series: {"score of new groups"}}.get(own, set())


def test_what_needs_the_rows_is_refused_until_they_are_there(both):
    fit, again, path, own = both
    with pytest.raises(th.errors.BadArgument, match="needs the data"):
        again.variance_components(intervals="profile")
    attached = th.load(path, DATA, model=own)
    assert attached.objective.value(fit.theta) == pytest.approx(fit.objective.value(fit.theta), abs=1e-10)
    with pytest.raises(th.errors.DataError, match="other data"):
        th.load(path, DATA.assign(y=DATA["y"] + 1, k=DATA["k"] + 1), model=own)


def test_a_loaded_fit_is_saved_to_the_same_bytes(both, tmp_path):
    _, again, path, _ = both
    assert again.save(tmp_path / "b.thetahat").read_bytes() == path.read_bytes()


def test_a_function_that_is_not_given_or_is_another_is_refused_by_name(both):
    _, _, path, own = both
    name = own.custom.function.__name__
    with pytest.raises(th.errors.BadArgument, match=rf"fit of '{name}', which is code.*model={name}\)"):
        th.load(path)

    @th.model(a=0.0, zero=1.0, b=th.latent(by="g"))
    def other(batch, a, zero, b):
        return a + zero + b

    with pytest.raises(th.errors.BadArgument, match=rf"fit of '{name}' with the parameters a"):
        th.load(path, model=other)
    with pytest.raises(th.errors.BadArgument, match=r"has no latent variables"):
        th.load(path, model=own.custom)


def test_other_latent_variables_are_refused_by_name(tmp_path):
    path = th.fit(crossed, DATA).save(tmp_path / "a.thetahat")

    @th.model(a=0.1, b=th.latent(by="g"), c=th.latent(by="site"), target="k")
    def sites(batch, a, b, c):
        return th.families.Poisson().at(torch.exp(a + b + c))

    with pytest.raises(th.errors.BadArgument, match=r"by=\('h',\).*by=\('site',\)"):
        th.load(path, model=sites)


def test_a_fresh_process_gives_the_same_answers(both, tmp_path):
    """The function is imported from its module, as a user's would be."""
    fit, _, path, own = both
    table, out = tmp_path / "new.csv", tmp_path / "out.npy"
    NEW.to_csv(table, index=False)
    name = own.custom.function.__name__
    text = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import numpy as np, thetahat as th, test_latent as own\n"
        f"fit = th.load(sys.argv[2], model=own.{name})\n"
        "found = [fit.theta.numpy(), fit.random_effects()['mode'].to_numpy(), fit.random_effects()['standard_error'].to_numpy()]\n"
        f"found += [] if '{name}' == 'log_p' else [fit.predict(sys.argv[3], level=0.9).to_numpy().ravel()]\n"
        "np.save(sys.argv[4], np.concatenate(found))\n"
    )
    folder = str(__import__("pathlib").Path(__file__).parent)
    subprocess.run([sys.executable, "-c", text, folder, str(path), str(table), str(out)], check=True)
    effects = fit.random_effects()
    expected = [fit.theta.numpy(), effects["mode"].to_numpy(), effects["standard_error"].to_numpy()]
    expected += [] if name == "log_p" else [fit.predict(str(table), level=0.9).to_numpy().ravel()]
    assert np.array_equal(np.load(out), np.concatenate(expected))
