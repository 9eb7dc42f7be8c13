"""Every loss is the −log p of its family, up to a constant."""

import pytest
import torch
from torch.nn import functional as F

from thetahat.errors import BadArgument
from thetahat.families import loss
from thetahat.families.losses import LOSSES

D = torch.float64
ETA = torch.linspace(-4, 4, 41, dtype=D)


@pytest.mark.parametrize(
    ("name", "level", "of"),
    [
        ("squared", None, lambda r: F.mse_loss(r, 0 * r, reduction="none") / 2),
        ("absolute", None, lambda r: F.l1_loss(r, 0 * r, reduction="none")),
        ("huber", None, lambda r: F.huber_loss(r, 0 * r, delta=1.345, reduction="none")),
        ("huber", 0.5, lambda r: F.huber_loss(r, 0 * r, delta=0.5, reduction="none")),
        ("pinball", None, lambda r: r.abs() / 2),
        ("pinball", 0.9, lambda r: torch.where(r >= 0, 0.9 * r, -0.1 * r)),
        ("log_cosh", None, lambda r: torch.log(torch.cosh(r))),
    ],
)
def test_a_loss_of_residuals_is_minus_log_p_at_scale_1(name, level, of):
    y = torch.tensor(0.7, dtype=D)
    difference = -loss(name, level).log_prob(y, ETA, torch.ones_like(ETA)) - of(y - ETA)
    torch.testing.assert_close(difference, difference[:1].expand_as(difference), rtol=0.0, atol=1e-13)


@pytest.mark.parametrize("y", [0.0, 1.0])
def test_the_logistic_loss_is_minus_log_p(y):
    y = torch.full_like(ETA, y)
    expected = F.binary_cross_entropy_with_logits(ETA, y, reduction="none")
    torch.testing.assert_close(-loss("logistic").log_prob_eta(y, ETA), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("y", [0.0, 3.0])
def test_the_poisson_loss_is_minus_log_p(y):
    y = torch.full_like(ETA, y)
    difference = -loss("poisson").log_prob_eta(y, ETA) - F.poisson_nll_loss(ETA, y, reduction="none")
    torch.testing.assert_close(difference, difference[:1].expand_as(difference), rtol=0.0, atol=1e-13)


@pytest.mark.parametrize("y", [0, 1, 2])
def test_cross_entropy_is_minus_log_p(y):
    logits = torch.stack([0 * ETA, ETA, ETA.flip(0) / 3], dim=1)
    expected = F.cross_entropy(logits, torch.full((len(ETA),), y), reduction="none")
    family = loss("cross_entropy").with_categories(3)
    value = -family.log_prob_eta(torch.full_like(ETA, y), logits[:, 1], logits[:, 2])
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_the_table_has_its_family(name):
    assert type(loss(name)).__name__ in loss.__doc__
    assert name in loss.__doc__


def test_hinge_is_no_likelihood():
    for name in ("hinge", "squared_hinge"):
        with pytest.raises(BadArgument, match="not a likelihood"):
            loss(name)


def test_mistakes_are_named():
    with pytest.raises(BadArgument, match="Nearest: 'huber'"):
        loss("hubber")
    with pytest.raises(BadArgument, match="has no level"):
        loss("squared", 0.5)
    with pytest.raises(BadArgument, match="strictly between 0 and 1"):
        loss("pinball", 1.5)
