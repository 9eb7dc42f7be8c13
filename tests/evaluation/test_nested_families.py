"""Likelihood-ratio tests of a family within another: R's figures, the mixture at an edge, refusals by name."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

import thetahat as th
from thetahat.errors import BadArgument

# R: InsectSprays, warpbreaks
SPRAYS = {
    "count": [
        10, 7, 20, 14, 14, 12, 10, 23, 17, 20, 14, 13, 11, 17, 21, 11, 16, 14, 17, 17, 19, 21, 7, 13, 0, 1, 7, 2, 3, 1, 2, 1, 3,
        0, 1, 4, 3, 5, 12, 6, 4, 3, 5, 5, 5, 5, 2, 4, 3, 5, 3, 5, 3, 6, 1, 1, 3, 2, 6, 4, 11, 9, 15, 22, 15, 16, 13, 10, 26, 26,
        24, 13,
    ],
    "spray": list(np.repeat(list("ABCDEF"), 12)),
}  # fmt: skip
WARP = {
    "breaks": [
        26.0, 30, 54, 25, 70, 52, 51, 26, 67, 18, 21, 29, 17, 12, 18, 35, 30, 36, 36, 21, 24, 18, 10, 43, 28, 15, 26, 27, 14, 29,
        19, 29, 31, 41, 20, 44, 42, 26, 19, 16, 39, 28, 21, 39, 29, 20, 21, 24, 17, 13, 15, 15, 16, 28,
    ],
    "tension": [t for _ in range(2) for t in "LMH" for _ in range(9)],
}  # fmt: skip


def sprays(family: str, formula: str = "count ~ spray") -> th.Fit:
    return th.fit(formula, SPRAYS, family)


def test_poisson_in_negative_binomial_is_half_of_r_s_p() -> None:
    """R 4, MASS: 2*(logLik(glm.nb(count ~ spray, InsectSprays)) - logLik(glm(…, poisson))), .5*pchisq(., 1, lower = FALSE)."""
    found = th.anova(sprays("negative_binomial"), sprays("poisson")).iloc[1]
    assert found["statistic"] == pytest.approx(4.37132441246, rel=1e-8)
    assert found["p_value"] == pytest.approx(0.0182742873197, rel=1e-8)
    assert found["reference"] == "0.5·χ²(0) + 0.5·χ²(1)"


def test_exponential_in_weibull_is_that_of_survreg() -> None:
    """R 4, survival: anova(survreg(Surv(breaks) ~ tension, warpbreaks, dist = "exponential"), survreg(…, "weibull"))."""
    fits = [th.fit("breaks ~ tension", WARP, family) for family in ("exponential", "weibull", "gamma")]
    found = th.anova(*fits[:2]).iloc[1]
    assert found["statistic"] == pytest.approx(60.9087515773, rel=1e-8)
    assert found["p_value"] == pytest.approx(5.97824890917e-15, rel=1e-6)
    assert found["reference"] == "χ²(1)"
    of_gamma = th.anova(fits[0], fits[2]).iloc[1]
    assert of_gamma["statistic"] == pytest.approx(2 * (fits[2].log_likelihood - fits[0].log_likelihood))
    with pytest.raises(BadArgument, match=r"Gamma\(\).*Weibull\(\)|Weibull\(\).*Gamma\(\)"):
        th.anova(*fits[1:])


def test_more_columns_and_an_edge_add_up() -> None:
    """Five coefficients and the dispersion: ½·χ²(5) + ½·χ²(6)."""
    found = th.anova(sprays("poisson", "count ~ 1"), sprays("negative_binomial")).iloc[1]
    s = found["statistic"]
    assert found["p_value"] == pytest.approx(0.5 * chi2.sf(s, 5) + 0.5 * chi2.sf(s, 6), rel=1e-10)


def test_a_chain_of_counts_and_two_edges_are_bounded() -> None:
    fits = [sprays(f) for f in ("poisson", "negative_binomial", "zero_inflated(negative_binomial)")]
    table = th.anova(*fits)
    assert list(table["reference"].iloc[1:]) == ["0.5·χ²(0) + 0.5·χ²(1)"] * 2
    both = th.anova(fits[0], fits[2]).iloc[1]
    assert both["reference"] == "≤ 0.5·χ²(1) + 0.5·χ²(2)"
    s = both["statistic"]
    assert both["p_value"] == pytest.approx(0.5 * chi2.sf(s, 1) + 0.5 * chi2.sf(s, 2), rel=1e-10)
    assert "ZeroInflated" in table.index[2]


def test_normal_in_student_t_at_the_edge_has_p_1_and_with_heavy_tails_a_small_one() -> None:
    """Of normal errors the likelihood may be highest at ν → ∞: the fit is the normal one, and the ratio is 0."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=300)
    for noise, low, high in ((rng.uniform(-1, 1, 300), 1.0, 1.0), (rng.standard_t(2, 300), 0.0, 1e-10)):
        data = {"x": x, "y": x + noise}
        found = th.anova(th.fit("y ~ x", data), th.fit("y ~ x", data, "student_t")).iloc[1]
        assert low <= found["p_value"] <= high


def test_what_is_not_nested_is_refused_by_name() -> None:
    with pytest.raises(BadArgument, match=r"Poisson\(\).*Hurdle"):
        th.anova(sprays("poisson"), sprays("hurdle(poisson)"))
    data = SPRAYS | {"z": np.tile([0.0, 1.0, 2.0], 24)}
    varying = th.fit("count ~ z", data, "negative_binomial", dispersion="~ z")
    with pytest.raises(BadArgument, match="predictors of dispersion"):
        th.anova(th.fit("count ~ z", data, "poisson"), varying)
    held = th.fit("count ~ spray", SPRAYS, "negative_binomial", dispersion=0.1)
    with pytest.raises(BadArgument, match=r"dispersion .* is held at 0\.1"):
        th.anova(sprays("poisson", "count ~ 1"), held)
