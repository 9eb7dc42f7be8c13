"""The families: p(y | its own parameters). One file a kind, one line of the registry a family."""

from __future__ import annotations

from . import links
from .base import Family, Parameter, Support
from .bernoulli import Bernoulli, BetaBinomial, Binomial
from .beta import Beta
from .categorical import Categorical
from .censored import Censored
from .cox import Cox
from .discretised_logistic import DiscretisedLogistic
from .gamma import Exponential, Gamma
from .generalized_poisson import GeneralizedPoisson
from .huber import Huber
from .independent import Independent
from .inverse_gaussian import InverseGaussian
from .laplace import AsymmetricLaplace, Laplace
from .logistic import Gumbel, HyperbolicSecant, Logistic
from .losses import loss
from .mixture_of import MixtureOf
from .multivariate import Dirichlet, MultivariateNormal
from .negative_binomial import Geometric, NegativeBinomial, NegativeBinomial1
from .normal import LogNormal, Normal
from .ordinal import Ordinal
from .poisson import Poisson
from .ranges import Range
from .registry import get, registry, tables, wrappers
from .skew_normal import SkewNormal
from .student_t import StudentT
from .truncated import Truncated
from .tweedie import Tweedie
from .von_mises import VonMises
from .weibull import LogLogistic, Weibull
from .zeros import Hurdle, ZeroInflated

__all__ = [
    "Family",
    "Parameter",
    "Range",
    "Support",
    "get",
    "links",
    "loss",
    "registry",
    "tables",
    "wrappers",
    "Normal",
    "LogNormal",
    "Bernoulli",
    "Poisson",
    "Binomial",
    "BetaBinomial",
    "NegativeBinomial",
    "NegativeBinomial1",
    "Geometric",
    "GeneralizedPoisson",
    "Categorical",
    "Ordinal",
    "DiscretisedLogistic",
    "StudentT",
    "Laplace",
    "AsymmetricLaplace",
    "Logistic",
    "HyperbolicSecant",
    "Gumbel",
    "SkewNormal",
    "Huber",
    "VonMises",
    "Exponential",
    "Gamma",
    "Independent",
    "InverseGaussian",
    "Weibull",
    "LogLogistic",
    "Tweedie",
    "Beta",
    "MultivariateNormal",
    "Dirichlet",
    "Censored",
    "Cox",
    "Truncated",
    "ZeroInflated",
    "Hurdle",
    "MixtureOf",
]
