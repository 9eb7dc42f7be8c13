"""The diffusion's bound: on data whose log p is known it is log p; elsewhere it is below."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.data import Batch, Tensors
from thetahat.errors import BadArgument, ModelError
from thetahat.evaluation.score import score as scored
from thetahat.generative import Denoiser, Diffusion, Images, Noised
from thetahat.generative.schedule import Cosine, Linear

sys.path.insert(0, str(Path(__file__).parent))
from gaussian import MEAN, Gaussian, Independent

Y = torch.tensor([[0.5, -1.0, 0.2], [0.0, 0.0, 0.0], [2.0, 1.0, -1.5]], dtype=torch.float64)
P = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.9, 0.05]], dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def repeated(model: Diffusion, y: torch.Tensor, n: int, seed: int = 0) -> tuple[float, float]:
    """The mean of n bounds of one observation at times within even parts of [0, 1]; a standard error that is
    rather too large."""
    t = (torch.arange(n) + torch.rand(n, generator=seeded(seed), dtype=torch.float64)) / n
    torch.manual_seed(seed)
    with torch.no_grad():
        found = model.log_prob(Batch({"y": y.expand(n, -1), "t": t}))
    return float(found.mean()), float(found.std() / n**0.5)


# ---- the bound ---------------------------------------------------------------------------------------------


def quadrature(model: Diffusion, y: torch.Tensor) -> torch.Tensor:
    """The bound without a draw: ‖ε − ε̂‖² of a linear ε̂ is quadratic in ε, of which ±√d along each axis
    has the mean exactly; λ by Gauss–Legendre."""
    high, low = float(model.schedule.high), float(model.schedule.low)
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(200))
    log_snr = (high + low) / 2 + (high - low) / 2 * nodes
    out = []
    for row in y:
        x = model.encode(row[None])
        d = x.shape[1]
        axes = [sign * d**0.5 * torch.eye(d, dtype=torch.float64)[j] for j in range(d) for sign in (1, -1)]
        error = sum(model._error(x.expand(200, -1), e.expand(200, -1), log_snr) for e in axes) / len(axes)
        ends = (
            model._decoded(row[None], x, torch.zeros_like(x))
            - model._end(x)
            - torch.log(model.scale).expand(d).sum()
        )
        out.append(ends[0] - 0.5 * (high - low) / 2 * (weights * error).sum())
    return torch.stack(out)


@pytest.mark.parametrize("predict", ["epsilon", "v"])
def test_the_bound_is_log_p_where_the_denoiser_is_the_best_one(predict):
    """Closed form: x ~ N(m, C), of which the conditional mean of ε is linear in z. Apart by what noise at the
    ends hides, of order e⁻¹⁶ / var."""
    network = Gaussian(predict=predict)
    model = Diffusion(network, predict=predict, schedule=Linear(16.0, -16.0))
    torch.testing.assert_close(quadrature(model, Y), network.log_prob(Y), atol=1e-5, rtol=0)


def test_the_bound_is_below_log_p_by_what_the_ends_of_the_schedule_hide():
    """On average over the data, Gibbs' inequality: Σ over 200 draws of N(m, C); the nearer the ends, the
    lower."""
    network = Gaussian()
    y = (
        MEAN
        + torch.randn(200, 3, dtype=torch.float64, generator=seeded()) @ torch.linalg.cholesky(network.C).T
    )
    ends = [
        quadrature(Diffusion(network, predict="epsilon", schedule=Linear(h, -h)), y).mean()
        for h in (3.0, 5.0, 8.0)
    ]
    assert ends[0] < ends[1] < ends[2] < network.log_prob(y).mean()


def test_the_bound_of_a_scaled_vector_is_per_its_own_unit():
    """y = 3 + 2x: log p(y) = log p(x) − d log 2."""
    network = Gaussian()
    model = Diffusion(network, predict="epsilon", schedule=Linear(16.0, -16.0), shift=3.0, scale=2.0)
    torch.testing.assert_close(
        quadrature(model, 3 + 2 * Y), network.log_prob(Y) - 3 * math.log(2), atol=1e-5, rtol=0
    )


def test_a_worse_denoiser_has_a_lower_bound():
    """The best ε̂ of another C: Gibbs' inequality on average over the data."""
    best = Gaussian()
    other = Gaussian(factor=torch.eye(3, dtype=torch.float64))
    y = MEAN + torch.randn(20, 3, dtype=torch.float64, generator=seeded()) @ torch.linalg.cholesky(best.C).T
    a, b = (
        quadrature(Diffusion(m, predict="epsilon", schedule=Linear(14.0, -14.0)), y).mean()
        for m in (best, other)
    )
    assert a > b + 0.1


@pytest.mark.parametrize("schedule", [Linear(8.0, -8.0), Cosine(8.0, -8.0), Cosine(8.0, -8.0, shift=3.0)])
def test_draws_have_the_bound_as_their_mean_whatever_the_schedule(schedule):
    """Against the quadrature above, 4 standard errors."""
    model = Diffusion(Gaussian(), predict="epsilon", schedule=schedule)
    mean, error = repeated(model, Y[1], 40_000)
    assert error < 0.2
    assert mean == pytest.approx(float(quadrature(model, Y[1:2])), abs=4 * error)


def test_epsilon_and_v_are_two_names_of_one_prediction():
    """v = αε − σx: on common draws the two bounds are equal to rounding."""
    batch = Batch({"y": Y})
    a, b = (
        Diffusion(Gaussian(predict=p), predict=p).log_prob(batch, generator=seeded(3))
        for p in ("epsilon", "v")
    )
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


# ---- levels ------------------------------------------------------------------------------------------------


def test_the_bound_of_levels_is_log_p_where_the_denoiser_is_the_best_one():
    """Independent pixels with known probabilities: Σ_j log p_j(y_j), 4 standard errors; and Σ_y exp(bound)
    is 1."""
    model = Diffusion(Independent(P), levels=3, predict="levels", schedule=Cosine(9.0, -9.0, shift=1.0))
    total = 0.0
    for a in range(3):
        for b in range(3):
            mean, error = repeated(model, torch.tensor([a, b]), 40_000, seed=3 * a + b)
            exact = float((P[0, a] * P[1, b]).log())
            assert error < 0.05
            assert mean == pytest.approx(
                exact, abs=4 * error + 1e-3
            )  # the ends of the schedule hide that much
            total += math.exp(mean)
    assert total == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("predict", ["epsilon", "v", "levels"])
def test_the_bounds_of_all_images_sum_to_less_than_one(predict):
    """Any network: exp of a lower bound sums to at most Σ p = 1 over all 3² images (means of 20000 draws)."""
    network = Denoiser(2, 6 if predict == "levels" else 2, width=16, blocks=1, dtype=torch.float64)
    with torch.no_grad():
        network.out.weight.normal_(0, 0.3, generator=seeded(1))
    model = Diffusion(network, levels=3, predict=predict)
    found = [repeated(model, torch.tensor([a, b]), 20_000) for a in range(3) for b in range(3)]
    assert sum(math.exp(mean + 2 * error) for mean, error in found) < 1
    assert all(math.isfinite(mean) for mean, _ in found)


def test_what_is_left_at_the_last_step_has_a_mass_that_sums_to_one():
    """Σ_l p(l | z_0) = 1 for every pixel; and with little noise it is the level itself."""
    model = Diffusion(Independent(P), levels=3, predict="levels")
    z = torch.randn(50, 2, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(
        model.log_levels(z).exp().sum(-1), torch.ones(50, 2, dtype=torch.float64), rtol=0, atol=1e-12
    )
    exact = model.log_levels(model.encode(torch.tensor([[0, 2]])))
    assert exact[0, 0, 0] > -1e-9
    assert exact[0, 1, 2] > -1e-9


def test_many_levels_are_decoded_in_parts(monkeypatch):
    """Rows in parts that fit, the same to the bit; of a schedule that is learnt, since otherwise few levels are summed."""
    from thetahat.generative import diffusion

    model = Diffusion(Denoiser(6, width=8, blocks=1), levels=256, schedule=Cosine(learned=True))
    batch = Batch({"y": torch.randint(256, (20, 6), generator=seeded())})
    whole = model.log_prob(batch, generator=seeded())
    monkeypatch.setattr(diffusion, "HELD", 3 * 6 * 256)
    assert torch.equal(model.log_prob(batch, generator=seeded()), whole)


def test_what_is_no_level_is_impossible():
    model = Diffusion(Denoiser(2, width=8, blocks=1), levels=3)
    found = model.log_prob(Batch({"y": torch.tensor([[0.0, 2.0], [0.0, 3.0], [-1.0, 0.0], [0.5, 1.0]])}))
    assert torch.isfinite(found).tolist() == [True, False, False, False]


# ---- draws and K -------------------------------------------------------------------------------------------


def test_K_draws_are_averaged_and_only_the_noise_falls():
    """A mean of bounds: the expectation stays (4 standard errors), the spread falls at least as 1/√K
    (times are spread evenly)."""
    model = Diffusion(Gaussian(), predict="epsilon", schedule=Cosine(8.0, -8.0))
    batch = Batch({"y": Y[1].expand(4000, -1)})
    one, many = (model.tightened(K).log_prob(batch, generator=seeded(K)) for K in (1, 16))
    assert float(many.std()) < float(one.std()) / 4 * 1.1
    assert float(many.mean()) == pytest.approx(
        float(quadrature(model, Y[1:2])), abs=4 * float(many.std()) / 4000**0.5
    )
    assert model.K == 1


def test_times_cover_the_interval_evenly():
    """n·K times, one in each n·K-th of [0, 1)."""
    model = Diffusion(Gaussian(), predict="epsilon", K=4)
    t = model._times(Batch({"y": Y}), Y, seeded())
    assert t.shape == (4, 3)
    apart = t.flatten().sort().values.diff()
    torch.testing.assert_close(apart, torch.full((11,), 1 / 12, dtype=torch.float64))


def test_a_batch_with_times_is_scored_at_them_unless_draws_are_asked_for():
    model = Diffusion(Gaussian(), predict="epsilon", schedule=Linear(8.0, -8.0))
    batch = Batch({"y": Y, "t": torch.full((3,), 0.25)})
    assert torch.equal(model._times(batch, Y, None), torch.full((1, 3), 0.25, dtype=torch.float64))
    assert not torch.equal(model._times(batch, Y, seeded()), torch.full((1, 3), 0.25, dtype=torch.float64))


def test_a_score_is_a_bound_that_states_its_draws():
    """Kind, measure, K, its own noise; the same seed, the same score."""
    images = Images(np.arange(32).reshape(8, 2, 2) % 3, levels=3)
    network = Denoiser(4, 12, width=16, blocks=1)
    solver = th.Stochastic(steps=5, batch_size=4, held_out=None)
    fit = th.fit(Diffusion(network, levels=3, predict="levels"), images, solver=solver)
    score = fit.score(samples=8)
    assert (score.kind, score.measure, score.K, score.dimensions) == ("lower bound", "mass", 8, 4)
    assert score.error > 0
    assert score.total == fit.score(samples=8).total
    assert fit.sample(3).shape == (3, 4)


# ---- the training objective --------------------------------------------------------------------------------


def test_simple_is_the_squared_error_evenly_over_the_cosine_schedule():
    """Ho et al. (2020), eq. 14: w · (−dλ/dt) is one constant."""
    schedule = Cosine(20.0, -20.0)
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    product = th.generative.Simple(schedule)(Batch({"t": t}), t) * schedule.fall(t)
    torch.testing.assert_close(product, torch.full_like(t, 2 * math.pi), rtol=1e-3, atol=0)


def test_min_snr_is_hang_et_al_in_terms_of_x():
    """w · (−dλ/dt) ‖ε − ε̂‖² ∝ min(SNR, γ) ‖x − x̂‖², since ‖ε − ε̂‖² = SNR ‖x − x̂‖² (Hang et al. 2023,
    §3.4)."""
    schedule = Cosine(20.0, -20.0)
    t = torch.linspace(0.05, 0.95, 11, dtype=torch.float64)
    snr = torch.exp(schedule.log_snr(t))
    product = th.generative.MinSNR(schedule, gamma=5.0)(Batch({"t": t}), t) * schedule.fall(t) * snr
    torch.testing.assert_close(product, 2 * math.pi * snr.clamp(max=5.0), rtol=1e-3, atol=0)


def test_what_is_held_out_is_scored_by_the_bound_whatever_the_weights():
    """Noised gives times to the terms that are fitted: the trace of the batches is Σ w log p, what is held
    out is scored, 5 standard errors."""
    y = torch.randn(200, 3, generator=seeded())
    held = Tensors({"y": torch.randn(100, 3, generator=seeded(1))})
    model = Diffusion(Denoiser(3, width=16, blocks=1), predict="epsilon", K=32)
    solver = th.Stochastic(steps=20, batch_size=32, held_out=held, evaluate_every=20, restore_best=False)
    fit = th.fit(
        model, Noised(Tensors({"y": y})), weights=th.generative.Simple(model.schedule), solver=solver
    )
    score = fit.score(held, seed=5)
    noise = 3**0.5 * score.error / score.n  # of one look less the mean of two
    assert fit.trace[-1][1] == pytest.approx(score.mean, abs=5 * noise)
    assert abs(fit.log_likelihood / 200 - score.mean) > 20 * noise
    assert fit.certificate.trend[1] == fit.trace[-1][1]


def test_a_fraction_held_out_of_noised_data_has_no_times():
    left, out = Noised(Tensors({"y": torch.zeros(10, 2)})).split(0.3, seeded())
    assert (left.size, out.size) == (7, 3)
    assert "t" not in next(out.batches())
    assert "t" in next(left.batches())
    assert torch.equal(next(left.batches())["t"], next(left.batches())["t"])


def test_every_term_of_noised_data_comes_once_an_epoch_with_a_new_time():
    source = Noised(Tensors({"y": torch.arange(10.0)[:, None]}))
    g = seeded()
    one, two = (list(source.epoch(4, g)) for _ in range(2))
    for epoch in (one, two):
        assert sorted(torch.cat([b["y"][:, 0] for b in epoch]).tolist()) == list(range(10))
    assert not torch.equal(one[0]["t"], two[0]["t"])
    assert source.fingerprint == source.source.fingerprint


def test_noised_data_are_scored_in_the_units_of_the_data():
    """The log-determinant of a transform is in the score, with times or without: a network that starts at 0,
    common draws."""
    y = torch.randn(20, 2, generator=seeded(), dtype=torch.float64) * 5
    source = th.data.Transformed(y.numpy(), "standardise")
    model = Diffusion(Denoiser(2, width=8, blocks=1))
    a, b = (scored(model, s, generator=seeded()) for s in (source, Noised(source)))
    assert a.total == b.total
    assert a.log_determinant == b.log_determinant != 0
    assert a.units == b.units


def test_binary_images_drawn_anew_can_be_noised():
    grey = Images(np.arange(48).reshape(12, 2, 2) % 5, levels=5)
    model = Diffusion(Denoiser(4, 8, width=8, blocks=1), levels=2, predict="levels")
    solver = th.Stochastic(steps=3, batch_size=4, held_out=0.25)
    fit = th.fit(model, Noised(grey.binarised()), weights=th.generative.MinSNR(model.schedule), solver=solver)
    assert math.isfinite(fit.certificate.trend[1])


def test_a_killed_climb_goes_on_bit_for_bit(tmp_path):
    """Times come from the run's generator, noise from its step's seed: 6 steps are 3 steps and 3 more."""

    def maximised(steps, **settings):
        model = Diffusion(Denoiser(3, width=8, blocks=1), predict="v")
        data = Noised(Tensors({"y": torch.randn(30, 3, generator=seeded())}))
        solver = th.Stochastic(
            steps=steps, batch_size=8, held_out=None, lr_schedule="constant", evaluate_every=3, **settings
        )
        return th.fit(model, data, weights=th.generative.Simple(model.schedule), solver=solver)

    whole = maximised(6)
    kept = {"checkpoint": tmp_path / "optimise", "checkpoint_every": 3}

    class Killed(Exception):
        pass

    calls = []
    original = th.generative.Simple.__call__

    def dying(self, batch, log_prob):
        calls.append(1)
        if len(calls) > 4:
            raise Killed
        return original(self, batch, log_prob)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(th.generative.Simple, "__call__", dying)
        with pytest.raises(Killed):
            maximised(6, **kept)
    assert torch.equal(maximised(6, **kept).theta, whole.theta)


# ---- learned ends ------------------------------------------------------------------------------------------


def test_learned_ends_tighten_the_bound():
    """Independent pixels, the best denoiser: nothing is left to learn but the ends, and from a coarse
    start the bound comes near log p."""
    y = torch.multinomial(P, 400, replacement=True, generator=seeded()).T.contiguous()
    exact = float(P[0, y[:, 0]].log().mean() + P[1, y[:, 1]].log().mean())
    schedule = Linear(2.0, -1.0, learned=True)
    model = Diffusion(Independent(P), levels=3, predict="levels", schedule=schedule, K=4)

    @torch.no_grad()
    def bound(model: Diffusion) -> float:
        return float(model.tightened(64).log_prob(Batch({"y": y}), generator=seeded()).mean())

    before = bound(model)
    solver = th.Stochastic(steps=200, batch_size=200, learning_rate=0.05, held_out=None)
    fitted = th.fit(model, Tensors({"y": y}), solver=solver).model
    after = bound(fitted)
    assert before < exact - 0.1
    assert before + 0.1 < after < exact + 0.02
    high, low = fitted.schedule.ends.tolist()
    assert high > 3
    assert low < -2


def test_a_weighted_sum_cannot_learn_the_ends():
    schedule = Linear(8.0, -8.0, learned=True)
    for weighting in (th.generative.Simple, th.generative.MinSNR):
        with pytest.raises(BadArgument, match="learned by the bound alone"):
            weighting(schedule)


@pytest.mark.parametrize("schedule", [Linear(9.0, -7.0), Cosine(9.0, -7.0), Cosine(9.0, -7.0, shift=2.5)])
def test_a_schedule_falls_from_high_to_low_at_the_rate_that_it_says(schedule):
    """fall = −dλ/dt by automatic differentiation."""
    t = torch.linspace(0, 1, 9, dtype=torch.float64, requires_grad=True)
    log_snr = schedule.log_snr(t)
    assert log_snr[[0, -1]].tolist() == pytest.approx([9.0, -7.0], abs=1e-9)
    torch.testing.assert_close(schedule.fall(t), -torch.autograd.grad(log_snr.sum(), t)[0])


# ---- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"predict": "x"}, "predict='x'"),
        ({"predict": "levels"}, "levels=None"),
        ({"levels": 1}, "levels=1"),
        ({"K": 0}, "K=0"),
        ({"schedule": "sigmoid"}, "schedule='sigmoid'"),
        ({"scale": 0.0}, "scale=0.0"),
    ],
)
def test_settings_that_cannot_be_used_are_named(settings, said):
    with pytest.raises(BadArgument, match=said):
        Diffusion(Denoiser(2, width=8, blocks=1), **settings)


def test_a_network_of_another_shape_is_refused():
    with pytest.raises(ModelError, match=r"\(5, 3\).*Accepted: \(5, 2\)"):
        Diffusion(Denoiser(2, 3, width=8, blocks=1)).log_prob(Batch({"y": torch.zeros(5, 2)}))
    with pytest.raises(ModelError, match=r"\(n, d\)"):
        Diffusion(Denoiser(2, width=8, blocks=1)).log_prob(Batch({"y": torch.zeros(5)}))


def test_a_weight_without_a_time_and_a_schedule_upside_down_are_refused():
    with pytest.raises(BadArgument, match=r"Noised"):
        th.generative.Simple(Linear(8.0, -8.0))(Batch({"y": torch.zeros(3)}), torch.zeros(3))
    with pytest.raises(BadArgument, match="falls from high to low"):
        Linear(-3.0, 3.0)
    with pytest.raises(BadArgument, match=r"model\.schedule"):
        th.generative.Simple("cosine")
    with pytest.raises(BadArgument, match="gamma=0"):
        th.generative.MinSNR(Linear(8.0, -8.0), gamma=0)


def test_a_stream_is_not_noised():
    class Stream:
        size, fingerprint, units = None, "", "y"

        def batches(self, model=None):
            yield Batch({"y": torch.zeros(2, 1)})

    with pytest.raises(BadArgument, match="Stream is read as it streams"):
        Noised(Stream())


def test_the_denoiser_is_drawn_from_its_seed_and_starts_at_zero():
    before = torch.random.get_rng_state()
    a, b, c = (
        torch.cat([p.reshape(-1) for p in Denoiser(4, width=8, blocks=2, seed=s).parameters()])
        for s in (1, 1, 2)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(before, torch.random.get_rng_state())
    assert float(Denoiser(4, 7, width=8)(torch.ones(3, 4), torch.zeros(3)).detach().abs().max()) == 0
    with pytest.raises(BadArgument, match="width=0"):
        Denoiser(4, width=0)
