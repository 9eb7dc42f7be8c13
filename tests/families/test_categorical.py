"""The categorical family against torch's cross-entropy, its automatic derivatives and the logistic model."""

import numpy as np
import pytest
import torch

from thetahat.errors import BadArgument
from thetahat.families import Bernoulli, Categorical

from . import count_checks as checks
from .count_checks import D

Y = torch.tensor([0.0, 1.0, 2.0, 3.0, 1.0], dtype=D)
ETA = list(torch.randn(3, 5, dtype=D, generator=torch.Generator().manual_seed(3)) * 2)


def test_log_prob_is_minus_the_cross_entropy():
    logits = torch.stack([torch.zeros(5, dtype=D), *ETA], 1)
    expected = -torch.nn.functional.cross_entropy(logits, Y.long(), reduction="none")
    torch.testing.assert_close(Categorical(4).log_prob(Y, *ETA), expected)
    torch.testing.assert_close(Categorical(4).log_prob_eta(Y, *ETA), expected)


def test_a_networks_k_logits_say_the_same_as_their_k_minus_1_differences():
    logits = [torch.full((5,), 0.7, dtype=D), *(e + 0.7 for e in ETA)]
    torch.testing.assert_close(Categorical(4).log_prob(Y, *logits), Categorical(4).log_prob(Y, *ETA))
    torch.testing.assert_close(Categorical(4).probabilities(*logits), Categorical(4).probabilities(*ETA))
    checks.hand_is_automatic(Categorical(4), Y, logits)


def test_two_categories_are_bernoulli():
    y, eta = torch.tensor([0.0, 1.0, 1.0], dtype=D), torch.tensor([0.4, -3.0, 60.0], dtype=D)
    torch.testing.assert_close(Categorical(2).log_prob(y, eta), Bernoulli().log_prob_eta(y, eta))


def test_probabilities_sum_to_1_and_are_those_of_log_prob():
    p = Categorical(4).probabilities(*ETA)
    assert p.shape == (5, 4)
    torch.testing.assert_close(p.sum(-1), torch.ones(5, dtype=D))
    for j in range(4):
        torch.testing.assert_close(
            torch.log(p[:, j]), Categorical(4).log_prob(torch.full((5,), float(j), dtype=D), *ETA)
        )


def test_any_shape_of_rows_is_accepted():
    y, eta = torch.randint(4, (2, 3)), [e[:3].expand(2, 3) for e in ETA]
    assert Categorical(4).log_prob(y, *eta).shape == (2, 3)
    torch.testing.assert_close(
        Categorical(4).log_prob(y, *eta)[1], Categorical(4).log_prob(y[1], *(e[1] for e in eta))
    )
    assert Categorical(4).probabilities(*eta).shape == (2, 3, 4)


def test_a_code_outside_has_no_probability():
    assert torch.isneginf(Categorical(3).log_prob(torch.tensor([-1.0, 3.0, 0.5]), *torch.zeros(2, 3))).all()
    assert not Categorical(3).in_support(torch.tensor([-1.0, 3.0, 0.5])).any()


def test_hand_written_derivatives_are_the_automatic_ones():
    checks.hand_is_automatic(Categorical(4), Y, ETA)
    checks.hand_is_automatic(Categorical(4), Y, [e[:1] for e in ETA])
    checks.hand_is_automatic(Categorical(4), Y, [ETA[0][:1], *ETA[1:]])
    checks.automatic_is_difference(Categorical(4), Y, ETA)


def test_no_eta_makes_nan():
    checks.never_nan(Categorical(3), torch.tensor([0.0, 1.0, 2.0], dtype=D), [-1e5, -50.0, 0.0, 50.0, 1e5])


def test_samples_have_the_stated_probabilities():
    family, n = Categorical(4), 100_000
    draws, again = (
        family.sample(*(e[0].expand(n) for e in ETA), generator=torch.Generator().manual_seed(1))
        for _ in range(2)
    )
    assert torch.equal(draws, again)
    p = family.probabilities(*(e[0] for e in ETA))
    share = torch.bincount(draws.long(), minlength=4) / n
    assert ((share - p).abs() < 5 * (p * (1 - p) / n).sqrt()).all()


def test_a_start_is_the_observed_log_odds_and_finite_for_empty_categories():
    start = Categorical(3).start(torch.tensor([0.0] * 1000 + [1.0] * 3000), torch.ones(4000))
    assert abs(start[0] - np.log(3)) < 1e-3
    assert np.isfinite(start).all()


def test_every_log_odds_has_the_predictors_of_the_main_formula():
    parameters = Categorical(3).parameters
    assert list(parameters) == ["logit_1", "logit_2"]
    assert all(p.own_predictors for p in parameters.values())
    assert Categorical().with_categories(3) == Categorical(3)
    assert Categorical(3).concave


def test_what_is_unknown_or_wrong_is_said():
    with pytest.raises(BadArgument, match="with_categories"):
        _ = Categorical().parameters
    with pytest.raises(BadArgument, match="2 or more"):
        Categorical(1)
    with pytest.raises(BadArgument, match="no link"):
        Categorical(3, link="probit")
    with pytest.raises(BadArgument, match="it was given 1"):
        Categorical(3).log_prob(torch.zeros(2), torch.zeros(2))
    with pytest.raises(BadArgument, match="no expectation"):
        Categorical(3).expectation(torch.zeros(2), torch.zeros(2))


def test_along_a_recession_direction_the_log_probability_never_falls():
    """A d ≥ 0 exactly where log p(y | t·d) rises, or stays, all the way to t = 1000."""
    y = torch.tensor([0.0, 1.0, 2.0], dtype=D)
    A, equality = Categorical(3).recession(y)
    assert not equality.any()
    for d in torch.randn(50, 2, dtype=D, generator=torch.Generator().manual_seed(2)):
        path = torch.stack(
            [Categorical(3).log_prob(y, *(t * e.expand(3) for e in d)) for t in (0.0, 1.0, 10.0, 1000.0)]
        )
        assert torch.equal(((A @ d) >= 0).all(1), (path.diff(dim=0) >= 0).all(0))
