"""An exponential moving average of θ in generative models: what is drawn, scored and saved is of θ̄, and a run that was
killed goes on with both."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import thetahat as th
from thetahat.data import Tensors
from thetahat.generative import VAE, BetaVAE, Denoiser, Diffusion, FlowMatching, Noised, Straight
from thetahat.networks import mlp
from thetahat.solvers import iterate
from thetahat.solvers.stochastic import State

DECAY, STEPS, D = 0.6, 12, 3


def rows() -> torch.Tensor:
    return torch.randn(60, D, generator=torch.Generator().manual_seed(0))


def vae() -> th.LogLikelihood:
    model = VAE(mlp(D, 8, 4), mlp(2, 8, D, seed=1), latent=2, dimensions=D)
    return th.LogLikelihood(model, Tensors({"y": (rows() > 0).to(torch.uint8)}))


def beta_vae() -> th.LogLikelihood:
    term = vae()
    return th.LogLikelihood(BetaVAE(term.model, 2.0, 0.1), term.source)


def diffusion() -> th.LogLikelihood:
    model = Diffusion(Denoiser(D, width=8, blocks=1), predict="velocity", schedule=Straight(8.0, -8.0))
    return th.LogLikelihood(model, Noised(Tensors({"y": rows()})), FlowMatching(model.schedule))


SYSTEMS: dict[str, Callable[[], th.LogLikelihood]] = {"VAE": vae, "β-VAE": beta_vae, "diffusion": diffusion}
SETTINGS = {
    "steps": STEPS,
    "batch_size": 20,
    "learning_rate": 0.05,
    "lr_schedule": "constant",
    "held_out": 0.2,
    "evaluate_every": 4,
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_draws_scores_and_saved_fits_are_of_the_average(name: str, tmp_path) -> None:
    """θ_1 … θ_T of the same run without averaging, averaged by hand: the plain mean until it forgets (t ≤ 1/(1 − d)),
    then θ̄ ← d θ̄ + (1 − d) θ. A model with that θ̄ written into it draws and scores as the fit does, and as the
    fit that was loaded."""
    seen: list[torch.Tensor] = []

    def watch(state: State) -> None:
        seen.append(state.theta.clone())

    iterate(th.Stochastic(restore_best=False, **SETTINGS), th.Objective([SYSTEMS[name]()]), watch)
    average = seen[1]
    for t, theta in enumerate(seen[2:], 2):
        d = min(DECAY, 1 - 1 / t)
        average = d * average + (1 - d) * theta
    fit = th.maximize(SYSTEMS[name](), solver=th.Stochastic(restore_best=False, ema_decay=DECAY, **SETTINGS))
    torch.testing.assert_close(fit.theta, average, rtol=1e-5, atol=1e-6)
    assert float((fit.theta - seen[-1]).abs().max()) > 1e-3

    other = SYSTEMS[name]().model.eval()
    torch.nn.utils.vector_to_parameters(fit.theta, [p for p in other.parameters() if p.requires_grad])
    drawn, wanted = (m.draw(50, generator=torch.Generator().manual_seed(1)) for m in (fit.model, other))
    assert torch.equal(drawn, wanted)
    fit.save(tmp_path / "fit")
    again = th.load(tmp_path / "fit")
    assert torch.equal(again.theta, fit.theta)
    assert torch.equal(again.model.draw(50, generator=torch.Generator().manual_seed(1)), wanted)
    data = fit.source
    exact = th.evaluation.score.score(other, data, generator=torch.Generator().manual_seed(0)).total
    for each in (fit, again):
        score = each.score(data, seed=0)
        assert (score.total, score.weights) == (exact, "EMA")
        assert each.score(data, samples=4).weights == "EMA"


@pytest.mark.parametrize("restore_best", [True, False])
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_killed_run_goes_on_with_its_average_bit_for_bit(name: str, restore_best: bool, tmp_path) -> None:
    """Killed after steps 3 and 7 of 12, checkpoints every 2: θ̄, the trace and the raw θ of the run never killed."""
    settings = SETTINGS | {"ema_decay": DECAY, "restore_best": restore_best}
    whole = th.maximize(SYSTEMS[name](), solver=th.Stochastic(**settings))

    class Killed(Exception):
        pass

    solver = th.Stochastic(checkpoint=tmp_path / "run", checkpoint_every=2, **settings)
    for at in (3, 7):

        def kill(state: State, at: int = at) -> None:
            if state.step == at:
                raise Killed

        with pytest.raises(Killed):
            iterate(solver, th.Objective([SYSTEMS[name]()]), kill)
    again = th.maximize(SYSTEMS[name](), solver=solver)
    assert torch.equal(again.theta, whole.theta)
    assert again.trace == whole.trace

    longer = th.Stochastic(checkpoint=tmp_path / "run", **settings | {"steps": 20})
    never = th.maximize(SYSTEMS[name](), solver=th.Stochastic(**settings | {"steps": 20}))
    assert torch.equal(th.maximize(SYSTEMS[name](), solver=longer).theta, never.theta)
