"""θ is a value: two fits of one model share nothing, what was passed is as it was, and a fit answers the same
whatever is fitted later."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import thetahat as th
from thetahat.errors import ThetahatError
from thetahat.result import Fit

rng = np.random.default_rng(3)
n = 60
X = rng.normal(size=n)
TABLE = pd.DataFrame(
    {
        "x": X,
        "z": rng.normal(size=n),
        "g": rng.choice(list("abc"), n),
        "y": rng.poisson(np.exp(0.5 + 0.3 * X)).astype(float),
        "r": 1 + X + rng.normal(size=n),
        "b": (X + rng.normal(size=n) > 0).astype(float),
        "k": np.digitize(X + rng.normal(size=n), [-0.5, 0.7]).astype(float),
    }
)
OTHER = TABLE.assign(y=TABLE["y"] + 3, r=TABLE["r"] * 2 + 50, b=1 - TABLE["b"], k=2 - TABLE["k"])


@th.model(mu=0.0, sigma=th.positive(1.0))
def normal(batch, mu, sigma):
    """At the top of a module, so that it can be pickled."""
    return th.families.Normal().log_prob(batch["r"], mu + 0 * batch["r"], sigma)


def formula(text: str, family: str, **settings: Any) -> Any:
    return lambda: lambda data: th.fit(text, data, family, **settings)


def of_model(model: Any, columns: list[str], **settings: Any) -> Any:
    def built() -> Any:
        one = model() if inspect.isfunction(model) else model
        return lambda data: th.fit(one, {c: data[c].to_numpy() for c in columns}, **settings)

    return built


def array(model: Any, column: str, **settings: Any) -> Any:
    def built() -> Any:
        one = model()
        return lambda data: th.fit(one, data[column].to_numpy() + 0.5, **settings)

    return built


def network(family: Any, outputs: int) -> Any:
    torch.manual_seed(0)
    layers = [
        torch.nn.Linear(2, 4),
        torch.nn.BatchNorm1d(4),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(4, outputs),
    ]
    return th.models.Conditional(family, torch.nn.Sequential(*layers))


def on_batches(model: Any, target: str, **settings: Any) -> Any:
    def built() -> Any:
        one = model()
        quick = th.Stochastic(steps=8, batch_size=20, seed=1, **settings)

        def fitted(data: pd.DataFrame) -> Fit:
            x = torch.tensor(data[["x", "z"]].to_numpy(), dtype=torch.float32)
            y = torch.tensor(data[target].to_numpy())
            y = y.long() if target in "kb" else y.float()
            return th.fit(one, th.data.Tensors({"x": x, "y": y}), solver=quick)

        return fitted

    return built


def images(model: Any) -> Any:
    def built() -> Any:
        one = model()

        def fitted(data: pd.DataFrame) -> Fit:
            x = torch.tensor(data[["x", "z", "r", "y"]].to_numpy(), dtype=torch.float32)
            return th.fit(one, {"x": x}, solver=th.Stochastic(steps=6, batch_size=20, held_out=None))

        return fitted

    return built


def tokens() -> Any:
    torch.manual_seed(0)
    spelled = th.language.Characters("-.0123456789 ")  # a small vocabulary: its information is a matrix
    one = th.language.Autoregressive(
        th.networks.Transformer(len(spelled.alphabet), width=4, layers=1, heads=1)
    )

    def fitted(data: pd.DataFrame) -> Fit:
        text = " ".join(f"{v:.2f}" for v in data["r"])
        return th.fit(
            one,
            th.language.Tokens([text], tokenizer=spelled, context=16),
            solver=th.Stochastic(steps=4, batch_size=4),
        )

    return fitted


def games() -> Any:
    def fitted(data: pd.DataFrame) -> Fit:
        order = data["r"].to_numpy() + data["x"].to_numpy() ** 3
        names = data["g"].to_numpy()
        pairs = [(i, i + 1) for i in range(n - 1) if names[i] != names[i + 1]]
        rows = [(names[i], names[j]) if order[i] > order[j] else (names[j], names[i]) for i, j in pairs]
        played = th.preferences.Preferences(
            "winner", "loser", data=pd.DataFrame(rows, columns=["winner", "loser"])
        )
        return th.fit(th.preferences.BradleyTerry(items=played.items), played)

    return fitted


KINDS = {
    "poisson": formula("y ~ x + g", "poisson"),
    "normal": formula("r ~ x + g", "normal"),
    "negative binomial at its boundary": formula("y ~ x", "negative_binomial"),
    "two predictors": formula("r ~ x", "student_t", scale="~ z"),
    "median": formula("r ~ x", "laplace"),
    "categorical": formula("k ~ x", "categorical"),
    "ordinal": formula("k ~ x + z", "ordinal"),
    "ridge": formula("b ~ x + z", "bernoulli", prior=th.priors.Normal(1.0)),
    "lasso": formula("r ~ x + z", "normal", prior=th.priors.Laplace(0.3)),
    "density power": formula("r ~ x", "normal", robust="density_power:0.3"),
    "trimmed": formula("r ~ x", "normal", robust=th.Trimmed(0.8, starts=10)),
    "trimmed and reweighted": formula("r ~ x", "normal", robust=th.Trimmed(0.8, reweight=0.975, starts=10)),
    "a density": array(th.families.Gamma, "y"),
    "one's own": of_model(normal, ["r"]),
    "a mixture": array(lambda: th.models.Mixture("normal", 2), "r", solver=th.EM(starts=1)),
    "ratings": games,
    "a network": on_batches(lambda: network(th.families.Categorical(3), 3), "k"),
    "an averaged network": on_batches(lambda: network(th.families.Categorical(3), 3), "k", ema_decay=0.9),
    "a network by Newton": of_model(lambda: Line(), ["x", "y"]),
    "a language model": tokens,
}


class Line(torch.nn.Module):
    """A plain module with a log p of its own."""

    measure = "density"

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1, dtype=torch.float64)
        with torch.no_grad():
            self.layer.weight.fill_(0.1)
            self.layer.bias.fill_(0.1)

    def log_prob(self, batch: Any) -> torch.Tensor:
        mean = self.layer(batch["x"].double()[:, None])[:, 0]
        return torch.distributions.Normal(mean, 1.0).log_prob(batch["y"].double())


ASKED: dict[str, dict[str, Any]] = {
    "intervals": {"kind": "wald"},
    "bootstrap": {"draws": 3},
    "profile": {},
    "test": {},
    "delta": {"function": lambda v: next(iter(v.values())) * 2},
    "choose_prior": {"candidates": [th.priors.Normal(1.0), th.priors.Normal(2.0)], "folds": 2},
    "sample": {},
    "add1": {"scope": "z"},
    "check": {"draws": 19},
    "wild_bootstrap": {"by": "g"},
    "prior_path": {"points": 3},
    "outliers": {},
    "to": {"device": "cpu"},
}
LEFT = {
    "plot",
    "report",
    "save",
    "surprise",
    "rewards",
    "compare",
}  # asked below, or of other data by their own tests


def members(fit: Fit) -> list[str]:
    """Every public method and property; those that fit again not of networks, which take long to train, nor of a
    mixture, which refuses every prior after long."""
    slow = {"choose_prior", "bootstrap"} if isinstance(fit.solver, th.Stochastic) else set()
    if isinstance(fit.model, th.models.Mixture):
        slow = {"choose_prior"}
    return [name for name in dir(Fit) if not name.startswith("_") and name not in LEFT | slow]


def answers(fit: Fit) -> dict[str, Any]:
    """What each returns, or the library's error."""
    out: dict[str, Any] = {}
    for name in members(fit):
        settings = dict(ASKED.get(name, {}))
        if name in ("test", "wild_bootstrap"):
            settings["hypothesis"] = f"{fit.names[0]} = 0"
        if name == "profile":
            settings["parameter"] = fit.names[0]
        if name in ("curve", "partial_residuals", "test_random"):
            settings["term"] = "s(x)"
        if name == "means":
            settings["variables"] = "g"
        if name == "forecast":
            settings["steps"] = 2
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = getattr(fit, name)
                out[name] = (
                    found(**settings) if callable(found) and name not in ("model", "objective") else found
                )
        except ThetahatError as error:
            out[name] = f"{type(error).__name__}: {error}"
    return out


def plain(value: Any) -> Any:
    """A value that == compares, to the last bit."""
    if isinstance(value, torch.nn.Module):
        return [(name, t.detach().numpy().tobytes()) for name, t in value.state_dict().items()]
    if isinstance(value, torch.Tensor):
        return value.detach().numpy().tobytes()
    if isinstance(value, (pd.DataFrame, pd.Series)):
        return value.to_dict() if value.index.is_unique else value.to_numpy().tolist()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return repr(value) if "object at 0x" not in repr(value) else type(value).__name__


def same(a: Any, b: Any) -> bool:
    return repr(plain(a)) == repr(plain(b))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_answers_the_same_after_its_model_is_fitted_again(kind):
    """Identity: every public method, asked before and after another fit of the same object, to the last
    bit."""
    build = KINDS[kind]()
    first = build(TABLE)
    before = answers(first)
    assert not all(isinstance(v, str) for v in before.values())
    second = build(OTHER)
    assert not same(first.theta, second.theta)
    first._cache.clear()
    after = answers(first)
    assert [name for name in before if not same(before[name], after[name])] == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_passed_is_as_it_was(kind):
    """Bit for bit: the module's tensors, mode and flags, torch's and numpy's random state, defaults, threads,
    warning filters."""
    build = KINDS[kind]()
    given = [c.cell_contents for c in build.__closure__ or () if isinstance(c.cell_contents, torch.nn.Module)]

    def state() -> Any:
        modules = [plain(m) for m in given]
        flags = [
            [(s.training, [p.requires_grad for p in s.parameters()], vars(s).keys()) for s in m.modules()]
            for m in given
        ]
        grads = [[p.grad is None for p in m.parameters()] for m in given]
        torch_state = (
            torch.get_rng_state().numpy().tobytes(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
        )
        return repr(
            (modules, flags, grads, torch_state, np.random.get_state()[1].tobytes(), warnings.filters)
        )

    table, before = TABLE.copy(deep=True), state()
    fit = build(TABLE)
    assert state() == before
    answers(fit)
    assert state() == before
    pd.testing.assert_frame_equal(TABLE, table)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_pickles_of_a_fit_answer_as_it_does(kind):
    """Identity, for `copy.deepcopy` and for `pickle`; a deep copy has modules of its own."""
    fit = KINDS[kind]()(TABLE)
    wanted = answers(fit)
    for other in (copy.deepcopy(fit), pickle.loads(pickle.dumps(fit))):
        other._cache.clear()
        found = answers(other)
        assert [name for name in wanted if not same(wanted[name], found[name])] == []
        assert not {id(p) for p in fit.model.parameters()} & {id(p) for p in other.model.parameters()}


@pytest.mark.parametrize("kind", ["poisson", "negative binomial at its boundary", "one's own", "a network"])
def test_threads_that_ask_one_fit_get_its_answers(kind):
    """Identity: eight threads ask everything at once, while two others fit the same model to other data."""
    build = KINDS[kind]()
    fit = build(TABLE)
    wanted = answers(fit)
    stable = [name for name, value in wanted.items() if name != "choose_prior"]
    fit._cache.clear()
    with ThreadPoolExecutor(6) as pool:
        if kind != "a network":  # training draws from torch's own generator, which threads share
            others = [pool.submit(build, OTHER) for _ in range(2)]
        asked = [
            pool.submit(
                lambda: [getattr(fit, name) for name in ("estimates", "log_likelihood", "observations")]
            )
        ]
        asked += [pool.submit(answers_of, fit, stable) for _ in range(4)]
        found = [each.result() for each in asked[1:]]
        if kind != "a network":
            assert same(others[0].result().theta, others[1].result().theta)
    for each in found:
        assert [name for name in stable if not same(wanted[name], each[name])] == []
    assert torch.get_num_threads() == threads


def answers_of(fit: Fit, names: list[str]) -> dict[str, Any]:
    out = answers(fit)
    return {name: out[name] for name in names}


threads = torch.get_num_threads()


def test_a_fit_does_not_change():
    """No attribute can be set or deleted, and what it hands out is not its own memory."""
    fit = KINDS["poisson"]()(TABLE)
    with pytest.raises(AttributeError, match="does not change"):
        fit.certificate = None
    with pytest.raises(AttributeError, match="does not change"):
        del fit.objective
    estimates, errors = fit.estimates, fit.covariance()
    fit.theta.add_(1.0)
    own = fit.covariance()
    own.iloc[:] = 0.0
    fit.criteria["AIC"] = 0.0
    pd.testing.assert_series_equal(fit.estimates, estimates)
    pd.testing.assert_frame_equal(fit.covariance(), errors)
    assert fit.criteria["AIC"] != 0.0


def test_an_objective_is_a_pure_function_of_theta():
    """Closed form: Σ log N(r; μ, σ) at a θ where the model does not stand; the model stands where it
    stood."""
    objective = th.Objective(
        [th.LogLikelihood(normal, th.data.Tensors({"r": torch.tensor(TABLE["r"].to_numpy())}, target="r"))]
    )
    theta = torch.tensor([0.5, 0.2], dtype=torch.float64)
    scale = float(np.exp(0.2))
    wanted = -0.5 * ((TABLE["r"] - 0.5) / scale) ** 2 - 0.2 - 0.5 * np.log(2 * np.pi)
    assert objective.value(theta) == pytest.approx(wanted.sum(), rel=1e-13)
    assert objective.theta.tolist() == [0.0, 0.0]
    assert objective.at(theta).theta.tolist() == theta.tolist()
    with pytest.raises(AttributeError):
        objective.theta = theta


def test_maximum_likelihood_and_map_of_one_model_are_compared_as_what_they_are():
    """The MAP fit of one `@th.model` has the lower likelihood, and `compare` says by how much: Σ of the
    differences of log p."""
    data = {"r": TABLE["r"].to_numpy()}
    plain_fit = th.fit(normal, data)
    pulled = th.fit(normal, data, prior=th.priors.Normal(0.05))
    found = th.compare({"ml": plain_fit, "map": pulled}).pair("ml", "map")
    assert plain_fit.log_likelihood - pulled.log_likelihood > 1
    assert found.difference == pytest.approx(plain_fit.log_likelihood - pulled.log_likelihood, rel=1e-9)


def test_a_network_that_is_handed_over_is_trained_in_place_and_one_that_is_not_is_copied():
    """`in_place=True`: the module given holds θ̂ afterwards. Both ways give the same numbers."""
    fits = {}
    for in_place in (False, True):
        model = network(th.families.Categorical(3), 3)
        before = plain(model)
        x = torch.tensor(TABLE[["x", "z"]].to_numpy(), dtype=torch.float32)
        source = th.data.Tensors({"x": x, "y": torch.tensor(TABLE["k"].to_numpy()).long()})
        fits[in_place] = th.fit(
            model, source, solver=th.Stochastic(steps=5, batch_size=20, in_place=in_place)
        )
        assert (plain(model) == before) is not in_place
        assert (fits[in_place].model is model) is in_place
    assert same(fits[False].model, fits[True].model)


def test_a_weighting_that_cannot_see_the_copy_is_refused():
    """A closure over a model that is fitted at the same time would go on reading the one that is not
    trained."""
    model = network(th.families.Categorical(3), 3)
    x = torch.tensor(TABLE[["x", "z"]].to_numpy(), dtype=torch.float32)
    source = th.data.Tensors({"x": x, "y": torch.tensor(TABLE["k"].to_numpy()).long()})

    def by_itself(batch, log_prob):
        return model.log_prob(batch).detach().exp()

    with pytest.raises(th.errors.BadArgument, match="in_place=True"):
        th.fit(model, source, weights=by_itself, solver=th.Stochastic(steps=2))


def test_workers_of_joblib_fit_and_answer():
    """Fits go to worker processes and come back: estimates as here."""
    joblib = pytest.importorskip("joblib")
    fit = KINDS["poisson"]()(TABLE)
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(_estimates)(fit) for _ in range(2))
    for each in found:
        assert each == fit.estimates.to_dict()


def _estimates(fit: Fit) -> dict[str, float]:
    return fit.estimates.to_dict()
