"""A family at given parameters."""

from __future__ import annotations

import pytest
import torch

import thetahat as th


def test_it_answers_as_the_family_does() -> None:
    y = torch.tensor([0.5, 2.0], dtype=torch.float64)
    mean, scale = torch.tensor([0.0, 1.0], dtype=torch.float64), 2.0
    found = th.families.Normal().at(mean, scale)
    standard = torch.distributions.Normal(mean, torch.tensor(2.0, dtype=torch.float64))
    assert torch.allclose(found.log_prob(y), standard.log_prob(y))
    assert torch.equal(found.mean.expand(2), mean)
    draws = [found.sample(torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws)


@pytest.mark.parametrize(
    ("parameters", "extras", "message"),
    [
        ((0.5,), {"trials": torch.ones(2), "n": torch.ones(2)}, r"no argument n=.*trials="),
        ((0.5, 1.0), {}, r"takes 1 parameters \(mean\); received 2"),
        ((), {}, "received 0"),
    ],
)
def test_what_is_refused(parameters, extras, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(th.errors.BadArgument, match=message):
        th.families.Binomial().at(*parameters, **extras)
