"""Systems fitted to a table, each beside a figure that is known from elsewhere."""

from __future__ import annotations

from typing import Any

import torch

from ..data.frame import Frame
from ..data.shipped import shipped
from ..families import MultivariateNormal, Normal
from ..fit import fit
from ..models import Mixture
from ..models.custom import model, positive
from ..preferences.bradley_terry import BradleyTerry
from ..preferences.comparisons import Preferences
from .row import Row, known, of_fit


def linear(quick: bool) -> Row:
    found = fit("y ~ x", shipped("norris"))
    truth = known("slope", found.estimates["x"], 1.00211681802045, "NIST", 1e-14)
    return of_fit(found, "linear regression", "calibration, 36 rows", "Σ log Normal(y | a + bx, σ)", truth)


def logistic(quick: bool) -> Row:
    found = fit("distress ~ temperature", shipped("orings"), family="bernoulli")
    truth = known("slope", found.estimates["temperature"], -0.2322, "R glm", 5e-5)
    return of_fit(
        found, "logistic regression", "shuttle O-rings, 23 flights", "Σ log Bernoulli(y | σ(a + bx))", truth
    )


def poisson(quick: bool) -> Row:
    found = fit(
        "incidents ~ type + built + period + offset(log(service))", shipped("ships"), family="poisson"
    )
    truth = known("intercept", found.estimates["Intercept"], -6.40590, "R glm", 5e-6)
    return of_fit(
        found,
        "Poisson, with an offset",
        "wave damage, 34 classes of ship",
        "Σ log Poisson(y | months · e^(xβ))",
        truth,
    )


def negative_binomial(quick: bool) -> Row:
    found = fit("mites ~ 1", shipped("mites"), family="negative_binomial", weights="leaves")
    truth = known("k", 1 / found.estimates["dispersion"], 1.02459, "Bliss and Fisher 1953", 1e-5)
    return of_fit(
        found, "negative binomial", "mites on 150 leaves", "Σ w log NegativeBinomial(y | μ, α)", truth
    )


def student(quick: bool) -> Row:
    found = fit("loss ~ air_flow + water_temperature + acid", shipped("stackloss"), family="student_t")
    truth = known("air flow", found.estimates["air_flow"], 0.85, "Lange et al. 1989", 5e-3)
    return of_fit(found, "robust regression", "stack loss, 21 days", "Σ log StudentT(y | xβ, σ, ν)", truth)


def custom(quick: bool) -> Row:
    @model(b1=500.0, b2=1e-4, sigma=positive(1.0))
    def misra1a(batch: Any, b1: torch.Tensor, b2: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return Normal().log_prob(batch["y"], b1 * (1 - torch.exp(-b2 * batch["x"])), sigma)

    found = fit(misra1a, shipped("misra1a"))
    truth = known("b1", found.estimates["b1"], 238.94212918, "NIST", 5e-9)
    return of_fit(
        found,
        "a likelihood of one's own",
        "adsorption, 14 rows",
        "Σ log Normal(y | b₁(1 − e^(−b₂x)), σ)",
        truth,
    )


def preferences(quick: bool) -> Row:
    teams = Frame(shipped("baseball")).read(["winner"])["winner"]
    order = ["Baltimore", *sorted(set(teams) - {"Baltimore"})]
    games = Preferences("winner", "loser", "games", data=shipped("baseball"), items=order)
    found = fit(BradleyTerry(items=games.items), games)
    truth = known("Milwaukee", found.estimates["Milwaukee"], 1.5814, "R BradleyTerry2", 5e-5)
    return of_fit(
        found, "Bradley–Terry ratings", "baseball, 273 games", "Σ w log σ(r_winner − r_loser)", truth
    )


def mixture(quick: bool) -> Row:
    found = fit(Mixture(MultivariateNormal(2), 2), shipped("faithful"))
    truth = known("BIC", found.criteria["BIC"], 2322.192, "R mclust", 5e-4)
    return of_fit(
        found, "mixture, by EM", "Old Faithful, 272 eruptions", "Σ log Σ_k π_k Normal(y | μ_k, Σ_k)", truth
    )
