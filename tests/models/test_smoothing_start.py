"""Fellner–Schall steps against the maximum that Newton's method certifies, and against the identity that they rest on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import thetahat as th
from thetahat.models.mixed import Mixed


def table(n: int = 600) -> pd.DataFrame:
    """A wave in x, a bend in z, a straight line in v, nothing in w."""
    g = np.random.default_rng(4)
    x, z, v, w = g.random((4, n))
    f = np.sin(6 * x) + (2 * z - 1) ** 2 + v
    return pd.DataFrame(
        {"x": x, "z": z, "v": v, "w": w, "y": f + 0.3 * g.normal(size=n), "k": g.poisson(np.exp(f))}
    )


FORMULA = "s(x, bs='cr') + s(z, bs='cr') + s(v, bs='cr') + s(w, bs='cr')"


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize(("response", "family"), [("y", "normal"), ("k", "poisson")])
def test_the_start_is_near_the_certified_maximum(response: str, family: str, reml: bool) -> None:
    fit = th.fit(f"{response} ~ {FORMULA}", table(), family, reml=reml)
    model, source = fit.model, fit.objective.terms[0].source
    assert isinstance(model, Mixed)
    phi = model.start(source)[len(model.coefficients) :].abs()
    end = fit.theta[len(model.coefficients) :].abs()
    alive = end > 0.02 * model.evaluator(next(iter(source.batches(model))), None).typical
    assert int(alive.sum()) >= 2
    assert float((phi / end)[alive].log().abs().max()) < 0.1
    assert bool((phi[~alive] < 0.1 * phi[alive].min()).all())


def test_at_a_maximum_a_term_spends_what_the_data_determine() -> None:
    """uᵀu/σ² = tr(I − H⁻¹) over a term's columns, at the restricted maximum of a normal response: written out densely."""
    data = table(300)
    fit = th.fit("y ~ s(x, bs='cr') + s(z, bs='cr')", data, reml=True)
    batch = next(iter(fit.objective.terms[0].source.batches(fit.model)))
    Z = [batch[f"smooth{i}"].numpy() for i in range(2)]
    X = np.column_stack([np.ones(len(data)), batch["x0"].numpy()])
    sigma, phi = float(fit.estimates["scale"]), fit.theta[-2:].abs().numpy()
    W = np.hstack([*(z * p for z, p in zip(Z, phi, strict=True)), X])
    m = sum(z.shape[1] for z in Z)
    H = W.T @ W + np.diag(np.r_[np.ones(m), np.zeros(X.shape[1])])
    u, inverse = np.linalg.solve(H, W.T @ data["y"].to_numpy()), np.linalg.inv(H)
    for own in (slice(0, Z[0].shape[1]), slice(Z[0].shape[1], m)):
        spent = float((u[own] ** 2).sum()) / sigma**2
        determined = float((1 - np.diag(inverse)[own]).sum())
        assert spent == pytest.approx(determined, rel=1e-6)


def test_a_start_that_fails_is_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from thetahat.models import smoothing_start
    from thetahat.models.elimination import NotPositiveDefinite

    def fails(*_: object) -> bool:
        raise NotPositiveDefinite

    data = table(200)
    wanted = th.fit(f"y ~ {FORMULA}", data, reml=True)
    monkeypatch.setattr(smoothing_start.Scaling, "step", fails)
    found = th.fit(f"y ~ {FORMULA}", data, reml=True)
    assert found.maximised == pytest.approx(wanted.maximised, abs=1e-7)
    torch.testing.assert_close(found.theta.abs(), wanted.theta.abs(), rtol=1e-4, atol=1e-5)
