"""The registry: one line a family, and the family of a name."""

from __future__ import annotations

import difflib

from ..errors import BadArgument
from .base import Family
from .bernoulli import Bernoulli, BetaBinomial, Binomial
from .beta import Beta
from .categorical import Categorical
from .censored import Censored, Wrapper
from .cox import Cox
from .discretised_logistic import DiscretisedLogistic
from .gamma import Exponential, Gamma
from .generalized_poisson import GeneralizedPoisson
from .huber import Huber
from .independent import Independent
from .inverse_gaussian import InverseGaussian
from .laplace import AsymmetricLaplace, Laplace
from .logistic import Gumbel, HyperbolicSecant, Logistic
from .mixture_of import MixtureOf
from .multivariate import Dirichlet, MultivariateNormal
from .negative_binomial import Geometric, NegativeBinomial, NegativeBinomial1
from .normal import LogNormal, Normal
from .ordinal import Ordinal
from .poisson import Poisson
from .skew_normal import SkewNormal
from .student_t import StudentT
from .truncated import Truncated
from .tweedie import Tweedie
from .von_mises import VonMises
from .weibull import LogLogistic, Weibull
from .zeros import Hurdle, ZeroInflated

registry: dict[str, type[Family]] = {
    "normal": Normal,
    "lognormal": LogNormal,
    "bernoulli": Bernoulli,
    "poisson": Poisson,
    "binomial": Binomial,
    "beta_binomial": BetaBinomial,
    "negative_binomial": NegativeBinomial,
    "negative_binomial_1": NegativeBinomial1,
    "geometric": Geometric,
    "generalized_poisson": GeneralizedPoisson,
    "categorical": Categorical,
    "ordinal": Ordinal,
    "discretised_logistic": DiscretisedLogistic,
    "student_t": StudentT,
    "laplace": Laplace,
    "asymmetric_laplace": AsymmetricLaplace,
    "logistic": Logistic,
    "hyperbolic_secant": HyperbolicSecant,
    "gumbel": Gumbel,
    "skew_normal": SkewNormal,
    "huber": Huber,
    "von_mises": VonMises,
    "exponential": Exponential,
    "gamma": Gamma,
    "inverse_gaussian": InverseGaussian,
    "weibull": Weibull,
    "loglogistic": LogLogistic,
    "tweedie": Tweedie,
    "beta": Beta,
    "multivariate_normal": MultivariateNormal,
    "dirichlet": Dirichlet,
    "independent": Independent,
}

wrappers: dict[str, type[Wrapper]] = {
    "censored": Censored,
    "truncated": Truncated,
    "zero_inflated": ZeroInflated,
    "hurdle": Hurdle,
    "mixture_of": MixtureOf,
}

# of all rows of a table together: fitted by a formula, and no density of one y
tables: dict[str, type[Family]] = {"cox": Cox}

NONPARAMETRIC = (
    "nonparametric",
    "aalen_johansen",
)  # curves without parameters (`thetahat.nonparametric`), of `th.fit` alone

NESTED = 20  # wrappers and words in the name of a family


def get(family: str | Family) -> Family:
    """The family of that name with its default settings, or the family itself. Names nest:
    "censored(weibull)", "hurdle_poisson".

    Examples
    --------
    >>> str(get("poisson"))
    'Poisson()'
    >>> str(get("zero_inflated(poisson)"))
    'ZeroInflated(family=Poisson())'
    """
    if isinstance(family, Family):
        return family
    if isinstance(family, str) and family.count("(") + family.count("_") > NESTED:
        raise BadArgument(f"family={family[:40]!r}…: wrappers are nested more than {NESTED} deep.")
    if isinstance(family, type) and issubclass(family, Family):
        return family()
    for name, wrapper in wrappers.items():
        if isinstance(family, str) and family.startswith(f"{name}(") and family.endswith(")"):
            return wrapper(get(family[len(name) + 1 : -1]))
        if isinstance(family, str) and family.startswith(f"{name}_"):
            return wrapper(get(family[len(name) + 1 :]))
    if family in NONPARAMETRIC:
        raise BadArgument(
            f"{family!r} has no parameters, and is not a family of a model. Accepted: th.fit('Surv(time, event) ~ group', "
            f"data, family={family!r})."
        )
    known = {**registry, **tables}
    if not isinstance(family, str) or family not in known:
        near = difflib.get_close_matches(str(family), known, n=1)
        hint = f" Nearest: {near[0]!r}." if near else ""
        raise BadArgument(f"unknown family {family!r}.{hint} Families: {', '.join(known)}.")
    return known[family]()
