"""Predictions, comparisons, slopes and marginal means against R 4.2.2 (emmeans 1.8.4, MASS, lme4, survival, sandwich) and
closed forms. Tables of R are in `tables`; glm with control = glm.control(epsilon = 1e-15).

For what R has no package of here, the formula is R's own: est(β̂) with its standard error √(J V Jᵀ), J by central
differences, J <- sapply(seq_along(b), function(j) (h(b + d e_j) - h(b - d e_j)) / (2 d)), d = 1e-5, V <- vcov(fit).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from scipy.stats import t as student

import thetahat as th
from thetahat.data.frame import Frame
from thetahat.data.shipped import shipped
from thetahat.errors import BadArgument, DataError, NotFinite, UnknownColumn, UnknownLevel
from thetahat.evaluation.adjustment import p_values

TABLES = Path(__file__).parent / "tables"


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(TABLES / f"{name}.csv")


def numbers(margins, *columns: str) -> np.ndarray:
    return margins.frame[list(columns or ("estimate", "standard_error"))].to_numpy(dtype=float)


@pytest.fixture(scope="module")
def warpbreaks():
    data = table("warpbreaks")
    data["tension"] = pd.Categorical(data["tension"], ["L", "M", "H"])
    return th.fit("breaks ~ wool*tension", data)


@pytest.fixture(scope="module")
def birthwt():
    data = table("birthwt")
    data["race"] = pd.Categorical(data["race"], ["white", "black", "other"])
    return th.fit("low ~ lwt*smoke + race + age", data, "bernoulli")


@pytest.fixture(scope="module")
def housing():
    data = table("housing")
    data["Sat"] = pd.Categorical(data["Sat"], ["Low", "Medium", "High"], ordered=True)
    data["Infl"] = pd.Categorical(data["Infl"], ["Low", "Medium", "High"])
    return th.fit("Sat ~ Infl + Type + Cont", data, "ordinal", weights="Freq")


@pytest.fixture(scope="module")
def ships():
    return th.fit("incidents ~ type + built + period + offset(log(service))", shipped("ships"), "poisson")


# ---- marginal means ----------------------------------------------------------------------------------------


def test_means_of_warpbreaks_are_emmeans(warpbreaks):
    """emmeans(lm(breaks ~ wool*tension, warpbreaks), ~ tension), and pairs() with Tukey's p and intervals."""
    means = warpbreaks.means("tension")
    wanted = [
        [36.38888889, 2.578649677, 48, 31.20416622, 41.57361156],
        [26.38888889, 2.578649677, 48, 21.20416622, 31.57361156],
        [21.66666667, 2.578649677, 48, 16.48194400, 26.85138933],
    ]
    np.testing.assert_allclose(
        numbers(means, "estimate", "standard_error", "df", "low", "high"), wanted, rtol=1e-8
    )
    pairs = warpbreaks.means("tension", pairs=True)
    assert list(pairs.frame["contrast"]) == ["L - M", "L - H", "M - H"]
    wanted = [
        [10.000000000, 3.646761346, 2.742159152, 0.0228553984021, 1.18035284, 18.8196472],
        [14.722222222, 3.646761346, 4.037067641, 0.0005595392218, 5.90257506, 23.5418694],
        [4.722222222, 3.646761346, 1.294908489, 0.4049441962498, -4.09742494, 13.5418694],
    ]
    np.testing.assert_allclose(
        numbers(pairs, "estimate", "standard_error", "t", "p_value", "low", "high"), wanted, rtol=1e-6
    )


def test_pairs_of_cells_sequences_and_references_are_emmeans(warpbreaks):
    """pairs(emmeans(fit, ~ wool*tension)), a family of 6 means; contrast(…, "consec", adjust = "holm");
    contrast(emmeans(fit, ~ wool*tension), "trt.vs.ctrl1", adjust = "sidak")."""
    pairs = warpbreaks.means(["wool", "tension"], pairs=True).frame.set_index("contrast")
    assert len(pairs) == 15
    assert pairs.loc["A L - B L", "p_value"] == pytest.approx(0.030214321913, rel=1e-6)
    assert pairs.loc["A L - B H", "p_value"] == pytest.approx(0.000113646906, rel=1e-5)
    assert pairs.loc["A H - B M", "estimate"] == pytest.approx(-4.2222222222, rel=1e-9)
    assert pairs.loc["A H - B M", "p_value"] == pytest.approx(0.962654084473, rel=1e-7)
    consecutive = warpbreaks.means("tension", pairs="sequential", adjust="holm")
    np.testing.assert_allclose(consecutive.frame["p_value"], [0.01710428429, 0.20154598750], rtol=1e-8)
    control = warpbreaks.means(["wool", "tension"], pairs="reference").frame.set_index("contrast")
    assert control.loc["B L - A L", "p_value"] == pytest.approx(1.331255141e-02, rel=1e-8)
    assert control.loc["B H - A L", "p_value"] == pytest.approx(4.054043744e-05, rel=1e-8)


def test_proportional_weights_are_emmeans():
    """emmeans(lm(breaks ~ wool + tension), ~ wool, weights = "proportional"); and of unequal cells, those means are the
    raw ones where the other factor is alone: Σ_h n_h m(g, h)/n."""
    data = table("warpbreaks").iloc[:-5]
    fit = th.fit("breaks ~ wool + tension", data)
    share = data["tension"].value_counts(normalize=True)
    wanted = [
        sum(share[t] * float(fit.predict({"wool": [w], "tension": [t]})[0]) for t in share.index)
        for w in ("A", "B")
    ]
    np.testing.assert_allclose(
        fit.means("wool", weights="proportional").frame["estimate"], wanted, rtol=1e-10
    )


def test_means_of_ships_are_emmeans(ships):
    """emmeans(glm(incidents ~ type + year + period + offset(log(service)), poisson), ~ type), type = "response": offsets
    at the mean of log(service). summary(pairs(.), type = "response", infer = TRUE)."""
    wanted = [
        [3.772865691, 0.6127571820, 2.744266816, 5.187001292],
        [2.191290285, 0.1660237803, 1.888897394, 2.542093143],
        [1.897302604, 0.5572489535, 1.066924516, 3.373956750],
        [3.496887968, 0.8697040922, 2.147736837, 5.693539940],
        [5.224788398, 0.9803262253, 3.617078172, 7.547089809],
    ]
    means = ships.means("type")
    np.testing.assert_allclose(numbers(means, "estimate", "standard_error", "low", "high"), wanted, rtol=1e-7)
    pairs = ships.means("type", pairs=True).frame.set_index("contrast")
    own = pairs[["estimate", "standard_error", "low", "high", "z", "p_value"]]
    np.testing.assert_allclose(
        own.loc["B / E"].astype(float),
        [0.4194026855, 0.08321481849, 0.2441069493, 0.7205801108, -4.3793757403, 0.000116127504],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        own.loc["C / D"].astype(float),
        [0.5425688845, 0.20822713266, 0.1904614037, 1.5456202081, -1.5932046746, 0.501714031374],
        rtol=1e-6,
    )
    np.testing.assert_allclose(numbers(ships.means("type", what="mean")), numbers(means), rtol=1e-14)
    link = ships.means("type", pairs=True, what="link", exponentiate=True)
    np.testing.assert_allclose(link.frame["estimate"], pairs["estimate"], rtol=1e-12)


def test_means_of_a_logistic_regression_are_emmeans(birthwt):
    """emmeans(glm(low ~ lwt*smoke + race + age, binomial), ~ race), type = "response": smoke, which has two values, is
    averaged over them. pairs(., adjust = "bonferroni"): odds ratios. With regrid = "response" averages of
    probabilities."""
    wanted = [
        [0.2196574020, 0.04509518501, 0.1438955643, 0.3203805761],
        [0.4882500042, 0.10917146870, 0.2883584231, 0.6919715887],
        [0.3998084833, 0.07301506942, 0.2684232314, 0.5473850917],
    ]
    means = birthwt.means("race")
    np.testing.assert_allclose(numbers(means, "estimate", "standard_error", "low", "high"), wanted, rtol=1e-7)
    pairs = birthwt.means("race", pairs=True, adjust="bonferroni")
    wanted = [
        [0.2950367527, 0.1529715668, 0.08527334273, 1.020795980, -2.3542818889, 0.05567559424],
        [0.4225697213, 0.1784281776, 0.15377756500, 1.161191292, -2.0400472131, 0.12403687056],
        [1.4322612944, 0.7627918647, 0.40022509990, 5.125546639, 0.6745566749, 1.0],
    ]
    np.testing.assert_allclose(
        numbers(pairs, "estimate", "standard_error", "low", "high", "z", "p_value"), wanted, rtol=1e-6
    )
    own = birthwt.predictions(at="balanced", by="race")
    np.testing.assert_allclose(
        numbers(own),
        [[0.2333565329, 0.04297231848], [0.4890686654, 0.10160977791], [0.4065311224, 0.07022497175]],
        rtol=1e-7,
    )
    differences = own.test("pairwise")
    np.testing.assert_allclose(
        numbers(differences, "estimate", "standard_error", "p_value"),
        [
            [-0.25571213252, 0.1113431478, 0.02164085032],
            [-0.17317458953, 0.0836104496, 0.03833940987],
            [0.08253754299, 0.1231796137, 0.50282050524],
        ],
        rtol=1e-6,
    )


def test_means_of_an_ordinal_regression_are_emmeans(housing):
    """pairs(emmeans(polr(Sat ~ Infl + Type + Cont, weights = Freq, housing), ~ Infl)), latent, and
    emmeans(., ~ Infl | Sat, mode = "prob") with its pairs (control = list(reltol = 1e-16))."""
    latent = housing.means("Infl", pairs=True, what="link")
    np.testing.assert_allclose(
        numbers(latent, "estimate", "standard_error", "p_value"),
        [
            [-0.5663937383, 0.1046527844, 1.865994587e-07],
            [-1.2888191089, 0.1271561477, 2.930988785e-14],
            [-0.7224253706, 0.1242704788, 1.836184660e-08],
        ],
        rtol=1e-6,
        atol=1e-12,
    )
    means = housing.means("Infl").frame.sort_values(["category", "Infl"], kind="stable")
    means = means.set_index(["category", "Infl"])
    found = means[["estimate", "standard_error"]]
    assert found.loc[("Medium", "High")].tolist() == pytest.approx([0.2377682102, 0.01213932860], rel=1e-6)
    assert found.loc[("Low", "Low")].tolist() == pytest.approx([0.4594126057, 0.01912280202], rel=1e-6)
    pairs = housing.means("Infl", pairs=True).frame.set_index(["category", "contrast"])
    own = pairs[["estimate", "standard_error", "p_value"]]
    assert own.loc[("Medium", "Low - Medium")].tolist() == pytest.approx(
        [-0.008521804813, 0.003878796290, 7.166567677e-02], rel=1e-5
    )
    assert own.loc[("Medium", "Low - High")].tolist() == pytest.approx(
        [0.029077230857, 0.009468274168, 6.044254166e-03], rel=1e-5
    )


def test_means_of_a_mixed_model_are_emmeans_with_satterthwaite():
    """emmeans(lmer(Reaction ~ Days*half + (Days | Subject)), ~ half, lmer.df = "satterthwaite"), lmerTest 3.1; emtrends(.,
    ~ half, "Days", lmer.df = "asymptotic"); half: a of even subjects. Optimised to rhoend = 1e-11."""
    data = table("sleepstudy")
    data["Subject"] = data["Subject"].astype(str)
    fit = th.fit("Reaction ~ Days*half + (Days | Subject)", data, reml=True)
    means = fit.means("half")
    np.testing.assert_allclose(
        numbers(means, "estimate", "standard_error", "df", "low", "high"),
        [
            [306.3768500, 12.895747, 16, 279.0390875, 333.7146125],
            [290.6389333, 12.895747, 16, 263.3011710, 317.9766957],
        ],
        rtol=1e-7,
    )
    pairs = fit.means("half", pairs=True)
    np.testing.assert_allclose(
        numbers(pairs, "estimate", "standard_error", "p_value"),
        [[15.73791667, 18.2373403, 0.4009154088]],
        rtol=1e-6,
    )
    trend = fit.slopes("Days", by="half", covariance="observed")
    np.testing.assert_allclose(
        numbers(trend, "estimate", "standard_error"),
        [[12.060059057, 2.181855598], [8.874512862, 2.181855598]],
        rtol=1e-7,
    )
    known = fit.predictions(groups="known").frame
    np.testing.assert_allclose(known[["estimate", "low", "high"]], fit.predict(level=0.95), rtol=1e-12)


def test_means_of_coxs_model_are_emmeans():
    """emmeans(coxph(Surv(time, status) ~ sex + ecog + age, lung), ~ ecog) and summary(pairs(.), type = "response"): log
    hazards, and hazard ratios."""
    data = table("lung")
    data["ecog"] = data["ph.ecog"].astype(int).astype(str)
    data["sex"] = pd.Categorical(data["sex"], ["m", "f"])
    fit = th.fit("Surv(time, status) ~ sex + ecog + age", data, "cox")
    np.testing.assert_allclose(
        numbers(fit.means("ecog", what="link")),
        [[0.399966205, 0.5871625868], [0.809802632, 0.6106598655], [1.302287022, 0.5921017785]],
        rtol=1e-7,
    )
    ratios = fit.means("ecog", pairs=True, what="link", exponentiate=True)
    np.testing.assert_allclose(
        numbers(ratios, "estimate", "standard_error", "low", "high", "p_value"),
        [
            [0.6637588142, 0.13249024724, 0.4157574900, 1.0596941104, 0.0997922260485],
            [0.4056271799, 0.09252045788, 0.2376631369, 0.6922967154, 0.0002249380455],
            [0.6111062802, 0.11595150447, 0.3917313904, 0.9533340824, 0.0255786738028],
        ],
        rtol=1e-6,
    )
    with pytest.raises(BadArgument, match="no mean"):
        fit.means("ecog")


def test_means_of_a_multinomial_regression_are_emmeans():
    """emmeans(multinom(race ~ smoke + age, birthwt, reltol = 1e-14), ~ smoke | race)."""
    data = table("birthwt")
    data["smoke"] = np.where(data["smoke"] == 1, "yes", "no")
    data["race"] = pd.Categorical(data["race"], ["white", "black", "other"])
    fit = th.fit("race ~ smoke + age", data, "categorical")
    found = fit.means("smoke").frame.set_index(["smoke", "category"])[["estimate", "standard_error"]]
    assert found.loc[("no", "black")].tolist() == pytest.approx([0.1377515542, 0.03298545929], rel=1e-7)
    assert found.loc[("yes", "other")].tolist() == pytest.approx([0.1566983681, 0.04246164016], rel=1e-7)
    slopes = fit.slopes("age").frame
    assert slopes["estimate"].sum() == pytest.approx(0.0, abs=1e-12)  # probabilities sum to 1


# ---- slopes and comparisons --------------------------------------------------------------------------------


def test_slopes_of_a_logistic_regression_match_central_differences_in_r(birthwt):
    """h = mean(dlogis(eta)*(b["lwt"] + b["lwt:smoke"]*smoke)); its elasticity; at the means; with vcovHC(f, "HC0")."""
    for found, wanted in (
        (birthwt.slopes("lwt"), [-0.002752988251, 0.001257080963]),
        (birthwt.slopes("lwt", scale="eyex"), [-1.4519733954, 0.7043351835]),
        (birthwt.slopes("lwt", at="mean"), [-0.002421389340, 0.001183677428]),
        (birthwt.slopes("lwt", covariance="sandwich"), [-0.002752988251, 0.001251120680]),
    ):
        np.testing.assert_allclose(numbers(found)[0], wanted, rtol=1e-6)  # R's J is by differences


def test_comparisons_of_a_logistic_regression_match_central_differences_in_r(birthwt):
    """Of mean(p | smoke = 1) and mean(p | smoke = 0): difference, ratio, log odds ratio, lift; lwt + 10 by race."""
    for compare, wanted in {
        "difference": [0.20483827075, 0.07351994452],
        "ratio": [1.8637288029, 0.4095823033],
        "log odds ratio": [0.9352634283, 0.3350817750],
        "lift": [0.8637288029, 0.4095823033],
    }.items():
        found = birthwt.comparisons("smoke", compare=compare)
        np.testing.assert_allclose(numbers(found)[0], wanted, rtol=1e-7)
    odds = birthwt.comparisons("smoke", compare="log odds ratio", exponentiate=True)
    assert odds.frame["estimate"][0] == pytest.approx(np.exp(0.9352634283), rel=1e-8)
    found = birthwt.comparisons({"lwt": 10}, by="race")
    wanted = [
        [-0.01820368374, 0.01031856883],
        [-0.03027056256, 0.01278064906],
        [-0.03732704897, 0.01739027027],
    ]
    np.testing.assert_allclose(numbers(found), wanted, rtol=2e-7)
    assert list(found.frame["race"]) == ["white", "black", "other"]


def test_predictions_match_r(birthwt):
    """tapply(p, race, mean) with errors; plogis of predict(f, newdata, se.fit = TRUE) ± qnorm(.975) se."""
    np.testing.assert_allclose(
        numbers(birthwt.predictions(by="race")),
        [
            [0.23958333333, 0.04186340378],
            [0.42307692308, 0.09007615958],
            [0.37313432836, 0.05726834624],
        ],
        rtol=1e-7,
    )
    found = birthwt.predictions(at={"lwt": [100, 150], "smoke": 1, "race": "black"})
    np.testing.assert_allclose(
        numbers(found, "estimate", "low", "high"),
        [[0.6738961171, 0.4081448070, 0.8609688036], [0.5834074248, 0.3454040252, 0.7879909344]],
        rtol=1e-7,
    )


def test_predictions_of_rows_are_those_of_predict(ships, housing):
    """Value, low and high, on the link's scale and mapped back."""
    found = ships.predictions().frame
    np.testing.assert_allclose(found[["estimate", "low", "high"]], ships.predict(level=0.95), rtol=1e-12)
    own = housing.predict(what="probabilities", level=0.9)
    found = housing.predictions(level=0.9).frame
    for level in ("Low", "Medium", "High"):
        part = found[found["category"] == level]
        np.testing.assert_allclose(part[["estimate", "low", "high"]], own[level], rtol=1e-10)


def test_a_ratio_of_counts_is_the_exponential_of_its_coefficient(ships):
    """E[y] = exp(η): the ratio is e^β, its error e^β s.e.(β), its interval and its test those of β, whatever the rows."""
    found = ships.comparisons("period", compare="ratio").frame.iloc[0]
    name = next(n for n in ships.names if n.startswith("period"))
    beta, error = ships.estimates[name], ships.standard_errors()[name]
    assert found["estimate"] == pytest.approx(np.exp(beta), rel=1e-10)
    assert found["standard_error"] == pytest.approx(np.exp(beta) * error, rel=1e-8)
    assert found["z"] == pytest.approx(beta / error, rel=1e-8)
    ends = np.exp(ships.intervals().loc[name]).to_numpy()
    np.testing.assert_allclose(found[["low", "high"]].to_numpy(dtype=float), ends, rtol=1e-8)


def test_a_ratio_that_is_not_positive_keeps_its_own_scale():
    """Means −1 and 2 of a normal response: the ratio −2 has no logarithm; its error by the delta method, s√(1/n + r²/n)/|a|."""
    data = {"g": list("aabb"), "y": [-1.5, -0.5, 1.5, 2.5]}
    found = th.fit("y ~ g", data).comparisons("g", compare="ratio").frame.iloc[0]
    assert found["estimate"] == pytest.approx(-2.0, rel=1e-10)
    error = np.sqrt(0.5) * np.sqrt(0.5 + 4 * 0.5)  # s² = 1/2 with 2 degrees of freedom, n = 2 a group
    assert found["standard_error"] == pytest.approx(error, rel=1e-8)
    assert found["t"] == pytest.approx(-3.0 / error, rel=1e-8)


def test_counterfactual_rows_are_every_row_with_a_value(birthwt):
    """Averages of predict of the table with the value put in, by groups too."""
    data = table("birthwt")
    found = birthwt.predictions(at={"smoke": [0, 1]}, counterfactual=True).frame
    wanted = [birthwt.predict(data.assign(smoke=v)).mean() for v in (0, 1)]
    np.testing.assert_allclose(found["estimate"], wanted, rtol=1e-12)
    grouped = birthwt.predictions(at={"smoke": [0, 1]}, by="race", counterfactual=True).frame
    own = birthwt.predict(data.assign(smoke=1.0))[(data["race"] == "other").to_numpy()].mean()
    row = grouped[(grouped["smoke"] == 1) & (grouped["race"] == "other")]
    assert row["estimate"].item() == pytest.approx(own, rel=1e-12)


SLOPES = {
    "powers and logarithms": "y ~ log(x) + I(x**2):z + z",
    "products": "y ~ x*z*w",
    "categories": "y ~ g*x + C(k)*log(x)",
    "quotients": "y ~ I(x/(1 + x**2)) + exp(-x) + np.sqrt(x + 1) + sin(x)*g",
    "nothing but a function": "y ~ poly(x, 3) + bs(z, df=4)",
    "a curve": "y ~ s(x) + z",
    "a curve times a column": "y ~ s(z, by=x)",
    "a curve a level": "y ~ g + s(x, by=g, k=5)",
    "a tensor product": "y ~ te(x, z, k=4)",
    "cubic curves": "y ~ s(x, bs='cr', k=6) + s(z, bs='ps', k=6)",
    "a plane": "y ~ s(x, z, k=12)",
    "random slopes": "y ~ x*z + (x | h)",
}


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(5)
    n = 150
    data = {
        "x": rng.uniform(0.5, 3, n),
        "z": rng.uniform(-1, 1, n),
        "w": rng.normal(size=n),
        "g": rng.choice(list("abc"), n),
        "k": rng.integers(0, 3, n),
        "h": rng.choice([f"h{i}" for i in range(8)], n),
    }
    eta = np.sin(2 * data["x"]) + data["z"] * data["x"] + 0.3 * (data["g"] == "b")
    return data | {"y": eta + 0.3 * rng.normal(size=n)}


@pytest.mark.parametrize("formula", SLOPES.values(), ids=SLOPES.keys())
@pytest.mark.parametrize("name", ["x", "z"])
def test_exact_derivatives_are_those_of_the_five_point_rule(formula, name, rows):
    """∂η/∂x of each row by the design's derivatives, and by Σ_k w_k η(x + k h)/h: inside the range, since at its ends the
    rule has its points on one side, and the third derivative of a curve jumps there."""
    from thetahat.evaluation.design_slopes import slope_batches, steps_of

    fit = th.fit(formula, rows, on_failure="return")
    setting = fit._setting("known" if "(x | h)" in formula else None, None, None)
    model, encoder = setting.model, setting.reader.encoder
    if name not in encoder.predictors:
        return
    frame = pd.DataFrame(rows)
    batch, steps = setting.encoded(frame), steps_of(frame[name].to_numpy(), name)
    moved, nothing = slope_batches(encoder, batch, frame, steps)
    with torch.no_grad():
        exact = model.eta(moved)[0] - model.eta(nothing)[0]
        five = sum(torch.from_numpy(w) * model.eta(setting.encoded(f))[0] for f, w in steps.points(frame))
    scale = float(exact.abs().max()) + 1.0
    own = frame[name]
    inside = ((own > own.min() + 0.01) & (own < own.max() - 0.01)).to_numpy()
    assert inside.sum() > 140
    exact = exact.expand(len(frame)).numpy()
    np.testing.assert_allclose(exact[inside], five.numpy()[inside], rtol=1e-8, atol=1e-8 * scale)


def test_an_error_of_a_slope_is_the_delta_method_by_finite_differences(rows):
    """∂/∂θ of the average derivative of exp(η), η with an interaction and a curve of x, moved one θ_j at a time."""
    fit = th.fit("y2 ~ log(x)*g + I(x**2):z", rows | {"y2": np.exp(rows["y"] / 3)}, "gamma")
    found = fit.slopes("x")

    def average(theta: torch.Tensor) -> float:
        moved = th.fit.__globals__["Fit"](fit.objective.at(theta), fit.certificate)
        h = 1e-4
        x = rows["x"]
        parts = [moved.predict(rows | {"x": x + s * h}) for s in (-2, -1, 1, 2)]
        return float(np.mean((parts[0] - 8 * parts[1] + 8 * parts[2] - parts[3]) / (12 * h)))

    theta = fit.theta
    eye = torch.eye(len(theta), dtype=torch.float64) * 1e-4
    J = np.array([(average(theta + e) - average(theta - e)) / 2e-4 for e in eye])
    np.testing.assert_allclose(found.estimates[0], average(theta), rtol=1e-7)
    np.testing.assert_allclose(found.jacobian[0], J, rtol=1e-5, atol=1e-7)


def test_a_likelihood_of_ones_own_has_slopes_and_comparisons(rows):
    """Normal about a·e^{bx}: dE/dx = a b e^{bx}, averaged."""

    @th.model(a=1.0, b=0.1, sigma=th.positive(1.0))
    def growth(batch, a, b, sigma):
        return th.families.Normal().at(a * torch.exp(b * batch["x"]), sigma)

    y = 2 * np.exp(0.4 * rows["x"]) + 0.1 * rows["w"]
    fit = th.fit(growth, {"x": rows["x"], "y": y})
    a, b = fit.estimates["a"], fit.estimates["b"]
    slope = fit.slopes().frame.iloc[0]
    assert slope["term"] == "x"
    assert slope["estimate"] == pytest.approx((a * b * np.exp(b * rows["x"])).mean(), rel=1e-9)
    minmax = fit.comparisons({"x": "minmax"}).frame["estimate"][0]
    ends = np.exp(b * np.array([rows["x"].min(), rows["x"].max()]))
    assert minmax == pytest.approx(a * (ends[1] - ends[0]), rel=1e-10)
    at = fit.predictions(at={"x": [1.0]}).frame.iloc[0]
    own = fit.predict({"x": np.array([1.0])}, level=0.95)
    assert at[["estimate", "low", "high"]].tolist() == pytest.approx(own.iloc[0].tolist(), rel=1e-10)


def test_trials_move_the_mean_besides_its_predictor():
    """Of m trials E[y] = m p, logit p = a + b m: dE/dm = p + m p(1 − p) b. Marginal means are probabilities, as emmeans
    has them: of a saturated model the groups' shares."""
    data = table("cbpp").assign(period=lambda d: d["period"].astype(str))
    fit = th.fit("incidence ~ size", data, "binomial", trials="size")
    m, b = data["size"], fit.estimates["size"]
    p = fit.predict() / m
    assert fit.slopes("size").frame["estimate"][0] == pytest.approx(
        (p + m * p * (1 - p) * b).mean(), rel=1e-8
    )
    means = th.fit("incidence ~ period", data, "binomial", trials="size").means("period").frame
    own = data.groupby("period")[["incidence", "size"]].sum()
    np.testing.assert_allclose(means["estimate"], own["incidence"] / own["size"], rtol=1e-9)


# ---- contrasts, rows, tests --------------------------------------------------------------------------------


def test_contrasts_of_numbers_say_what_they_compare(birthwt):
    data = table("birthwt")
    x = data["lwt"]
    low, high = np.quantile(x, [0.25, 0.75])
    for spec, values in {
        "iqr": (low, high),
        "minmax": (x.min(), x.max()),
        "sd": (x.mean() - x.std() / 2, x.mean() + x.std() / 2),
    }.items():
        wanted = birthwt.predict(data.assign(lwt=values[1])) - birthwt.predict(data.assign(lwt=values[0]))
        found = birthwt.comparisons({"lwt": spec}).frame
        assert found["estimate"][0] == pytest.approx(np.mean(wanted), rel=1e-10)
    labels = birthwt.comparisons({"lwt": (100, 130), "race": "sequential"}).frame
    assert list(labels["contrast"]) == ["130 - 100", "black - white", "other - black"]
    pairwise = birthwt.comparisons({"race": "pairwise"}).frame
    assert list(pairwise["contrast"]) == ["black - white", "other - white", "other - black"]


def test_frequency_weights_count_rows():
    data = table("warpbreaks").assign(n=np.arange(54) % 3 + 1, x=np.arange(54) / 10)
    repeated = data.loc[np.repeat(data.index, data["n"])]
    a = th.fit("breaks ~ wool*x", data, "poisson", weights="n")
    b = th.fit("breaks ~ wool*x", repeated, "poisson")
    for ask in (
        lambda f: f.predictions(by="tension"),
        lambda f: f.comparisons(),
        lambda f: f.slopes(by="wool"),
        lambda f: f.predictions(at="median"),
        lambda f: f.predictions(at="mean"),
        lambda f: f.comparisons({"x": "sd"}),
        lambda f: f.means("wool"),
    ):
        np.testing.assert_allclose(numbers(ask(a)), numbers(ask(b)), rtol=1e-6)


def test_a_streamed_file_is_averaged_block_by_block(tmp_path):
    data = table("warpbreaks")
    rows = pd.concat([data] * 300, ignore_index=True)
    rows.to_parquet(tmp_path / "rows.parquet")
    streamed = th.fit("breaks ~ wool", Frame(tmp_path / "rows.parquet", memory=1), "poisson")
    assert streamed.source.streamed
    whole = th.fit("breaks ~ wool", rows, "poisson")
    for by in (True, "wool", "tension"):
        np.testing.assert_allclose(
            numbers(streamed.predictions(by=by)), numbers(whole.predictions(by=by)), rtol=1e-8
        )


def test_hypotheses_are_tested_on_the_rows_of_the_table(warpbreaks):
    """b1 − b2 with its covariance; the joint test is fit's F of the same restrictions."""
    means = warpbreaks.means("tension")
    pair = warpbreaks.means("tension", pairs=True, adjust=None)
    one = means.test("b1 = b2").frame.iloc[0]
    assert one[["estimate", "standard_error", "p_value"]].tolist() == pytest.approx(
        pair.frame.loc[0, ["estimate", "standard_error", "p_value"]].tolist(), rel=1e-12
    )
    by_name = means.test("L = M").frame.iloc[0]
    assert by_name["estimate"] == pytest.approx(one["estimate"], rel=1e-12)
    by_matrix = means.test([[1, -1, 0]]).frame.iloc[0]
    assert by_matrix["p_value"] == pytest.approx(one["p_value"], rel=1e-12)
    shifted = means.test("b1 - b2 = 10").frame.iloc[0]
    assert shifted["estimate"] == pytest.approx(0.0, abs=1e-9)
    theirs = th.fit("breaks ~ wool + tension", table("warpbreaks"))
    joint = theirs.comparisons("tension").joint()
    own = theirs.test(["tension[T.L] = 0", "tension[T.M] = 0"])
    assert joint.statistic == pytest.approx(own.statistic, rel=1e-9)
    assert joint.p_value == pytest.approx(own.p_value, rel=1e-9)


def test_tukeys_p_is_that_of_ptukey():
    """R: ptukey(sqrt(2)*2.5, 4, c(10, Inf), lower.tail = FALSE)."""
    found = p_values(np.array([2.5, 2.5]), np.array([10.0, np.inf]), "tukey", 4)
    np.testing.assert_allclose(found, [0.12017797174, 0.05989401073], rtol=1e-6)


def test_tukeys_p_of_a_far_difference_is_not_0():
    """All differences of 3 means 12.4 errors apart: P(one) ≤ p ≤ 3 P(one), P(one) = 2 Φ(−12.4) = 2.6e−35, where scipy's and
    R's studentised ranges have 0 (or 1e−13) left."""
    for df in (np.inf, 1000.0):
        (found,) = p_values(np.array([12.4]), np.array([df]), "tukey", 3)
        one = 2 * student.sf(12.4, df)
        assert one < found <= 3 * one * (1 + 1e-12)
    near = p_values(np.array([5.0, 6.0, 7.0]), np.full(3, np.inf), "tukey", 3)
    np.testing.assert_allclose(
        near, [1.714961e-06, 5.91721e-09, 7.68e-12], rtol=1e-3
    )  # R's ptukey; Σ of the tails


def test_the_covariance_of_the_fit_is_taken(birthwt):
    robust = birthwt.with_covariance("HC1")
    a, b = birthwt.slopes("lwt", covariance="HC1"), robust.slopes("lwt")
    np.testing.assert_allclose(numbers(a), numbers(b), rtol=1e-14)
    clustered = birthwt.comparisons("smoke", clusters="age")
    assert "t" in clustered.frame  # G − 1 degrees of freedom
    assert clustered.frame["df"][0] == table("birthwt")["age"].nunique() - 1


def test_the_interval_of_an_average_is_symmetric_and_its_z_is_normal(birthwt):
    row = birthwt.predictions(by=True, level=0.9).frame.iloc[0]
    reach = norm.ppf(0.95) * row["standard_error"]
    assert row["high"] - row["estimate"] == pytest.approx(reach, rel=1e-12)
    assert row["estimate"] - row["low"] == pytest.approx(reach, rel=1e-12)


def test_a_polars_table_gives_polars_back():
    polars = pytest.importorskip("polars")
    fit = th.fit("breaks ~ wool", polars.from_pandas(table("warpbreaks")))
    assert isinstance(fit.means("wool").frame, polars.DataFrame)


@pytest.mark.parametrize(
    ("asked", "none"),
    [
        ({}, 0.0),
        ({"compare": "ratio"}, 1.0),
        ({"what": "link", "exponentiate": True}, 1.0),
    ],
    ids=["difference", "ratio", "odds"],
)
def test_the_line_of_no_effect_is_at_0_of_differences_and_at_1_of_ratios(birthwt, asked, none):
    drawn = birthwt.comparisons("smoke", **asked).plot().to_dict()
    assert [{"null": none}] in drawn["datasets"].values()


def test_margins_print_in_80_columns_and_draw_themselves(housing, birthwt):
    for found in (
        housing.means("Infl"),
        birthwt.comparisons(),
        birthwt.predictions(at={"lwt": [100, 120, 150]}),
        birthwt.predictions(),
    ):
        text = str(found)
        assert max(map(len, text.splitlines())) <= 80
        assert "<table>" in found._repr_html_()
        assert found.to_markdown().startswith("| ")
        assert found.plot().to_dict()["layer"]
    assert "149 more rows" in str(birthwt.predictions())


def test_what_is_wrong_is_said(birthwt, housing):
    with pytest.raises(UnknownColumn, match="Nearest: 'lwt'"):
        birthwt.slopes("lwtt")
    with pytest.raises(UnknownColumn, match="at names 'weight'"):
        birthwt.predictions(at={"weight": 3})
    with pytest.raises(UnknownColumn, match="by names 'colour'"):
        birthwt.predictions(by="colour")
    with pytest.raises(UnknownLevel, match="no level 'green'"):
        birthwt.predictions(at={"race": "green"})
    with pytest.raises(UnknownLevel, match="no level 'green'"):
        birthwt.comparisons({"race": ("white", "green")})
    with pytest.raises(BadArgument, match="is a number"):
        birthwt.predictions(at={"lwt": "heavy"})
    with pytest.raises(BadArgument, match="the column is a number"):
        birthwt.means("lwt")
    with pytest.raises(BadArgument, match="compare='odds'"):
        birthwt.comparisons("smoke", compare="odds")
    with pytest.raises(BadArgument, match="of probabilities"):
        birthwt.comparisons("smoke", compare="log odds ratio", what="link")
    with pytest.raises(BadArgument, match="what='link'"):
        birthwt.comparisons("smoke", exponentiate=True)
    with pytest.raises(BadArgument, match="no elasticity"):
        birthwt.slopes("race", scale="eyex")
    with pytest.raises(BadArgument, match="'tukey'"):
        birthwt.means("race", pairs=True, adjust="scheffe")
    with pytest.raises(BadArgument, match="what='median'"):
        birthwt.predictions(what="median")
    with pytest.raises(BadArgument, match="names no column"):
        birthwt.comparisons([])
    with pytest.raises(BadArgument, match="no column moves the mean"):
        birthwt.slopes([])
    with pytest.raises(BadArgument, match="counterfactual=True needs"):
        birthwt.predictions(counterfactual=True)
    with pytest.raises(BadArgument, match="a column for each of the 3"):
        birthwt.means("race").test([[1, -1]])
    logged = th.fit("breaks ~ log(x)", table("warpbreaks").assign(x=np.arange(1, 55)))
    with pytest.raises(NotFinite):
        logged.predictions(at={"x": -1})


def test_a_loaded_fit_has_effects_on_data_that_are_given(birthwt, tmp_path):
    """The same numbers as of the fit with its rows; without data it says what to do."""
    birthwt.save(tmp_path / "fit")
    loaded, data = th.load(tmp_path / "fit"), table("birthwt")
    for ask in (
        lambda f: f.slopes(data=data),
        lambda f: f.comparisons({"race": "pairwise"}, data=data),
        lambda f: f.predictions(at={"lwt": [100]}, data=data),
    ):
        np.testing.assert_allclose(numbers(ask(loaded)), numbers(ask(birthwt)), rtol=1e-10)
    with pytest.raises(BadArgument, match="needs the data"):
        loaded.slopes()


def test_coefficients_are_exponentiated_in_summaries_and_intervals(birthwt):
    """exp of the ends, error e^β s.e.(β), z of β = 0; a constant is no coefficient."""
    own, found = birthwt.intervals(), birthwt.intervals(exponentiate=True)
    pd.testing.assert_frame_equal(found, np.exp(own))
    lines = {line["name"]: line for line in birthwt.summary(exponentiate=True).to_dict()["estimates"]}
    plain = {line["name"]: line for line in birthwt.summary().to_dict()["estimates"]}
    ratio = np.exp(birthwt.estimates["smoke"])
    assert lines["smoke"]["estimate"] == pytest.approx(ratio, rel=1e-14)
    assert lines["smoke"]["standard_error"] == pytest.approx(
        ratio * birthwt.standard_errors()["smoke"], rel=1e-12
    )
    assert lines["smoke"]["z"] == plain["smoke"]["z"]
    assert "exp(β)" in str(birthwt.summary(exponentiate=True))
    normal = th.fit("breaks ~ wool", table("warpbreaks"))
    assert list(normal.intervals(exponentiate=True).index) == ["Intercept", "wool[T.B]"]
    with pytest.raises(BadArgument, match="'scale' is not a coefficient"):
        normal.intervals(exponentiate=True, parameters="scale")
    scale = normal.summary(exponentiate=True).to_dict()["estimates"][-1]
    assert scale["estimate"] == pytest.approx(normal.estimates["scale"], rel=1e-14)


def test_latent_variables_of_ones_own_are_left_out_or_known(rows):
    """E[y | u = 0] = a + b x, and with û of each group: predict(groups=…), value and interval."""

    @th.model(a=0.0, b=0.0, u=th.latent(by="h"), sigma=th.positive(1.0))
    def lines(batch, a, b, u, sigma):
        return th.families.Normal().at(a + b * batch["x"] + u, sigma)

    fit = th.fit(lines, {name: rows[name] for name in ("x", "h", "y")})
    assert fit.slopes().frame["term"].tolist() == ["x"]
    assert fit.slopes().frame["estimate"][0] == pytest.approx(fit.estimates["b"], rel=1e-9)
    found = fit.predictions(groups="known").frame
    np.testing.assert_allclose(found[["estimate", "low", "high"]], fit.predict(level=0.95), rtol=1e-10)
    by = fit.predictions(by="h").frame
    wanted = pd.Series(fit.predict(groups="average")).groupby(rows["h"]).mean()
    np.testing.assert_allclose(by["estimate"], wanted, rtol=1e-12)


def test_a_smooth_term_of_a_mixed_model_has_joint_errors(rows):
    """Of y ~ s(x) + g + (1 | h): pairs of g are differences of its coefficients, with errors from Henderson's equations,
    σ²(CᵀC + P)⁻¹, written out densely. A covariance that is not joint is refused."""
    rng, g, h = np.random.default_rng(6), np.array(rows["g"]), np.unique(rows["h"], return_inverse=True)[1]
    y = (
        np.sin(2 * np.array(rows["x"]))
        + 0.3 * (g == "b")
        + 0.4 * rng.normal(size=8)[h]
        + 0.3 * rng.normal(size=len(g))
    )
    fit = th.fit("y ~ s(x) + g + (1 | h)", rows | {"y": y})
    pairs = fit.means("g", pairs="reference", adjust=None).frame
    names = [n for n in fit.names if n.startswith("g[")]
    np.testing.assert_allclose(pairs["estimate"], fit.estimates[names], rtol=1e-9)
    sd = fit.estimates[["sd(s(x))", "sd(Intercept | h)"]] / fit.estimates["scale"]
    assert (sd > 0.1).all()
    batch = next(iter(fit.objective.terms[0].source.batches(fit.model)))
    Z = [batch["smooth0"].numpy() * sd.iloc[0], np.eye(8)[h] * sd.iloc[1]]
    X = [np.ones(len(g)), batch["x0"].numpy(), g == "b", g == "c"]
    C, m = np.column_stack([*Z, *X]), Z[0].shape[1] + 8
    H = C.T @ C + np.diag(np.r_[np.ones(m), np.zeros(C.shape[1] - m)])
    errors = fit.estimates["scale"] * np.sqrt(np.diag(np.linalg.inv(H)))[-2:]
    np.testing.assert_allclose(pairs["standard_error"], errors, rtol=1e-8)
    with pytest.raises(BadArgument, match="joint"):
        fit.slopes("x", covariance="sandwich")
    with pytest.raises(BadArgument, match="no random effects"):
        th.fit("y ~ x", rows).slopes(groups="known")


def test_columns_that_are_called_as_the_results_are_keep_apart(rows):
    """A category called t, of a table that has a column t of its own."""
    fit = th.fit("y ~ x*t", rows | {"t": rows["g"]})
    assert list(fit.means("t").frame.columns[:2]) == ["t (column)", "estimate"]
    assert "t (column)" in fit.slopes("x", by="t").frame
    assert "t (column)" in str(fit.predictions(at={"t": ["a", "b"]}))


def test_a_survival_time_has_slopes_of_its_mean():
    """R, survreg(Surv(time, status) ~ sex + ecog + age, lung): E[T] = e^η Γ(1 + scale), so that ∂E/∂age = b E, averaged:
    coefficients 6.635961843, 0.396700050, −0.290811417, −0.662738580, −0.007281139, scale 0.7325897846."""
    from math import gamma

    data = table("lung")
    data["ecog"] = data["ph.ecog"].astype(int).astype(str)
    data["sex"] = pd.Categorical(data["sex"], ["m", "f"])
    fit = th.fit("Surv(time, status) ~ sex + ecog + age", data, "weibull")
    eta = 6.635961843 + 0.396700050 * (data["sex"] == "f") - 0.290811417 * (data["ecog"] == "1")
    eta += -0.662738580 * (data["ecog"] == "2") - 0.007281139 * data["age"]
    shift = fit.predict()[0] / np.exp(eta[0])  # the mean, or the scale, is what the link is of
    assert min(abs(shift - 1), abs(shift - gamma(1 + 0.7325897846))) < 1e-6
    mean = shift * np.exp(eta)
    assert fit.slopes("age").frame["estimate"][0] == pytest.approx((-0.007281139 * mean).mean(), rel=1e-6)
    ratio = fit.comparisons("sex", what="link", exponentiate=True).frame["estimate"][0]
    assert ratio == pytest.approx(np.exp(0.396700050), rel=1e-7)


def test_bootstrap_covariances_are_taken(warpbreaks):
    """The spread of the refits, projected: that of the coefficient itself where the mean is linear."""
    fit = th.fit("breaks ~ wool", table("warpbreaks"))
    own = fit.standard_errors("bootstrap")["wool[T.B]"]
    found = fit.comparisons("wool", covariance="bootstrap").frame["standard_error"][0]
    assert found == pytest.approx(own, rel=1e-9)


def test_trends_are_those_of_emtrends(warpbreaks):
    """∂η/∂x averaged over the other categories with equal weights: of y ~ x*g + h, the slope of each level of g."""
    data = table("warpbreaks").assign(x=np.sqrt(np.arange(54)))
    fit = th.fit("breaks ~ x*wool + tension", data, "poisson")
    found = fit.slopes("x", at="balanced", by="wool", what="link").frame
    e = fit.estimates
    np.testing.assert_allclose(
        found["estimate"], [e["x"], e["x"] + e[next(n for n in fit.names if ":" in n)]], rtol=1e-10
    )


def test_means_of_a_binomial_mixed_model_are_emmeans():
    """emmeans(glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial), ~ period), type =
    "response", and pairs(.); bobyqa to rhoend = 1e-10, tolPwrss = 1e-13. Random effects are 0."""
    data = table("cbpp").assign(
        period=lambda d: d["period"].astype(str), herd=lambda d: d["herd"].astype(str)
    )
    fit = th.fit("incidence ~ period + (1 | herd)", data, "binomial", trials="size")
    np.testing.assert_allclose(
        numbers(fit.means("period"), "estimate", "standard_error", "low", "high"),
        [
            [0.19804914137, 0.03692249896, 0.13538419911, 0.2803157967],
            [0.08387195691, 0.02383602808, 0.04747683804, 0.1439506860],
            [0.07397293480, 0.02262414179, 0.04013549176, 0.1324029734],
            [0.04839073954, 0.01980438895, 0.02142014762, 0.1056541377],
        ],
        rtol=2e-6,
    )
    np.testing.assert_allclose(
        numbers(fit.means("period", pairs=True))[:2],  # lme4's errors are of a Hessian by differences
        [[2.697519596, 0.8271732451], [3.091548314, 1.0098158873]],
        rtol=2e-6,
    )


def test_a_table_that_is_too_wide_gives_up_columns_and_letters_and_never_digits(housing):
    """80 characters: what all rows share stands above; every estimate is there as it is in a wide one."""
    found = housing.comparisons(
        {"Infl": "pairwise"}, at={"Type": ["Tower", "Terrace"], "Cont": ["Low", "High"]}
    )
    text = str(found)
    assert max(map(len, text.splitlines())) <= 80
    assert "term: Infl" in text
    for cells in found._cells():
        row = dict(zip(found.frame.columns, cells, strict=True))
        assert row["estimate"] in text
        assert row["high"] in text
    long = {
        "y": np.arange(6.0) ** 2,
        "g": ["a level of very many words", "another level of very many words"] * 3,
    }
    text = str(th.fit("y ~ g", long).means("g", pairs=True))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" in text


def test_a_balanced_grid_leaves_out_what_is_compared(warpbreaks):
    """Differences of tension in each wool: 4 rows, not one for each tension besides."""
    found = warpbreaks.comparisons("tension", at="balanced").frame
    assert found[["contrast", "wool"]].values.tolist() == [
        ["M - L", "A"],
        ["M - L", "B"],
        ["H - L", "A"],
        ["H - L", "B"],
    ]
    cells = table("warpbreaks").groupby(["wool", "tension"])["breaks"].mean()
    assert found["estimate"][3] == pytest.approx(cells["B", "H"] - cells["B", "L"], rel=1e-10)


def test_strata_and_grouping_factors_are_no_variables(rows):
    """Neither moves the linear predictor: slopes() are of the others."""
    rng = np.random.default_rng(0)
    times = rows | {"time": rng.exponential(np.exp(-rows["x"])), "event": rng.integers(0, 2, len(rows["x"]))}
    cox = th.fit("Surv(time, event) ~ x + z + strata(g)", times, "cox")
    found = cox.slopes(what="link").frame
    assert found["term"].tolist() == ["x", "z"]
    np.testing.assert_allclose(found["estimate"], cox.estimates[["x", "z"]], rtol=1e-12)
    np.testing.assert_allclose(found["standard_error"], cox.standard_errors()[["x", "z"]], rtol=1e-9)
    frailty = th.fit("Surv(time, event) ~ x + g + (1 | h)", times, "cox")
    assert set(frailty.slopes(what="link").frame["term"]) == {"x", "g"}
    mixed = th.fit("y ~ x + (z | h)", rows)
    assert mixed.slopes().frame["term"].tolist() == ["x"]


def test_every_parameter_and_probability_can_be_asked_for(rows):
    """what= a parameter, "probabilities", "link": those of predict."""
    fit = th.fit("y ~ x", rows, scale="~ z")
    found = fit.predictions(what="scale").frame
    own = fit.predict(what="scale", level=0.95)
    np.testing.assert_allclose(found[["estimate", "low", "high"]], own, rtol=1e-10)
    slope = fit.slopes("z", what="scale").frame["estimate"][0]
    assert slope == pytest.approx((fit.estimates["scale: z"] * fit.predict(what="scale")).mean(), rel=1e-10)
    binary = th.fit("b ~ x + g", rows | {"b": (rows["y"] > 0.5).astype(float)}, "bernoulli")
    both = binary.predictions(by=True, what="probabilities").frame
    assert both["category"].tolist() == [0, 1]
    assert both["estimate"].sum() == pytest.approx(1.0, abs=1e-12)
    link = binary.predictions(what="link").frame
    np.testing.assert_allclose(link["estimate"], binary.predict(what="linear"), rtol=1e-12)
    probit = th.fit("b ~ x + g", rows | {"b": (rows["y"] > 0.5) * 1.0}, th.families.Bernoulli(link="probit"))
    with pytest.raises(BadArgument, match="not logarithms of ratios"):
        probit.means("g", what="link", exponentiate=True)


def test_what_would_not_fit_into_memory_is_refused(rows):
    """A covariance of very many rows, all their differences, a chart of them."""
    many = {"x": np.tile(rows["x"], 80), "y": np.tile(rows["y"], 80)}
    found = th.fit("y ~ x", many).predictions()
    with pytest.raises(BadArgument, match="12,000 estimates"):
        _ = found.covariance
    with pytest.raises(BadArgument, match="12,000 estimates"):
        found.joint()
    with pytest.raises(BadArgument, match="71,994,000 differences"):
        found.test("pairwise")
    with pytest.raises(BadArgument, match="more than a chart shows"):
        found.plot()
    rng = np.random.default_rng(0)
    wide = {name: rng.permutation(np.arange(150) % 20) for name in "abcde"}
    fit = th.fit("y ~ C(a) + C(b) + C(c) + C(d) + C(e)", rows | wide)
    with pytest.raises(BadArgument, match="3,200,000 combinations"):
        fit.means("a")


def test_a_row_without_weight_has_its_prediction_and_counts_in_no_average(rows):
    """Of other rows, of which one weighs 0."""
    fit = th.fit("y ~ x", rows | {"n": np.ones(150)}, weights="n")
    data = {"x": [1.0, 2.0], "n": [0, 3]}
    np.testing.assert_allclose(fit.predictions(data=data).frame["estimate"], fit.predict(data), rtol=1e-12)
    average = fit.predictions(by=True, data=data).frame["estimate"][0]
    assert average == pytest.approx(fit.predict(data)[1], rel=1e-12)
    with pytest.raises(DataError, match="the weight of row 1"):
        fit.predictions(by=True, data={"x": [1.0, 2.0], "n": [1, np.nan]})


def test_all_pairs_together_are_as_many_as_are_independent() -> None:
    """car::Anova(m, type = 2, test.statistic = "Wald") of type in the model of the ships: χ²(4) = 26.067."""
    ships = th.data.shipped("ships")
    fit = th.fit("incidents ~ type + built + period + offset(log(service))", ships, "poisson")
    test = fit.means("type", pairs=True).joint()
    assert test.df == 4
    assert test.statistic == pytest.approx(26.067, abs=5e-4)


def test_a_column_of_dates_is_a_number_of_days() -> None:
    rng = np.random.default_rng(0)
    dates = pd.date_range("2024-11-01", periods=80)
    table = pd.DataFrame({"day": dates, "x": rng.normal(size=80)})
    table["y"] = table["x"] + 0.01 * np.arange(80) + rng.normal(size=80)
    fit = th.fit("y ~ x + day", table)
    plain = th.fit("y ~ x + day", table.assign(day=np.arange(80.0)))
    for each in (
        lambda f: f.slopes(),
        lambda f: f.comparisons({"day": 7}),
        lambda f: f.slopes("day", data=None),
    ):
        np.testing.assert_allclose(each(fit).frame["estimate"], each(plain).frame["estimate"], rtol=1e-9)
    at = fit.predictions(at={"day": ["2025-01-01", 3]}).frame["estimate"]
    np.testing.assert_allclose(at, plain.predictions(at={"day": [61, 3]}).frame["estimate"], rtol=1e-9)
    given = fit.slopes("day", data=table.head(10)).frame["estimate"]
    np.testing.assert_allclose(given, plain.slopes("day").frame["estimate"], rtol=1e-9)
    with pytest.raises(th.errors.BadArgument, match="is of dates, and 'soon' is not one"):
        fit.predictions(at={"day": ["soon"]})


def test_means_within_levels_of_another_are_emmeans() -> None:
    """pairs(emmeans(lm(breaks ~ wool * tension, warpbreaks), ~ tension | wool)): Tukey within each wool."""
    table = pd.read_csv(Path(__file__).parent / "tables" / "warpbreaks.csv")
    found = th.fit("breaks ~ wool*tension", table).means("tension", by="wool", pairs=True).frame
    own = found.set_index(["wool", "contrast"])
    for wool, contrast, estimate, p in (
        ("A", "H - L", -20.0, 0.0009),
        ("A", "L - M", 20.556, 0.0007),
        ("A", "H - M", 0.556, 0.9936),
        ("B", "H - L", -9.444, 0.1704),
        ("B", "H - M", -10.0, 0.1389),
    ):
        assert own.loc[(wool, contrast), "estimate"] == pytest.approx(estimate, abs=5e-4)
        assert own.loc[(wool, contrast), "p_value"] == pytest.approx(p, abs=5.1e-5)
    with pytest.raises(th.errors.BadArgument, match="the means are of that column"):
        th.fit("breaks ~ wool*tension", table).means("wool", by="wool")
