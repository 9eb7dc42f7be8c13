"""The tour: systems that share nothing but their principle, each fitted by the one `fit`, each beside what is known of its answer.

maximise over θ:    Σ_i w_i · log p(x_i | θ)  +  log p(θ)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from .data import Characters, Preferences, Rollouts, Tensors, Tokens
from .data.frame import Frame
from .data.rollouts import returns
from .data.shipped import shipped
from .errors import MissingExtra
from .families import Categorical, MultivariateNormal, Normal
from .fit import Fit, fit
from .likelihood.weights import RewardToGo
from .models import Autoregressive, BradleyTerry, Conditional, Mixture, Policy
from .models.custom import model, positive
from .networks import Transformer, mlp
from .solvers import Stochastic


@dataclass(frozen=True)
class Row:
    """One system of the tour.

    Parameters
    ----------
    system, data : what was fitted, to what
    maximised : the sum, as a formula
    kind : what `before` and `after` are: nats of the data fitted, nats a held-out term, a return
    before, after : at the start of the climb, and at θ̂; None if the system could not run
    certificate : what is known of θ̂; or the extra that the system needs
    truth : what is known of the answer from elsewhere, and what was found
    agrees : whether the two agree to the digits given; None where nothing is known beforehand
    """

    system: str
    data: str
    maximised: str
    kind: str
    before: float | None
    after: float | None
    certificate: str
    truth: str
    agrees: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


# ---- the systems -------------------------------------------------------------------------------------------------------------


def _linear(quick: bool) -> Row:
    found = fit("y ~ x", shipped("norris"))
    truth = _known("slope", found.estimates["x"], 1.00211681802045, "NIST", 1e-14)
    return _row(found, "linear regression", "calibration, 36 rows", "Σ log Normal(y | a + bx, σ)", truth)


def _logistic(quick: bool) -> Row:
    found = fit("distress ~ temperature", shipped("orings"), family="bernoulli")
    truth = _known("slope", found.estimates["temperature"], -0.2322, "R glm", 5e-5)
    return _row(found, "logistic regression", "shuttle O-rings, 23 flights", "Σ log Bernoulli(y | σ(a + bx))", truth)


def _poisson(quick: bool) -> Row:
    found = fit("incidents ~ type + built + period + offset(log(service))", shipped("ships"), family="poisson")
    truth = _known("intercept", found.estimates["Intercept"], -6.40590, "R glm", 5e-6)
    return _row(found, "Poisson, with an offset", "wave damage, 34 classes of ship", "Σ log Poisson(y | months · e^(xβ))", truth)


def _negative_binomial(quick: bool) -> Row:
    found = fit("mites ~ 1", shipped("mites"), family="negative_binomial", weights="leaves")
    truth = _known("k", 1 / found.estimates["dispersion"], 1.02459, "Bliss and Fisher 1953", 1e-5)
    return _row(found, "negative binomial", "mites on 150 leaves", "Σ w log NegativeBinomial(y | μ, α)", truth)


def _student(quick: bool) -> Row:
    found = fit("loss ~ air_flow + water_temperature + acid", shipped("stackloss"), family="student_t")
    truth = _known("air flow", found.estimates["air_flow"], 0.85, "Lange et al. 1989", 5e-3)
    return _row(found, "robust regression", "stack loss, 21 days", "Σ log StudentT(y | xβ, σ, ν)", truth)


def _custom(quick: bool) -> Row:
    @model(b1=500.0, b2=1e-4, sigma=positive(1.0))
    def misra1a(batch: Any, b1: torch.Tensor, b2: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return Normal().log_prob(batch["y"], b1 * (1 - torch.exp(-b2 * batch["x"])), sigma)

    found = fit(misra1a, shipped("misra1a"))
    truth = _known("b1", found.estimates["b1"], 238.94212918, "NIST", 5e-9)
    return _row(found, "a likelihood of one's own", "adsorption, 14 rows", "Σ log Normal(y | b₁(1 − e^(−b₂x)), σ)", truth)


def _preferences(quick: bool) -> Row:
    teams = Frame(shipped("baseball")).read(["winner"])["winner"]
    order = ["Baltimore", *sorted(set(teams) - {"Baltimore"})]
    games = Preferences("winner", "loser", "games", data=shipped("baseball"), items=order)
    found = fit(BradleyTerry(items=games.items), games)
    truth = _known("Milwaukee", found.estimates["Milwaukee"], 1.5814, "R BradleyTerry2", 5e-5)
    return _row(found, "Bradley–Terry ratings", "baseball, 273 games", "Σ w log σ(r_winner − r_loser)", truth)


def _mixture(quick: bool) -> Row:
    found = fit(Mixture(MultivariateNormal(2), 2), shipped("faithful"))
    truth = _known("BIC", found.criteria["BIC"], 2322.192, "R mclust", 5e-4)
    return _row(found, "mixture, by EM", "Old Faithful, 272 eruptions", "Σ log Σ_k π_k Normal(y | μ_k, Σ_k)", truth)


def _classifier(quick: bool) -> Row:
    try:
        digits = import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        raise MissingExtra.named("scikit-learn", "sklearn") from error
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    train, test = slice(0, 1400), slice(1400, None)
    classifier = Conditional(Categorical(10), mlp(64, 64, 10, seed=0))
    solver = Stochastic(
        steps=150 if quick else 1000, batch_size=128, learning_rate=1e-2, held_out=Tensors({"x": x[test], "y": y[test]})
    )
    found = fit(classifier, {"x": x[train], "y": y[train]}, solver=solver)
    assert found.certificate.trend is not None
    right = (classifier.probabilities(Tensors({"x": x[test]}).whole).argmax(-1) == y[test]).double().mean()
    return Row(
        "network classifier",
        "digits, 1400 images",
        "Σ log Categorical(y | f_θ(x))",
        "nats a held-out image",
        *found.certificate.trend[:2],
        f"stochastic: held out, {found.certificate.trend[1]:.3f} ± {found.certificate.trend[2]:.3f} nats",
        f"chance is −log 10 = {-math.log(10):.3f} nats and 10 % right; found {100 * float(right):.1f} % right",
    )


def _gpt(quick: bool) -> Row:
    topics = import_module("pydoc_data.topics").topics  # Python's own documentation, in every Python
    texts = [topics[name] for name in sorted(topics)]
    alphabet = Characters.of(*texts)
    train, held_out = Tokens(texts, alphabet, context=64).split(0.05)
    network = Transformer(alphabet.vocabulary, layers=2, width=64, heads=4, activation="relu2", seed=0)
    solver = Stochastic(
        steps=60 if quick else 180, batch_size=32, optimiser="muon", learning_rate=0.02, momentum=0.95, decay="linear", held_out=held_out,
        evaluate_every=60 if quick else 180,
    )  # fmt: skip
    found = fit(Autoregressive(network), train, solver=solver)
    assert found.certificate.trend is not None
    first, after, error = found.certificate.trend
    counted = _bigrams(train, held_out)
    return Row(
        "GPT",
        f"Python's documentation, {train.documents} documents",
        "Σ log p(x_t | x_<t)",
        "nats a held-out character",
        first,
        after,
        f"stochastic: held out, {after:.3f} ± {error:.3f} nats",
        f"bigrams by counting: {counted:.3f} nats; {network.vocabulary} characters at random: {-math.log(network.vocabulary):.3f}",
    )


def _bigrams(train: Tokens, held_out: Tokens) -> float:
    """Nats a held-out character of a Markov chain whose transitions were counted, each once more than it was seen (Laplace)."""
    V = train.vocabulary
    seen, new = (torch.zeros(V, V, dtype=torch.float64) for _ in range(2))
    for into, source in ((seen, train), (new, held_out)):
        for batch in source.batches():
            pair = batch["input"] * V + batch["target"]
            into.view(-1).index_add_(0, pair.reshape(-1), batch.count.reshape(-1).double())
    return float((new * torch.log((seen + 1) / (seen.sum(1, keepdim=True) + V))).sum() / new.sum())


def _reinforce(quick: bool) -> Row:
    policy = Policy(mlp(4, 32, 2, "tanh", seed=0))
    rollouts = Rollouts("CartPole-v1", episodes=16, seed=0)
    before = float(returns(policy, "CartPole-v1", 20, seed=1000).mean())
    solver = Stochastic(steps=15 if quick else 40, learning_rate=0.02, decay="constant")
    fit(policy, rollouts, weights=RewardToGo(0.99, normalise=True), solver=solver)
    after = float(returns(policy, "CartPole-v1", 20, seed=1000).mean())
    return Row(
        "REINFORCE",
        "CartPole-v1, its own rollouts",
        "Σ (return − baseline) log π(a | s)",
        "greedy return, 20 episodes",
        before,
        after,
        f"stochastic: {solver.steps} steps on data drawn from the model",
        f"195 is the mark of CartPole-v0, 500 the most there is; found {after:.0f}",
        None if quick else after >= 195,
    )


SYSTEMS: dict[str, Callable[[bool], Row]] = {
    "linear regression": _linear,
    "logistic regression": _logistic,
    "Poisson, with an offset": _poisson,
    "negative binomial": _negative_binomial,
    "robust regression": _student,
    "a likelihood of one's own": _custom,
    "Bradley–Terry ratings": _preferences,
    "GPT": _gpt,
    "mixture, by EM": _mixture,
    "network classifier": _classifier,
    "REINFORCE": _reinforce,
}


def rows(quick: bool = False, *, begin: Callable[[str], None] | None = None) -> Iterator[Row]:
    """Fit one system after the other.

    Parameters
    ----------
    quick : fewer steps for those that climb stochastically
    begin : told the name of each system before it is fitted (a progress indicator)

    Returns
    -------
    Row by row, as each is done. A system whose extra is not installed says so in its row.
    """
    for name, system in SYSTEMS.items():
        if begin is not None:
            begin(name)
        try:
            yield system(quick)
        except MissingExtra as error:
            extra = str(error).partition("'")[2].rstrip("'")
            yield Row(name, "", "", "", None, None, f"needs {extra}", str(error))


# ---- how it is shown -----------------------------------------------------------------------------------------------------------


def render(done: Iterable[Row]) -> Table:
    """The rows as a table for a terminal."""
    table = Table(title="One principle: maximise Σ w·log p(x | θ)", show_lines=True)
    for heading in ("system, and what is maximised", "before → after", "what is known of the answer"):
        table.add_column(heading, overflow="fold")
    for row in done:
        change = "" if row.before is None or row.after is None else f"{row.before:.5g} → {row.after:.5g}\n[dim]{row.kind}[/]"
        mark = {True: "[green]✓[/] ", False: "[red]✗[/] ", None: ""}[row.agrees]
        system = f"[bold]{row.system}[/]\n[dim]{row.data}[/]\n{_plain(row.maximised)}"
        table.add_row(system, change, f"{_plain(row.certificate)}\n{mark}{_plain(row.truth)}")
    return table


def show(quick: bool = False, console: Console | None = None) -> list[Row]:
    """Take the tour: a progress indicator while it runs (on a terminal), then the table."""
    console = console or Console()
    done: list[Row] = []
    with console.status("the tour begins") as status:
        for row in rows(quick, begin=lambda name: status.update(f"{len(done) + 1} of {len(SYSTEMS)}: {name}")):
            done.append(row)
    console.print(render(done))
    return done


def _row(found: Fit, system: str, data: str, maximised: str, truth: tuple[str, bool]) -> Row:
    return Row(system, data, maximised, "nats", found.trace[0][1], found.log_likelihood, str(found.certificate), *truth)


def _known(what: str, found: float, known: float, whence: str, within: float) -> tuple[str, bool]:
    """What is known and what was found, to the digits of what is known; and whether they agree."""
    digits = max(1, math.floor(1e-9 - math.log10(within)))
    return f"{what} {known:.{digits}f} ({whence}); found {found:.{digits}f}", bool(abs(found - known) <= within)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
