"""Models of y given its class: p(y | c) where it is known in closed form, guidance of draws, Bayes' rule."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import thetahat as th
from thetahat.data import Batch, Tensors
from thetahat.errors import BadArgument, ModelError, UnknownColumn, UnknownLevel, WrongType
from thetahat.families import Normal
from thetahat.generative import VAE, Denoiser, Diffusion, Flow, Labelled, Noised, ProbabilityFlow, UNet
from thetahat.generative import class_probabilities as classified
from thetahat.generative.schedule import Cosine, Linear
from thetahat.networks import mlp

sys.path.insert(0, str(Path(__file__).parent))
from gaussian import Classes

zuko = pytest.importorskip("zuko")
F64 = torch.float64
MEANS = torch.tensor([[1.5, 0.0], [-1.0, 1.2], [-0.5, -1.0]], dtype=F64)
FACTOR = torch.tensor([[0.8, 0.0], [0.3, 0.6]], dtype=F64)
PRIOR = torch.tensor([0.5, 0.3, 0.2], dtype=F64)
Y = torch.tensor([[0.5, -1.0], [0.0, 0.0], [2.0, 1.0], [-1.0, 0.3]], dtype=F64)
LABEL = torch.tensor([0, 1, 2, 1])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def best() -> Classes:
    return Classes(MEANS, FACTOR, PRIOR)


def diffusion(network: nn.Module | None = None, **settings: object) -> Diffusion:
    """The best denoiser of three normal classes, in evaluation mode."""
    given = {"predict": "epsilon", "schedule": Linear(16.0, -16.0), "classes": 3} | settings
    return Diffusion(best() if network is None else network, **given).eval()  # type: ignore[arg-type]


def exact(y: Tensor, label: Tensor) -> Tensor:
    """log N(y; m_c, S), (n,)."""
    return torch.stack([best().at(int(c)).log_prob(row) for row, c in zip(y, label, strict=True)])


def posterior(y: Tensor, prior: Tensor = PRIOR) -> Tensor:
    """p(c | y) of the three normal classes, (n, 3), as probabilities that are divided by their sum."""
    p = torch.stack([best().at(c).log_prob(y).exp() * prior[c] for c in range(3)], 1)
    return p / p.sum(1, keepdim=True)


def rows(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draws of (y, c)."""
    g = seeded(seed)
    label = torch.multinomial(PRIOR, n, replacement=True, generator=g)
    return MEANS[label] + torch.randn(n, 2, generator=g, dtype=F64) @ FACTOR.T, label


# ---- the VAE: probabilistic PCA of each class --------------------------------------------------------------

D, L = 4, 2
CENTRE = torch.tensor([[1.0, -2.0, 0.0, 3.0], [0.0, 1.0, 1.0, -1.0]], dtype=F64)
SIGMA = torch.tensor([0.5, 0.8], dtype=F64)


def loadings() -> Tensor:
    """W_c (2, D, L), whose columns are orthogonal, so that the posterior of z has a diagonal covariance."""
    Q = torch.linalg.qr(torch.randn(2, D, L, generator=seeded(), dtype=F64)).Q
    return Q * torch.tensor([[1.5, 0.7], [0.4, 1.1]], dtype=F64)[:, None, :]


class Decoder(nn.Module):
    """z, c → (μ_c + W_c z, log σ_c)."""

    def forward(self, z: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        return CENTRE[label] + (loadings()[label] @ z[:, :, None])[:, :, 0], SIGMA[label].log()[:, None]


class Encoder(nn.Module):
    """Normal(M⁻¹ W_cᵀ (y − μ_c), σ_c² M⁻¹), M = W_cᵀ W_c + σ_c² I: the posterior of z."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sigma", SIGMA)  # says in which precision the networks compute

    def forward(self, y: Tensor, label: Tensor) -> Tensor:
        W, s2 = loadings()[label], SIGMA[label].square()[:, None]
        M = W.square().sum(1) + s2
        mean = (W.mT @ (y - CENTRE[label])[:, :, None])[:, :, 0] / M
        return torch.cat([mean, 0.5 * torch.log(s2 / M)], 1)


def pca(y: Tensor, c: int) -> Tensor:
    """log N(y; μ_c, W_c W_cᵀ + σ_c² I): Tipping and Bishop (1999)."""
    W = loadings()[c]
    C = W @ W.T + SIGMA[c] ** 2 * torch.eye(D, dtype=F64)
    return torch.distributions.MultivariateNormal(CENTRE[c], C).log_prob(y)


def vae(**settings: object) -> VAE:
    return VAE(Encoder(), Decoder(), Normal(), latent=L, classes=2, dimensions=D, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("K", [2, 7])
def test_the_bound_of_a_conditional_vae_with_the_exact_posterior_is_log_p_given_the_class(K: int) -> None:
    """p(y, z | c)/q(z | y, c) is p(y | c) whatever z is: no noise at all."""
    y = torch.randn(20, D, generator=seeded(1), dtype=F64)
    label = torch.arange(20) % 2
    found = vae(K=K).log_prob(Batch({"y": y, "label": label}), seeded())
    wanted = torch.stack([pca(row, int(c)) for row, c in zip(y, label, strict=True)])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    assert float((pca(y, 0) - pca(y, 1)).abs().min()) > 1e-3  # the class matters


def test_draws_of_a_vae_have_the_mean_and_the_covariance_of_their_class() -> None:
    """N(μ_c, W_c W_cᵀ + σ_c² I), 5 standard errors of 20000 draws; a label for each draw is kept in its
    place."""
    n = 20_000
    model, label = vae(), torch.arange(2 * n) % 2
    y = model.draw(2 * n, label=label, generator=seeded())
    for c in range(2):
        C = loadings()[c] @ loadings()[c].T + SIGMA[c] ** 2 * torch.eye(D, dtype=F64)
        own, sd = y[c::2], C.diagonal().sqrt()
        assert ((own.mean(0) - CENTRE[c]).abs() < 5 * sd / n**0.5).all()
        assert ((torch.cov(own.T) - C).abs() < 5 * (2 / n) ** 0.5 * sd[:, None] * sd).all()
    assert torch.equal(
        model.draw(3, label=1, generator=seeded()), model.draw(3, label=[1, 1, 1], generator=seeded())
    )


def test_codes_and_reconstructions_are_of_the_class() -> None:
    """The mean of the exact posterior, and the decoder's mean there."""
    model = vae()
    y, label = torch.randn(6, D, generator=seeded(), dtype=F64), torch.tensor([0, 1, 1, 0, 1, 0])
    batch = Batch({"y": y, "label": label})
    m, log_s = Encoder()(y, label).chunk(2, 1)
    torch.testing.assert_close(model.encode(batch), (m, log_s.exp()))
    torch.testing.assert_close(model.reconstruct(batch), Decoder()(m, label)[0])


@pytest.mark.parametrize("levels", [2, 5])
def test_a_usual_vae_of_images_is_given_the_class(levels: int) -> None:
    model = VAE.images((3, 3), levels, latent=2, width=8, classes=4)
    y = torch.randint(levels, (5, 9), generator=seeded())
    found = [
        model.log_prob(Batch({"y": y, "label": torch.full((5,), c)}), seeded()).detach() for c in range(4)
    ]
    assert all(f.shape == (5,) for f in found)
    assert not torch.allclose(found[0], found[1])
    drawn = model.draw(5, label=3, generator=seeded())
    assert drawn.shape == (5, 9)
    assert 0 <= int(drawn.min()) <= int(drawn.max()) < levels


# ---- the flow ----------------------------------------------------------------------------------------------


def shaken(flow: Flow) -> Flow:
    """In float64, far from its base."""
    g, flow = seeded(), flow.double()
    with torch.no_grad():
        for p in flow.parameters():
            p += 0.1 * torch.randn(p.shape, generator=g)
    return flow


@pytest.mark.parametrize(("make", "d"), [(Flow.spline, 1), (Flow.affine, 2)])
def test_a_conditional_flow_is_the_flow_of_zuko_with_the_class_as_a_one_hot_context(make, d: int) -> None:
    """zuko's own distribution, its context written by hand; and it integrates to 1 in each class (trapezoidal
    rule, beyond the ends less than 10⁻³ is left)."""
    model = shaken(make(d, classes=3, hidden=(16,), transforms=2))
    step, end = (0.002, 14) if d == 1 else (0.15, 24)
    grid = torch.linspace(-end, end, round(2 * end / step) + 1, dtype=F64)
    points = torch.cartesian_prod(*[grid] * d).reshape(-1, d)
    densities = []
    for c in range(3):
        with torch.no_grad():
            found = model.log_prob(Batch({"y": points, "label": torch.full((len(points),), c)}))
            wanted = model.flow(torch.eye(3, dtype=F64)[c]).log_prob(points)
        torch.testing.assert_close(found, wanted)
        densities.append(found.exp())
        assert float(densities[-1].sum() * step**d) == pytest.approx(1.0, abs=1e-3)
    assert not torch.allclose(densities[0], densities[1], atol=1e-3)


def test_an_affine_flow_of_one_transform_is_a_normal_of_each_class() -> None:
    """By hand: z = a_c y + b_c is affine, so that two of its values give a_c and b_c, and p(y | c) is
    N(−b_c/a_c, 1/a_c²)."""
    model = shaken(Flow.affine(1, classes=2, transforms=1, hidden=(4,)))
    y = torch.linspace(-3, 3, 7, dtype=F64)[:, None]
    for c in range(2):
        with torch.no_grad():
            transform = model.flow(torch.eye(2, dtype=F64)[c]).transform
            b, end = (float(transform(torch.tensor([v], dtype=F64))) for v in (0.0, 1.0))
            found = model.log_prob(Batch({"y": y, "label": torch.full((7,), c)}))
        a = end - b
        torch.testing.assert_close(found, torch.distributions.Normal(-b / a, 1 / abs(a)).log_prob(y[:, 0]))


def test_classes_and_inputs_condition_a_flow_together() -> None:
    """The context of zuko is the inputs, then the one-hot class."""
    model = shaken(Flow.spline(1, context=1, inputs="x", classes=2, hidden=(8,)))
    y, x, label = (torch.tensor(v, dtype=F64) for v in ([[0.1], [0.2]], [[1.0], [-1.0]], [1.0, 0.0]))
    context = torch.tensor([[1.0, 0.0, 1.0], [-1.0, 1.0, 0.0]], dtype=F64)
    found = model.log_prob(Batch({"y": y, "x": x, "label": label}))
    torch.testing.assert_close(found, model.flow(context).log_prob(y))


def test_draws_of_a_flow_are_of_their_class() -> None:
    """Mean and deviation of N(−b_c/a_c, 1/a_c²), 5 standard errors."""
    model, n = shaken(Flow.affine(1, classes=2, transforms=1, hidden=(4,))), 20_000
    label = torch.arange(2 * n) % 2
    y = model.draw(2 * n, label=label, generator=seeded())
    rowwise = model.sample(Batch({"label": label}), generator=seeded())
    assert torch.equal(y, rowwise)
    for c in range(2):
        with torch.no_grad():
            transform = model.flow(torch.eye(2, dtype=F64)[c]).transform
            b, end = (float(transform(torch.tensor([v], dtype=F64))) for v in (0.0, 1.0))
        mean, sd = -b / (end - b), 1 / abs(end - b)
        assert float(y[c::2].mean()) == pytest.approx(mean, abs=5 * sd / n**0.5)
        assert float(y[c::2].std()) == pytest.approx(sd, rel=5 * (0.5 / n) ** 0.5)


def test_whole_numbers_of_a_flow_are_drawn_of_their_class() -> None:
    """Dequantised: the place of a draw that was outside the levels keeps its label. Class 0 lies at 1, class
    1 at 6 of 0 … 7; some of each lie outside."""

    class Apart(th.models.base.Model):
        classes = 2

        def log_prob(self, batch: Batch) -> Tensor:
            mean = 1.0 + 5.0 * batch["label"]
            return torch.distributions.Normal(mean, 1.0).log_prob(batch["y"][:, 0])

        def draw(self, n: int, *, label: Tensor, generator: torch.Generator) -> Tensor:
            return (1.0 + 5.0 * label + torch.randn(n, generator=generator))[:, None]

    model = th.generative.Dequantised(Apart(), levels=8)
    label = torch.arange(400) % 2
    y = model.draw(400, label=label, generator=seeded())[:, 0]
    assert float((y[label == 0] < 4).double().mean()) > 0.95
    assert float((y[label == 1] >= 4).double().mean()) > 0.95
    assert classified(model, {"y": torch.tensor([[0], [7]])}).argmax(1).tolist() == [0, 1]
    with pytest.raises(BadArgument, match="draws y given its class, one of 2"):
        model.draw(3)


# ---- the diffusion -----------------------------------------------------------------------------------------


def bounds(model: Diffusion, y: Tensor, label: Tensor) -> Tensor:
    """The bound without a draw of t or of ε: the error of an ε̂ that is linear is quadratic in ε, of which
    ±√d along each axis has the mean exactly; λ by Gauss–Legendre, each node a batch whose network is asked
    through `log_prob`'s own parts."""
    high, low = float(model.schedule.high), float(model.schedule.low)
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(200))
    log_snr = (high + low) / 2 + (high - low) / 2 * nodes
    out = []
    for row, c in zip(y, label, strict=True):
        x, d = model.encode(row[None]), len(row)
        axes = [sign * d**0.5 * torch.eye(d, dtype=F64)[j] for j in range(d) for sign in (1, -1)]
        own = c.expand(200)
        error = sum(model._error(x.expand(200, -1), e.expand(200, -1), log_snr, own) for e in axes) / len(
            axes
        )
        ends = (
            model._decoded(row[None], x, torch.zeros_like(x))
            - model._end(x)
            - torch.log(model.scale).expand(d).sum()
        )
        out.append(ends[0] - 0.5 * (high - low) / 2 * (weights * error).sum())
    return torch.stack(out)


def test_the_bound_of_a_conditional_diffusion_is_log_p_given_the_class() -> None:
    """Closed form, log N(y; m_c, S). Apart by what noise at the ends hides, of order e⁻¹⁶ / var."""
    torch.testing.assert_close(bounds(diffusion(), Y, LABEL), exact(Y, LABEL), atol=1e-5, rtol=0)


def test_the_draws_of_a_score_have_the_bound_of_the_class_as_their_mean() -> None:
    """log_prob itself, 20000 draws of one row of each class, against the quadrature above within 4 standard
    errors."""
    model, n = diffusion(schedule=Linear(8.0, -8.0)), 20_000
    for c in range(3):
        batch = Batch({"y": Y[:1].expand(n, -1), "label": torch.full((n,), c)})
        found = model.log_prob(batch, seeded(c))
        error = float(found.std()) / n**0.5  # rather too large: the times are spread evenly
        assert error < 0.2
        wanted = float(bounds(model, Y[:1], torch.tensor([c])))
        assert float(found.mean()) == pytest.approx(wanted, abs=4 * error)


def test_the_probability_flow_of_a_conditional_diffusion_is_log_p_given_the_class() -> None:
    """log N(y; m_c, S + e^{−λ_0} I), to the start at N(0, I), of order e⁻¹⁵; without a class the mixture's;
    any row in any batch."""
    model = diffusion(schedule=Linear(6.0, -30.0))
    flow = ProbabilityFlow(model, tolerance=1e-8)
    extra = math.exp(-6.0)
    wanted = torch.stack([best().at(int(c), extra=extra).log_prob(y) for y, c in zip(Y, LABEL, strict=True)])
    found = flow.log_prob(Batch({"y": Y, "label": LABEL}))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    mixture = best().mixture(extra=extra).log_prob(Y)
    torch.testing.assert_close(flow.solve(Y).log_prob, mixture, atol=1e-5, rtol=0)
    estimated = ProbabilityFlow(model, probes=64, tolerance=1e-5).solve(Y, label=LABEL, generator=seeded())
    assert ((estimated.log_prob - wanted).abs() < 5 * estimated.error + 1e-4).all()


def test_draws_of_a_conditional_probability_flow_are_of_their_class() -> None:
    """Mean of 1000 draws of each of two classes, 5 standard errors."""
    flow = ProbabilityFlow(diffusion(schedule=Linear(10.0, -20.0)), tolerance=1e-4)
    y = flow.draw(2000, label=torch.arange(2000) % 2, generator=seeded())
    sd = best().S.diagonal().sqrt()
    for c in range(2):
        assert ((y[c::2].mean(0) - MEANS[c]).abs() < 5 * sd / 1000**0.5).all()


@pytest.mark.parametrize("method", ["ancestral", "ddim", "heun"])
def test_draws_of_a_conditional_diffusion_are_of_their_class_and_without_one_of_the_mixture(
    method: str,
) -> None:
    """Mean and covariance of N(m_c, S), and the mean of the mixture: 5 standard errors and 2 % for the
    steps."""
    model, n, sd = diffusion(schedule=Cosine(10.0, -10.0)), 8000, best().S.diagonal().sqrt()
    steps = {"ancestral": 100, "ddim": 100, "heun": 30}[method]
    y = model.draw(n, label=1, steps=steps, method=method, generator=seeded())
    assert ((y.mean(0) - MEANS[1]).abs() < 5 * sd / n**0.5 + 0.02).all()
    assert ((torch.cov(y.T) - best().S).abs() < (0.03 + 5 * (2 / n) ** 0.5) * sd[:, None] * sd).all()
    mixed = model.draw(n, steps=steps, method=method, generator=seeded(1))
    mean, wide = PRIOR @ MEANS, (best().S.diagonal() + PRIOR @ MEANS**2 - (PRIOR @ MEANS) ** 2).sqrt()
    assert ((mixed.mean(0) - mean).abs() < 5 * wide / n**0.5 + 0.02).all()


# ---- labels that are dropped -------------------------------------------------------------------------------


class Recorder(nn.Module):
    """Keeps the labels that it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: list[Tensor] = []
        self.dimensions = 2

    def forward(self, z: Tensor, log_snr: Tensor, label: Tensor) -> Tensor:
        self.seen.append(label)
        return self.weight * z


def test_labels_are_dropped_in_training_alone() -> None:
    """The share of "no class" is drop_label within 5 standard errors, what is left is as given; evaluation
    mode, a generator, or no gradient: none."""
    n = 20_000
    label = torch.arange(n) % 3
    batch = Batch({"y": torch.zeros(n, 2), "label": label})
    for drop in (0.1, 0.4):
        network = Recorder()
        model = Diffusion(network, classes=3, drop_label=drop)
        torch.manual_seed(0)
        model.log_prob(batch)
        (seen,) = network.seen
        assert float((seen == 3).double().mean()) == pytest.approx(
            drop, abs=5 * (drop * (1 - drop) / n) ** 0.5
        )
        assert torch.equal(seen[seen != 3], label[seen != 3])
        assert float((seen[::2] == 3).double().mean()) == pytest.approx(drop, abs=0.03)  # whatever the row
    network.seen.clear()
    model.log_prob(batch, seeded())
    with torch.no_grad():
        model.log_prob(batch)
    model.eval().log_prob(batch)
    assert all(torch.equal(seen, label) for seen in network.seen)
    assert len(network.seen) == 3
    assert Diffusion(network, classes=3).drop_label == 0.1


def test_a_run_drops_labels_from_its_seed_and_not_of_what_it_holds_out() -> None:
    """Two runs of one seed have the same θ to the bit; the held-out rows reach the network with their labels,
    which the training rows do not."""
    y, label = rows(200)
    seen: list[tuple[bool, Tensor]] = []

    class Watched(Denoiser):
        def forward(self, z: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
            assert label is not None
            seen.append((self.training, label.clone()))
            return super().forward(z, log_snr, label)

    def run() -> th.Fit:
        model = Diffusion(Watched(2, width=8, blocks=1, classes=3), classes=3, drop_label=0.5)
        solver = th.Stochastic(steps=6, batch_size=50, held_out=0.25, evaluate_every=3)
        return th.fit(model, {"y": y.float(), "label": label}, solver=solver)

    first = run()
    assert all(int(c.max()) < 3 for training, c in seen if not training)
    assert any(not training for training, _ in seen)
    trained = torch.cat([c for training, c in seen if training])
    assert float((trained == 3).double().mean()) == pytest.approx(0.5, abs=5 * (0.25 / len(trained)) ** 0.5)
    assert torch.equal(first.theta, run().theta)
    assert first.score().total == first.score().total


# ---- guidance ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [0.0, 0.5, 2.0, 7.5])
@pytest.mark.parametrize("log_snr", [-3.0, 0.0, 2.0])
def test_the_guided_field_is_the_gradient_of_the_tempered_densities(guidance: float, log_snr: float) -> None:
    """Ho and Salimans (2022), §3: ε̃ = −σ ∇_z [(1 − s) log p(z) + s log p(z | c)], by automatic
    differentiation of torch's own densities of z at that level of noise; and z = αx̃ + σε̃."""
    model = diffusion()
    a2, s2 = (float(torch.sigmoid(torch.tensor(v, dtype=F64))) for v in (log_snr, -log_snr))
    z = (3 * torch.randn(8, 2, generator=seeded(), dtype=F64)).requires_grad_()
    label = torch.arange(8) % 3
    own = torch.stack([best().at(int(c), a2**0.5, s2).log_prob(row) for row, c in zip(z, label, strict=True)])
    tempered = (1 - guidance) * best().mixture(a2**0.5, s2).log_prob(z) + guidance * own
    wanted = -(s2**0.5) * torch.autograd.grad(tempered.sum(), z)[0]
    x, epsilon = model.guided(label, guidance)(z.detach(), torch.full((8,), log_snr, dtype=F64))
    torch.testing.assert_close(epsilon, wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(a2**0.5 * x + s2**0.5 * epsilon, z.detach())


@pytest.mark.parametrize("predict", ["v", "levels"])
def test_guidance_is_of_epsilon_whatever_the_network_predicts(predict: str) -> None:
    """ε̃ and x̃ are the same combination of the two ε̂ and of the two x̂."""
    network = Denoiser(2, 6 if predict == "levels" else 2, width=8, blocks=1, classes=3, dtype=F64)
    with torch.no_grad():
        for p in network.parameters():
            p += 0.3 * torch.randn(p.shape, generator=seeded(), dtype=F64)
    model = Diffusion(network, predict=predict, classes=3, levels=3 if predict == "levels" else None)
    z, log_snr, label = (
        torch.randn(5, 2, generator=seeded(), dtype=F64),
        torch.zeros(5, dtype=F64),
        torch.arange(5) % 3,
    )
    with torch.no_grad():
        x, epsilon = model.guided(label, 3.0)(z, log_snr)
        given, without = (
            model.denoised(z, log_snr, label)[1],
            model.denoised(z, log_snr, torch.full((5,), 3))[1],
        )
    torch.testing.assert_close(epsilon, without + 3.0 * (given - without))
    torch.testing.assert_close((z - 0.5**0.5 * epsilon) / 0.5**0.5, x)  # α = σ at λ = 0
    assert float((given - without).abs().max()) > 1e-3


@pytest.mark.parametrize("method", ["ancestral", "ddim", "heun"])
def test_guidance_1_draws_to_the_bit_what_the_conditional_model_draws(method: str) -> None:
    model = diffusion(schedule=Cosine(8.0, -8.0))
    settings = {"steps": 7, "method": method}
    plain, one, more = (
        model.draw(50, label=2, generator=seeded(), **settings, **given)
        for given in ({}, {"guidance": 1.0}, {"guidance": 1.5})
    )
    assert torch.equal(plain, one)
    assert not torch.equal(plain, more)


def test_guidance_leads_towards_the_class() -> None:
    """By the classifier p(c | y) that is known: its mean over the draws rises with guidance."""
    model = diffusion(schedule=Cosine(8.0, -8.0))
    sure = [
        float(posterior(model.draw(500, label=2, guidance=s, steps=40, generator=seeded()))[:, 2].mean())
        for s in (0.0, 1.0, 3.0)
    ]
    assert sure[0] + 0.2 < sure[1]
    assert sure[1] + 0.1 < sure[2]
    assert sure[0] == pytest.approx(float(PRIOR[2]), abs=0.07)  # guidance=0: draws of the mixture


def test_what_is_guided_has_no_score() -> None:
    y, label = rows(60)
    model = Diffusion(Denoiser(2, width=8, blocks=1, classes=3), classes=3)
    fit = th.fit(
        model, {"y": y.float(), "label": label}, solver=th.Stochastic(steps=3, batch_size=20, held_out=None)
    )
    with pytest.raises(BadArgument, match="not the score of any density that is known"):
        ProbabilityFlow(fit.model, guidance=2.0)
    assert ProbabilityFlow(fit.model, guidance=1).classes == 3
    guided = fit.sample(4, label=1, guidance=2.0, seed=1)
    assert guided.shape == (4, 2)
    assert np.array_equal(fit.sample(4, label=1, seed=1), fit.sample(4, label=[1] * 4, guidance=1, seed=1))
    assert not np.array_equal(guided, fit.sample(4, label=1, seed=1))
    assert fit.sample(3).shape == (3, 2)  # without a class


# ---- Bayes' rule -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [None, [0.5, 0.3, 0.2], [0.7, 0.3, 0.0]])
def test_class_probabilities_are_bayes_rule(prior: list[float] | None) -> None:
    """p(c | y) of three normal densities, in closed form, by the probability flow."""
    wanted = posterior(
        Y, torch.full((3,), 1 / 3, dtype=F64) if prior is None else torch.tensor(prior, dtype=F64)
    )
    flow = ProbabilityFlow(diffusion(schedule=Linear(16.0, -30.0)), tolerance=1e-7)
    torch.testing.assert_close(classified(flow, {"y": Y}, prior), wanted, atol=1e-5, rtol=0)


def test_the_log_odds_of_a_diffusion_are_those_of_its_bounds() -> None:
    """With the best denoiser the bound is log p(y | c), so that log p(0 | y)/p(1 | y) has the closed form as
    its mean: 30 seeds, 4 standard errors. A seed gives the same numbers again."""
    model, y = diffusion(schedule=Linear(16.0, -16.0)), {"y": Y[:2]}
    p = torch.stack([classified(model, y, PRIOR, samples=16, seed=s) for s in range(30)])
    odds, wanted = torch.log(p[:, :, 0] / p[:, :, 1]), posterior(Y[:2])
    error = odds.std(0) / 30**0.5
    assert ((odds.mean(0) - torch.log(wanted[:, 0] / wanted[:, 1])).abs() < 4 * error).all()
    assert float(error.max()) < 1
    assert torch.equal(classified(model, y, PRIOR, samples=16, seed=29), p[29])


def test_class_probabilities_of_a_vae_are_those_of_its_density() -> None:
    """With the exact posterior as encoder every bound is log p(y | c)."""
    model = vae(K=2)
    y = torch.randn(10, D, generator=seeded(), dtype=F64) + CENTRE.mean(0)
    joint = torch.stack([pca(y, c) for c in range(2)], 1)
    wanted = joint.exp() / joint.exp().sum(1, keepdim=True)
    found = classified(model, Batch({"y": y, "label": torch.zeros(10)}))  # a label has no influence
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=0)


def test_a_fitted_flow_classifies_as_quadratic_discriminant_analysis() -> None:
    """In one dimension an affine transform of each class is a normal density with a mean and a variance of
    its own: at the maximum those of the class's rows, in closed form. 0.005 for what 250 steps leave."""
    y, label = rows(600)
    y, label = y[label < 2, :1], label[label < 2]
    flow = Flow.affine(1, classes=2, transforms=1, hidden=(8,)).double()
    solver = th.Stochastic(steps=250, batch_size=len(y), learning_rate=0.02, held_out=None)
    fit = th.fit(flow, {"y": y, "label": label}, solver=solver)
    test = torch.linspace(-3, 4, 50, dtype=F64)[:, None]
    each = [
        torch.distributions.Normal(own.mean(), own.std(correction=0))
        for own in (y[label == 0], y[label == 1])
    ]
    p = torch.cat([normal.log_prob(test).exp() for normal in each], 1)
    torch.testing.assert_close(classified(fit, {"y": test}), p / p.sum(1, keepdim=True), atol=0.005, rtol=0)


def test_a_fitted_diffusion_knows_its_classes() -> None:
    """Half a thousand rows of three classes, 200 steps: p(c | y) by Bayes' rule is that of the densities the
    rows were drawn from, 0.03 on average."""
    y, label = rows(600)
    network = Denoiser(2, width=32, blocks=1, classes=3)
    solver = th.Stochastic(steps=200, batch_size=128, learning_rate=0.01, held_out=None)
    fit = th.fit(Diffusion(network, predict="v", classes=3), {"y": y.float(), "label": label}, solver=solver)
    test = rows(200, seed=1)[0]
    found = classified(fit.model, {"y": test.float()}, PRIOR, samples=256)
    assert float((found - posterior(test)).abs().mean()) < 0.03


def test_what_bayes_rule_cannot_use_is_named() -> None:
    flow = Flow.affine(2, classes=2, hidden=(8,))
    batch = {"y": torch.zeros(3, 2)}
    for prior in ([0.5], [0.7, 0.7], [1.5, -0.5], [math.nan, 1.0]):
        with pytest.raises(BadArgument, match="Accepted: 2 probabilities, which sum to 1"):
            classified(flow, batch, prior)
    with pytest.raises(BadArgument, match=r"Flow has no classes. Make it with classes=C"):
        classified(Flow.affine(2, hidden=(8,)), batch)
    with pytest.raises(BadArgument, match="samples=3: log p of Flow is not made of draws"):
        classified(flow, batch, samples=3)
    impossible = Diffusion(Denoiser(2, width=8, blocks=1, classes=2), levels=3, classes=2)
    with pytest.raises(ModelError, match=r"row 1: log p\(y \| class\) is \[-inf, -inf\]"):
        classified(impossible, {"y": torch.tensor([[0, 1], [0, 7]])})


# ---- data, files -------------------------------------------------------------------------------------------


def conditional(name: str) -> nn.Module:
    return {
        "VAE": lambda: VAE.images((2, 2), 3, latent=2, width=8, classes=2),
        "Bernoulli VAE": lambda: VAE.images((2, 2), 2, latent=2, width=8, classes=2),
        "flow": lambda: Flow.affine(4, classes=2, hidden=(8,), transforms=1),
        "diffusion": lambda: Diffusion(
            UNet((2, 2), 3, channels=(4, 8), classes=2), levels=3, predict="levels", classes=2
        ),
        "score model": lambda: Diffusion(
            Denoiser(4, width=8, blocks=1, classes=2), classes=2, drop_label=0.2
        ),
    }[name]()


KINDS = ("VAE", "Bernoulli VAE", "flow", "diffusion", "score model")


def some(name: str) -> dict[str, Tensor]:
    levels = 2 if name == "Bernoulli VAE" else 3
    y = torch.randint(levels, (24, 4), generator=seeded())
    return {
        "y": y if name in ("VAE", "Bernoulli VAE", "diffusion") else y.float(),
        "label": torch.arange(24) % 2,
    }


SOLVER = th.Stochastic(steps=4, batch_size=8, held_out=0.25, evaluate_every=2)


@pytest.mark.parametrize("name", KINDS)
def test_a_conditional_fit_comes_back_from_a_file(name: str, tmp_path: Path) -> None:
    """Without a line of code: the same score and the same draws, to the bit."""
    fit = th.fit(conditional(name), some(name), solver=SOLVER)
    fit.save(tmp_path / "fit")
    again = th.load(tmp_path / "fit")
    assert again.model.classes == 2
    assert again.score(some(name)).total == fit.score(some(name)).total
    assert np.array_equal(again.sample(5, label=1, seed=3), fit.sample(5, label=1, seed=3))
    if name == "score model":
        assert again.model.drop_label == 0.2
        assert np.array_equal(again.sample(2, label=0, guidance=3.0), fit.sample(2, label=0, guidance=3.0))


class Stream:
    """Blocks of rows, read again each pass."""

    size, fingerprint, units, target = 24, "a stream", "y", "y"

    def __init__(self, tensors: dict[str, Tensor]):
        self.tensors = tensors

    def batches(self, model: object = None) -> Iterator[Batch]:
        for start in range(0, 24, 10):
            yield Batch(self.tensors)[start : start + 10]


@pytest.mark.parametrize(
    "source",
    [
        lambda data: Noised(Tensors(data)),
        lambda data: Stream(data),
        lambda data: lambda: iter([data, data]),
        lambda data: {**data, "label": data["label"].double()},
    ],
    ids=["Noised", "streamed", "loaded", "label as float"],
)
def test_labels_come_with_their_rows_whatever_the_source(source: Callable[..., object]) -> None:
    """The network sees y = ±1 with the label that belongs to it: z at λ → ∞ is y."""

    class Checked(Denoiser):
        def forward(self, z: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
            assert label is not None
            sure = log_snr > 4  # σ < 0.14
            assert torch.equal(torch.sign(z[sure, 0]), torch.where(label[sure] == 0, -1.0, 1.0))
            counted.append(int(sure.sum()))
            return super().forward(z, log_snr, label)

    counted: list[int] = []
    label = torch.arange(24) % 2
    data = {"y": (2.0 * label - 1)[:, None].expand(24, 2).float(), "label": label}
    model = Diffusion(Checked(2, width=8, blocks=1, classes=2), classes=2, drop_label=0.0)
    th.fit(model, source(data), solver=th.Stochastic(steps=12, batch_size=8, held_out=None))
    assert sum(counted) > 10


def test_a_table_with_a_label_column_is_vectors_and_their_classes() -> None:
    """Columns a and b are y, the column "label" the class; the same as tensors."""
    y, label = rows(30)
    table = {"a": y[:, 0].tolist(), "label": label.tolist(), "b": y[:, 1].tolist()}
    flow = Flow.affine(2, classes=3, hidden=(8,))
    source = flow.source(table)
    assert source is not None
    (batch,) = source.batches()
    assert torch.equal(batch["y"], y)
    assert torch.equal(batch["label"].long(), label)
    wanted = flow.log_prob(Batch({"y": y, "label": label}))
    assert torch.equal(flow.log_prob(batch), wanted)


def test_a_model_without_classes_has_the_weights_that_it_had() -> None:
    """The vector of a class is drawn after the layers of the noise level and nothing else moves: torch's own
    randomness is left alone, and a seed gives the classes theirs."""
    before = torch.random.get_rng_state()
    with_classes = [Denoiser(4, width=8, blocks=1, classes=3, seed=s) for s in (1, 1, 2)]
    assert torch.equal(before, torch.random.get_rng_state())
    a, b, c = (net.level.label.weight for net in with_classes)
    assert a.shape == (4, 8)  # three classes, and none
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert not any("label" in name for name, _ in Denoiser(4, width=8).named_parameters())


def test_the_report_of_a_conditional_model_shows_every_class(tmp_path: Path) -> None:
    """A draw without a class is refused, and the report draws one class after the other."""
    images = th.generative.Images(np.arange(96).reshape(24, 2, 2) % 3, levels=3)

    class Source(Tensors):
        shape, levels = (2, 2), 3

    data = Source({"y": images.whole["y"], "label": torch.arange(24) % 2})
    fit = th.fit(conditional("VAE"), data, solver=SOLVER)
    fit.report(tmp_path / "report.html")
    assert "drawn from the model, of class 0, 1, … 1 in turn" in (tmp_path / "report.html").read_text("utf-8")


# ---- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("label", "error", "said"),
    [
        (None, UnknownColumn, r"one of 2, and the data have no 'label'. .*\"label\": …"),
        ([0, 1, 2, 0], UnknownLevel, r"'label' is 2 in row 2 .*0 … 1"),
        ([0, -1, 1, 0], UnknownLevel, r"'label' is -1 in row 1"),
        ([0.0, 1.0, 0.0, 0.5], WrongType, r"'label' is 0.5 in row 3 .*whole numbers"),
        ([0.0, math.nan, 0.0, 0.0], WrongType, r"'label' is nan in row 1"),
        ([[0], [1], [0], [1]], BadArgument, r"shape \(4, 1\). Accepted: \(4,\)"),
        ([True, False, True, True], WrongType, r"torch.bool"),
    ],
)
def test_labels_that_are_no_classes_are_named_by_row_and_value(
    name: str, label: list[float] | None, error: type[Exception], said: str
) -> None:
    y = some(name)["y"][:4]
    given = {"y": y} if label is None else {"y": y, "label": torch.tensor(label)}
    model = conditional(name)
    with pytest.raises(error, match=said):
        model.log_prob(Batch(given))
    with pytest.raises(error, match=said):
        model.check(Batch(given))  # before a compiled log p


@pytest.mark.parametrize(
    "model",
    [
        VAE(mlp(2, 8, 4), mlp(2, 8, 2), latent=2),
        Flow.affine(2, hidden=(8,)),
        Diffusion(Denoiser(2, width=8, blocks=1)),
        ProbabilityFlow(Diffusion(Denoiser(2, width=8, blocks=1))),
    ],
    ids=lambda model: type(model).__name__,
)
def test_labels_that_would_not_be_used_are_refused(model: nn.Module) -> None:
    batch = Batch({"y": torch.zeros(3, 2), "label": torch.zeros(3, dtype=torch.int64)})
    with pytest.raises(BadArgument, match=r"has no classes: .* Make it with classes=C, or leave 'label' out"):
        model.log_prob(batch)
    with pytest.raises(BadArgument, match=r"has no classes\. Make it with classes=C, or leave label out"):
        model.draw(2, label=0)


def test_a_tensor_named_label_that_is_read_as_an_input_is_no_class() -> None:
    flow = Flow.affine(1, context=1, inputs=["label"], hidden=(8,))
    assert flow.log_prob(Batch({"y": torch.zeros(3, 1), "label": torch.ones(3)})).shape == (3,)
    with pytest.raises(BadArgument, match="the tensor 'label' is the class"):
        Flow.affine(1, context=1, inputs=["label"], classes=2, hidden=(8,))


@pytest.mark.parametrize("name", KINDS)
def test_a_label_that_cannot_be_drawn_is_named(name: str) -> None:
    model = conditional(name)
    for label, error, said in (
        (2, UnknownLevel, "'label' is 2"),
        (0.5, WrongType, "'label' is 0.5"),
        ([0, 1], BadArgument, r"shape \(2,\), and 3 draws"),
        ("seven", BadArgument, "label='seven'"),
    ):
        with pytest.raises(error, match=said):
            model.draw(3, label=label)
    if not isinstance(model, Diffusion):
        with pytest.raises(BadArgument, match="draws y given its class, one of 2: give label=0 … 1"):
            model.draw(3)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Diffusion(Denoiser(2, width=8, classes=2), classes=3), "made with classes=2"),
        (lambda: Diffusion(Denoiser(2, width=8, classes=2)), "made with classes=2"),
        (lambda: Diffusion(Denoiser(2, width=8), classes=3), "made with classes=None"),
        (lambda: Diffusion(lambda z, log_snr: z, classes=3), r"calls its network with \(z, log_snr, label\)"),
        (lambda: Diffusion(Denoiser(2, width=8), drop_label=0.1), "drop_label=0.1, classes=None"),
        (lambda: Diffusion(Denoiser(2, width=8, classes=2), classes=2, drop_label=1.0), "drop_label=1.0"),
        (lambda: VAE(mlp(2, 8, 4), mlp(2, 8, 2), latent=2, classes=3), r"\(y, label\).*generative\.Labelled"),
        (lambda: VAE(Labelled(mlp(4, 8, 4), 2), mlp(2, 8, 2), latent=2), "made with classes=2"),
        (lambda: VAE.images((2, 2), 2, classes=0), "classes=0"),
        (lambda: Flow.affine(2, classes=1.5), "classes=1.5"),
        (lambda: Flow.spline(2, classes=True), "classes=True"),
        (lambda: Labelled(mlp(2, 8, 4), None), "classes=None"),
        (lambda: Denoiser(2, width=8, classes=2)(torch.zeros(3, 2), torch.zeros(3)), "is given no labels"),
        (
            lambda: UNet((2, 2), channels=(4,))(torch.zeros(3, 4), torch.zeros(3), torch.zeros(3)),
            "made without classes",
        ),
    ],
)
def test_settings_that_do_not_agree_are_named(make: Callable[[], object], said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        make()


def test_guidance_that_cannot_be_is_named() -> None:
    model = diffusion()
    for guidance in (-1.0, math.nan, math.inf, "2", True):
        with pytest.raises(BadArgument, match="guidance="):
            model.draw(2, label=0, guidance=guidance)
    with pytest.raises(BadArgument, match="it needs a label"):
        model.draw(2, guidance=2.0)
    with pytest.raises(BadArgument, match="drop_label=0"):
        diffusion(drop_label=0.0).draw(2, label=0, guidance=2.0)
    with pytest.raises(BadArgument, match="draws y given its class"):
        diffusion(drop_label=0.0).draw(2)
    with pytest.raises(BadArgument, match="never learnt p"):
        diffusion(drop_label=0.0).denoised(Y, torch.zeros(4, dtype=F64))
    with pytest.raises(BadArgument, match="draws y given its class"):
        ProbabilityFlow(diffusion(drop_label=0.0)).solve(Y)
    plain = th.fit(
        Flow.affine(2, hidden=(8,)), Y.float().numpy(), solver=th.Stochastic(steps=1, held_out=None)
    )
    with pytest.raises(BadArgument, match=r"sample\(label=1\): a Flow has no classes"):
        plain.sample(2, label=1)
    with pytest.raises(BadArgument, match=r"sample\(guidance=2.0\): a Flow cannot be guided"):
        plain.sample(2, guidance=2.0)
    line = th.fit("y ~ x", {"y": [1.0, 2.0, 2.5], "x": [0.0, 1.0, 2.0]})
    with pytest.raises(BadArgument, match=r"sample\(label=1\)"):
        line.sample(label=1)
