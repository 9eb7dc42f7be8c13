"""β-VAE and free bits: what is maximised is the formula, what is scored is the bound, and both are said."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor, nn

import thetahat as th
from thetahat.data import Batch, Tensors
from thetahat.errors import BadArgument, BadSave
from thetahat.families import Normal
from thetahat.generative import VAE, BetaVAE
from thetahat.networks import mlp

F64 = torch.float64
N, D, L = 200, 4, 2
SIGMA = 0.6


class Linear(nn.Module):
    """z → (μ + W z, log σ), σ fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = mlp(L, (), D, seed=0, dtype=F64)
        self.register_buffer("log_scale", torch.tensor(math.log(SIGMA), dtype=F64))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean(z), self.log_scale


def rows() -> Tensor:
    g = torch.Generator().manual_seed(0)
    W = torch.tensor([[1.5, 0.0], [1.0, 0.8], [-0.5, 1.0], [0.3, -0.7]], dtype=F64)
    return (
        torch.randn(N, L, generator=g, dtype=F64) @ W.T
        + SIGMA * torch.randn(N, D, generator=g, dtype=F64)
        + 1.0
    )


def linear() -> VAE:
    return VAE(mlp(D, (), 2 * L, seed=1, dtype=F64), Linear(), Normal(), latent=L, dimensions=D)


def by_hand(vae: VAE, y: Tensor, noise: Tensor, beta: float, free: float) -> Tensor:
    """Of the mean over rows, with torch.distributions: E log p(y | z) − β Σ_j max(λ, KL_j), (), at given noise."""
    m, log_s = vae.encoder(y).chunk(2, -1)
    q = torch.distributions.Normal(m, torch.exp(log_s))
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(torch.zeros_like(m), 1.0)).mean(0)
    mean, log_scale = vae.decoder(m + torch.exp(log_s) * noise)
    p = torch.distributions.Normal(mean, torch.exp(log_scale)).log_prob(y).sum(-1).mean()
    return p - beta * torch.clamp(kl, min=free).sum()


def gradient(value: Tensor, model: nn.Module) -> Tensor:
    found = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
    return torch.cat([torch.zeros(1) if g is None else g.reshape(-1) for g in found])


# ---- the objective -----------------------------------------------------------------------------------------


def test_with_beta_one_and_no_free_bits_it_is_the_bound_bit_for_bit() -> None:
    """The values, what is said of it, and the θ of a whole run."""
    y, vae = rows(), linear()
    model = BetaVAE(vae)
    same = [torch.Generator().manual_seed(3) for _ in range(3)]
    bound = vae.log_prob(Batch({"y": y}), same[0])
    assert torch.equal(model.objective(Batch({"y": y}), same[1]), bound)
    assert torch.equal(model.log_prob(Batch({"y": y}), same[2]), bound)
    assert model.maximises == ""
    solver = th.Stochastic(steps=20, batch_size=50, held_out=0.2, evaluate_every=5)
    one, two = (th.fit(m, {"y": y}, solver=solver) for m in (linear(), BetaVAE(linear())))
    assert torch.equal(one.theta, two.theta)
    assert one.trace == two.trace
    assert "maximised" not in str(two.summary())


@pytest.mark.parametrize(("beta", "free"), [(4.0, 0.0), (0.5, 0.0), (0.0, 0.0), (1.0, 0.7), (3.0, 0.7)])
def test_the_mean_over_a_batch_is_the_formula_and_so_is_its_gradient(beta: float, free: float) -> None:
    """torch.distributions' own density and divergence, max(λ, ·) of the batch's mean, at the model's draws."""
    y, vae = rows(), linear()
    noise = torch.randn((1, N, L), generator=torch.Generator().manual_seed(5), dtype=F64)[0]
    model = BetaVAE(vae, beta=beta, free_bits=free)
    found = model.objective(Batch({"y": y}), torch.Generator().manual_seed(5))
    wanted = by_hand(vae, y, noise, beta, free)
    assert found.shape == (N,)
    torch.testing.assert_close(found.mean(), wanted)
    torch.testing.assert_close(gradient(found.mean(), vae), gradient(wanted, vae), rtol=1e-9, atol=1e-12)


def test_free_bits_take_the_gradient_of_a_component_away_or_leave_it_whole() -> None:
    """Components with a mean KL above λ are as without free bits, the others cost λ and pull on nothing: the objective's
    gradient is then that of log p(y | z) alone, exactly."""
    y, vae = rows(), linear()
    batch = Batch({"y": y})

    def parts() -> tuple[Tensor, Tensor]:
        return vae.parts(batch, torch.Generator().manual_seed(1))

    kl = parts()[1].mean(0).detach()
    between = float(kl.mean())
    assert float(kl.min()) < between < float(kl.max())
    for free, kept in ((1e6, []), (between, [int(kl.argmax())]), (1e-9, [0, 1])):
        found = BetaVAE(vae, 2.0, free).objective(batch, torch.Generator().manual_seed(1)).sum()
        reconstruction, divergence = parts()
        wanted = reconstruction.sum() - 2.0 * divergence[:, kept].sum()
        assert torch.equal(gradient(found, vae.encoder), gradient(wanted, vae.encoder))
        assert float(found.detach()) == pytest.approx(
            float(wanted.detach()) - 2.0 * N * free * (2 - len(kept)), rel=1e-12
        )


def test_a_row_that_counts_twice_is_there_twice() -> None:
    """The mean of a component's divergence goes by count, and padding (0) has no part in it."""
    y, vae = rows()[:20], linear()
    batch = Batch({"y": y}, count=torch.tensor([2.0] * 5 + [0.0] * 5 + [1.0] * 10))
    twice = Batch({"y": torch.cat([y[:5], y[:5], y[10:]])})
    kl, other = (vae.parts(b, torch.Generator().manual_seed(0))[1] for b in (batch, twice))
    means = other.mean(0)
    low = float(means.min().detach())
    for free in (low * 0.999, low * 1.001):  # on either side of the smaller mean
        reconstruction, _ = vae.parts(batch, torch.Generator().manual_seed(0))
        found = BetaVAE(vae, 1.0, free).objective(batch, torch.Generator().manual_seed(0))
        held = torch.where(means > free, kl, torch.full_like(kl, free))
        torch.testing.assert_close(found, reconstruction - held.sum(-1))


# ---- its maximum -------------------------------------------------------------------------------------------


def at_the_maximum(beta: float) -> VAE:
    """W of probabilistic PCA with noise βσ²: E log p − β KL is β times the bound of Normal(y; μ + Wz, βσ²), but for a
    constant in σ alone. So W = U (Λ − βσ²)^½, q = Normal(M⁻¹Wᵀ(y − μ), βσ² M⁻¹), M = WᵀW + βσ² I (Tipping and
    Bishop 1999)."""
    y, vae = rows(), linear()
    noise = beta * SIGMA**2
    values, vectors = torch.linalg.eigh(torch.cov(y.T, correction=0))
    W = vectors.flip(1)[:, :L] * (values.flip(0)[:L] - noise).clamp(min=0).sqrt()
    M = W.T @ W + noise * torch.eye(L, dtype=F64)
    A = torch.linalg.solve(M, W.T)
    with torch.no_grad():
        vae.decoder.mean[0].weight.copy_(W)
        vae.decoder.mean[0].bias.copy_(y.mean(0))
        vae.encoder[0].weight.copy_(torch.cat([A, torch.zeros_like(A)]))
        vae.encoder[0].bias.copy_(torch.cat([-A @ y.mean(0), 0.5 * torch.log(noise / M.diagonal())]))
    return vae


def expected(model: BetaVAE, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The objective's mean over rows and over ε: ±√L along each axis, exact for what is quadratic in z."""
    axes = [s * L**0.5 * torch.eye(L, dtype=F64)[j] for j in range(L) for s in (1, -1)]
    found = []
    for axis in axes:
        monkeypatch.setattr(model.vae, "_noise", lambda k, m, g, axis=axis: axis.expand(k, *m.shape))
        found.append(model.objective(Batch({"y": rows()})).mean())
    return torch.stack(found).mean()


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.5, 5.0])
def test_a_linear_model_has_its_maximum_where_pca_with_beta_times_the_noise_has_it(
    beta: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No slope at the closed form, of W, μ and the whole encoder; with another β there is one."""
    vae = at_the_maximum(beta)
    assert float(gradient(expected(BetaVAE(vae, beta), monkeypatch), vae).abs().max()) < 1e-10
    assert float(gradient(expected(BetaVAE(vae, 1.3 * beta), monkeypatch), vae).abs().max()) > 1e-3


def test_a_run_reaches_that_maximum_and_is_scored_by_the_bound() -> None:
    """β = 4: WWᵀ of the closed form to 3 %; the objective there is the larger, the bound of β = 1 that of a worse
    model than the one that maximised it."""
    y, beta = rows(), 4.0
    solver = th.Stochastic(
        steps=500, batch_size=N, learning_rate=0.05, held_out=None, restore_best=False, ema_decay=0.95
    )
    tempered, plain = (th.fit(BetaVAE(linear(), b), {"y": y}, solver=solver) for b in (beta, 1.0))
    W = tempered.model.vae.decoder.mean[0].weight.detach()
    best = at_the_maximum(beta).decoder.mean[0].weight.detach()
    torch.testing.assert_close(W @ W.T, best @ best.T, rtol=0.03, atol=0.03)
    bounds = [fit.score({"y": y}, samples=1).mean for fit in (tempered, plain)]
    assert bounds[0] < bounds[1] - 0.1
    assert tempered.score({"y": y}, samples=1).kind == "lower bound"
    assert tempered.score({"y": y}, samples=100).K == 100
    assert tempered.score({"y": y}, samples=100).mean > bounds[0]
    assert tempered.model.K == 1


# ---- what is said, what is kept ----------------------------------------------------------------------------


def fitted(steps: int = 12, beta: float = 4.0, free: float = 0.2, **settings: object) -> th.Fit:
    solver = th.Stochastic(
        steps=steps, batch_size=40, evaluate_every=3, lr_schedule="constant", **{"held_out": 0.25} | settings
    )
    return th.fit(BetaVAE(linear(), beta, free), {"y": rows()}, solver=solver)


def test_held_out_data_are_scored_by_the_bound_and_the_summary_says_what_was_maximised() -> None:
    """The trend is the score of the same rows, 5 standard errors of its draws; the objective is far from it; the line of the
    summary has that figure."""
    held = Tensors({"y": rows()[:60]})
    fit = fitted(30, beta=40.0, held_out=held, restore_best=False)
    score = fit.score(held)
    assert fit.trace[-1][1] == pytest.approx(score.mean, abs=5 * 3**0.5 * score.error / score.n)
    said = " ".join(str(fit.summary()).split())
    found = re.search(r"maximised:? (.*?); the bound on log p is (\S+) ± \S+ nats a term, held out", said)
    assert found is not None
    assert found[1] == "E log p(y | z) − 40 Σ_j max(0.2, KL_j), KL_j the mean over a batch"
    assert float(found[2].replace("−", "-")) == pytest.approx(max(line[1] for line in fit.trace), rel=1e-3)
    assert "What was maximised is no log-likelihood" in fit.certificate.detail
    nothing = fitted(4, held_out=None)
    assert "nats, held out" not in str(nothing.summary())
    assert "; the bound on log p is fit.score(data)" in " ".join(str(nothing.summary()).split())
    assert "mean E log p(y | z) − 4 Σ_j" in nothing.certificate.detail
    with pytest.raises(BadArgument, match="is of the batches of the steps"):
        _ = nothing.maximised


def test_a_run_records_an_objective_and_not_a_log_likelihood(tmp_path) -> None:
    from thetahat.io import runs

    fit = th.fit(
        BetaVAE(linear(), 4.0),
        {"y": rows()},
        solver=th.Stochastic(steps=4, batch_size=50, evaluate_every=2),
        run=tmp_path / "run",
    )
    lines = runs.metrics(tmp_path / "run")
    assert all("train/objective" in line and "train/log_likelihood" not in line for line in lines)
    assert lines[-1]["validation/log_likelihood"] == fit.trace[-1][1]
    again = th.load(tmp_path / "run", model=BetaVAE(linear(), 4.0))  # its decoder is code of this file
    assert "4 KL(q(z | y)" in str(again.summary())


def test_a_killed_run_goes_on_bit_for_bit_and_not_with_another_beta(tmp_path) -> None:
    whole, kept = fitted(6).theta, tmp_path / "run"
    fitted(3, checkpoint=kept)
    with pytest.raises(BadSave, match="another run"):
        fitted(6, beta=5.0, checkpoint=kept)
    assert torch.equal(fitted(6, checkpoint=kept).theta, whole)


def test_a_saved_fit_has_its_objective(tmp_path) -> None:
    """Of networks that are in the library, without a line of code."""
    y = {"y": (rows() > 0.5).to(torch.uint8)}
    model = BetaVAE(VAE(mlp(D, 8, 4), mlp(2, 8, D, seed=1), latent=2, dimensions=D), beta=2.0, free_bits=0.1)
    fit = th.fit(model, y, solver=th.Stochastic(steps=5, batch_size=50, held_out=0.25, evaluate_every=5))
    fit.save(tmp_path / "fit")
    again = th.load(tmp_path / "fit")
    assert isinstance(again.model, BetaVAE)
    assert (again.model.beta, again.model.free_bits) == (2.0, 0.1)
    assert again.score(y).total == fit.score(y).total
    assert again.model.maximises in " ".join(str(again.summary()).split())
    assert fit.sample(3).shape == (3, D)
    assert fit.model.reconstruct(Batch(y)).shape == (N, D)
    assert fit.model.encode(Batch(y))[0].shape == (N, 2)


@pytest.mark.parametrize(
    "settings", [{"accumulation_steps": 2}, {"ema_decay": 0.9}, {"precision": torch.bfloat16}]
)
def test_every_setting_of_a_run_maximises_the_objective(settings: dict[str, object]) -> None:
    """β = 1000 leaves nothing of q but the prior: the divergence falls to a hundredth of what the bound leaves."""
    y = {"y": (rows() > 0.5).to(torch.uint8)}

    def divergence(beta: float) -> float:
        model = BetaVAE(VAE(mlp(D, 8, 4), mlp(2, 8, D, seed=1), latent=2), beta)
        solver = th.Stochastic(steps=80, batch_size=50, learning_rate=0.02, held_out=None, **settings)
        fit = th.fit(model, y, solver=solver)
        return float(fit.model.vae.parts(Batch(y))[1].sum(1).mean().detach())

    assert divergence(1000.0) < 0.01 * divergence(1e-3)


# ---- what is refused ---------------------------------------------------------------------------------------


class Twice(nn.Module):
    """A model that asks another for its log p."""

    kind = "lower bound"

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def log_prob(self, batch: Batch) -> Tensor:
        return 2 * self.inner.log_prob(batch)


def test_an_objective_that_nobody_would_maximise_is_refused() -> None:
    """A solver of log p, and a model around it, would leave β out without a word."""
    with pytest.raises(BadArgument, match=r"solver=LBFGS maximises log p, .*4 KL.*Stochastic"):
        th.fit(BetaVAE(linear(), 4.0), {"y": rows()}, solver=th.LBFGS())
    with pytest.raises(BadArgument, match="BetaVAE inside Twice"):
        th.fit(Twice(BetaVAE(linear(), 4.0)), {"y": rows()}, solver=th.Stochastic(steps=2, held_out=None))
    fit = th.fit(Twice(BetaVAE(linear())), {"y": rows()}, solver=th.Stochastic(steps=2, held_out=None))
    assert math.isfinite(fit.trace[-1][1])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"beta": -1.0}, "beta=-1.0"),
        ({"beta": math.inf}, "beta=inf"),
        ({"free_bits": -0.1}, "free_bits=-0.1"),
        ({"free_bits": "much"}, "free_bits='much'"),
        ({"vae": mlp(2, (), 2)}, "received Sequential"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings: dict[str, object], says: str) -> None:
    with pytest.raises(BadArgument, match=re.escape(says)):
        BetaVAE(**{"vae": linear()} | settings)  # type: ignore[arg-type]


def test_a_vae_of_several_draws_is_refused() -> None:
    with pytest.raises(BadArgument, match="K=5"):
        BetaVAE(linear().tightened(5))


def test_a_vae_of_classes_under_beta_is_its_own_parts_given_the_label() -> None:
    """The parts of the conditional VAE, combined here by hand with the same draws; and draws of a class."""
    vae = th.generative.VAE(
        th.generative.Labelled(torch.nn.Linear(4 + 3, 4), 3),
        th.generative.Labelled(torch.nn.Linear(2 + 3, 4), 3),
        latent=2,
        dimensions=4,
        classes=3,
    )
    model = th.generative.BetaVAE(vae, beta=2.5)
    batch = th.data.Batch({"y": torch.ones(6, 4), "label": torch.arange(6) % 3})
    reconstruction, divergence = vae.parts(batch, torch.Generator().manual_seed(0))
    found = model.objective(batch, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, reconstruction - 2.5 * divergence.sum(-1))
    assert model.draw(5, label=2).shape == (5, 4)
    with pytest.raises(th.errors.UnknownColumn):
        model.objective(th.data.Batch({"y": torch.ones(6, 4)}))
