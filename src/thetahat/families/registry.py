"""The registry: one line a family, and the family of a name."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable
from dataclasses import fields

from ..errors import BadArgument
from ..types import Settings
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
from .other_names import ours
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
    "censored(weibull)", "hurdle_poisson"; and have settings: "asymmetric_laplace(level=0.9)".

    Examples
    --------
    >>> str(get("poisson"))
    'Poisson()'
    >>> str(get("zero_inflated(poisson)"))
    'ZeroInflated(family=Poisson())'
    >>> str(get("asymmetric_laplace(level=0.9)"))
    'AsymmetricLaplace(level=0.9)'
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
    name, settings = _parts(family)
    if name not in known:
        nested = ", ".join(f"{wrapper}(…)" for wrapper in wrappers)
        raise BadArgument(
            f"unknown family {family!r}.{_nearest(name, known)} Families: {', '.join(known)}; of another: {nested}; without "
            f"parameters: {', '.join(NONPARAMETRIC)}."
        )
    try:
        return known[name](**settings)
    except TypeError as error:
        own = ", ".join(f.name for f in fields(known[name]) if f.init) or "none"
        raise BadArgument(f"family={family!r}: {error}. Settings of {name}: {own}.") from error


def _nearest(name: str, known: Iterable[str]) -> str:
    """The family that is called so elsewhere, else the one that is spelt most like it."""
    found = ours(name)
    near = [found] if found else [repr(n) for n in difflib.get_close_matches(name, known, n=1)]
    return f" Nearest: {near[0]}." if near else ""


def _parts(family: object) -> tuple[str, Settings]:
    """The name, and the settings in brackets after it: "name(setting=number, other='text')".

    Raises
    ------
    BadArgument
        what stands in the brackets is not settings
    """
    name, bracket, rest = str(family).partition("(")
    if not bracket:
        return name, {}
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError
        return name.strip(), {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise BadArgument(
            f"family={family!r} cannot be read.{_nearest(name, registry)} Accepted: a name, a name with settings such as "
            "'asymmetric_laplace(level=0.9)', or a name around another such as 'zero_inflated(poisson)'."
        ) from error
