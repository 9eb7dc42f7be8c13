"""The solver of a log-likelihood with priors; robust objectives, which have many maxima, are chosen for in
the package itself."""

from __future__ import annotations

import torch

from ..data.processes import world
from ..errors import BadArgument
from ..kernels import compiled
from ..likelihood import Objective
from ..models import HMM, Mixture
from ..protocols import Steers, is_drawn, is_separable, kind_of, layout_of
from . import alternating, closed_form, gauss_newton, interior_point, quantile
from .baum_welch import BaumWelch
from .closed_form import ClosedForm
from .em import EM
from .gauss_newton import GaussNewton
from .interior_point import InteriorPoint
from .lbfgs import LBFGS
from .loop import Solver
from .newton import Newton
from .proximal import Proximal
from .quantile import LinearProgramme
from .steered import Steered
from .stochastic import Stochastic

SPARSE = 8000  # and of what is kept, where the products of a wide category with others are sparse
# rows up to which a normal linear model is solved by QR: beyond, one Newton step is as good and faster
QR_ROWS = 100_000
PRODUCTS = 1e11  # in one factor of the information: a second or so
DENSE = 4000  # coordinates of θ whose information can be factored: beyond, gradients alone


def is_stochastic(objective: Objective) -> bool:
    """Whether θ is not float64 (a network), log p is made of draws, or the data have no end."""
    endless = any(is_drawn(t.source) or t.source.size is None for t in objective.terms)
    noisy = any(kind_of(t.model) != "exact" for t in objective.terms)
    return endless or noisy or any(p.dtype != torch.float64 for p in objective.parameters())


def of_likelihood(objective: Objective) -> Solver:
    """Stochastic ascent where θ is not float64 (a network), log p is made of draws, or the data have no
    end; an interior point where a link bounds the linear predictors; the closed form where there is one;
    proximal Newton where a prior has a kink; EM for a mixture or
    a hidden Markov model; Levenberg and Marquardt's method where a
    likelihood of one's own is a sum of squares; Newton where the information can be held and factored,
    L-BFGS where it cannot."""
    if isinstance(objective.model, Steers):
        if objective.kinked:
            raise BadArgument(
                f"a prior with a kink (th.priors.Laplace) on a {type(objective.model).__name__}: its maximum is sought by "
                "curvature alone, and a kink has none. Use th.priors.Normal."
            )
        return Steered(anew=objective.model.steering == "cheap")
    if is_stochastic(objective):
        return Stochastic()
    if not is_separable(objective.model) and not objective.kinked:
        return Newton(thin_above=10**18, float32_above=10**18)  # every n-th row has another risk set
    if interior_point.applies(objective):
        return InteriorPoint()
    if objective.kinked and isinstance(objective.model, (HMM, Mixture)):
        raise BadArgument(
            "a mixture or a hidden Markov model has many maxima, and EM, which seeks them, takes no prior with a kink. Use "
            "th.priors.Normal."
        )
    if quantile.applies(objective) and (objective.kinked or objective.priors):
        return LinearProgramme()  # which refuses a prior, by name
    if objective.kinked:
        if objective.size > DENSE:
            raise BadArgument(
                f"a prior with a kink on a model of {objective.size} parameters: Proximal factors their "
                f"information, and no more than {DENSE} "
                "are held. Use th.priors.Normal, fewer columns, or solver=th.Stochastic(…), which finds no "
                "exact zeros."
            )
        return Proximal()
    if (objective.rows or 0) <= QR_ROWS and closed_form.applies(objective):
        return ClosedForm()
    if quantile.applies(objective):
        return LinearProgramme()
    if isinstance(objective.model, HMM) and len(objective.terms) == 1:
        return BaumWelch()
    layout = layout_of(objective.model)
    dense = objective.size if layout is None or len(objective.terms) > 1 else layout.kept
    # of eliminating one wide category beside others that are wide too, where its products with them are not sparse
    sparse = layout is not None and layout.narrow is not None and compiled.available() and world() == 1
    costly = dense**2 * float(objective.size - dense) > PRODUCTS and not sparse
    if isinstance(objective.model, Mixture) and len(objective.terms) == 1 and dense <= DENSE:
        return EM()
    if gauss_newton.applies(objective):
        return GaussNewton()
    if dense > (SPARSE if sparse else DENSE) or costly:
        return LBFGS()
    if closed_form.is_linear(objective):
        return Newton(first=closed_form.by_blocks)
    return Newton(first=alternating.begin) if alternating.applies(objective) else Newton()
