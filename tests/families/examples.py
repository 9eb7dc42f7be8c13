"""For every family of the registry: settings, and parameter values (natural scale) at which the tests look at
it.

name → list of (family, parameters, extras). Several entries: several regions (small and large dispersion,
both tails …).
"""

from thetahat import families as f

EXAMPLES = {
    "normal": [(f.Normal(), (0.3, 1.7), {}), (f.Normal(), (-4.0, 0.2), {})],
    "lognormal": [(f.LogNormal(), (0.3, 0.7), {})],
    "bernoulli": [(f.Bernoulli(link=link), (0.3,), {}) for link in ("logit", "probit", "cloglog", "cauchit")],
    "poisson": [(f.Poisson(), (2.5,), {}), (f.Poisson(), (40.0,), {})],
    "binomial": [
        (f.Binomial(link=link), (0.3,), {"trials": 7.0}) for link in ("logit", "probit", "cloglog", "cauchit")
    ],
    "beta_binomial": [(f.BetaBinomial(), (0.3, rho), {"trials": 7.0}) for rho in (1e-6, 0.2, 5.0)],
    "negative_binomial": [
        (f.NegativeBinomial(), p, {}) for p in ((2.5, 0.5), (40.0, 0.1), (0.2, 4.0), (3.0, 1e-9))
    ],
    "negative_binomial_1": [(f.NegativeBinomial1(), p, {}) for p in ((2.5, 0.5), (40.0, 2.0), (3.0, 1e-9))],
    "geometric": [(f.Geometric(), (0.3,), {}), (f.Geometric(), (8.0,), {})],
    "generalized_poisson": [(f.GeneralizedPoisson(), p, {}) for p in ((2.5, 0.3), (30.0, 0.01), (3.0, 1e-9))],
    "categorical": [(f.Categorical(2), (0.4,), {}), (f.Categorical(4), (0.3, -1.2, 2.0), {})],
    "ordinal": [
        (f.Ordinal(4, link=link), (0.5, -1.0, 0.2, 1.5), {}) for link in ("logit", "probit", "cloglog")
    ],
    "discretised_logistic": [
        (f.DiscretisedLogistic(levels), p, {})
        for levels, p in ((2, (0.3, 0.7)), (17, (-0.8, 0.2)), (256, (1.1, 0.05)))
    ],
    "student_t": [(f.StudentT(), p, {}) for p in ((0.3, 1.7, 4.0), (-4.0, 0.2, 0.7), (0.3, 1.7, 1e6))],
    "laplace": [(f.Laplace(), (0.3, 1.7), {})],
    "asymmetric_laplace": [(f.AsymmetricLaplace(level), (0.3, 1.7), {}) for level in (0.05, 0.5, 0.9)],
    "logistic": [(f.Logistic(), (0.3, 1.7), {})],
    "hyperbolic_secant": [(f.HyperbolicSecant(), (0.3, 1.7), {})],
    "gumbel": [(f.Gumbel(), (0.3, 1.7), {})],
    "skew_normal": [(f.SkewNormal(), (0.3, 1.7, shape), {}) for shape in (-5.0, 0.0, 1.0, 30.0)],
    "huber": [(f.Huber(threshold), (0.3, 1.7), {}) for threshold in (0.2, 1.345, 4.0)],
    "von_mises": [(f.VonMises(), (0.3, concentration), {}) for concentration in (0.01, 2.0, 50.0)],
    "censored": [
        (f.Censored(f.Normal()), (0.3, 1.7), {"event": 1.0}),
        (f.Censored(f.Weibull()), (2.5, 1.5), {"event": 1.0}),
    ],
    "truncated": [
        (f.Truncated(f.Normal(), low=0.0), (0.3, 1.7), {}),
        (f.Truncated(f.Normal(), low=-1.0, high=2.5), (0.3, 1.7), {}),
        (f.Truncated(f.LogNormal()), (0.3, 0.7), {"low": 0.8, "high": 3.0}),
        (f.Truncated(f.Poisson(), low=0.0), (0.2,), {}),
        (f.Truncated(f.Poisson(), low=1.0, high=6.0), (2.5,), {}),
        (f.Truncated(f.NegativeBinomial(), low=0.0), (2.5, 0.5), {}),
    ],
    "zero_inflated": [
        (f.ZeroInflated(f.Poisson()), (2.5, 0.3), {}),
        (f.ZeroInflated(f.NegativeBinomial()), (4.0, 0.5, 0.1), {}),
        (f.ZeroInflated(f.Binomial()), (0.4, 0.2), {"trials": 6.0}),
    ],
    "hurdle": [
        (f.Hurdle(f.Gamma()), (2.5, 0.3, 0.2), {}),
        (f.Hurdle(f.Poisson()), (0.7, 0.3), {}),
        (f.Hurdle(f.NegativeBinomial()), (4.0, 0.5, 0.6), {}),
        (f.Hurdle(f.LogNormal()), (0.3, 0.7, 0.4), {}),
    ],
    "mixture_of": [
        (f.MixtureOf(f.Normal(), 1), (0.3, 1.7), {}),
        (f.MixtureOf(f.Normal(), 2), (-1.0, 0.5, 2.0, 1.7, 0.4), {}),
        (f.MixtureOf(f.StudentT(), 2), (-1.0, 0.5, 4.0, 2.0, 1.7, 7.0, -0.4), {}),
        (f.MixtureOf(f.Gamma(), 3), (0.5, 0.3, 2.5, 0.1, 9.0, 0.2, 0.4, -1.0), {}),
        (f.MixtureOf(f.Poisson(), 2), (0.7, 9.0, -0.3), {}),
        (f.MixtureOf(f.Binomial(), 2), (0.2, 0.8, 0.5), {"trials": 7.0}),
        (f.MixtureOf(f.Hurdle(f.LogNormal()), 2), (0.3, 0.7, 0.4, 1.5, 0.3, 0.1, 0.2), {}),
    ],
    "exponential": [(f.Exponential(), (2.5,), {})],
    "gamma": [(f.Gamma(), p, {}) for p in ((2.5, 0.3), (40.0, 1.5), (1e-3, 1e-4))],
    "inverse_gaussian": [(f.InverseGaussian(), p, {}) for p in ((2.5, 0.3), (0.1, 0.2), (3.0, 4.0))],
    "weibull": [(f.Weibull(), p, {}) for p in ((2.5, 1.5), (40.0, 0.6), (1.0, 12.0))],
    "loglogistic": [(f.LogLogistic(), p, {}) for p in ((2.5, 6.5), (40.0, 1.5), (1.0, 0.8))],
    "tweedie": [(f.Tweedie(), p, {}) for p in ((2.0, 0.7, 1.5), (0.3, 1.2, 1.6), (9.0, 0.3, 1.2))],
    "beta": [(f.Beta(), p, {}) for p in ((0.3, 5.0), (0.5, 1.0), (0.97, 400.0))],
    "multivariate_normal": [
        (f.MultivariateNormal(1), (0.3, 1.7), {}),
        (f.MultivariateNormal(2), (0.3, -1.0, 1.7, -0.8, 0.5), {}),
        (f.MultivariateNormal(3), (0.3, -1.0, 2.0, 1.7, 0.4, 0.5, -0.2, 0.9, 1.1), {}),
    ],
    "independent": [
        (f.Independent(f.Normal(), 2), (0.3, 1.7, -1.0, 0.4), {}),
        (f.Independent(f.Laplace(), 2), (0.3, 1.7, -1.0, 0.4), {}),
    ],
    "dirichlet": [(f.Dirichlet(len(p)), p, {}) for p in ((0.7, 2.0), (0.4, 1.0, 3.0), (0.4, 1.0, 3.0, 20.0))],
}
