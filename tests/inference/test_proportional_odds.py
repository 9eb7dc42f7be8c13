"""The test of proportional odds: figures of R's ordinal, and the library's own score test of the larger formula."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

import thetahat as th

# MASS::housing, its rows in order: satisfaction fastest, then influence, type, contact
COUNTS = [
    *(21, 21, 28, 34, 22, 36, 10, 11, 36, 61, 23, 17, 43, 35, 40, 26, 18, 54, 13, 9, 10, 8, 8, 12, 6, 7, 9, 18, 6, 7, 15, 13),
    *(13, 7, 5, 11, 14, 19, 37, 17, 23, 40, 3, 5, 23, 78, 46, 43, 48, 45, 86, 15, 25, 62, 20, 23, 20, 10, 22, 24, 7, 10, 21),
    *(57, 23, 13, 31, 21, 13, 5, 6, 13),
]  # fmt: skip
LEVELS = ("Low", "Medium", "High")
CELLS = itertools.product(
    ("Low", "High"), ("Tower", "Apartment", "Atrium", "Terrace"), ("Low", "Medium", "High"), LEVELS
)
HOUSING = pd.DataFrame(
    [(sat, infl, kind, cont, n) for (cont, kind, infl, sat), n in zip(CELLS, COUNTS, strict=True)],
    columns=["Sat", "Infl", "Type", "Cont", "Freq"],
)


def fitted(link: str = "logit", **thresholds: str) -> th.Fit:
    family = th.families.Ordinal(levels=LEVELS, link=link)
    return th.fit("Sat ~ Infl + Type + Cont", HOUSING, family, weights="Freq", **thresholds)


@pytest.mark.parametrize(
    ("link", "log_likelihood", "wanted"),
    [
        ("logit", -1739.574649530, [1.106453012, 5.733737053, 2.444552659]),
        ("probit", -1739.844421282, [1.778826433, 5.479272774, 2.542206608]),
    ],
)
def test_the_likelihood_ratio_is_r_s(link: str, log_likelihood: float, wanted: list[float]) -> None:
    """R 4.2.2, ordinal 2022.11.16: nominal_test(clm(Sat ~ Infl + Type + Cont, weights = Freq, data = MASS::housing, link = link))."""
    fit = fitted(link)
    assert fit.log_likelihood == pytest.approx(log_likelihood, abs=1e-7)
    found = fit.proportional_odds()
    assert found.index.tolist() == ["Infl", "Type", "Cont", "all"]
    np.testing.assert_allclose(found["statistic"].iloc[:3], wanted, rtol=2e-8)
    assert found["df"].tolist() == [2, 3, 1, 6]


def test_all_terms_together_are_r_s() -> None:
    """R: clm(Sat ~ 1, nominal = ~ Infl + Type + Cont, weights = Freq, data = MASS::housing), logLik −1735.28935004."""
    wanted = 2 * (1739.57464953 - 1735.28935004)
    assert fitted().proportional_odds().loc["all", "statistic"] == pytest.approx(wanted, abs=1e-7)


@pytest.mark.parametrize("term", ["Infl", "Type"])
def test_the_score_is_that_of_the_larger_formula(term: str) -> None:
    """The library's own test of δ = 0 in the fit whose second threshold has the term."""
    larger = fitted(threshold_2=f"~ {term}")
    names = [name for name in larger.names if name.startswith(f"threshold_2: {term}")]
    wanted = larger.test([f"`{name}` = 0" for name in names], "score")
    found = fitted().proportional_odds("score").loc[term]
    assert found["statistic"] == pytest.approx(wanted.statistic, rel=1e-7)
    assert found["df"] == wanted.df == len(names)
    assert found["p"] == pytest.approx(wanted.p_value, rel=1e-6)


def test_an_offset_is_of_the_location_alone() -> None:
    """A column as an offset with the coefficient that it would have leaves the test of the other term as it is."""
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(2, 300))
    y = np.digitize(x + 0.5 * z + rng.logistic(size=300), [-1.0, 0.5, 1.5])
    data = pd.DataFrame({"y": y, "x": x, "z": z})
    both = th.fit("y ~ x + z", data, "ordinal")
    data["o"] = both.estimates["z"] * z
    one = th.fit("y ~ x + offset(o)", data, "ordinal")
    assert one.log_likelihood == pytest.approx(both.log_likelihood, abs=1e-8)
    larger = th.fit("y ~ x + offset(o)", data, "ordinal", threshold_2="~ x", threshold_3="~ x")
    found = one.proportional_odds()
    assert found.loc["x", "statistic"] == pytest.approx(
        2 * (larger.log_likelihood - one.log_likelihood), abs=1e-6
    )
    assert found.loc["x", "df"] == 2


def test_what_has_no_such_test_is_refused() -> None:
    refused = th.errors.BadArgument
    with pytest.raises(refused, match="'likelihood_ratio', 'score'"):
        fitted().proportional_odds("wald")
    with pytest.raises(refused, match="family='ordinal'"):
        th.fit("Freq ~ Infl", HOUSING, "poisson").proportional_odds()
    with pytest.raises(refused, match="not constants"):
        fitted(threshold_2="~ Infl").proportional_odds()
    two = HOUSING.assign(Sat=(HOUSING["Sat"] == "High").astype(int))
    with pytest.raises(refused, match="two levels"):
        th.fit("Sat ~ Infl", two, th.families.Ordinal(), weights="Freq").proportional_odds()
