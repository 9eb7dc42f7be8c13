"""The chain rule over pixels: a probability, whatever the network, as long as no pixel sees itself."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

import thetahat as th
from thetahat.data import Batch, Tensors
from thetahat.errors import BadArgument, ModelError, OutOfSupport
from thetahat.generative import Images

FullyVisible, MaskedMLP, PixelCNN, PixelTransformer = (
    th.generative.FullyVisible,
    th.generative.MaskedMLP,
    th.generative.PixelCNN,
    th.generative.PixelTransformer,
)
EVERY = torch.tensor(list(itertools.product(range(3), repeat=4)))  # all images of 2 × 2 with 3 levels
NETWORKS = {
    "independent": lambda: MaskedMLP(4, 2, None, dtype=torch.float64),
    "linear": lambda: MaskedMLP(4, 2, (), levels=3, dtype=torch.float64),
    "MADE": lambda: MaskedMLP(4, 3, (9, 7), levels=3, dtype=torch.float64),
    "transformer": lambda: PixelTransformer((2, 2), 3, layers=2, width=8, heads=2, dtype=torch.float64),
    "convolutions": lambda: PixelCNN((2, 2), 3, levels=3, width=8, blocks=2).double(),
}


def shaken(name: str, seed: int = 0) -> FullyVisible:
    """The model with weights drawn at random: a transformer's output begins at 0."""
    network = NETWORKS[name]()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p += 0.5 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return FullyVisible(th.families.Categorical(3), network)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_mass_of_all_images_sums_to_one(name: str) -> None:
    """Σ p(y) over the 3⁴ images, in float64."""
    with torch.no_grad():
        log_p = shaken(name).log_prob(Batch({"y": EVERY}))
    assert log_p.shape == (81,)
    assert float(log_p.exp().sum()) == pytest.approx(1.0, abs=1e-12)
    assert float(log_p.std()) > 0.1


@pytest.mark.parametrize("name", NETWORKS)
def test_an_output_depends_on_the_pixels_before_it_and_on_all_of_them(name: str) -> None:
    """∂η_j/∂y_i by differences: 0 for i ≥ j, and not 0 for i < j (but where nothing is read)."""
    model = shaken(name)
    y = torch.zeros(1, 4, dtype=torch.float64)
    for i in range(4):
        changed = y.clone()
        changed[0, i] = 2
        with torch.no_grad():
            moved = (model.network(changed) - model.network(y)).abs().amax(-1)[0]
        assert float(moved[: i + 1].max()) == 0
        if name != "independent" and i < 3:
            assert float(moved[i + 1 :].min()) > 1e-6


def test_a_linear_network_is_a_multinomial_regression_a_pixel() -> None:
    """The sum of the maxima of four `th.fit` regressions by formula, each by Newton: the same to 1e-6
    nats."""
    rng = np.random.default_rng(0)
    y = np.zeros((400, 4), dtype=int)
    for j in range(4):
        score = np.stack([np.zeros(400), 0.3 + 0.4 * y.sum(1), 0.8 * y[:, j - 1] - 0.5], 1)
        y[:, j] = (score + rng.gumbel(size=score.shape)).argmax(1)
    fit = th.fit(FullyVisible(th.families.Categorical(3), MaskedMLP(4, 2, dtype=torch.float64)), Images(y.reshape(400, 2, 2), levels=3),
                 solver=th.Newton())  # fmt: skip
    columns = {f"y{j}": y[:, j].astype(float) for j in range(4)}
    formulas = ["y0 ~ 1", "y1 ~ y0", "y2 ~ y0 + y1", "y3 ~ y0 + y1 + y2"]
    regressions = [th.fit(f, columns, family="categorical") for f in formulas]
    assert fit.certificate.status == "certified maximum"
    assert len(fit.theta) == sum(len(r.theta) for r in regressions) == 20
    assert fit.log_likelihood == pytest.approx(sum(r.log_likelihood for r in regressions), abs=1e-6)


def test_pixels_may_be_numbers() -> None:
    """Normal pixels with a linear network of their means: least squares of each pixel on those before it,
    whose ℓ has a closed form."""
    rng = np.random.default_rng(1)
    y = rng.normal(size=(300, 3)) @ np.array([[1.0, 0.5, -0.3], [0.0, 1.0, 0.4], [0.0, 0.0, 0.7]])
    network = MaskedMLP(3, 2, dtype=torch.float64)
    model = FullyVisible(th.families.Normal(), network)
    exact = 0.0
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
        weight = torch.zeros(6, 3, dtype=torch.float64)
        for j in range(3):
            X = np.column_stack([np.ones(300), y[:, :j]])
            beta, *_ = np.linalg.lstsq(X, y[:, j], rcond=None)
            sigma = np.sqrt(((y[:, j] - X @ beta) ** 2).mean())
            exact -= 300 * (np.log(sigma) + 0.5 * np.log(2 * np.pi) + 0.5)
            network.bias[j] = torch.tensor([beta[0], np.log(sigma)])
            weight[2 * j, :j] = torch.from_numpy(beta[1:])
        network.linear.weight.copy_(weight.reshape(-1)[network.linear.index])
        value = model.log_prob(Batch({"y": torch.from_numpy(y)})).sum()
    assert model.measure == "density"
    assert float(value) == pytest.approx(exact, abs=1e-9)
    drawn = model.draw(20_000, generator=torch.Generator().manual_seed(0)).numpy()
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(y.T, ddof=0), atol=0.08)


@pytest.mark.parametrize("name", ["linear", "transformer"])
def test_draws_have_the_probabilities(name: str) -> None:
    """Pearson's χ² over the 81 images, 20,000 draws: below the 1 − 10⁻⁶ quantile of χ²(80), 156."""
    model = shaken(name)
    with torch.no_grad():
        p = model.log_prob(Batch({"y": EVERY})).exp()
    drawn = model.draw(8_000, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount((drawn * torch.tensor([27, 9, 3, 1])).sum(1), minlength=81)
    large = p > 5 / 8_000
    statistic = ((counts - 8_000 * p)[large] ** 2 / (8_000 * p[large])).sum()
    assert float(statistic) < 156
    assert torch.equal(drawn, model.draw(8_000, generator=torch.Generator().manual_seed(0)))


class Peeks(nn.Module):
    """Output j reads pixel j − 1 as it may, and pixel `seen` from output `by` on; its last layer begins at
    0."""

    pixels = 4

    def __init__(self, by: int, seen: int):
        super().__init__()
        self.by, self.seen = by, seen
        self.scale = nn.Parameter(torch.zeros(4, 1))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        x = nn.functional.pad(y, (1, -1)).clone()
        x[:, self.by] = x[:, self.by] + y[:, self.seen]
        return (x[..., None] * self.scale).expand(-1, -1, 1)


@pytest.mark.parametrize(("by", "seen"), [(0, 0), (2, 2), (1, 3), (3, 3)])
def test_a_network_that_peeks_is_refused_even_before_it_shows(by: int, seen: int) -> None:
    """Its weights are 0, so that Σ p(y) is 1 until the first step."""
    model = FullyVisible(th.families.Bernoulli(), Peeks(by, seen))
    batch = Batch({"y": torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0]])})
    with pytest.raises(
        ModelError, match=f"peeks: its output for pixel {by} changes with pixel {seen} or a later"
    ):
        model.log_prob(batch)
    honest = FullyVisible(th.families.Bernoulli(), Peeks(3, 2))
    assert float(honest.log_prob(batch).sum().detach()) == pytest.approx(-8 * math.log(2), rel=1e-6)


def test_images_of_one_level_try_nothing_yet() -> None:
    """There is nothing to be exchanged: the network is tried with the first batch that has two levels."""
    model = FullyVisible(th.families.Bernoulli(), Peeks(0, 0))
    model.log_prob(Batch({"y": torch.zeros(3, 4)}))
    with pytest.raises(ModelError, match="peeks"):
        model.log_prob(Batch({"y": torch.eye(4)}))


def test_the_trial_moves_neither_weights_nor_torchs_randomness() -> None:
    model = FullyVisible(
        th.families.Categorical(3), PixelTransformer((2, 2), 3, layers=1, width=8, heads=2, dropout=0.5)
    )
    theta, state = [p.clone() for p in model.parameters()], torch.get_rng_state()
    assert model.training
    model.eval()
    model.log_prob(Batch({"y": EVERY}))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(theta, model.parameters(), strict=True))


def images(n: int = 200) -> Images:
    """Two kinds of image of 3 × 3, bright above or below, of 4 levels."""
    rng = np.random.default_rng(0)
    kind = rng.random(n) < 0.3
    p = np.where(kind[:, None], np.repeat([0.9, 0.5, 0.1], 3), np.repeat([0.1, 0.5, 0.9], 3))
    return Images(rng.binomial(3, p).reshape(n, 3, 3), levels=4)


def test_a_mixture_of_independent_pixels_is_fitted_from_random_starts() -> None:
    """Float32 modules without derivatives of their own; on two kinds of image, two components win and
    weigh 0.3 and 0.7."""
    train, held_out = images(600), images(900).take(slice(600, 900))

    def pixels(seed: int) -> FullyVisible:
        return FullyVisible(th.families.Categorical(4), MaskedMLP(9, 3, None, seed=seed))

    solver = th.Stochastic(steps=120, learning_rate=0.1, held_out=None)
    one = th.fit(pixels(0), train, solver=solver)
    two = th.fit(th.models.Mixture([pixels(0), pixels(1)]), train, solver=solver)
    assert all(p.dtype == torch.float32 for p in two.model.parameters())
    weights = two.model.log_weights().detach().exp().sort().values
    assert float(weights[0]) == pytest.approx(0.3, abs=4 * (0.21 / 600) ** 0.5)
    pair = th.compare({"one": one, "two": two}, held_out).pair("one", "two")
    assert pair.better == "two"
    assert pair.z > 8
    assert two.sample(2).shape == (2, 600, 9)


def test_the_gradient_of_a_mixture_of_networks_is_that_of_automatic_differentiation() -> None:
    """Fisher's identity against backward through logsumexp, in float32."""
    mixture = th.models.Mixture(
        [
            FullyVisible(th.families.Categorical(4), MaskedMLP(9, 3, hidden, seed=i))
            for i, hidden in enumerate((None, (), 8))
        ]
    )
    (batch,) = images(50).batches()
    found = mixture.taylor(batch, order=1)
    value = mixture.log_prob(batch).sum()
    exact = torch.autograd.grad(value, list(mixture.parameters()))
    torch.testing.assert_close(
        found.gradient.float(), torch.cat([g.reshape(-1) for g in exact]), rtol=1e-4, atol=1e-3
    )
    assert float(found.value) == pytest.approx(float(value.detach()), rel=1e-5)


def test_a_fit_of_a_mixture_of_networks_begins_where_they_stand() -> None:
    """No partition of the rows is made for components that could not make use of it."""
    mixture = th.models.Mixture(
        [FullyVisible(th.families.Categorical(4), MaskedMLP(9, 3, None, seed=i)) for i in range(2)]
    )
    theta = th.Objective([th.LogLikelihood(mixture, images())]).theta
    torch.testing.assert_close(mixture.start(images()), theta)


def test_every_network_is_fitted_and_none_is_worse_than_independent_pixels() -> None:
    """Binary images in which each row repeats the one above it, but for noise: what came before tells."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, 2, size=(700, 1, 3))
    y = np.concatenate([first, (first + (rng.random((700, 2, 3)) < 0.1)) % 2], 1)
    train, held_out = Images(y[:400], levels=2), Images(y[400:], levels=2)
    networks = {
        "independent": MaskedMLP(9, 2, None),
        "linear": MaskedMLP(9, 2),
        "MADE": MaskedMLP(9, 2, 32, levels=2),
        "transformer": PixelTransformer((3, 3), 2, layers=1, width=16, heads=2),
    }
    solver = th.Stochastic(steps=80, learning_rate=0.02, batch_size=100)
    fits = {
        name: th.fit(FullyVisible(th.families.Categorical(2), net), train, solver=solver)
        for name, net in networks.items()
    }
    compared = th.compare(fits, held_out)
    for name in ("linear", "MADE", "transformer"):
        pair = compared.pair(name, "independent")
        assert pair.better == name
        assert pair.z > 5
    assert fits["transformer"].sample(2).shape == (2, 9)


def test_what_does_not_fit_is_named() -> None:
    categorical = th.families.Categorical(3)
    with pytest.raises(ModelError, match=r"\(81, 4, 4\) for \(81, 4\) pixels.*\(81, 4, 2\) or \(81, 4, 3\)"):
        FullyVisible(categorical, MaskedMLP(4, 4)).log_prob(Batch({"y": EVERY}))
    with pytest.raises(ModelError, match=r"'y' has the shape \(5,\)\. Accepted: \(n, d\)"):
        FullyVisible(categorical, MaskedMLP(4, 2)).log_prob(Batch({"y": torch.zeros(5)}))
    with pytest.raises(BadArgument, match="family is str"):
        FullyVisible("categorical", MaskedMLP(4, 2))
    with pytest.raises(BadArgument, match="network is str"):
        FullyVisible(categorical, "MADE")
    with pytest.raises(BadArgument, match="does not describe a pixel"):
        FullyVisible(th.families.MultivariateNormal(2), MaskedMLP(4, 2))
    with pytest.raises(OutOfSupport, match=r"pixel at \[0, 1\] is 3, outside the levels 0 … 2"):
        FullyVisible(categorical, PixelTransformer((2, 2), 3, width=8, heads=2)).log_prob(
            Batch({"y": torch.tensor([[0, 3, 1, 0]])})
        )
    outside = FullyVisible(categorical, MaskedMLP(4, 2)).log_prob(
        Batch({"y": torch.tensor([[0, 3, 1, 0], [0, 1, 1, 0]])})
    )
    assert outside[0] == -math.inf
    assert torch.isfinite(outside[1])
    with pytest.raises(BadArgument, match="Sequential does not say how many pixels"):
        FullyVisible(categorical, nn.Sequential(MaskedMLP(4, 2))).draw(1)
    for settings in ({"hidden": 0}, {"levels": 1}, {"activation": "sine"}):
        with pytest.raises(BadArgument, match=next(iter(settings))):
            MaskedMLP(4, 2, **settings)
    with pytest.raises(BadArgument, match="levels=1"):
        PixelTransformer((2, 2), 1)


def test_a_saved_model_of_pixels_scores_alike(tmp_path) -> None:
    """Masks are not saved, and are made again with the network that is given to `load`."""
    train = images(50)

    def made() -> FullyVisible:
        return FullyVisible(th.families.Categorical(4), MaskedMLP(9, 4, 6, levels=4))

    fit = th.fit(made(), train, solver=th.Stochastic(steps=3, held_out=None))
    again = th.load(fit.save(tmp_path / "pixels.thetahat"), model=made())
    assert torch.equal(again.score(train).per_observation, fit.score(train).per_observation)
    assert isinstance(train, Tensors)


def test_a_pixel_of_a_pixelcnn_depends_on_those_before_it_alone_far_away_too() -> None:
    """By derivatives on an image of 9 × 8, in float64: exactly 0 from pixel j on, and not 0 where the receptive field is."""
    torch.manual_seed(0)
    net = PixelCNN((9, 8), 2, levels=2, width=8, blocks=4, seed=1).double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.2 * torch.randn_like(p))
    y = torch.rand(1, 72, dtype=torch.float64)
    J = torch.autograd.functional.jacobian(lambda x: net(x)[0].sum(-1), y)[:, 0]
    assert float(J.triu().abs().max()) == 0
    for j, i in ((71, 70), (71, 0), (44, 43), (44, 35), (8, 3)):
        assert float(J[j, i].abs()) > 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"shape": (3, 4, 4)}, "one channel"), ({"shape": (4, 4), "width": 5}, "even width")],
)
def test_what_a_pixelcnn_cannot_be_is_named(settings, said) -> None:
    with pytest.raises(BadArgument, match=said):
        PixelCNN(**settings)
