"""For every family of the registry: settings, and parameter values (natural scale) at which the tests look at it.

name → list of (family, parameters, extras). Several entries: several regions (small and large dispersion, both tails …).
"""

from thetahat import families as f

EXAMPLES = {
    "normal": [(f.Normal(), (0.3, 1.7), {}), (f.Normal(), (-4.0, 0.2), {})],
    "lognormal": [(f.LogNormal(), (0.3, 0.7), {})],
    "bernoulli": [(f.Bernoulli(link=link), (0.3,), {}) for link in ("logit", "probit", "cloglog", "cauchit")],
    "poisson": [(f.Poisson(), (2.5,), {}), (f.Poisson(), (40.0,), {})],
}
