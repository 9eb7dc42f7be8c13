"""The audit: figures of models whose every number is known, and claims made by hand with each fault."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import thetahat as th
from thetahat.errors import BadArgument, ModelError, NotFinite
from thetahat.generative.claims import explained

from .. import pretend
from . import test_discrete as steps
from . import test_published as sdes

L, N, SHAPE = 16, 1500, (3, 2, 2)
D = math.prod(SHAPE)
CENTRE, SPREAD = 7.9, 1.3  # of y + u
LN2 = math.log(2)


def images(levels: int = L, centre: float = CENTRE, spread: float = SPREAD, n: int = N) -> np.ndarray:
    y = np.floor(np.random.default_rng(3).normal(centre, spread, (n, *SHAPE)))
    return np.clip(y, 0, levels - 1).astype(np.uint8)


def gaussian() -> torch.distributions.Normal:
    """Of x = 2y/15 − 1, as a published model of images in [−1, 1]."""
    scale = torch.tensor(2 / (L - 1), dtype=torch.float64)
    return torch.distributions.Normal(CENTRE * scale - 1, SPREAD * scale)


def bits(y: np.ndarray, noise: bool) -> float:
    """Bits per dimension in units of levels: E_u of a Gaussian's logarithm is known, u has variance 1/12."""
    squares = (y + 0.5 - CENTRE) ** 2 + 1 / 12 if noise else (y - CENTRE) ** 2
    return float(np.mean(0.5 * squares / SPREAD**2 + math.log(SPREAD * math.sqrt(2 * math.pi))) / LN2)


def audited(
    claimed: float | None = None, error: float | None = None, **settings: object
) -> th.generative.Audit:
    given = {"levels": L, "scaling": "[-1, 1]", "draws": 16} | settings
    return th.audit(gaussian(), images(), claimed=claimed, claimed_error=error, **given)


def names(found: th.generative.Audit) -> list[str]:
    return [fault.name for fault in found.faults]


# ---- densities ---------------------------------------------------------------------------------------------


def test_the_bits_of_a_gaussian_are_those_of_the_hand_calculation() -> None:
    found = audited()
    noise = found.score.error / (N * D * LN2)
    assert found.bits_per_dimension == pytest.approx(bits(images(), noise=True), abs=4 * noise)
    assert noise < 1e-3
    assert found.ok
    assert (found.kind, found.measure, found.draws, found.n, found.shape) == (
        "lower bound",
        "mass",
        16,
        N,
        SHAPE,
    )
    per_image = -found.score.per_observation.numpy() / (D * LN2)
    assert found.standard_error == pytest.approx(per_image.std(ddof=1) / N**0.5)


def test_the_bound_is_that_of_dequantised() -> None:
    """Another road of the library to the same number: Dequantised with one draw."""
    density = th.models.Density(th.families.Normal())
    y = torch.from_numpy(images()[:, 0].reshape(N, -1)[:, :1].astype(np.float64))
    with torch.no_grad():
        model = th.generative.Dequantised(density, L, K=1).log_prob(
            th.data.Batch({"y": y.repeat(16, 1)[:, 0]}), torch.Generator().manual_seed(1)
        )
    found = th.audit(
        torch.distributions.Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)),
        y.reshape(N, 1, 1),
        levels=L,
        scaling="none",
        draws=16,
    )
    noise = float((model.reshape(16, N).std(0) / 4).square().sum().sqrt()) / N
    assert found.score.mean == pytest.approx(float(model.mean()), abs=4 * (noise + found.score.error / N))


CLAIMS = {
    (): lambda y: bits(y, True),
    ("no noise",): lambda y: bits(y, False),
    ("scaling forgotten",): lambda y: bits(y, True) - math.log2(15 / 2),
    ("levels off by one",): lambda y: bits(y, True) + math.log2(16 / 15),
    ("natural logarithm",): lambda y: bits(y, True) * LN2,
    ("not divided by the dimensions",): lambda y: bits(y, True) * 12,
    ("channels forgotten",): lambda y: bits(y, True) * 3,
    ("no noise", "scaling forgotten"): lambda y: bits(y, False) - math.log2(15 / 2),
    ("scaling forgotten", "natural logarithm"): lambda y: (bits(y, True) - math.log2(15 / 2)) * LN2,
    ("natural logarithm", "channels forgotten"): lambda y: bits(y, True) * 3 * LN2,
}


@pytest.mark.parametrize("faults", CLAIMS, ids=" + ".join)
def test_a_claim_with_faults_names_those_faults_and_no_other(faults: tuple[str, ...]) -> None:
    """Each claim is computed by hand as published code with that fault computes it. Within four times the
    noise of the draws (0.0008 bits per dimension), times the dimensions that are not divided by."""
    claim, undivided = (
        CLAIMS[faults](images()),
        {"not divided by the dimensions": 12, "channels forgotten": 3},
    )
    found = audited(claim, 0.0035 * undivided.get(faults[-1] if faults else "", 1))
    assert tuple(names(found)) == faults
    assert [v.faults for v in found.explanations] == [faults]
    effects = sum(f.effect for f in found.faults)
    if len(faults) == 1:
        assert effects == pytest.approx(claim - bits(images(), True), abs=0.04)


def test_the_effect_of_a_forgotten_scaling_is_its_log_determinant() -> None:
    found = audited(bits(images(), True) - math.log2(7.5), 0.004)
    assert found.faults[0].effect == pytest.approx(-math.log2(7.5), abs=1e-9)


def test_divided_by_256_in_place_of_255_is_found_in_both_directions() -> None:
    """log2 256/255 = 0.0056 bits per dimension, above or below."""
    y = images(256, 120, 6.0)
    for scaling, sign in (("[0, 1]", 1), ("[0, 1)", -1)):
        width = {"[0, 1]": 255, "[0, 1)": 256}[scaling]
        model = torch.distributions.Normal(
            torch.tensor(120.0 / width, dtype=torch.float64), torch.tensor(6.0 / width, dtype=torch.float64)
        )
        true = float(
            np.mean(0.5 * ((y + 0.5 - 120) ** 2 + 1 / 12) / 36 + math.log(6 * math.sqrt(2 * math.pi))) / LN2
        )
        found = th.audit(
            model,
            y,
            scaling=scaling,
            claimed=true + sign * math.log2(256 / 255),
            claimed_error=0.001,
            draws=8,
        )
        assert names(found) == ["levels off by one"]
        assert found.faults[0].effect == pytest.approx(sign * math.log2(256 / 255), abs=1e-9)


def test_a_claim_that_nothing_explains_is_said_to_be_so() -> None:
    found = audited(1.7, 0.01)
    assert names(found) == ["claim not reproduced"]
    assert "nearest" in found.faults[0].sentence
    assert "no negative code length" in audited(-9.0, 0.01).faults[0].sentence


def test_a_claim_that_two_faults_explain_names_both() -> None:
    """Within half a bit, the scaling of 15 or 16 levels cannot be told apart from none."""
    true = bits(images(), True)
    wide = audited(true + math.log2(16 / 15) / 2 + 0.2, 0.18)
    assert names(wide) == ["claim reproduced in several ways"]
    assert len(wide.explanations) == 2


def test_without_an_error_a_claim_agrees_within_its_last_place_and_two_standard_errors() -> None:
    found = audited()
    edge = found.bits_per_dimension + 2 * found.standard_error
    assert found.standard_error > 0.003
    assert names(audited(f"{edge:.3f}")) == []
    assert names(audited(round(edge + 0.02, 3))) == ["claim not reproduced"]
    assert audited("3.70").claim.rounding == 0.005
    assert audited(3.7).claim.rounding == 0.05


def test_a_flow_of_zuko_has_the_bits_of_the_hand_calculation() -> None:
    """x ↦ z = a x + b with z ~ N(0, I): log p(x) = log N(z; 0, I) + Σ log a."""
    zuko = pytest.importorskip("zuko")
    slope, shift = (
        torch.linspace(3, 6, D, dtype=torch.float64),
        torch.linspace(-0.5, 0.5, D, dtype=torch.float64),
    )
    one = torch.ones(D, dtype=torch.float64)
    flow = zuko.flows.Flow(
        zuko.flows.UnconditionalTransform(torch.distributions.AffineTransform, shift, slope, event_dim=1),
        zuko.flows.UnconditionalDistribution(zuko.distributions.DiagNormal, 0 * one, one, buffer=True),
    )
    found = th.audit(flow, images(), levels=L, scaling="[-1, 1]", draws=8)
    y = images().reshape(N, D)
    a, b = slope.numpy() * 2 / 15, shift.numpy() - slope.numpy()  # z = a y + b
    squares = (a * (y + 0.5) + b) ** 2 + a**2 / 12
    hand = np.mean(0.5 * squares + 0.5 * math.log(2 * math.pi) - np.log(a)) / LN2
    assert found.bits_per_dimension == pytest.approx(hand, abs=4 * found.score.error / (N * D * LN2))
    bare = next(v.bits for v in found.variants if v.faults == ("no noise",))
    assert bare == pytest.approx(
        np.mean(0.5 * (a * y + b) ** 2 + 0.5 * math.log(2 * math.pi) - np.log(a)) / LN2, abs=1e-9
    )


def test_functions_objects_and_shapes_of_distributions_have_the_same_bits() -> None:
    known, y = gaussian(), images(n=40)
    wide = torch.distributions.Normal(known.loc.expand(SHAPE), known.scale.expand(SHAPE))
    forms = (
        known,
        wide,
        torch.distributions.Independent(wide, 3),
        lambda x: known.log_prob(x).sum(1),
        SimpleNamespace(log_prob=lambda x: known.log_prob(x).sum(1)),
        torch.distributions.MultivariateNormal(
            known.loc.expand(D).contiguous(), torch.eye(D, dtype=torch.float64) * known.scale**2
        ),
    )
    found = [th.audit(form, y, levels=L, scaling="[-1, 1]").bits_per_dimension for form in forms]
    assert found == pytest.approx([found[0]] * len(found), abs=1e-10)


def test_a_scaling_by_constants_by_a_function_or_by_name_is_the_same() -> None:
    scalings = (
        "[-1, 1]",
        (2 / 15, -1.0),
        (np.full((3, 1, 1), 2 / 15), -np.ones((3, 1, 1))),
        lambda y: y / 7.5 - 1,
        lambda y: y.float() / 7.5 - 1,
    )
    found = [audited(scaling=scaling) for scaling in scalings]
    assert [f.bits_per_dimension for f in found] == pytest.approx([found[0].bits_per_dimension] * 5, abs=1e-5)
    assert all(any("levels off by one" in v.faults for v in f.variants) for f in found[:4])


def test_a_scaling_that_is_a_curve_has_its_log_determinant() -> None:
    """x = (y + 1)², of which √x − 1 has a Gaussian density: log p(x) = log N(y) − log 2(y + 1)."""
    known = torch.distributions.Normal(
        torch.tensor(CENTRE, dtype=torch.float64), torch.tensor(SPREAD, dtype=torch.float64)
    )
    found = th.audit(
        lambda x: (known.log_prob(x.sqrt() - 1) - torch.log(2 * x.sqrt())).sum(1),
        images(),
        levels=L,
        scaling=lambda y: (y + 1) ** 2,
        draws=16,
    )
    noise = found.score.error / (N * D * LN2)
    assert found.bits_per_dimension == pytest.approx(bits(images(), True), abs=4 * noise)


def test_a_model_of_whole_numbers_is_scored_as_it_is() -> None:
    p = torch.softmax(torch.randn(D, L, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 1)
    y = images(n=50).reshape(50, D)

    class Independent(th.models.Model):
        measure = "mass"

        def log_prob(self, batch: th.data.Batch) -> Tensor:
            return p.log()[torch.arange(D), batch["y"]].sum(1)

    found = th.audit(Independent(), images(n=50), levels=L)
    hand = -np.log(p.numpy())[np.arange(D), y].mean() / LN2
    assert (found.scaling, found.kind, found.draws, found.score.error) == (None, "exact", None, 0.0)
    assert found.bits_per_dimension == pytest.approx(hand, abs=1e-12)
    assert "exact log mass" in str(found)


# ---- networks ----------------------------------------------------------------------------------------------


class Scheduler:
    """As diffusers' DDPMScheduler: `.alphas_cumprod` in float32 and `.config`."""

    def __init__(self, **config: object):
        self.alphas_cumprod = torch.from_numpy(steps.BAR.astype(np.float32))
        self.config = SimpleNamespace(
            **({"prediction_type": "epsilon", "variance_type": "fixed_small"} | config)
        )


def small() -> th.generative.Images:
    return th.generative.Images(steps.images(2000), steps.L)


def expected_chain(y: np.ndarray, density: bool) -> float:
    """Bits per dimension of the T steps by hand, with the discretised decoder or the Gaussian's density."""
    y = y.reshape(len(y), -1)
    x, bar = 2 * y / (steps.L - 1) - 1, steps.BAR[0]
    k = np.sqrt(bar) * steps.VARIANCE / (bar * steps.VARIANCE + 1 - bar)
    chain = steps.chain(x, steps.squares, "fixed_small")
    if density:
        last = (
            stats.norm.logpdf(0, 0, steps.decoder_sd())
            - 0.5 * steps.squares(x, bar) / steps.decoder_sd() ** 2
        )
    else:
        mean = steps.MEAN + k * np.sqrt(bar) * (x - steps.MEAN)
        last = (
            steps.log_decoder(y[..., None], mean[..., None] + k * np.sqrt(1 - bar) * steps.NODES)
            @ steps.WEIGHTS
        )
    return float(-np.mean(chain + last.sum(1)) / (y.shape[1] * LN2))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_a_denoiser_of_diffusers_has_the_bits_of_the_hand_calculation(prediction_type: str) -> None:
    network, y = steps.Denoiser(prediction_type), steps.images(2000)
    found = th.audit(
        network, small(), scheduler=Scheduler(prediction_type=prediction_type), draws=4, batch_size=2000
    )
    noise = found.score.error / (2000 * 4 * LN2)
    assert found.bits_per_dimension == pytest.approx(expected_chain(y, density=False), abs=4 * noise)
    assert noise < 0.02
    assert "16 steps" in found.method
    assert "discretised Gaussian decoder" in found.method
    again = th.audit(
        network,
        small(),
        scheduler=torch.from_numpy(steps.BAR),
        prediction_type=prediction_type,
        draws=4,
        batch_size=2000,
    )
    assert again.bits_per_dimension == pytest.approx(found.bits_per_dimension, abs=1e-4)  # float32 of ᾱ


def test_a_training_loss_quoted_as_a_bound_is_found() -> None:
    """E (ε − ε̂)², evenly over the 16 steps, by hand: (ᾱ/(1 − ᾱ)) E (x − x̂)²."""
    y = steps.images(2000)
    x = 2 * y / (steps.L - 1) - 1
    simple = float(np.mean([bar / (1 - bar) * steps.squares(x, bar).mean() for bar in steps.BAR]))
    found = th.audit(
        steps.Denoiser(),
        small(),
        scheduler=Scheduler(),
        draws=8,
        batch_size=2000,
        claimed=simple,
        claimed_error=0.01,
    )
    assert names(found) == ["training loss"]


def test_a_density_of_the_last_step_quoted_as_a_mass_is_found() -> None:
    """The Gaussian itself in place of its mass of a level, per unit of the scaled image."""
    claim = expected_chain(steps.images(2000), density=True)
    found = th.audit(
        steps.Denoiser(),
        small(),
        scheduler=Scheduler(),
        draws=8,
        batch_size=2000,
        claimed=claim,
        claimed_error=0.02,
    )
    assert names(found) == ["no noise", "scaling forgotten"]
    assert found.faults[1].effect == pytest.approx(-math.log2(3.5), abs=1e-9)


def test_the_scheduler_says_whether_predictions_are_clipped_and_which_variance_there_is() -> None:
    """A constant prediction of 2, clipped to 1, against the hand calculation of a prediction of 1."""
    y = steps.images(2000).reshape(2000, 4)
    x = 2 * y / (steps.L - 1) - 1
    hand = steps.chain(x, lambda x, _: (x - 1) ** 2, "fixed_large") + steps.log_decoder(y, 1.0).sum(1)
    scheduler = Scheduler(prediction_type="sample", variance_type="fixed_large", clip_sample=True)
    scheduler.alphas_cumprod = torch.from_numpy(steps.BAR)
    found = th.audit(lambda x, t: torch.full_like(x, 2.0), small(), scheduler=scheduler)
    assert found.bits_per_dimension == pytest.approx(-hand.mean() / (4 * LN2), abs=1e-9)
    assert "fixed_large" in found.method
    assert "clipped" in found.method


@pytest.mark.parametrize("name", sdes.SDES)
def test_a_score_network_has_the_density_of_the_hand_calculation_at_whole_numbers(name: str) -> None:
    """The figure without noise is not random: the flow of a Gaussian in closed form, to 1e-4 bits."""
    y = steps.images(12)
    found = th.audit(sdes.Score(name), y, levels=steps.L, sde=sdes.SDES[name], tolerance=1e-7)
    x = (2 * y / (steps.L - 1) - 1).reshape(12, 4)
    hand = -np.mean(sdes.flow_density(name, x)) / (4 * LN2) + math.log2((steps.L - 1) / 2)
    assert next(v.bits for v in found.variants if v.faults == ("no noise",)) == pytest.approx(hand, abs=1e-4)


def test_the_bits_of_a_score_network_are_those_of_uniform_dequantisation() -> None:
    y = steps.images(100)
    found = th.audit(sdes.Score("vp"), y, levels=steps.L, sde=sdes.SDES["vp"], draws=4)
    width = (steps.L - 1) / 2
    m, v = (sdes.MEAN + 1) * width, sdes.VARIANCE * width**2
    hand = np.mean(0.5 * ((y + 0.5 - m) ** 2 + 1 / 12) / v + 0.5 * math.log(2 * math.pi * v)) / LN2
    assert found.bits_per_dimension == pytest.approx(hand, abs=4 * found.score.error / (100 * 4 * LN2) + 1e-4)
    by_bound = th.audit(sdes.Score("vp"), y, levels=steps.L, sde=sdes.SDES["vp"], method="bound", draws=20)
    assert by_bound.bits_per_dimension == pytest.approx(
        hand, abs=4 * by_bound.score.error / (100 * 4 * LN2) + 1e-3
    )
    probed = th.audit(sdes.Score("vp"), y, levels=steps.L, sde=sdes.SDES["vp"], probes=1)
    # the Jacobian is a multiple of I, of which one probe gives the trace itself
    assert probed.bits_per_dimension == pytest.approx(
        hand, abs=4 * probed.score.error / (100 * 4 * LN2) + 1e-4
    )
    assert "1 probe of" in probed.method
    assert "exact trace" in found.method


class Narrow(nn.Module):
    """A network in float32 with dropout, as published ones are: the score of N(0, I), whatever t."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(-1.0))
        self.dropout = nn.Dropout(0.9)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        assert x.dtype == t.dtype == torch.float32 == self.weight.dtype
        return self.weight * self.dropout(x)


class Steady(nn.Module):
    """ε̂ = z/2, in float32, as diffusers returns it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor, t: Tensor) -> SimpleNamespace:
        assert t.device == x.device == self.weight.device
        assert x.dtype == torch.float32
        return SimpleNamespace(sample=self.weight * x)


def test_a_network_is_as_it_was_and_keeps_its_type() -> None:
    """p(x) = N(0, I) at every t of VP: the hand calculation, in float32 within the flow's tolerance."""
    network, y = Narrow(), steps.images(20)
    network.dropout.eval()
    state = torch.get_rng_state()
    found = th.audit(network, y, levels=steps.L, sde=th.generative.VP())
    x = 2 * y / (steps.L - 1) - 1
    hand = -np.mean(stats.norm.logpdf(x)) / LN2 + math.log2(3.5)
    assert next(v.bits for v in found.variants if v.faults == ("no noise",)) == pytest.approx(hand, abs=1e-3)
    assert network.training
    assert not network.dropout.training
    assert network.weight.dtype == torch.float32
    assert network.weight.grad is None
    assert torch.equal(state, torch.get_rng_state())


def test_a_network_on_another_device_has_the_same_bits() -> None:
    y = steps.images(2)[:, :, :1, :1]
    settings = {"levels": steps.L, "tolerance": 1e-2}
    network = Narrow()
    here = th.audit(network, y, sde=th.generative.VP(), **settings)
    with pretend.plugged_in() as name:
        there = th.audit(Narrow().to(name), y, sde=th.generative.VP(), **settings)
    assert there.bits_per_dimension == pytest.approx(here.bits_per_dimension, abs=1e-6)


def test_a_denoiser_on_another_device_has_the_same_bits() -> None:
    y, settings = steps.images(6), {"scheduler": Scheduler(), "levels": steps.L}
    here = th.audit(Steady(), y, **settings)
    with pretend.plugged_in() as name:
        there = th.audit(Steady().to(name), y, **settings)
    assert there.bits_per_dimension == pytest.approx(here.bits_per_dimension, abs=1e-6)


# ---- images, scalings and models that are wrong ------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, -1.0])
def test_images_that_are_already_scaled_are_taken_back_and_said_so(offset: float) -> None:
    scaled = images().astype(np.float32) / 15 * (1 - offset) + offset
    found = th.audit(gaussian(), scaled, levels=L, scaling="[-1, 1]", draws=16)
    assert names(found) == ["images already scaled"]
    assert found.bits_per_dimension == audited().bits_per_dimension


def test_images_outside_their_levels_have_no_number() -> None:
    found = th.audit(gaussian(), images() + np.uint8(6), levels=L, scaling="[-1, 1]", claimed=3.0)
    assert names(found) == ["images outside their levels"]
    assert math.isnan(found.bits_per_dimension)
    assert found.score is None
    assert found.kind is None
    assert found.to_dict()["bits_per_dimension"] is None
    assert str(found).startswith("No number of bits per dimension is true")


@pytest.mark.parametrize(
    ("scaling", "name"),
    [
        (lambda y: (y / 7.5 - 1).clamp(max=0.5), "clipped by the scaling"),
        (lambda y: (y / 15).clamp(0, 1), "clipped by the scaling"),  # (15 + u)/15 is above 1
        (lambda y: (y / 7.5 - 1) ** 2, "scaling not invertible"),
        (
            lambda y: y / 7.5 + 0 * y.clamp(3, 4) - torch.relu(y - 3) * 0.4 + torch.nan * (y < 0),
            "scaling not invertible",
        ),
    ],
)
def test_a_scaling_that_loses_levels_has_no_number(scaling, name: str) -> None:  # type: ignore[no-untyped-def]
    found = audited(scaling=scaling, draws=2)
    assert names(found) == [name]
    assert found.score is None


def test_levels_that_no_image_uses_are_noticed() -> None:
    coarse = (images() // 4 * 4).astype(np.uint8)
    found = th.audit(gaussian(), coarse, levels=L, scaling="[-1, 1]")
    assert "levels unused" in names(found)
    assert "multiples of 4" in found.faults[0].sentence


def test_outputs_that_are_not_finite_have_no_number() -> None:
    """Of a density, of a diffusion of T steps, of a score network: each says which images."""
    y = steps.images(20)
    nan = [
        th.audit(
            lambda x: torch.where(x[:, 0] > 0, torch.nan, x[:, 0]), y, levels=steps.L, scaling="[-1, 1]"
        ),
        th.audit(lambda x, t: x * torch.nan, y, levels=steps.L, scheduler=Scheduler()),
        th.audit(lambda x, t: x * torch.nan, y, levels=steps.L, sde=th.generative.VP()),
        th.audit(lambda x: x[:, 0] + torch.inf, y, levels=steps.L, scaling="[-1, 1]"),
    ]
    assert all(names(found) == ["outputs not finite"] and found.score is None for found in nan)


def test_probability_zero_is_told_and_not_hidden() -> None:
    narrow = torch.distributions.Uniform(-0.5, 0.5, validate_args=False)
    found = th.audit(narrow, images(), levels=L, scaling="[-1, 1]")
    assert names(found) == ["probability zero"]
    assert found.bits_per_dimension == math.inf


def test_a_model_of_another_scaling_is_worse_than_no_model() -> None:
    found = th.audit(gaussian(), images(), levels=L, scaling="[0, 1]")
    assert names(found) == ["worse than uniform"]


def test_a_density_with_spikes_at_whole_numbers_is_noticed() -> None:
    """A mixture of narrow Gaussians at the levels, as a flow that was fitted without noise comes to be."""
    levels = torch.arange(L, dtype=torch.float64)

    def spiky(x: Tensor) -> Tensor:
        near = torch.distributions.Normal(levels, 0.05).log_prob(x[..., None])
        broad = torch.distributions.Normal(CENTRE, 1.5).log_prob(x)
        return torch.logaddexp(torch.logsumexp(near, -1) - math.log(L) - 0.7, broad - 0.7).sum(1)

    found = th.audit(spiky, images(), levels=L, scaling="none")
    assert names(found) == ["spikes at whole numbers"]
    assert found.faults[0].effect < -0.5


# ---- what a reviewer reads ---------------------------------------------------------------------------------


def test_it_prints_the_number_first_within_80_columns() -> None:
    text = str(audited(bits(images(), True) - math.log2(7.5), 0.004))
    lines = text.splitlines()
    assert lines[0].endswith("bits per dimension: lower bound of the log mass")
    assert " ± " in lines[0]
    assert max(map(len, lines)) <= 80
    assert "Fault: scaling forgotten: −2.9069 bits per dimension" in text
    assert "No fault was found." in str(audited())


def test_its_dictionary_is_plain_json() -> None:
    found = audited(1.0, 0.01).to_dict()
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert again["measure"] == "mass"
    assert again["faults"][0]["name"] == "claim not reproduced"
    assert again["variants"][0]["faults"] == []
    assert again["score"]["dimensions"] == D


def test_the_same_seed_gives_the_same_audit_whatever_the_global_state() -> None:
    first = audited()
    torch.manual_seed(99)
    assert audited().bits_per_dimension == first.bits_per_dimension != audited(seed=1).bits_per_dimension


def test_fewest_faults_explain_first() -> None:
    variants = [
        th.generative.claims.Variant(f, b, 0.0) for f, b in (((), 3.0), (("a",), 2.0), (("a", "b"), 2.0))
    ]
    claim = th.generative.claims.Claim(2.0, 0.05, None)
    assert [v.faults for v in explained(claim, variants)] == [("a",)]


# ---- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"scaling": None}, "scaling: a density of what"),
        ({"scaling": "[0, 255]"}, "scaling='\\[0, 255\\]'"),
        ({"scaling": (0.0, 1.0)}, "slope is finite and not 0"),
        ({"scaling": (1.0, 2.0, 3.0)}, "Accepted: a name"),
        ({"scaling": (np.ones((5, 2, 2)), 0.0)}, "does not fit images of shape"),
        ({"scaling": lambda y: y - y.mean((1, 2, 3), keepdim=True)}, "mixes pixels"),
        ({"scaling": lambda y: y.detach()}, "differentiate"),
        ({"scaling": lambda y: y.sum()}, "gives \\(\\) for images"),
        ({"levels": 1}, "levels=1"),
        ({"draws": 1}, "draws=1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"probes": 1}, "probes=1 has an effect"),
        ({"times": 5}, "times=5 has an effect"),
        ({"variance_type": "fixed_large"}, "variance_type='fixed_large' has an effect"),
        ({"method": "flow"}, "method='flow'"),
        ({"prediction_type": "epsilon"}, "prediction_type='epsilon'"),
        ({"claimed": "about 3"}, "claimed='about 3'"),
        ({"claimed": float("nan")}, "claimed=nan"),
        ({"claimed_error": 0.1}, "without claimed="),
        ({"claimed": 3.0, "claimed_error": -1}, "claimed_error=-1"),
    ],
)
def test_bad_arguments_are_refused(settings: dict[str, object], match: str) -> None:
    with pytest.raises(BadArgument, match=match):
        th.audit(gaussian(), images(n=5), **({"levels": L, "scaling": "[-1, 1]"} | settings))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"scheduler": Scheduler(), "sde": th.generative.VP()}, "both given"),
        ({"sde": "vp"}, "sde='vp'"),
        ({"sde": th.generative.VP(), "method": "discrete"}, "method='discrete'"),
        ({"sde": th.generative.VP(), "times": 3}, "times=3"),
        ({"scheduler": Scheduler(), "prediction_type": "score"}, "prediction_type='score'"),
        ({"scheduler": Scheduler(), "prediction_type": "sample"}, "scheduler's own is 'epsilon'"),
        ({"scheduler": [0.9, 0.5]}, "does not say what the network gives"),
        ({"scheduler": object(), "prediction_type": "sample"}, "alphas_cumprod"),
        ({"scheduler": Scheduler(variance_type="learned_range")}, "learned_range"),
        ({"scheduler": Scheduler(), "scaling": lambda y: (y + 1).log()}, "T steps"),
        ({"scheduler": Scheduler(), "scaling": (-0.1, 1.0)}, "T steps"),
    ],
)
def test_bad_processes_are_refused(settings: dict[str, object], match: str) -> None:
    with pytest.raises(BadArgument, match=match):
        th.audit(lambda x, t: x, images(n=5), levels=L, **settings)


def test_models_that_cannot_be_called_are_refused() -> None:
    y = images(n=5)
    with pytest.raises(BadArgument, match="calling convention"):
        th.audit(Narrow(), y, levels=L, scaling="[-1, 1]")
    with pytest.raises(BadArgument, match="model is int"):
        th.audit(3, y, levels=L, scaling="[-1, 1]")
    with pytest.raises(BadArgument, match="model is int"):
        th.audit(3, y, levels=L, sde=th.generative.VP())
    with pytest.raises(ModelError, match="one number an image"):
        th.audit(lambda x: x, y, levels=L, scaling="[-1, 1]")
    with pytest.raises(ModelError, match="failed"):
        th.audit(
            torch.distributions.MultivariateNormal(torch.zeros(3), torch.eye(3)), y, levels=L, scaling="none"
        )
    model = th.generative.Diffusion(lambda z, log_snr: z, levels=L, predict="epsilon")
    with pytest.raises(BadArgument, match="whole numbers"):
        th.audit(model, y, levels=L, scaling="[-1, 1]")


def test_images_that_are_none_are_refused() -> None:
    with pytest.raises(NotFinite):
        th.audit(gaussian(), np.full((2, 2, 2), np.nan), levels=L, scaling="none")
    with pytest.raises(BadArgument, match="channels come last"):
        th.audit(gaussian(), np.zeros((2, 8, 8, 3), dtype=np.uint8), levels=L, scaling="none")
    with pytest.raises(BadArgument, match="levels=8"):
        th.audit(gaussian(), th.generative.Images(images(), L), levels=8, scaling="none")
