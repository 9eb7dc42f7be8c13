"""Stochastic ascent: its gradient is that of the objective, its maximum that of Newton's method, its numbers
those of its seed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris

import thetahat as th
from thetahat.data import Batch, Tensors
from thetahat.data.batch import split
from thetahat.errors import BadArgument, NotConverged
from thetahat.rl import Rollouts
from thetahat.solvers import choose, iterate
from thetahat.solvers.minibatches import feeds, held_out_nats, pieces

EXACT = {"held_out": None}


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return (X - X.mean(0)) / X.std(0), y


def classifier(
    inputs: int, hidden: tuple[int, ...] = (), dtype: torch.dtype = torch.float32, outputs: int = 2
) -> th.models.Conditional:
    return th.models.Conditional(
        th.families.Categorical(3), th.networks.mlp(inputs, hidden, outputs, dtype=dtype)
    )


def objective(X, y, prior: bool = False, count=None) -> th.Objective:
    model = classifier(X.shape[1], (5,), torch.float64)
    out = th.Objective([th.LogLikelihood(model, Tensors({"x": X, "y": y}, count=count))])
    return out + th.LogPrior(th.priors.Normal(0.7), model) if prior else out


def estimate(work) -> tuple[float, torch.Tensor]:
    """1/N of the objective and of its gradient, as the next batches of a run estimate them."""
    value = work.engine.gradient([(feed, next(feed.batches)) for feed in work.feeds])
    return value, torch.cat(
        [-(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in work.engine.parameters]
    )


# ---- the gradient ------------------------------------------------------------------------------------------


def test_a_full_batch_is_the_objective_divided_once_by_its_count(iris):
    """1/N of value and gradient of the objective, prior and counts included; the sum in pieces is the
    same."""
    count = torch.arange(150) % 4
    whole = objective(*iris, prior=True, count=count)
    taylor, N = whole.taylor(order=1), float(count.sum())
    for parts in (1, 4, 7, 200):
        solver = th.Stochastic(batch_size=150, accumulation_steps=parts, **EXACT)
        value, gradient = estimate(solver.start(whole).work)
        torch.testing.assert_close(gradient, taylor.gradient / N, rtol=1e-11, atol=1e-13)
        assert value == pytest.approx(float(taylor.value) / N, rel=1e-12)


@pytest.mark.parametrize("batch_size", [10, 30, 75])
def test_the_mean_over_an_epoch_is_the_gradient_whatever_the_batch_size(iris, batch_size):
    """An epoch of equal batches sees each row once: the mean of its estimates is 1/N of the whole
    gradient, with the prior's part."""
    whole = objective(*iris, prior=True)
    solver = th.Stochastic(batch_size=batch_size, **EXACT)
    work = solver.start(whole).work
    estimates = [estimate(work)[1] for _ in range(150 // batch_size)]
    torch.testing.assert_close(
        torch.stack(estimates).mean(0), whole.taylor(order=1).gradient / 150, rtol=1e-10, atol=1e-13
    )


def test_an_epoch_deals_out_every_row_once_in_an_order_of_its_seed():
    rows = Tensors({"y": torch.arange(10.0)})
    term = th.LogLikelihood(classifier(1), rows)

    def two_epochs(seed: int) -> list[float]:
        (feed,) = feeds([term], 4, torch.Generator().manual_seed(seed), {})
        return [float(v) for _ in range(6) for v in next(feed.batches)[0]["y"]]

    minibatches = two_epochs(0)
    assert sorted(minibatches[:10]) == sorted(minibatches[10:]) == list(range(10))
    assert minibatches[:10] != minibatches[10:]
    assert minibatches == two_epochs(0) != two_epochs(1)


def test_terms_over_one_source_share_its_batches_and_other_sources_weigh_by_their_size(iris):
    """Two models on one source and one on another: the sum of the full batches is (ℓ_1 + ℓ_2 + ℓ_3)/(N_1 +
    N_2)."""
    X, y = iris
    one, other = Tensors({"x": X, "y": y}), Tensors({"x": X[:60], "y": y[:60]})
    models = [classifier(4, dtype=torch.float64, outputs=k) for k in (2, 3, 2)]
    both = th.Objective([th.LogLikelihood(m, s) for m, s in zip(models, (one, one, other), strict=True)])
    solver = th.Stochastic(batch_size=150, **EXACT)
    state = solver.start(both)
    assert [len(feed.terms) for feed in state.work.feeds] == [2, 1]
    _, gradient = estimate(state.work)
    torch.testing.assert_close(gradient, both.taylor(order=1).gradient / 210, rtol=1e-11, atol=1e-13)


def test_pieces_cover_a_batch_once():
    for n, many in ((7, 3), (3, 7), (10, 1)):
        rows = [list(range(n))[p] for p in pieces(Batch({"y": torch.zeros(n)}), many)]
        assert [i for part in rows for i in part] == list(range(n))


def test_padding_and_zero_counts_do_not_move_the_estimate(iris):
    X, y = iris
    padded = objective(
        np.concatenate([X, X[:20]]), np.concatenate([y, y[:20]]), count=torch.tensor([1.0] * 150 + [0.0] * 20)
    )
    plain = objective(X, y)
    found = []
    for each in (padded, plain):
        solver = th.Stochastic(batch_size=200, **EXACT)
        found.append(estimate(solver.start(each).work)[1])
    torch.testing.assert_close(found[0], found[1], rtol=1e-11, atol=1e-13)


# ---- the maximum -------------------------------------------------------------------------------------------


def test_a_convex_problem_reaches_the_multinomial_maximum(iris):
    """species ~ sepal length, by Newton's method: the same log-likelihood to 1e-3 nats of 91."""
    X, y = iris
    truth = th.fit("species ~ x", {"x": X[:, 0], "species": y}, family="categorical")
    solver = th.Stochastic(steps=300, learning_rate=0.3, batch_size=150, held_out=None)
    fit = th.fit(classifier(1), {"x": X[:, :1], "y": y}, solver=solver)
    assert fit.log_likelihood == pytest.approx(truth.log_likelihood, abs=1e-3)


def test_the_posterior_mode_is_newtons(iris):
    """Four columns separate the species: with a Normal prior the maximum a posteriori exists, and is the
    same to 1e-3 nats."""
    X, y = iris
    prior = th.priors.Normal(1.0)
    truth = th.fit(classifier(4, dtype=torch.float64), {"x": X, "y": y}, prior=prior)
    solver = th.Stochastic(steps=400, learning_rate=0.2, batch_size=150, held_out=None)
    fit = th.fit(classifier(4), {"x": X, "y": y}, prior=prior, solver=solver)
    assert fit.objective.value(fit.theta) == pytest.approx(truth.objective.value(truth.theta), abs=1e-3)


def test_a_formula_can_be_climbed_stochastically():
    """Its float64 coefficients, by sgd in batches of 50: within a tenth of a standard error of least
    squares."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=500)
    frame = {"x": x, "y": 1 + 2 * x + rng.normal(size=500)}
    truth = th.fit("y ~ x", frame)
    fit = th.fit(
        "y ~ x",
        frame,
        solver=th.Stochastic(steps=300, optimiser="sgd", learning_rate=0.05, batch_size=50, held_out=None),
    )
    assert fit.theta.dtype == torch.float64
    errors = truth.standard_errors()
    assert bool(((fit.estimates - truth.estimates).abs() < 0.1 * errors).all())


# ---- what is held out --------------------------------------------------------------------------------------


def test_the_certificate_is_the_held_out_trend_and_the_model_that_it_speaks_of(iris):
    X, y = iris
    fit = th.fit(
        classifier(4, (8,)),
        {"x": X, "y": y},
        solver=th.Stochastic(steps=60, learning_rate=0.05, held_out=0.2, seed=3),
    )
    certificate = fit.certificate
    assert certificate.status == "stochastic"
    assert certificate.ok
    first, best, error = certificate.trend
    assert best > first
    assert len(fit.trace) == 21
    assert max(line[1] for line in fit.trace) == best
    _, out = split(fit.source.whole, 0.2, torch.Generator().manual_seed(3))
    mean, se, terms = held_out_nats(fit.model.log_prob, out)
    assert (mean, se, terms) == (pytest.approx(best, rel=1e-6), pytest.approx(error, rel=1e-5), 30)
    assert "30 terms" in certificate.detail
    assert not fit.model.training


def test_a_weighted_climb_tells_what_was_climbed_beside_the_log_likelihood(iris):
    """Weights of 2: the objective is twice the log-likelihood of the batches, and the held-out figure is the
    log-likelihood itself."""
    X, y = iris
    solver = th.Stochastic(
        steps=30, batch_size=150, evaluate_every=1, learning_rate=0.1, held_out=Tensors({"x": X, "y": y})
    )
    fit = th.fit(
        classifier(4),
        Tensors({"x": X, "y": y}),
        weights=lambda batch, log_prob: torch.full_like(log_prob, 2.0),
        solver=solver,
    )
    found = re.search(
        r"weighted, and no log-likelihood: mean w·log p .* from (\S+) to (\S+) nats", fit.certificate.detail
    )
    assert float(found[1]) == pytest.approx(2 * fit.trace[0][1], rel=1e-3)
    assert float(found[2]) == pytest.approx(2 * fit.trace[-2][1], rel=1e-3)


def test_the_best_look_is_kept_and_the_last_if_asked(iris):
    """A rate that makes the run overshoot: the best held-out look is not the last one."""
    X, y = iris
    left = {}
    for keep in ("best", "last"):
        solver = th.Stochastic(
            steps=40,
            learning_rate=1.0,
            optimiser="sgd",
            lr_schedule="constant",
            batch_size=8,
            restore_best=keep == "best",
            evaluate_every=1,
            held_out=0.3,
        )
        fit = th.fit(classifier(4, (16,)), {"x": X, "y": y}, solver=solver)
        _, out = split(fit.source.whole, 0.3, torch.Generator().manual_seed(0))
        left[keep] = held_out_nats(fit.model.log_prob, out)[0]
        assert left[keep] == pytest.approx(
            fit.certificate.trend[1] if keep == "best" else fit.trace[-1][1], rel=1e-6
        )
    assert left["best"] > left["last"]


def test_the_standard_error_of_held_out_nats_is_that_of_a_mean():
    """Of n rows: s/√n; a row counted twice is two rows; terms (B, T) are B independent sequences."""
    y = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = th.models.Density(th.families.Normal())
    each = model.log_prob(Batch({"y": y})).detach()
    mean, error, n = held_out_nats(model.log_prob, Batch({"y": y}))
    assert (mean, error, n) == (
        pytest.approx(float(each.mean())),
        pytest.approx(float(each.std() / 40**0.5)),
        40,
    )
    counted = held_out_nats(model.log_prob, Batch({"y": y[:20]}, count=torch.full((20,), 2.0)))
    assert counted == pytest.approx(held_out_nats(model.log_prob, Batch({"y": torch.cat([y[:20], y[:20]])})))

    class Sequences(torch.nn.Module):
        def log_prob(self, batch: Batch) -> torch.Tensor:
            return batch["y"]

    y = y.reshape(8, 5)
    sums = (y - y.mean()).sum(1)
    clustered = float((sums**2).sum() * 8 / 7) ** 0.5 / 40
    assert held_out_nats(Sequences().log_prob, Batch({"y": y}, dims=2))[1] == pytest.approx(clustered)


def test_what_is_held_out_is_whole_groups():
    group = torch.arange(30) // 3
    left, out = split(Batch({"y": torch.arange(30.0)}, group=group), 0.3, torch.Generator().manual_seed(0))
    assert len(out) == 9
    assert not set((left["y"] // 3).tolist()) & set((out["y"] // 3).tolist())
    with pytest.raises(BadArgument, match="of 2 units"):
        split(Batch({"y": torch.zeros(2)}), 0.1, torch.Generator())


# ---- its numbers -------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_numbers_dropout_included(iris):
    X, y = iris

    def theta(seed: int) -> torch.Tensor:
        net = th.networks.mlp(4, 16, 3)
        model = th.models.Conditional(
            th.families.Categorical(3), torch.nn.Sequential(net[0], torch.nn.Dropout(0.5), *net[1:])
        )
        return th.fit(model, {"x": X, "y": y}, solver=th.Stochastic(steps=20, batch_size=32, seed=seed)).theta

    state = torch.random.get_rng_state()
    first = theta(0)
    torch.rand(7)  # the global randomness takes no part
    assert torch.equal(first, theta(0))
    assert not torch.equal(first, theta(1))
    torch.random.set_rng_state(state)


def test_theta_keeps_its_precision_while_products_are_in_another(iris):
    """A float32 network whose products of matrices are in bfloat16: θ is float32, and the gradient right to
    bfloat16's 8 bits."""
    X, y = iris
    whole = th.Objective([th.LogLikelihood(classifier(4, (8,)), Tensors({"x": X, "y": y}))])
    exact = whole.taylor(order=1).gradient / 150
    found = estimate(
        th.Stochastic(batch_size=150, held_out=None, precision=torch.bfloat16).start(whole).work
    )[1]
    assert whole.theta.dtype == torch.float32
    error = float((found - exact).norm() / exact.norm())
    assert 1e-5 < error < 2e-2


def test_running_statistics_move_in_the_precision_of_the_model(iris):
    X, y = iris
    net = torch.nn.Sequential(
        torch.nn.BatchNorm1d(4, dtype=torch.float64), th.networks.mlp(4, (), 3, dtype=torch.float64)
    )
    fit = th.fit(
        th.models.Conditional(th.families.Categorical(3), net),
        {"x": X + 2, "y": y},
        solver=th.Stochastic(steps=40, restore_best=False),
    )
    net = fit.model.network
    assert net[0].running_mean.dtype == torch.float64
    np.testing.assert_allclose(net[0].running_mean, (X + 2).mean(0), atol=0.2)
    assert fit.theta.dtype == torch.float64


@pytest.mark.parametrize(
    ("decay", "last"), [("constant", 0.1), ("linear", 0.1 / 80), ("cosine", 0.05 * (1 - np.cos(np.pi / 80)))]
)
def test_the_rate_rises_over_the_warm_up_and_decays(decay, last):
    solver = th.Stochastic(steps=100, warmup_steps=20, learning_rate=0.1, lr_schedule=decay)
    assert solver.rate(0) == pytest.approx(0.005)
    assert solver.rate(19) == solver.rate(20) == pytest.approx(0.1)
    assert solver.rate(99) == pytest.approx(last)


def test_the_gradient_is_clipped_to_its_norm(iris):
    """One step of plain sgd moves θ by rate × clip."""
    whole = objective(*iris)
    before = whole.theta
    solver = th.Stochastic(
        steps=1,
        optimiser="sgd",
        momentum=0.0,
        learning_rate=0.5,
        max_grad_norm=1e-3,
        lr_schedule="constant",
        **EXACT,
    )
    after = iterate(solver, whole).theta
    assert float((after - before).norm()) == pytest.approx(5e-4, rel=1e-9)


# ---- what goes wrong ---------------------------------------------------------------------------------------


def test_a_value_that_is_not_finite_stops_the_climb_at_the_last_finite_theta():
    """Row 37 is impossible (−1 is no count): the step that meets it is named, and θ is that of the step
    before."""
    y = torch.ones(64)
    y[37] = -1.0
    model = th.models.Conditional(th.families.Poisson(), th.networks.mlp(1, (), 1))
    data = {"x": torch.ones(64, 1), "y": y}
    with pytest.raises(
        NotConverged, match=r"step \d+: log p is -inf for 1 of 4 terms of the batch.* last finite θ"
    ) as caught:
        th.fit(model, data, solver=th.Stochastic(steps=50, batch_size=4, held_out=None))
    assert caught.value.certificate.steps < 16
    assert bool(torch.isfinite(caught.value.fit.theta).all())
    assert f"step {caught.value.certificate.steps + 1}:" in str(caught.value)


def test_a_climb_that_diverges_leaves_finite_numbers_behind(iris):
    X, y = iris
    model = classifier(4, (8,))
    solver = th.Stochastic(
        steps=50, optimiser="sgd", learning_rate=1e38, lr_schedule="constant", held_out=None
    )
    fit = th.fit(model, {"x": X, "y": y}, solver=solver, on_failure="return")
    assert fit.certificate.status == "not converged"
    assert "step" in fit.certificate.detail
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"steps": 0}, "steps=0"),
        ({"optimiser": "adam"}, "'adamw', 'sgd'"),
        ({"lr_schedule": "step"}, "lr_schedule='step'"),
        ({"held_out": 1.5}, "held_out=1.5"),
        ({"learning_rate": 0.0}, "learning_rate=0"),
        ({"precision": torch.int32}, "precision"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting, text):
    with pytest.raises(BadArgument, match=text):
        th.Stochastic(**setting)


@pytest.mark.parametrize("factor", [-1.0, math.nan, math.inf])
def test_a_schedule_that_gives_no_rate_is_named_with_the_step(factor):
    X, y = torch.randn(20, 2), torch.randn(20)
    model = th.models.Conditional(th.families.Normal(), torch.nn.Linear(2, 2))
    solver = th.Stochastic(steps=3, warmup_steps=0, lr_schedule=lambda t: factor if t == 1 else 1.0)
    with pytest.raises(BadArgument, match=r"lr_schedule gives .* at step 1\. Accepted: a finite number"):
        th.fit(model, {"x": X, "y": y}, solver=solver)


# ---- sources -----------------------------------------------------------------------------------------------


class Stream:
    """Blocks of rows from somewhere, with an end or without."""

    units, fingerprint = "y", "stream"

    def __init__(self, X, y, block: int, size: int | None):
        self.rows, self.block, self.size = (
            Batch({"x": torch.as_tensor(X), "y": torch.as_tensor(y)}),
            block,
            size,
        )
        self.passes = 0

    def batches(self, model: object = None) -> Iterator[Batch]:
        while True:
            self.passes += 1
            for at in range(0, len(self.rows), self.block):
                yield self.rows[at : at + self.block]
            if self.size is not None:
                return


def test_a_source_that_is_read_block_by_block_deals_out_every_row_once(iris):
    X, y = iris
    term = th.LogLikelihood(classifier(4), Stream(X, y, 60, 150))
    (feed,) = feeds([term], 25, torch.Generator().manual_seed(0), {})
    minibatches = torch.cat(
        [next(feed.batches)[0]["x"] for _ in range(7)]
    )  # 25, 25, 10, 25, 25, 10, 25 and 5 more
    assert len(minibatches) == 145
    rest = next(feed.batches)[0]["x"]
    assert torch.equal(
        torch.cat([minibatches, rest]).sum(0).round(decimals=9), torch.as_tensor(X).sum(0).round(decimals=9)
    )
    assert feed.observations == 150


def test_a_source_without_end_is_climbed_and_takes_no_prior(iris):
    X, y = iris
    fit = th.fit(
        classifier(4),
        Stream(X, y, 150, None),
        solver=th.Stochastic(steps=100, learning_rate=0.05, held_out=Tensors({"x": X, "y": y})),
    )
    assert "without end" in fit.certificate.detail
    assert fit.certificate.trend[1] > fit.certificate.trend[0] + 0.5
    with pytest.raises(BadArgument, match="prior"):
        th.fit(
            classifier(4), Stream(X, y, 150, None), prior=th.priors.Normal(), solver=th.Stochastic(steps=1)
        )


def test_data_drawn_from_the_model_are_drawn_anew_each_step():
    """The source sees the θ that each step left, in evaluation mode."""

    class Own:
        drawn, size, units, fingerprint = True, None, "y", "own"

        def __init__(self) -> None:
            self.seen: list[tuple[torch.Tensor, bool]] = []

        def batches(self, model: th.models.Conditional) -> Iterator[Batch]:
            self.seen.append((model.network[0].bias.detach().clone(), model.training))
            for _ in range(2):
                yield Batch({"x": torch.ones(4, 1), "y": torch.ones(4)})

    source = Own()
    fit = th.fit(classifier(1).eval(), source, solver=th.Stochastic(steps=3, learning_rate=0.1))
    assert len({tuple(b.tolist()) for b, _ in source.seen}) == 3
    assert not any(training for _, training in source.seen)
    assert fit.certificate.steps == 3


def test_the_solver_is_chosen_by_precision_and_by_where_the_data_come_from(iris):
    X, y = iris
    data = Tensors({"x": X, "y": y})
    assert isinstance(choose(th.Objective([th.LogLikelihood(classifier(4), data)])), th.Stochastic)
    assert isinstance(
        choose(th.Objective([th.LogLikelihood(classifier(4, dtype=torch.float64), data)])), th.Newton
    )
    policy = th.rl.Policy(th.networks.mlp(4, (), 2, dtype=torch.float64))
    assert isinstance(
        choose(th.Objective([th.LogLikelihood(policy, Rollouts("CartPole-v1", 2))])), th.Stochastic
    )
