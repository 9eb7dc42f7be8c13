"""Labels of several annotators, soft labels and noisy ones: each is a likelihood, and what it is, is checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import thetahat as th
from thetahat.errors import BadArgument, ModelError
from thetahat.models import Conditional

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randint(4, (40,), generator=torch.Generator().manual_seed(1))


def network(outputs: int = 4, seed: int = 0) -> nn.Module:
    return th.networks.mlp(3, (), outputs, seed=seed, dtype=torch.float64)


def fitted(model, rows) -> th.Fit:
    return th.fit(model, rows, solver=th.LBFGS(), on_failure="return")


@pytest.mark.parametrize("outputs", [3, 4], ids=["log odds", "logits"])
def test_counts_of_annotators_are_as_many_rows(outputs):
    """The oracle is each label in a row of its own."""
    counts = torch.randint(3, (40, 4), generator=torch.Generator().manual_seed(2))
    model = Conditional(th.families.Categorical(4), network(outputs))
    found = model.log_prob(th.data.Batch({"x": X, "y": counts})).detach()
    row = torch.repeat_interleave(torch.arange(40).repeat_interleave(4), counts.reshape(-1))
    label = torch.repeat_interleave(torch.arange(4).repeat(40), counts.reshape(-1))
    each = model.log_prob(th.data.Batch({"x": X[row], "y": label})).detach()
    wanted = torch.zeros(40, dtype=torch.float64).index_add(0, row, each)
    torch.testing.assert_close(found, wanted)


def test_soft_labels_are_the_mean_over_labels_and_one_hot_ones_are_codes():
    model = Conditional(th.families.Categorical(4), network())
    soft = torch.softmax(
        torch.randn(40, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64), -1
    )
    found = model.log_prob(th.data.Batch({"x": X, "y": soft})).detach()
    torch.testing.assert_close(
        found, -nn.functional.cross_entropy(model.network(X), soft, reduction="none").detach()
    )
    hot = nn.functional.one_hot(Y, 4)
    codes = model.log_prob(th.data.Batch({"x": X, "y": Y})).detach()
    torch.testing.assert_close(model.log_prob(th.data.Batch({"x": X, "y": hot})).detach(), codes)


def test_label_smoothing_of_torch_is_a_soft_label():
    """ε/K beside 1 − ε."""
    eps = 0.1
    soft = (1 - eps) * nn.functional.one_hot(Y, 4).double() + eps / 4
    model = Conditional(th.families.Categorical(4), network())
    wanted = -nn.functional.cross_entropy(model.network(X), Y, reduction="none", label_smoothing=eps).detach()
    torch.testing.assert_close(model.log_prob(th.data.Batch({"x": X, "y": soft})).detach(), wanted)


def test_label_noise_is_the_likelihood_of_labels_that_were_exchanged():
    """log[(1 − ε) p_y + ε/K]; and a fit finds the classifier behind them, of infinite slopes but for the noise."""
    model = Conditional(th.families.Categorical(4), network(), label_noise=0.2)
    p = torch.softmax(model.network(X), -1).detach()
    wanted = torch.log(0.8 * p[torch.arange(40), Y] + 0.05)
    torch.testing.assert_close(model.log_prob(th.data.Batch({"x": X, "y": Y})).detach(), wanted)
    g = np.random.default_rng(0)
    x = g.normal(size=(4000, 3))
    truth = g.normal(size=(3, 3))
    odds = np.concatenate([np.zeros((4000, 1)), x @ truth], 1)
    y = (odds + g.gumbel(size=odds.shape)).argmax(1)
    noisy = np.where(g.random(4000) < 0.3, g.integers(0, 4, 4000), y)
    rows = {"x": torch.from_numpy(x), "y": torch.from_numpy(noisy)}
    errors = []
    for noise in (0.0, 0.3):
        fit = fitted(Conditional(th.families.Categorical(4), network(3), label_noise=noise), rows)
        errors.append(float((fit.model.network[0].weight.detach().T - torch.from_numpy(truth)).abs().max()))
    assert errors[1] < 0.25 < errors[0]


def test_a_categorys_share_that_is_negative_and_a_code_that_is_none_are_impossible():
    model = Conditional(th.families.Categorical(4), network(), label_noise=0.1)
    y = torch.full((40, 4), 0.25, dtype=torch.float64)
    y[3, 0] = -0.1
    assert torch.isinf(model.log_prob(th.data.Batch({"x": X, "y": y})).detach()).nonzero().tolist() == [[3]]
    codes = Y.clone()
    codes[5] = 4
    assert torch.isinf(model.log_prob(th.data.Batch({"x": X, "y": codes})).detach()).nonzero().tolist() == [
        [5]
    ]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ModelError, match="has 5 categories a row"):
        Conditional(th.families.Categorical(4), network()).log_prob(
            th.data.Batch({"x": X, "y": torch.ones(40, 5)})
        )
    with pytest.raises(BadArgument, match="label_noise=1"):
        Conditional(th.families.Categorical(4), network(), label_noise=1.0)
    with pytest.raises(BadArgument, match="of a Categorical"):
        Conditional(th.families.Normal(), network(), label_noise=0.1)


def test_a_network_learns_from_soft_labels_and_is_saved_with_its_noise(tmp_path):
    soft = 0.9 * nn.functional.one_hot(Y, 4).float() + 0.025
    model = Conditional(th.families.Categorical(4), th.networks.mlp(3, 8, 4), label_noise=0.05)
    fit = th.fit(model, {"x": X.float(), "y": soft}, solver=th.Stochastic(steps=20, batch_size=8))
    assert fit.certificate.trend is not None
    assert th.load(fit.save(tmp_path / "a.thetahat")).model.label_noise == 0.05
