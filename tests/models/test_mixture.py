"""Mixtures: the density, its derivatives by Fisher's and Louis' identities, and what a fit of one can do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp

import thetahat as th
from thetahat.data import Batch, Tensors
from thetahat.errors import BadArgument, NotFinite, OutOfSupport, UnknownColumn
from thetahat.families import MultivariateNormal
from thetahat.models import Mixture
from thetahat.models.base import get_theta, set_theta
from thetahat.models.mixture import Recounted, regressions
from thetahat.models.taylor import jacobian, taylor
from thetahat.models.taylor import scores as scores_of


def at(model: Mixture, *values: float) -> Mixture:
    set_theta(model, torch.tensor(values, dtype=torch.float64))
    return model


def two_normals() -> Mixture:
    """0.3 · N(−1, 0.5²) + 0.7 · N(2, 1.5²)."""
    return at(Mixture("normal", 2), math.log(0.7 / 0.3), -1.0, math.log(0.5), 2.0, math.log(1.5))


def numbers(n: int = 60, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Plain(torch.nn.Module):
    """The same log p with no derivatives of its own: automatic differentiation of logsumexp is the truth."""

    def __init__(self, mixture: Mixture):
        super().__init__()
        self.mixture, self.measure = mixture, mixture.measure

    def log_prob(self, batch: Batch) -> torch.Tensor:
        return torch.logsumexp(self.mixture.joint(batch), -1)


def shaken(model: Mixture, seed: int = 1) -> Mixture:
    theta = get_theta(model)
    set_theta(
        model,
        0.4 * torch.randn(len(theta), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)),
    )
    return model


def cases() -> dict[str, tuple[Mixture, Batch]]:
    y = numbers()
    vectors = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    counts = torch.poisson(
        torch.full((60,), 3.0, dtype=torch.float64), generator=torch.Generator().manual_seed(4)
    )
    trials = torch.full((60,), 9.0, dtype=torch.float64)
    regression, table = regressions(
        "y ~ x + C(g)", {"y": y.numpy(), "x": numbers(seed=5).numpy(), "g": ["a", "b", "c"] * 20}, 2
    )
    return {
        "normal": (shaken(Mixture("normal", 3)), Batch({"y": y})),
        "vectors": (shaken(Mixture(MultivariateNormal(2), 2)), Batch({"y": vectors})),
        "counts": (shaken(Mixture("negative_binomial", 2)), Batch({"y": counts})),
        "trials": (shaken(Mixture("binomial", 2)), Batch({"y": counts.clamp(max=9.0), "trials": trials})),
        "not alike": (shaken(Mixture(["normal", "student_t"])), Batch({"y": y})),
        "one alone": (shaken(Mixture("gamma", 1)), Batch({"y": y.abs() + 0.1})),
        "regressions": (shaken(regression), next(iter(table.batches()))),
    }


CASES = cases()


# ---- the density -------------------------------------------------------------------------------------------


def test_log_p_is_the_logarithm_of_the_weighted_sum_of_densities():
    """scipy.stats, and logsumexp."""
    y = np.linspace(-4, 7, 23)
    terms = [math.log(0.3) + stats.norm(-1.0, 0.5).logpdf(y), math.log(0.7) + stats.norm(2.0, 1.5).logpdf(y)]
    found = two_normals().log_prob(Batch({"y": torch.from_numpy(y)})).detach().numpy()
    np.testing.assert_allclose(found, logsumexp(terms, axis=0), rtol=1e-13)


def test_a_mixture_is_a_probability():
    """∫ p = 1 for a density, Σ p = 1 for a mass."""
    y = torch.linspace(-12, 16, 20_001, dtype=torch.float64)
    p = torch.exp(two_normals().log_prob(Batch({"y": y}))).detach()
    assert float(torch.trapezoid(p, y)) == pytest.approx(1, abs=1e-12)
    counts = torch.arange(300, dtype=torch.float64)
    mass = at(Mixture(["poisson", "negative_binomial"]), 0.4, 1.0, 2.0, -1.0)
    assert float(torch.exp(mass.log_prob(Batch({"y": counts}))).detach().sum()) == pytest.approx(1, abs=1e-12)


def test_responsibilities_are_bayes_rule_and_sum_to_one_however_far_the_row():
    y = torch.tensor([-1.0, 0.5, 60.0, -900.0], dtype=torch.float64)
    r = two_normals().responsibilities(Batch({"y": y}))
    assert torch.allclose(r.sum(1), torch.ones(4, dtype=torch.float64), atol=1e-15)
    a, b = 0.3 * stats.norm(-1.0, 0.5).pdf(0.5), 0.7 * stats.norm(2.0, 1.5).pdf(0.5)
    assert float(r[1, 0]) == pytest.approx(a / (a + b), rel=1e-13)


def test_draws_and_the_mean_are_those_of_the_mixture():
    """E = Σ π μ = 1.1, Var = Σ π (σ² + μ²) − 1.1² = 3.54."""
    model, rows = two_normals(), Batch({"y": torch.zeros(200_000, dtype=torch.float64)})
    drawn = model.sample(rows, generator=torch.Generator().manual_seed(0))
    assert float(model.mean(rows)[0]) == pytest.approx(1.1, rel=1e-14)
    assert float(drawn.mean()) == pytest.approx(1.1, abs=5 * math.sqrt(3.54 / 2e5))
    assert float(drawn.var()) == pytest.approx(3.54, rel=0.03)


# ---- derivatives -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_and_the_information_are_those_of_automatic_differentiation(name):
    """Fisher's identity and Louis' (1982), against two passes of reverse mode through logsumexp, rows
    weighted."""
    model, batch = CASES[name]
    weight = torch.arange(len(batch), dtype=torch.float64) % 4
    own, plain = model.taylor(batch, weight), taylor(Plain(model), batch, weight)
    assert float(own.value) == pytest.approx(float(plain.value), rel=1e-13)
    torch.testing.assert_close(own.gradient, plain.gradient, rtol=1e-9, atol=1e-9)
    assert own.information is not None
    assert plain.information is not None
    torch.testing.assert_close(own.information.dense(), plain.information.dense(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_the_scores_of_rows_are_those_of_automatic_differentiation(name):
    model, batch = CASES[name]
    with torch.enable_grad():
        plain = jacobian(Plain(model).log_prob(batch), list(model.parameters()))
    torch.testing.assert_close(scores_of(model, batch), plain, rtol=1e-9, atol=1e-10)


def test_a_row_that_a_component_cannot_have_produced_says_nothing_of_it():
    """A gamma gives y ≤ 0 probability zero: its derivatives there are 0, not NaN."""
    model = at(Mixture(["normal", "gamma"]), 0.0, 0.0, 0.0, 0.3, -0.5)
    batch = Batch({"y": torch.tensor([-2.0, -0.5, 1.0, 3.0], dtype=torch.float64)})
    found = model.taylor(batch)
    assert math.isfinite(float(found.value))
    assert found.information is not None
    assert bool(torch.isfinite(found.information.dense()).all())
    assert bool((scores_of(model, batch)[:2, 3:] == 0).all())


# ---- θ -----------------------------------------------------------------------------------------------------


def test_components_that_are_alike_are_put_in_order_and_p_does_not_change():
    model = at(Mixture("normal", 3), 0.3, -0.8, 2.0, 0.1, -1.0, -0.2, 0.5, 0.4)
    batch, before = Batch({"y": numbers()}), None
    before = model.log_prob(batch).detach()
    set_theta(model, model.canonical(get_theta(model)))
    torch.testing.assert_close(model.log_prob(batch).detach(), before, rtol=1e-13, atol=1e-13)
    means = model.natural(get_theta(model))[3::2]
    assert bool((means.diff() > 0).all())


def test_components_that_are_not_alike_keep_their_places():
    model = at(Mixture(["normal", "student_t", "normal"]), 0.3, -0.8, 2.0, 0.1, -1.0, -0.2, 0.5, -4.0, 0.4)
    ordered = model.natural(model.canonical(get_theta(model)))
    assert ordered[[3, 8]].tolist() == [-4.0, 2.0]
    assert float(ordered[5]) == -1.0


def test_weights_are_reported_whole_and_priors_name_their_logits():
    model = Mixture("poisson", 3)
    assert model.names == ["weight[0]", "weight[1]", "weight[2]", "0: mean", "1: mean", "2: mean"]
    assert model.coefficient_names == ["logit[1]", "logit[2]", "0: mean", "1: mean", "2: mean"]
    assert float(model.natural(get_theta(shaken(model)))[:3].sum()) == pytest.approx(1, abs=1e-15)


# ---- formulas of the maximum -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", th.families.registry)
def test_where_a_family_has_a_formula_for_its_maximum_the_score_vanishes_there(name):
    """Weighted rows drawn from the family itself; Σ w ∂ log p/∂η = 0."""
    from ..families.examples import EXAMPLES

    family, parameters, extras = EXAMPLES[name][0]
    generator = torch.Generator().manual_seed(2)
    own = {k: torch.full((80,), v, dtype=torch.float64) for k, v in extras.items()}
    y = family.sample(
        *(torch.full((80,), v, dtype=torch.float64) for v in parameters), generator=generator, **own
    )
    weight = torch.rand(80, dtype=torch.float64, generator=generator)
    found = family.maximum(y, weight, **own)
    if found is None:
        return
    eta = [
        p.link(torch.tensor(v, dtype=torch.float64))
        for p, v in zip(family.parameters.values(), found, strict=True)
    ]
    _, score, _ = family.derivatives(y, eta, own, order=1)
    for s in score:
        assert abs(float(weight @ s)) < 1e-9 * float(weight @ s.abs() + 1)


def test_the_families_that_have_a_formula_for_their_maximum():
    """The list itself, so that a formula that is lost is noticed."""
    families = th.families.registry
    base = th.families.Family.maximum
    found = {name for name, family in families.items() if family.maximum is not base}
    assert found == {
        *(
            "normal",
            "lognormal",
            "poisson",
            "geometric",
            "exponential",
            "bernoulli",
            "binomial",
            "inverse_gaussian",
        ),
        "multivariate_normal",
        "independent",
    }


def test_a_singular_covariance_has_no_maximum():
    y = torch.stack([numbers(20), 2 * numbers(20)], 1)
    found = MultivariateNormal(2).maximum(y, torch.ones(20, dtype=torch.float64))
    assert not all(math.isfinite(v) for v in found)


# ---- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("components", "k", "says"),
    [
        (["normal", "poisson"], None, "density and a mass"),
        ("normal", None, "k=None"),
        ("normal", 0, "k=0"),
        ("normal", True, "k=True"),
        ("norml", 2, "Nearest: 'normal'"),
        ([], None, "at least one"),
        (["normal", "normal"], 2, "k=2"),
        ([MultivariateNormal(2), MultivariateNormal(3)], None, "different lengths: 2, 3"),
        ([MultivariateNormal(2), "normal"], None, "different lengths: 2, None"),
        (3, 2, "received int"),
    ],
)
def test_components_that_make_no_mixture_are_refused_by_name(components, k, says):
    with pytest.raises(BadArgument, match=says):
        Mixture(components, k)


def test_regressions_of_two_tables_make_no_mixture():
    data = {"y": [1.0, 2.0, 4.0], "x": [0.0, 1.0, 2.0]}
    first, second = (regressions("y ~ x", data, 1)[0].components[0] for _ in range(2))
    with pytest.raises(BadArgument, match="one table"):
        Mixture([first, second])
    with pytest.raises(BadArgument, match="one table"):
        Mixture([first, "normal"])


def test_rows_that_no_component_describes_are_named():
    with pytest.raises(NotFinite, match="row 2"):
        th.fit(Mixture("normal", 2), np.array([0.0, 1.0, np.nan]))
    with pytest.raises(OutOfSupport, match=r"row 1.*Poisson.*Geometric"):
        th.fit(Mixture(["poisson", "geometric"]), np.array([0.0, -1.0, 2.0]))
    with pytest.raises(BadArgument, match="a, b"):
        th.fit(Mixture("normal", 2), {"a": [0.0, 1.0], "b": [1.0, 2.0]})
    with pytest.raises(BadArgument, match="2 components"):
        th.fit(Mixture(MultivariateNormal(2), 2), {"a": [0.0, 1.0], "b": [1.0, 2.0], "c": [1.0, 2.0]})
    with pytest.raises(UnknownColumn, match="times"):
        th.fit(Mixture("normal", 2), {"y": [0.0, 1.0], "n": [1.0, 2.0]}, weights="times")
    with pytest.raises(UnknownColumn, match="trials"):
        th.fit(Mixture("binomial", 2), {"y": [0.0, 1.0]})


# ---- the data ----------------------------------------------------------------------------------------------


def test_a_source_counted_otherwise_has_the_same_rows():
    source = Tensors({"y": numbers(5)}, block=2)
    counts = [torch.full((len(b),), 3.0, dtype=torch.float64) for b in source.batches()]
    recounted = Recounted(source, counts)
    assert recounted.size == 5
    assert sum(b.total for b in recounted.batches()) == 15
    torch.testing.assert_close(torch.cat([b["y"] for b in recounted.batches()]), source.whole["y"])


def test_a_table_an_array_and_tensors_are_the_same_rows():
    """Columns make a vector in their order; a column may weigh the rows."""
    model = Mixture(MultivariateNormal(2), 2)
    X = np.random.default_rng(0).normal(size=(30, 2))
    array, table = model.source(X), model.source({"a": X[:, 0], "n": np.full(30, 2.0), "b": X[:, 1]}, "n")
    tensors = model.source({"y": torch.from_numpy(X)})
    assert array is not None
    assert table is not None
    assert tensors is not None
    assert array.fingerprint == tensors.fingerprint
    assert torch.equal(next(iter(table.batches()))["y"], torch.from_numpy(X))
    assert next(iter(table.batches())).total == 60
