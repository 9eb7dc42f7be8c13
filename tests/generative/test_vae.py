"""The VAE's bound: of a linear Gaussian decoder log p is known (probabilistic PCA); the bound is below it,
and reaches it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import thetahat as th
from thetahat.data import Batch, Tensors
from thetahat.errors import BadArgument, ModelError, ThetahatError
from thetahat.evaluation.score import score
from thetahat.families import Bernoulli, Categorical, Normal, Poisson
from thetahat.generative import VAE
from thetahat.networks import mlp

F64 = torch.float64
N, D, L = 300, 4, 2


class Linear(nn.Module):
    """z → (μ + W z, log σ), σ shared by all components."""

    def __init__(self, latent: int, d: int, seed: int = 0):
        super().__init__()
        self.mean = mlp(latent, (), d, seed=seed, dtype=F64)
        self.log_scale = nn.Parameter(torch.zeros((), dtype=F64))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean(z), self.log_scale


def rows() -> Tensor:
    g = torch.Generator().manual_seed(0)
    W = torch.tensor([[1.5, 0.0], [1.0, 0.8], [-0.5, 1.0], [0.3, -0.7]], dtype=F64)
    noise = torch.randn(N, D, generator=g, dtype=F64)
    return (
        torch.randn(N, L, generator=g, dtype=F64) @ W.T
        + 0.5 * noise
        + torch.tensor([1.0, -2.0, 0.0, 3.0], dtype=F64)
    )


def linear(**settings: object) -> VAE:
    return VAE(mlp(D, (), 2 * L, seed=1, dtype=F64), Linear(L, D), Normal(), latent=L, **settings)  # type: ignore[arg-type]


def exact(model: VAE, y: Tensor) -> Tensor:
    """log p(y) of a linear Gaussian decoder: Normal(μ, W Wᵀ + σ² I), (n,)."""
    layer, s2 = model.decoder.mean[0], torch.exp(2 * model.decoder.log_scale)
    C = layer.weight @ layer.weight.T + s2 * torch.eye(D, dtype=F64)
    return torch.distributions.MultivariateNormal(layer.bias, C).log_prob(y).detach()


def principal(y: Tensor) -> tuple[Tensor, Tensor, float, float]:
    """(μ, W, σ², log-likelihood): the maximum in closed form (Tipping and Bishop 1999, eqs. 7 and 8), from
    the eigenvalues alone."""
    mean, S = y.mean(0), torch.cov(y.T, correction=0)
    values, vectors = torch.linalg.eigh(S)
    values, vectors = values.flip(0), vectors.flip(1)
    s2 = float(values[L:].mean())
    W = vectors[:, :L] * torch.sqrt(values[:L] - s2)
    log_det = float(torch.log(values[:L]).sum()) + (D - L) * math.log(s2)
    return mean, W, s2, -0.5 * N * (D * math.log(2 * math.pi) + log_det + D)


def at_the_maximum(**settings: object) -> VAE:
    """The decoder at the closed form; the encoder at the posterior, Normal(M⁻¹Wᵀ(y − μ), σ²M⁻¹), M = WᵀW +
    σ²I, which is diagonal."""
    model, (mean, W, s2, _) = linear(**settings), principal(rows())
    M = W.T @ W + s2 * torch.eye(L, dtype=F64)
    A = torch.linalg.solve(M, W.T)
    with torch.no_grad():
        model.decoder.mean[0].weight.copy_(W)
        model.decoder.mean[0].bias.copy_(mean)
        model.decoder.log_scale.fill_(0.5 * math.log(s2))
        model.encoder[0].weight.copy_(torch.cat([A, torch.zeros_like(A)]))
        model.encoder[0].bias.copy_(torch.cat([-A @ mean, 0.5 * torch.log(s2 / M.diagonal())]))
    return model


# ---- the bound ---------------------------------------------------------------------------------------------


def test_the_closed_form_of_probabilistic_pca_is_the_density_it_maximises() -> None:
    """Tipping and Bishop's formula, against the density of Normal(μ, WWᵀ + σ²I) itself."""
    assert float(exact(at_the_maximum(), rows()).sum()) == pytest.approx(principal(rows())[3], rel=1e-12)


@pytest.mark.parametrize("estimator", ["iwae", "doubly reparameterised"])
@pytest.mark.parametrize("K", [2, 7])
def test_with_the_exact_posterior_every_draw_gives_log_p(K: int, estimator: str) -> None:
    """p(y, z)/q(z | y) is p(y) whatever z is, when q is the posterior: no noise at all."""
    model, y = at_the_maximum(K=K, estimator=estimator), rows()
    torch.testing.assert_close(model.log_prob(Batch({"y": y})).detach(), exact(model, y), rtol=0, atol=1e-10)


def test_one_draw_with_the_divergence_in_closed_form_has_log_p_as_its_mean() -> None:
    """Gauss–Hermite quadrature over ε, exact for the quadratic: E log p(y | z) − KL = log p(y) with the exact
    posterior."""
    model, y = at_the_maximum(), rows()[:20]
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.hermite_e.hermegauss(3))
    found = sum(
        float(a * b)
        / (2 * math.pi)
        * model.log_prob_at(Batch({"y": y}), torch.stack([u, v]).expand(1, 20, 2)).detach()
        for u, a in zip(nodes, weights, strict=True)
        for v, b in zip(nodes, weights, strict=True)
    )
    torch.testing.assert_close(found, exact(model, y), rtol=0, atol=1e-10)


def test_the_bound_is_below_log_p_and_rises_with_K() -> None:
    """Burda et al., Theorem 1, with an encoder as it was drawn; log p by the closed form; steps far beyond
    their errors."""
    model, y = linear(), rows()[:30]
    truth = float(exact(model, y).mean())
    many, found = Batch({"y": y.repeat(400, 1)}), []
    with torch.no_grad():
        for K in (1, 2, 8, 64):
            each = model.tightened(K).log_prob(many, torch.Generator().manual_seed(K)).view(400, 30).mean(1)
            found.append((float(each.mean()), float(each.std()) / 20))
    for (low, a), (high, b) in itertools.pairwise(found):
        assert high - low > 4 * math.hypot(a, b)
    assert found[-1][0] < truth + 3 * found[-1][1]


def test_iwae_is_logsumexp_less_log_K_and_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its definition written out with torch.distributions; and as many draws at once as memory allows."""
    model, y, g = linear(K=6), rows()[:5], torch.Generator().manual_seed(3)
    noise = torch.randn(6, 5, L, generator=g, dtype=F64)
    m, s = model.encode(Batch({"y": y}))
    z = m + s * noise
    mean, log_scale = model.decoder(z.view(-1, L))
    p = torch.distributions.Normal(mean.view(6, 5, D), torch.exp(log_scale)).log_prob(y).sum(-1)
    p = (
        p
        + torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
        - torch.distributions.Normal(m, s).log_prob(z).sum(-1)
    )
    truth = torch.logsumexp(p, 0) - math.log(6)
    torch.testing.assert_close(model.log_prob_at(Batch({"y": y}), noise), truth)
    for held in (1, 10**6, 2 * y.numel()):
        minibatches = iter(noise)
        monkeypatch.setattr("thetahat.generative.vae.HELD", held)
        monkeypatch.setattr(
            model,
            "_noise",
            lambda k, m, g, minibatches=minibatches: torch.stack([next(minibatches) for _ in range(k)]),
        )
        with torch.no_grad():
            torch.testing.assert_close(model.log_prob(Batch({"y": y})), truth.detach())
        assert next(minibatches, None) is None


# ---- its score ---------------------------------------------------------------------------------------------


def test_the_error_of_many_draws_is_what_their_means_differ_by() -> None:
    """Each of 20 rows is scored 300 times with 200 draws: the standard deviation of the values beside the root mean square of the
    errors that each pass states by itself; with an encoder as it was drawn, whose weights have no variance, too."""
    model, y = linear(K=200), rows()[:20]
    with torch.no_grad():
        for wider in (0.0, 1.0):
            model.encoder[0].bias.view(2, L)[1] += wider
            many = Batch({"y": y.repeat(300, 1)})
            found = model.log_prob_with_error(many, torch.Generator().manual_seed(0))
            assert found is not None
            value, error = (t.view(300, 20) for t in found)
            ratio = value.std(0) / error.square().mean(0).sqrt()
            assert float(ratio.mean()) == pytest.approx(1, abs=0.06)
            assert float((ratio - 1).abs().max()) < 0.35


def test_a_score_of_many_draws_makes_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """K draws a row, and the bound at these draws; of fewer draws two passes, whose difference is the error."""
    model, y = linear(), Tensors({"y": rows()[:30]})
    for K, passes in ((1003, 1), (99, 2)):
        each, drawn = model.tightened(K), []

        def noise(k: int, m: Tensor, g: torch.Generator | None, drawn: list[Tensor] = drawn) -> Tensor:
            drawn.append(torch.randn((k, *m.shape), generator=g, dtype=m.dtype))
            return drawn[-1]

        monkeypatch.setattr(each, "_noise", noise)
        found = score(each, y, generator=torch.Generator().manual_seed(0))
        assert sum(map(len, drawn)) == passes * K
        assert (found.kind, found.K) == ("lower bound", K)
        assert found.error > 0
        if passes == 1:
            with torch.no_grad():
                right = each.log_prob_at(next(iter(y.batches())), torch.cat(drawn))
            torch.testing.assert_close(found.per_observation, right, rtol=1e-12, atol=1e-12)


# ---- its gradient ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["iwae", "doubly reparameterised"])
def test_the_gradient_is_unbiased(estimator: str) -> None:
    """Against central differences of the K = 2 bound itself, all by quadrature over both draws of one latent
    component."""
    model = VAE(
        mlp(3, (), 2, seed=1, dtype=F64), mlp(1, (), 3, seed=2, dtype=F64), latent=1, K=2, estimator=estimator
    )
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.hermite_e.hermegauss(100))
    noise = torch.stack(torch.meshgrid(nodes, nodes, indexing="ij")).reshape(2, -1, 1)
    weight = (weights[:, None] * weights).reshape(-1) / (2 * math.pi)
    batch = Batch({"y": torch.tensor([[1.0, 0.0, 1.0]], dtype=F64).expand(len(weight), -1)})
    (weight * model.log_prob_at(batch, noise)).sum().backward()
    for p in model.parameters():
        for i in range(p.numel()):
            values, old = [], float(p.detach().view(-1)[i])
            with torch.no_grad():
                for h in (1e-5, -1e-5):
                    p.view(-1)[i] = old + h
                    values.append(float((weight * model.log_prob_at(batch, noise)).sum()))
                p.view(-1)[i] = old
            assert p.grad is not None
            assert float(p.grad.view(-1)[i]) == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-8)


def test_the_doubly_reparameterised_gradient_has_the_same_value_and_no_noise_at_the_posterior() -> None:
    """∂ log w/∂z = 0 where q is the posterior (Tucker et al., §3), whereas the plain estimator's gradient is
    still noise."""
    noise, batch = (
        torch.randn(5, N, L, generator=torch.Generator().manual_seed(0), dtype=F64),
        Batch({"y": rows()}),
    )
    steep = {}
    for estimator in ("iwae", "doubly reparameterised"):
        model = at_the_maximum(K=5, estimator=estimator)
        value = model.log_prob_at(batch, noise)
        torch.testing.assert_close(value.detach(), exact(model, rows()), rtol=0, atol=1e-10)
        value[0].backward()
        steep[estimator] = max(float(p.grad.abs().max()) for p in model.encoder.parameters())
    assert steep["doubly reparameterised"] < 1e-10
    assert steep["iwae"] > 1e-2


# ---- the fit -----------------------------------------------------------------------------------------------


def test_a_linear_vae_climbs_to_probabilistic_pca() -> None:
    """Lucas et al. (2019): its bound has no maximum but the one of the exact likelihood, Tipping and Bishop's
    closed form."""
    y, best = rows(), principal(rows())[3] / N
    solver = th.Stochastic(steps=400, batch_size=N, learning_rate=0.15, held_out=None, restore_best=False)
    fit = th.fit(linear(K=4, estimator="doubly reparameterised"), {"y": y}, solver=solver)
    reached = float(exact(fit.model, y).mean())
    bound = fit.score({"y": y}, samples=400)
    assert best - 1e-3 < reached <= best + 1e-9
    assert bound.kind == "lower bound"
    assert bound.K == 400
    assert abs(bound.mean - best) < 1e-3 + 4 * bound.error / bound.n
    assert bound.error / bound.n < 1e-3


def test_the_same_seed_gives_the_same_theta() -> None:
    """Bit for bit, whatever was drawn in between: the draws come from the step's own seed."""
    y = (torch.rand(40, 6, generator=torch.Generator().manual_seed(0)) < 0.3).to(torch.uint8)

    def maximised() -> Tensor:
        model = VAE(mlp(6, 8, 4), mlp(2, 8, 6, seed=1), latent=2, K=3)
        return th.fit(model, {"y": y}, solver=th.Stochastic(steps=5, batch_size=10, held_out=None)).theta

    first = maximised()
    torch.randn(3)
    assert torch.equal(first, maximised())


# ---- families, draws ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "k"),
    [(Bernoulli(), 1), (Categorical(3), 2), (Categorical(3), 3), (Poisson(), 1), (Normal(), 2)],
)
def test_any_family_of_numbers_is_a_likelihood(family: th.families.Family, k: int) -> None:
    """Terms, draws and reconstructions have the data's shape; the score is a bound of the family's
    measure."""
    model = VAE(mlp(4, 8, 4), mlp(2, 8, 4 * k, seed=1), family, latent=2, K=3)
    y = torch.tensor([[0, 1, 1, 0], [1, 0, 1, 1]], dtype=torch.uint8)
    assert model.log_prob(Batch({"y": y})).shape == (2,)
    drawn = model.draw(5, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (5, 4)
    assert bool(family.in_support(drawn).all())
    assert torch.equal(drawn, model.draw(5, generator=torch.Generator().manual_seed(0)))
    assert model.reconstruct(Batch({"y": y})).shape == (2, 4)
    assert (
        score(model, Tensors({"y": y}), generator=torch.Generator().manual_seed(0)).measure == family.measure
    )


def test_the_masses_of_all_images_sum_to_at_most_one() -> None:
    """Enumeration of 2⁴ images: exp of a bound with many draws is near p, and p sums to 1."""
    y = torch.cartesian_prod(*[torch.arange(2, dtype=torch.uint8)] * 4)
    model = VAE(mlp(4, 8, 4, dtype=F64), mlp(2, 8, 4, seed=1, dtype=F64), latent=2, K=20_000)
    with torch.no_grad():
        total = float(torch.exp(model.log_prob(Batch({"y": y}), torch.Generator().manual_seed(0))).sum())
    assert total == pytest.approx(1.0, abs=0.01)


def test_counts_of_bernoulli_pixels_in_bytes_are_scored_as_floats_are() -> None:
    """The fused kernel against the family's own formula; and what is no pixel is impossible."""
    eta, y = (
        torch.randn(5, 4, 1, dtype=F64, generator=torch.Generator().manual_seed(0)),
        torch.randint(0, 2, (5, 4)),
    )
    torch.testing.assert_close(
        Bernoulli().log_prob_outputs(y, eta), Bernoulli().log_prob_eta(y.double(), eta[..., 0])
    )
    assert float(Bernoulli().log_prob_outputs(torch.full((5, 4), 2), eta)[0, 0]) == -math.inf


# ---- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"latent": 0}, "latent=0"),
        ({"K": 0}, "K=0"),
        ({"estimator": "rws"}, "estimator='rws'"),
        ({"family": "bernoulli"}, "not a family"),
        ({"encoder": 3}, "encoder is int"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings: dict[str, object], says: str) -> None:
    given = {"encoder": mlp(4, 8, 4), "decoder": mlp(2, 8, 4), "latent": 2} | settings
    with pytest.raises(BadArgument, match=says):
        VAE(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("encoder", "decoder", "says"),
    [
        (mlp(4, 8, 3), mlp(2, 8, 4), r"encoder gives a tensor of shape \(5, 3\).*\(5, 4\)"),
        (mlp(4, 8, 4), mlp(2, 8, 3), r"decoder gives a tensor of shape \(5, 3\).*\(5, 4\)"),
        (mlp(4, 8, 4), Linear(2, 4).float(), r"gives 2 things of shapes .*1 tensors"),
    ],
)
def test_a_network_of_another_shape_is_named_with_both_shapes(
    encoder: nn.Module, decoder: nn.Module, says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        VAE(encoder, decoder, latent=2).log_prob(Batch({"y": torch.zeros(5, 4)}))


@pytest.mark.parametrize(("value", "says"), [(math.nan, "nan"), (0.5, "-inf")])
def test_what_is_no_pixel_ends_the_fit_by_name(value: float, says: str) -> None:
    y = torch.zeros(20, 4)
    y[3, 2] = value
    with pytest.raises(ThetahatError, match=says):
        th.fit(
            VAE(mlp(4, 8, 4), mlp(2, 8, 4), latent=2),
            {"y": y},
            solver=th.Stochastic(steps=3, batch_size=20, held_out=None),
        )
