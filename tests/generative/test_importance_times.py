"""Importance-sampled times: the same bound with less noise, by a density that has a closed form where the data are
Gaussian."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import thetahat as th
from thetahat.data import Batch, Tensors
from thetahat.errors import BadArgument, BadSave, NotFinite
from thetahat.generative import Cosine, Denoiser, Diffusion, ImportanceTimes, Linear, Noised, Straight

sys.path.insert(0, str(Path(__file__).parent))
from gaussian import MEAN, Gaussian

Y = torch.tensor([[0.5, -1.0, 0.2], [2.0, 1.0, -1.5]], dtype=torch.float64)
UNEVEN = [0.2, 3.0, 1.0, 0.5, 2.0]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def observed(n: int, seed: int = 0) -> Tensor:
    return (
        MEAN
        + torch.randn(n, 3, dtype=torch.float64, generator=seeded(seed))
        @ torch.linalg.cholesky(Gaussian().C).T
    )


def second_moment(schedule: Linear | Cosine | Straight, t: Tensor) -> Tensor:
    """E[(½ (−dλ/dt) ‖ε − ε̂‖²)²] over x ~ N(m, C) and ε, with the best ε̂: ε − ε̂ is Normal(0, Var(ε | z)) there,
    whose eigenvalues are v_j = α²c_j/(α²c_j + σ²), and E‖·‖⁴ = (Σv)² + 2Σv²."""
    a2 = torch.sigmoid(schedule.log_snr(t))[:, None]
    c = torch.linalg.eigvalsh(Gaussian().C)
    v = a2 * c / (a2 * c + 1 - a2)
    return (0.5 * schedule.fall(t)) ** 2 * (v.sum(1) ** 2 + 2 * v.square().sum(1))


def sizes(schedule: Linear | ImportanceTimes, n: int, seed: int) -> Tensor:
    """½ (−dλ/du) ‖ε − ε̂‖² of independent draws of x, u and ε, (n,)."""
    model, x = Diffusion(Gaussian(), predict="epsilon", schedule=schedule), observed(n, seed)
    u = torch.rand(n, generator=seeded(seed + 1), dtype=torch.float64)
    epsilon = torch.randn(n, 3, generator=seeded(seed + 2), dtype=torch.float64)
    return 0.5 * schedule.fall(u) * model._error(x, epsilon, schedule.log_snr(u))


# ---- the same bound ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [Linear(9.0, -7.0), Cosine(9.0, -7.0, shift=1.0), Straight(9.0, -7.0)])
def test_the_schedule_falls_at_the_rate_that_it_says_between_the_same_ends(base):
    """fall = −dλ/du by automatic differentiation; Q by hand: after the first bin u = 0.2/5/1.34."""
    times = ImportanceTimes(base, UNEVEN)
    u = torch.tensor([0.003, 0.1, 0.35, 0.5, 0.6, 0.8, 0.97], dtype=torch.float64, requires_grad=True)
    log_snr = times.log_snr(u)
    assert bool((log_snr.diff() < 0).all())
    torch.testing.assert_close(times.fall(u), -torch.autograd.grad(log_snr.sum(), u)[0])
    ends = times.log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([9.0, -7.0], abs=1e-9)
    assert (float(times.high), float(times.low)) == (9.0, -7.0)
    at = torch.tensor([0.2 / 5 / 1.34], dtype=torch.float64)
    torch.testing.assert_close(times.log_snr(at), base.log_snr(torch.tensor([0.2], dtype=torch.float64)))


@pytest.mark.parametrize("base", [Linear(9.0, -7.0), Cosine(9.0, -7.0), Straight(9.0, -7.0)])
@pytest.mark.parametrize("weight", [None, th.generative.Simple, th.generative.FlowMatching])
def test_the_expected_objective_is_unchanged(base, weight):
    """E over u by Gauss–Legendre within each bin, ε on ±√d along each axis (exact for a linear ε̂): the sums over
    q's draws and over uniform ones are one number, to 1e-9; with weights of λ too."""
    nodes, widths = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(40))

    def expected(schedule: Linear | ImportanceTimes, edges: Tensor) -> float:
        model = Diffusion(Gaussian(), predict="epsilon", schedule=schedule)
        u = torch.cat([(a + b) / 2 + (b - a) / 2 * nodes for a, b in itertools.pairwise(edges)])
        w = torch.cat([(b - a) / 2 * widths for a, b in itertools.pairwise(edges)])
        axes = [s * 3**0.5 * torch.eye(3, dtype=torch.float64)[j] for j in range(3) for s in (1, -1)]
        lam = schedule.log_snr(u)
        error = sum(model._error(Y[:1].expand(len(u), -1), e.expand(len(u), -1), lam) for e in axes) / 6
        of = 1.0 if weight is None else weight(schedule)(Batch({"t": u}), u)
        return float((w * of * schedule.fall(u) * error).sum())

    times = ImportanceTimes(base, UNEVEN)
    even = expected(base, torch.linspace(0, 1, 6, dtype=torch.float64))
    assert expected(times, times.edges) == pytest.approx(even, rel=1e-9)


def test_draws_have_the_same_mean_as_evenly_spaced_times_and_as_the_closed_form():
    """40000 terms of one y, evenly spaced or by q: both within 4 standard errors of log N(y; m, C) (the ends hide
    less than 1e-5), and of each other."""
    exact, found = float(Gaussian().log_prob(Y[1:])), []
    for schedule in (Linear(14.0, -14.0), ImportanceTimes(Linear(14.0, -14.0), UNEVEN)):
        model = Diffusion(Gaussian(), predict="epsilon", schedule=schedule)
        value = model.log_prob(Batch({"y": Y[1:].expand(40_000, -1)}), generator=seeded(4))
        found.append((float(value.mean()), float(value.std()) / 200))
        assert found[-1][0] == pytest.approx(exact, abs=4 * found[-1][1])
    assert found[0][0] == pytest.approx(found[1][0], abs=4 * (found[0][1] + found[1][1]))


# ---- the density -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [Linear(8.0, -8.0), Cosine(8.0, -8.0), Straight(8.0, -8.0)])
def test_the_fitted_density_is_the_root_of_the_second_moment(base):
    """Against the closed form, averaged within each bin; 20000 draws a bin, and 1 % of a uniform density."""
    model = Diffusion(Gaussian(), predict="epsilon", schedule=base)
    times = ImportanceTimes.fitted(model, {"y": observed(20_000)}, bins=8, draws=8)
    t = (torch.arange(8000, dtype=torch.float64) + 0.5) / 8000
    root = second_moment(base, t).view(8, 1000).mean(1).sqrt()
    torch.testing.assert_close(times.q, 0.99 * root / root.mean() + 0.01, rtol=0.1, atol=0.002)


def test_the_variance_falls_to_what_cauchy_and_schwarz_say():
    """A linear schedule wastes half of its times where nothing is left to predict: the second moment of a term,
    ∫ E[L_t²] dt, falls to (∫ √E[L_t²] dt)², which is two thirds of it. 100000 independent draws of each, with their
    errors; the means agree."""
    base = Linear(8.0, -8.0)
    t = (torch.arange(8000, dtype=torch.float64) + 0.5) / 8000
    moment = second_moment(base, t)
    times = ImportanceTimes(base, moment.view(200, 40).mean(1).sqrt())
    least, even = float(moment.sqrt().mean() ** 2), float(moment.mean())
    assert least < 0.7 * even
    a, b = sizes(base, 100_000, 10), sizes(times, 100_000, 20)
    for found, exact in ((a, even), (b, least)):
        error = float(found.square().std()) / 100_000**0.5
        assert float(found.square().mean()) == pytest.approx(exact, abs=4 * error + 1e-3 * exact)
    assert float(b.var()) < 0.6 * float(a.var())
    gap = 4 * (float(a.var() + b.var()) / 100_000) ** 0.5
    assert float(a.mean()) == pytest.approx(float(b.mean()), abs=gap)


def test_weights_are_part_of_the_size_of_a_term():
    """Ho et al.'s weight makes w · (−dλ/dt) constant on the cosine schedule: q is the root of E‖ε − ε̂‖⁴ alone."""
    base = Cosine(8.0, -8.0)
    model = Diffusion(Gaussian(), predict="epsilon", schedule=base)
    times = ImportanceTimes.fitted(
        model, {"y": observed(20_000)}, weights=th.generative.Simple(base), bins=8, draws=2
    )
    t = (torch.arange(8000, dtype=torch.float64) + 0.5) / 8000
    root = (second_moment(base, t) / base.fall(t) ** 2).view(8, 1000).mean(1).sqrt()
    torch.testing.assert_close(times.q, 0.99 * root / root.mean() + 0.01, rtol=0.05, atol=0.002)


def test_a_second_fit_is_of_the_times_of_the_first_schedule():
    """Not of times of times; and the model is left as it was, with torch's own randomness."""
    model = Diffusion(Denoiser(3, width=8, blocks=1, dropout=0.5), schedule=Linear(8.0, -8.0))
    before = torch.random.get_rng_state()
    one = ImportanceTimes.fitted(model, {"y": observed(500)}, bins=4)
    again = ImportanceTimes.fitted(Diffusion(model.network, schedule=one), {"y": observed(500)}, bins=4)
    assert torch.equal(one.q, again.q)
    assert isinstance(again.schedule, Linear)
    assert model.training
    assert torch.equal(before, torch.random.get_rng_state())


# ---- runs and files ----------------------------------------------------------------------------------------


def trained(density: list[float], steps: int, **settings: object) -> th.Fit:
    times = ImportanceTimes(Linear(8.0, -8.0), density)
    model = Diffusion(Denoiser(3, width=8, blocks=1), predict="v", schedule=times)
    data = Noised(Tensors({"y": observed(40).float()}))
    solver = th.Stochastic(
        steps=steps, batch_size=8, held_out=None, lr_schedule="constant", evaluate_every=3, **settings
    )
    return th.fit(model, data, weights=th.generative.Simple(times), solver=solver)


def test_a_run_goes_on_from_its_checkpoint_bit_for_bit_and_not_with_another_density(tmp_path):
    """3 steps and 3 more are 6; another q is another run."""
    whole, kept = trained(UNEVEN, 6).theta, tmp_path / "run"
    trained(UNEVEN, 3, checkpoint=kept)
    with pytest.raises(BadSave, match="another run"):
        trained(UNEVEN[::-1], 6, checkpoint=kept)
    assert torch.equal(trained(UNEVEN, 6, checkpoint=kept).theta, whole)


def test_a_saved_fit_has_its_times(tmp_path):
    fit = trained(UNEVEN, 3)
    fit.save(tmp_path / "fit")
    again = th.load(tmp_path / "fit")
    assert isinstance(again.model.schedule, ImportanceTimes)
    assert torch.equal(again.model.schedule.edges, fit.model.schedule.edges)
    y = {"y": observed(20).float()}
    assert again.score(y).total == fit.score(y).total


def test_a_schedule_whose_end_is_open_is_settled_by_the_model():
    """Of levels the high end depends on L: that of the inner schedule is set."""
    model = Diffusion(
        Denoiser(2, 6, width=8), levels=3, predict="levels", schedule=ImportanceTimes(Cosine(), [1.0])
    )
    other = Diffusion(Denoiser(2, 6, width=8), levels=3, predict="levels", schedule=Cosine())
    assert float(model.schedule.high) == float(other.schedule.high)
    learned = ImportanceTimes(Linear(8.0, -8.0, learned=True), UNEVEN)
    assert sum(p.numel() for p in learned.parameters()) == 2
    with pytest.raises(BadArgument, match="learned by the bound alone"):
        th.generative.Simple(learned)


# ---- what is refused ---------------------------------------------------------------------------------------


class Infinite(nn.Module):
    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        return z / 0


def test_what_gives_no_density_is_said():
    model = Diffusion(Denoiser(3, width=8, blocks=1))
    with pytest.raises(BadArgument, match="needs 10"):
        ImportanceTimes.fitted(model, {"y": observed(50)}, bins=8)
    with pytest.raises(BadArgument, match="uniform=0"):
        ImportanceTimes.fitted(model, {"y": observed(50)}, uniform=0.0)
    with pytest.raises(NotFinite, match="infinite or NaN"):
        ImportanceTimes.fitted(Diffusion(Infinite(), predict="epsilon"), {"y": observed(50)}, bins=2)
    with pytest.raises(BadArgument, match="a positive number"):
        ImportanceTimes(Linear(8.0, -8.0), [1.0, 0.0])
    with pytest.raises(BadArgument, match=r"Accepted: model\.schedule"):
        ImportanceTimes("cosine", [1.0])
