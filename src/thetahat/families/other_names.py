"""What other software calls our families: R's, statsmodels', SAS's and Stata's words for them, and what to write here."""

from __future__ import annotations

import re

_NEGATIVE_BINOMIAL = "'negative_binomial'"
_BERNOULLI = "'bernoulli'"
_PROBIT = "th.families.Bernoulli(link='probit'), or 'bernoulli(link=\"probit\")'"
_QUASI = "{} with standard errors that do not trust its variance, fit.with_covariance('sandwich')"

OTHERS = {
    **dict.fromkeys(("gaussian", "norm", "ols", "lm", "linear", "linear_regression"), "'normal'"),
    **dict.fromkeys(("logit", "logistic_regression", "binary", "binomial_logit"), _BERNOULLI),
    **dict.fromkeys(("probit", "probit_regression"), _PROBIT),
    **dict.fromkeys(("quasipoisson", "quasi_poisson"), _QUASI.format("'poisson'")),
    **dict.fromkeys(("quasibinomial", "quasi_binomial", "fractional_logit"), _QUASI.format("'bernoulli'")),
    **dict.fromkeys(("negbin", "negativebinomial", "nb", "nb2", "nbinom", "nbinom2"), _NEGATIVE_BINOMIAL),
    **dict.fromkeys(("nb1", "nbinom1"), "'negative_binomial_1'"),
    **dict.fromkeys(("zip", "zero_inflated", "zeroinfl"), "'zero_inflated(poisson)'"),
    **dict.fromkeys(("zinb", "zinb2"), "'zero_inflated(negative_binomial)'"),
    **dict.fromkeys(("hurdle", "zap"), "'hurdle(poisson)'"),
    **dict.fromkeys(("multinomial", "multinom", "mnlogit", "softmax", "multinomial_logit"), "'categorical'"),
    **dict.fromkeys(
        ("ologit", "polr", "clm", "ordered", "cumulative", "proportional_odds", "ordered_logit"), "'ordinal'"
    ),
    **dict.fromkeys(
        ("quantile", "quantreg", "rq", "quantile_regression", "ald"),
        "'asymmetric_laplace(level=0.5)', with the quantile's level",
    ),
    **dict.fromkeys(("t", "student", "studentt", "tdist"), "'student_t'"),
    **dict.fromkeys(("coxph", "phreg", "proportional_hazards", "cox_ph"), "'cox'"),
    **dict.fromkeys(("km", "kaplan_meier", "survfit"), "'nonparametric'"),
    **dict.fromkeys(("tobit",), "'censored(normal)'"),
    **dict.fromkeys(("inversegaussian", "invgauss", "inverse.gaussian", "wald"), "'inverse_gaussian'"),
    **dict.fromkeys(("vonmises",), "'von_mises'"),
    **dict.fromkeys(("robust", "rlm", "huber_t"), "'huber', or 'student_t'"),
}


def ours(name: str) -> str | None:
    """What to write here for the name that other software has; None: it is not known.

    Examples
    --------
    >>> ours("gaussian"), ours("ZINB"), ours("logistic regression"), ours("poison")
    ("'normal'", "'zero_inflated(negative_binomial)'", "'bernoulli'", None)
    """
    return OTHERS.get(re.sub(r"[\s-]+", "_", name.strip().lower()))
