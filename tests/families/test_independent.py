"""Independent components: products of probabilities by hand, and a normal vector with a diagonal covariance."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import thetahat as th
from thetahat.errors import BadArgument, ModelError
from thetahat.families import Bernoulli, Binomial, Independent, MultivariateNormal, Normal


def test_the_probabilities_of_all_vectors_of_labels_are_products_and_sum_to_one():
    p = (0.2, 0.5, 0.9)
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)), dtype=torch.float64)
    found = Independent(Bernoulli(), 3).log_prob(every, *torch.tensor(p, dtype=torch.float64)).exp()
    by_hand = [math.prod(q if y else 1 - q for q, y in zip(p, row, strict=True)) for row in every.tolist()]
    assert found.tolist() == pytest.approx(by_hand, rel=1e-14)
    assert float(found.sum()) == pytest.approx(1, rel=1e-14)


def test_normals_are_the_multivariate_normal_with_a_diagonal_factor():
    y = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = Independent(Normal(), 2).log_prob(y, *torch.tensor([0.3, 1.7, -1.0, 0.4], dtype=torch.float64))
    factor = torch.tensor([0.3, -1.0, 1.7, 0.0, 0.4], dtype=torch.float64)
    torch.testing.assert_close(ours, MultivariateNormal(2).log_prob(y, *factor), rtol=1e-12, atol=0)


def test_a_classifier_of_several_labels_is_one_logistic_regression_a_label():
    """The likelihood is a product, so that the fit of three labels is three fits, each by formula."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(200, 2, generator=g, dtype=torch.float64)
    y = (
        torch.rand(200, 3, generator=g)
        < torch.sigmoid(x @ torch.randn(2, 3, generator=g, dtype=torch.float64))
    ).double()
    network = torch.nn.Linear(2, 3, dtype=torch.float64)
    fit = th.fit(th.models.Conditional(Independent(Bernoulli(), 3), network), {"x": x, "y": y})
    assert fit.certificate.status == "certified maximum"
    apart = 0.0
    for j in range(3):
        rows = {"y": y[:, j].numpy(), "a": x[:, 0].numpy(), "b": x[:, 1].numpy()}
        one = th.fit("y ~ a + b", rows, family="bernoulli")
        apart += one.log_likelihood
        torch.testing.assert_close(
            fit.model.network.weight[j].detach(),
            torch.tensor(one.estimates.to_numpy()[1:]),
            rtol=1e-5,
            atol=1e-7,
        )
    assert fit.log_likelihood == pytest.approx(apart, rel=1e-9)
    batch = th.data.Batch({"x": x, "y": y})
    with torch.no_grad():
        guess = torch.sigmoid(fit.model.network(x)) > 0.5
    right = (guess == y.bool()).float().mean(-1)
    torch.testing.assert_close(fit.model.diagnostics(batch)["accuracy"], right)


def test_what_cannot_be_independent_components_is_refused():
    for build, said in (
        (lambda: Independent(Bernoulli(), 0), "k=0"),
        (lambda: Independent(Binomial(), 2), "without further data"),
        (lambda: Independent(MultivariateNormal(2), 2), "single numbers"),
        (lambda: Independent("bernoulli", 2), "not a family"),
        (lambda: Independent(Bernoulli(), 2, link="probit"), "belongs to the family inside"),
    ):
        with pytest.raises(BadArgument, match=said):
            build()
    model = th.models.Conditional(Independent(Bernoulli(), 3), torch.nn.Linear(2, 3))
    with pytest.raises(ModelError, match="a vector of 3 a row"):
        model.log_prob(th.data.Batch({"x": torch.zeros(4, 2), "y": torch.zeros(4, 2)}))
