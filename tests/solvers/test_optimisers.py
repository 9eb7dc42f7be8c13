"""The optimisers are torch's, each parameter is moved by one of them, and the average is a mean."""

from __future__ import annotations

from shutil import which

import pytest
import torch
from sklearn.datasets import load_iris

import thetahat as th
from thetahat.data import Tensors
from thetahat.errors import BadArgument
from thetahat.solvers import iterate
from thetahat.solvers.optimisers import averaged, hidden, optimisers

X, Y = load_iris(return_X_y=True)
X = (X - X.mean(0)) / X.std(0)


def objective(hidden_widths: tuple[int, ...] = (8, 8), dtype: torch.dtype = torch.float32) -> th.Objective:
    model = th.models.Conditional(
        th.families.Categorical(3), th.networks.mlp(4, hidden_widths, 3, dtype=dtype)
    )
    return th.Objective([th.LogLikelihood(model, Tensors({"x": X, "y": Y}))])


def test_muon_moves_hidden_matrices_and_adamw_the_rest():
    """Of a transformer all but embedding, output and norms; of a tied one too; of a perceptron all weights
    but the last."""
    for tied in (False, True):
        network = th.networks.Transformer(20, layers=2, width=16, heads=2, tied=tied)
        whole = th.Objective(
            [th.LogLikelihood(th.language.Autoregressive(network), th.language.Tokens(["some text"]))]
        )
        matrices = {id(p) for p in hidden([whole.model])}
        assert {n for n, p in network.named_parameters() if id(p) in matrices} == {
            n for n, _ in network.named_parameters() if "proj" in n
        }
        muon, adamw = optimisers("muon", whole.parameters(), [whole.model], 0.1, 0.9, (0.9, 0.99))
        moved = [id(p) for o in (muon, adamw) for g in o.param_groups for p in g["params"]]
        assert len(moved) == len(set(moved)) == len(whole.parameters())
    assert [tuple(p.shape) for p in hidden([objective().model])] == [(8, 4), (8, 8)]


def test_a_step_of_muon_is_orthogonal():
    """ĝ = U S Vᵀ; the step is along U Vᵀ, each singular value 0.2 √(larger side) · rate up to the
    Newton–Schulz iteration's 0.68 … 1.13 (Jordan et al.: coefficients that converge to near 1, not to 1);
    torch does it in bfloat16."""
    whole = objective((16, 12))
    before = [p.detach().clone() for p in whole.parameters()]
    gradient = whole.taylor(order=1).gradient[16 * 4 + 16 :][: 12 * 16].view(12, 16)
    U, S, Vt = torch.linalg.svd(gradient, full_matrices=False)
    solver = th.Stochastic(
        steps=1, optimiser="muon", learning_rate=0.1, lr_schedule="constant", batch_size=150, held_out=None
    )
    step = iterate(solver, whole).ended.parameters()[2].detach() - before[2]
    values = torch.diag(U.T @ step @ Vt.T)[S / S[0] > 1e-2] / (0.1 * 0.2 * 4)
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.25


def test_muon_climbs():
    """Two hidden layers and four columns: above the maximum of a linear classifier on sepal length alone
    (−91.03 nats, by Newton's method)."""
    whole = objective()
    state = iterate(
        th.Stochastic(steps=80, optimiser="muon", learning_rate=0.1, batch_size=50, held_out=None), whole
    )
    assert state.ended.value() > -91.03 / 3


def test_a_step_of_adamw_is_its_formula():
    """Kingma and Ba: the first step is rate · ĝ / (|ĝ| + ε), whatever the betas."""
    whole = objective(dtype=torch.float64)
    before, g = whole.theta, whole.taylor(order=1).gradient / 150
    solver = th.Stochastic(
        steps=1, learning_rate=0.01, betas=(0.5, 0.6), lr_schedule="constant", batch_size=150, held_out=None
    )
    after = iterate(solver, whole).theta
    torch.testing.assert_close(after - before, 0.01 * g / (g.abs() + 1e-8), rtol=1e-9, atol=1e-12)


def test_the_average_is_the_mean_until_it_forgets():
    """d = 0.9: the plain mean of the first ten, exponential from there on."""
    g = torch.Generator().manual_seed(0)
    theta = [torch.randn(3, generator=g, dtype=torch.float64) for _ in range(25)]
    average, expected = None, torch.zeros(3, dtype=torch.float64)
    for t, each in enumerate(theta, 1):
        average = averaged(average, [torch.nn.Parameter(each.clone())], 0.9, t)
        expected = torch.stack(theta[:t]).mean(0) if t <= 10 else 0.9 * expected + 0.1 * each
        torch.testing.assert_close(average[0], expected)


@pytest.mark.parametrize(("keep", "held_out"), [("best", 0.2), ("last", 0.2), ("last", None)])
def test_what_is_left_in_place_is_the_average(keep, held_out):
    """The same run without averaging passes through θ_1 … θ_T; their average by hand is what is left, and its
    score says so."""
    settings = {
        "steps": 12,
        "batch_size": 30,
        "restore_best": keep == "best",
        "held_out": held_out,
        "evaluate_every": 4,
        "learning_rate": 0.05,
    }
    plain, seen = objective(), []
    iterate(
        th.Stochastic(**settings | {"restore_best": False}), plain, lambda state: seen.append(state.theta)
    )
    average = None
    for t, theta in enumerate(seen[1:], 1):
        average = averaged(average, [torch.nn.Parameter(theta)], 0.5, t)
    fit = th.maximize(objective(), solver=th.Stochastic(ema_decay=0.5, **settings))
    torch.testing.assert_close(fit.theta, average[0], rtol=1e-5, atol=1e-6)
    assert fit.score().weights == "EMA"
    again = th.maximize(fit.objective, solver=th.Stochastic(**settings))
    assert again.score().weights == "raw"


def test_a_climb_ends_when_its_held_out_score_has_not_risen_for_so_many_looks():
    """At a rate that makes every look worse than the first, two looks of patience are two looks."""
    fit = th.maximize(
        objective(),
        solver=th.Stochastic(
            steps=500, learning_rate=5.0, held_out=0.2, evaluate_every=3, patience=2, lr_schedule="constant"
        ),
    )
    looks = [line[1] for line in fit.trace]
    assert len(looks) - 1 - looks.index(max(looks)) == 2
    assert fit.certificate.steps == 3 * (len(looks) - 1) < 500
    assert max(looks) == fit.certificate.trend[1]


def test_bfloat16_steers_and_theta_keeps_its_precision():
    """Steps in bfloat16 (8 bits): the gradient is that of float32 to a few per cent, and the run ends
    where that of float32 does."""
    found = {}
    for precision in (None, torch.bfloat16):
        network = th.networks.Transformer(257, layers=1, width=32, heads=2)
        tokens = th.language.Tokens(["she sells sea shells by the sea shore " * 4], context=32)
        solver = th.Stochastic(steps=40, learning_rate=0.02, batch_size=8, held_out=None, precision=precision)
        fit = th.fit(th.language.Autoregressive(network), tokens, solver=solver)
        assert fit.theta.dtype == torch.float32
        found[precision] = fit.score().mean
    assert found[None] > -1.5
    assert found[torch.bfloat16] == pytest.approx(found[None], abs=0.1)


@pytest.mark.skipif(which("g++") is None, reason="torch.compile needs a C++ compiler here")
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:The .grad attribute"
)  # of torch's compiler, about its own code
def test_compiled_steps_are_the_same_steps():
    """θ after five steps: to float32's rounding."""
    found = []
    for compiled in (False, True):
        whole = objective()
        iterate(th.Stochastic(steps=5, batch_size=50, held_out=None, compile=compiled), whole)
        found.append(whole.theta)
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"betas": (0.9, 1.0)}, {"ema_decay": 1.0}, {"patience": 0}, {"optimiser": "lion"}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(BadArgument, match="Accepted"):
        th.Stochastic(**wrong)
