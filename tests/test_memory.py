"""What would not fit into memory is refused before it is made, with the number; what has thousands of classes
and fits is fitted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import thetahat as th
from thetahat import memory
from thetahat.data import Batch
from thetahat.errors import ModelError
from thetahat.families import Categorical
from thetahat.models import Conditional

K = 10_000


@pytest.fixture
def little(monkeypatch):
    """A machine with 3 GB free."""
    monkeypatch.setattr(memory, "free", lambda: 3e9)


def test_what_is_not_free_is_refused_with_the_number(little):
    memory.reserve(2.9e9, "it", "")
    with pytest.raises(ModelError, match=r"it needs about 30 GB of memory, and 3 GB are free. Do that."):
        memory.reserve(3e10, "it", "Do that.")


def test_what_is_free_is_what_the_system_says():
    """/proc/meminfo, to a quarter (other processes come and go); and a limit of the process itself where
    it has one."""
    found = memory.free()
    assert found is None or found > 2**20


@pytest.mark.parametrize("of", ["formula", "family"])
def test_ten_thousand_classes_by_formula_are_refused_before_the_first_step(of, little):
    """9,999 columns of log-odds and their pairs: 10⁸ k-vectors. The message says what would do."""
    y = np.random.default_rng(0).permutation(np.arange(2 * K) % K)
    call = (
        ("y ~ x", {"y": [f"c{v}" for v in y], "x": y % 7}, "categorical")
        if of == "formula"
        else (Categorical(K), y)
    )
    with pytest.raises(
        ModelError,
        match=r"Categorical\(k=10000\) of .* rows needs about [\d,]+ GB .* 3 GB are free.*Conditional",
    ):
        th.fit(*call)


@pytest.mark.parametrize("outputs", [K, K - 1])
def test_ten_thousand_classes_by_network_are_fitted(outputs, little):
    """As many logits as classes, or one fewer beside the 0 of class 0; log p is torch's cross entropy."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(300, 3, generator=g), torch.randint(0, K, (300,), generator=g)
    model = Conditional(Categorical(K), nn.Linear(3, outputs))
    logits = model.network(x)
    whole = logits if outputs == K else torch.cat([torch.zeros(300, 1), logits], 1)
    exact = -nn.functional.cross_entropy(whole, y, reduction="none")
    torch.testing.assert_close(model.log_prob(Batch({"x": x, "y": y})), exact)
    fit = th.fit(model, {"x": x, "y": y}, solver=th.Stochastic(steps=3, batch_size=32))
    assert fit.certificate.status == "stochastic"
    assert np.isfinite(fit.score({"x": x, "y": y}).mean)


def test_the_information_of_a_large_network_is_not_begun(little):
    """p² numbers, three times: 1.2 · 10¹⁰ of them."""
    model = Conditional(
        th.families.Normal(),
        nn.Sequential(nn.Linear(100, 200), nn.Tanh(), nn.Linear(200, 200), nn.Linear(200, 2)).double(),
    )
    g = torch.Generator().manual_seed(0)
    data = {
        "x": torch.randn(20, 100, generator=g, dtype=torch.float64),
        "y": torch.randn(20, generator=g, dtype=torch.float64),
    }
    with pytest.raises(
        ModelError,
        match=r"the information of 60,802 parameters needs about 89 GB .*th.Stochastic\(\) or th.LBFGS\(\)",
    ):
        th.fit(model, data, solver=th.Newton())
