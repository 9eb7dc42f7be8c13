"""The face: `fit` and `maximize` choose the solver, optimise, and hand back a Fit.

Data flows through here once, from top to bottom: data → model → objective → solver → certificate → Fit
(`result`). What reads tables (pandas, pyarrow, formulaic) takes
as long to load as torch: it comes with the first table.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import nn

from . import families
from .data import Source
from .data.devices import chosen
from .data.processes import replicated, world
from .defaults import check_defaults, check_values
from .errors import BadArgument, FitError, FlatDirection, NoMaximum, NotConverged
from .families.base import Family
from .families.registry import NONPARAMETRIC
from .io import runs
from .likelihood import DensityPower, LogLikelihood, LogPrior, Objective, Trimmed
from .likelihood.priors import Prior
from .likelihood.robust import get as get_robust
from .likelihood.weights import Importance, Probability, Variance
from .models.custom import Custom
from .models.described import described
from .models.inputs import density_of, need, source_of
from .protocols import Binds, HasFractional, Integrates, Together, is_separable, maximised_of
from .result import Fit
from .solvers import Stochastic, choose, optimise
from .solvers.certificate import Certificate
from .solvers.loop import Solver
from .types import Data, ModelLike, Named, Plain, Settings, SolverLike, SourceLike, StateLike, Weights

if TYPE_CHECKING:
    from .nonparametric import CompetingRisks, Curves, Nonparametric


@overload
def fit(
    model: str,
    data: Data,
    family: Literal["nonparametric"],
    *,
    weights: str | None = None,
    missing: str = "drop",
    trusted: bool = False,
    on_failure: str = "raise",
) -> Nonparametric: ...


@overload
def fit(
    model: str,
    data: Data,
    family: Literal["aalen_johansen"],
    *,
    weights: str | None = None,
    missing: str = "drop",
    trusted: bool = False,
    on_failure: str = "raise",
) -> CompetingRisks: ...


@overload
def fit(
    model: str | Family | nn.Module,
    data: Data = None,
    family: str | Family | None = None,
    *,
    weights: str | Weights | Data = None,
    offset: str | Data = None,
    subset: str | Data = None,
    prior: Prior | Sequence[Prior] | None = None,
    missing: str = "drop",
    collinear: str = "raise",
    trusted: bool = False,
    functions: Mapping[str, Callable[..., Plain]] | None = None,
    robust: DensityPower | Trimmed | str | None = None,
    solver: Solver | None = None,
    on_failure: str = "raise",
    run: str | Path | None = None,
    device: str | torch.device | None = None,
    callback: Callable[[StateLike], None] | None = None,
    covariance: str | None = None,
    by: str | Sequence[str] | None = None,
    reml: bool = False,
    quadrature: int = 1,
    **parameters: str | float,
) -> Fit: ...


def fit(
    model: str | Family | nn.Module,
    data: Data = None,
    family: str | Family | None = None,
    *,
    weights: str | Weights | Data = None,
    offset: str | Data = None,
    subset: str | Data = None,
    prior: Prior | Sequence[Prior] | None = None,
    missing: str = "drop",
    collinear: str = "raise",
    trusted: bool = False,
    functions: Mapping[str, Callable[..., Plain]] | None = None,
    robust: DensityPower | Trimmed | str | None = None,
    solver: Solver | None = None,
    on_failure: str = "raise",
    run: str | Path | None = None,
    device: str | torch.device | None = None,
    callback: Callable[[StateLike], None] | None = None,
    covariance: str | None = None,
    by: str | Sequence[str] | None = None,
    reml: bool = False,
    quadrature: int = 1,
    **parameters: str | float,
) -> Fit | Curves:
    """Maximise Σ_i w_i · log p(x_i | θ) + log p(θ) over θ.

    Parameters
    ----------
    model
        a formula "y ~ x + C(region) + offset(log(exposure))"; a family, fitted to y alone; a model; or a
        likelihood of one's own made by `@th.model`
    data
        a dict of columns, a pandas, polars or Arrow table, the path of a CSV or Parquet file; a `Source`, a
        `Batch`
    family
        of the response, for a formula: a name ("poisson") or an object; None: normal, but for a response
        Surv(…). "nonparametric": survival curves of groups, Kaplan–Meier's or Turnbull's
        (`nonparametric.Nonparametric`); "aalen_johansen": cumulative incidences of competing causes
        (`nonparametric.CompetingRisks`)
    weights
        a column of frequency weights, or an array of them; `weights.Probability` of a survey, `weights.Variance` of rows of known
        precision, a weighting of rows by their density elsewhere, `weights.Importance`; or, for a model, any
        weighting (batch, log_prob) → weights
    offset
        what is added to the linear predictor of a formula: a column, an expression of columns ("log(exposure)"), or an array
    subset
        the rows of a table that are fitted: an expression of columns ("age > 30"), or an array of booleans. Answers are still
        one for each row that was given, NaN outside the subset
    prior
        one or several priors on coefficients
    missing
        "drop" rows with a missing value (they are counted in the summary), or "raise"
    collinear
        a column of a formula that is a sum of those before it is an error, which names it ("raise"), or is left out and named
        in the summary ("drop")
    trusted
        a formula may hold columns, arithmetic, comparisons and known functions; with True any Python
        expression, which is run as code. For formulas that you wrote yourself; never for one from a file, a
        form or a message
    functions
        of your own that the formula may call, by name: functions={"f": f}. Each takes columns, as float64, and returns one
        number a row; such a fit is not saved
    robust
        None; or what is maximised instead of the log-likelihood where some rows may come from elsewhere:
        `DensityPower(0.5)`, `Trimmed(0.75)`, or their names, "density_power:0.5"
    solver
        None chooses by what the model offers and by size
    on_failure
        "raise", or "return" the fit as it stands with its certificate
    run
        a folder, runs/NAME, that records a training run and from which the same call goes on (see
        `thetahat.io.runs`)
    device
        where a network is trained, and stays: "auto" (the accelerator that torch finds, else the CPU), "cpu",
        "cuda", "mps"; None: where it is. Whole-data solvers sum in float64 on the CPU
    callback
        called with every state of the solver, the first included: `state.step`, `state.trace`, `state.theta`;
        of training also `state.value`, `state.norm`, `state.seen` (`solvers.stochastic.State`)
    covariance, by
        the kind of covariance that the fit's summary, intervals, tests and predictions take, and the column
        whose values identify clusters: "HC3"; "cluster" with by="firm" (`Fit.with_covariance`). None: the
        model's default
    reml
        of a formula with random effects or smooth terms: integrate the fixed effects out too
    quadrature
        nodes of adaptive Gauss–Hermite quadrature over random effects of one grouping factor, those of a likelihood
        with `th.latent(…)` too; 1: Laplace's approximation (exact of a normal response)
    parameters
        "~ age" for the predictors of a further parameter of the family, a number to hold it fixed, or the
        column of an extra (trials="n")

    Returns
    -------
    Fit
        or the curves of a nonparametric family

    Raises
    ------
    DataError, ModelError
        the data or the model cannot be used; the message names the column, row or argument
    NoMaximum, FlatDirection, NotConverged
        there is no maximum to be had; the exception carries the certificate

    References
    ----------
    Fisher (1922), On the mathematical foundations of theoretical statistics.

    Examples
    --------
    >>> frame = {"y": [0.9, 2.1, 2.9, 4.2], "x": [0.0, 1.0, 2.0, 3.0]}
    >>> fit("y ~ x", frame).estimates.round(3).to_dict()
    {'Intercept': 0.92, 'x': 1.07, 'scale': 0.104}
    """
    if on_failure not in ("raise", "return"):
        raise BadArgument(f"on_failure={on_failure!r}. Accepted: 'raise', 'return'.")
    if isinstance(family, str) and family in NONPARAMETRIC:
        others = {"prior": prior, "robust": robust, "solver": solver, "run": run, "device": device} | {
            "callback": callback, "offset": offset, "subset": subset,
            "functions": functions,
            "collinear": None if collinear == "raise" else collinear, "covariance": covariance, "by": by, "reml": reml or None,
            "quadrature": None if quadrature == 1 else quadrature
        }  # fmt: skip
        return _curves(model, data, family, weights, missing, trusted, on_failure, others | parameters)
    check_defaults()
    built, source, weighting, call = _built(
        model,
        data,
        family,
        weights,
        parameters,
        missing,
        trusted,
        (reml, quadrature),
        (offset, subset, functions, None if collinear == "raise" else collinear),
    )
    _refuse_shared(built, weighting, robust)
    if covariance is not None or by is not None:
        call |= {"covariance": covariance, "by": by if by is None or isinstance(by, str) else list(by)}
        from .inference.covariance import check_clusters

        check_clusters(covariance or "cluster", by, source)
    if isinstance(weighting, Importance):
        weighting.check(source, sum(p.numel() for p in built.parameters() if p.requires_grad))
    setting = get_robust(robust)
    if setting is not None and weighting is not None:
        raise BadArgument(
            "robust= gives every row its weight, so weights= cannot be given too. Leave one of them out."
        )
    term = LogLikelihood(built, source, weighting) if setting is None else setting.of(built, source)
    if setting is not None:
        call["robust"] = str(setting)
    objective = Objective([term])
    for each in _priors(prior):
        objective = objective + LogPrior(each, built)
    found = maximize(
        objective, solver=solver, on_failure=on_failure, call=call, run=run, device=device, callback=callback
    )
    return found if covariance is None and by is None else _gathered(found.with_covariance(covariance, by=by))


def _curves(
    formula: ModelLike,
    data: Data,
    family: Plain,
    weights: Plain,
    missing: str,
    trusted: bool,
    on_failure: str,
    others: Settings,
) -> Curves:
    """Curves without parameters, of which a formula and data are all that is to be said."""
    from .nonparametric import fit_curves

    given = [name for name, value in others.items() if value is not None]
    if given:
        raise BadArgument(
            f"family={family!r} has no parameters, and takes no {given[0]}=. Accepted: weights= (a column of "
            "frequency weights), missing=, trusted=, on_failure=."
        )
    if not isinstance(formula, str):
        raise BadArgument(f"family={family!r} needs a formula, such as 'Surv(time, event) ~ group'.")
    need(data, "a formula")
    if weights is not None and not isinstance(weights, str):
        raise BadArgument(
            f"family={family!r} takes a column of frequency weights by its name; received {type(weights).__name__}."
        )
    found = fit_curves(
        formula, data, family, weights=weights, missing=missing, trusted=trusted, on_failure=on_failure
    )
    _whole(found.times, weights)
    return found


def maximize(
    objective: Objective | LogLikelihood,
    *,
    solver: Solver | None = None,
    on_failure: str = "raise",
    call: Named | None = None,
    run: str | Path | runs.Run | None = None,
    device: str | torch.device | None = None,
    callback: Callable[[StateLike], None] | None = None,
) -> Fit:
    """Maximise an objective that you have put together yourself: terms add, and models may share parameters
    across terms.

    NoMaximum, FlatDirection, NotConverged

    Parameters
    ----------
    run, device
        as of `fit`
    callback
        called with every state of the solver, the first included

    Returns
    -------
    Fit
        whose model is the first term's.
    """
    if isinstance(objective, LogLikelihood):
        objective = Objective([objective])
    check_defaults()
    for term in objective.terms:
        check_values(term.model)
    if solver is not None and (isinstance(solver, type) or not isinstance(solver, Solver)):
        raise BadArgument(
            f"solver={solver!r}. Accepted: None, or a solver such as th.Newton(), th.LBFGS(), "
            "th.Stochastic(steps=…)."
        )
    solver = _placed(solver or choose(objective), device)
    robust = [term.robust for term in objective.terms if term.robust is not None]
    if robust and isinstance(solver, Stochastic):
        raise BadArgument(
            f"{robust[0]} is not maximised by Stochastic, which maximises log p of batches. Leave the solver "
            "out."
        )
    _check_together(objective, solver)
    other = [t.model for t in objective.terms if maximised_of(t.model)]
    if other and not isinstance(solver, Stochastic):
        raise BadArgument(
            f"solver={type(solver).__name__} maximises log p, and {type(other[0]).__name__} is trained by "
            f"{maximised_of(other[0])}. Accepted: th.Stochastic(…)."
        )
    shared = next((t.model for t in objective.terms if not is_separable(t.model)), None)
    if shared is not None and isinstance(solver, Stochastic):
        raise BadArgument(
            f"Stochastic takes batches of rows, and the rows of a {type(shared).__name__} share what is not observed. Leave the "
            "solver out."
        )
    if run is not None:
        run = run if isinstance(run, runs.Run) else runs.Run(run, objective, solver)
        solver = run.solver
    try:
        objective, certificate, trace = optimise(objective, solver, run, callback)
        measured = () if run is None else runs.measured(run.folder)
        result = Fit(objective, certificate, trace=trace, solver=solver, call=call, measured=measured)
        _gathered(result)
        if run is not None and certificate.ok:
            run.finish(result)
    finally:
        if run is not None:
            run.close()
    if not certificate.ok and on_failure == "raise":
        kind: type[FitError] = {"no maximum": NoMaximum, "flat direction": FlatDirection}.get(
            certificate.status, NotConverged
        )
        raise kind(f"{_failure(certificate)}", certificate, result)
    return result


def _check_together(objective: Objective, solver: SolverLike) -> None:
    """Refuse what takes apart the rows of a model whose likelihood is of all of them together."""
    for term in objective.terms:
        if not isinstance(term.model, Together):
            continue
        what = f"the likelihood of {type(term.model).__name__} is of all rows together, and"
        if term.robust is not None:
            raise BadArgument(f"{what} {term.robust} weighs or trims rows one by one. Leave robust= out.")
        if isinstance(solver, Stochastic):
            raise BadArgument(f"{what} Stochastic takes batches of them. Leave the solver out.")
        if world() > 1 and not replicated(term.source):
            raise BadArgument(f"{what} each process holds a part of them. Give all rows to every process.")


def _placed(solver: SolverLike, device: str | torch.device | None) -> SolverLike:
    """The solver, told where it trains."""
    where = chosen(device)
    if where is None or isinstance(solver, Stochastic):
        return solver if where is None else replace(solver, device=str(where))
    if device == "auto" or where.type == "cpu":
        return solver
    raise BadArgument(
        f"device={str(device)!r}: {type(solver).__name__} sums over all of the data in float64 on the CPU. Accepted: "
        "'auto', 'cpu', or solver=th.Stochastic(…)."
    )


def _gathered(found: Fit) -> Fit:
    """The fit with what its summary says, found by all processes together, so that any of them may print it
    alone."""
    if world() > 1:
        from .report.facts import gather

        found._cache["facts", found._errors] = gather(found)
    return found


def _refuse_shared(model: nn.Module, weighting: Plain, robust: Plain) -> None:
    """Weights of a row's own likelihood, where a row has none."""
    if is_separable(model):
        return
    what = (
        "a weighting of rows" if weighting is not None else f"robust={robust!r}" if robust is not None else ""
    )
    if what:
        raise BadArgument(
            f"{what} weighs each row's own log-likelihood, and the rows of a {type(model).__name__} share what is not observed. "
            "Accepted: weights= the name of a column of frequencies."
        )


# ---- what the user gave ------------------------------------------------------------------------------------


def _built(
    model: ModelLike,
    data: Data,
    family: str | Family | None,
    weights: Plain,
    parameters: Settings,
    missing: str,
    trusted: bool,
    integral: tuple[bool, int],
    rows: tuple[Plain, Plain, Plain, Plain],
) -> tuple[nn.Module, Source, Weights | None, Settings]:
    """The model, its data, a weighting of them, and the call by which the fit is told and made again."""
    if (
        isinstance(model, str)
        and "~" not in model
        and model.split("(")[0] in (*families.registry, *families.wrappers, *families.tables)
    ):
        model = families.get(model)
    weighting: Weights | None = None
    if isinstance(weights, Importance):
        need(data, "a weighted likelihood")
        data = weights.attach(data)
    if isinstance(weights, Variance):
        parameters = weights.into(model, families.get("normal" if family is None else family), parameters)
        weights = None
    if not isinstance(model, str) and any(each is not None for each in rows):
        given = next(
            name
            for name, v in zip(("offset", "subset", "functions", "collinear"), rows, strict=True)
            if v is not None
        )
        way = {"subset": "the rows selected first, data[mask] of pandas or data.filter(…) of polars"}
        raise BadArgument(
            f"{given}= is of a formula; received a {type(model).__name__}. Accepted: a formula, or "
            f"{way.get(given, 'the rows themselves')}."
        )
    built: nn.Module
    source: Source
    call: Settings = {"data": data if isinstance(data, (str, Path)) else None, "missing": missing}
    if isinstance(model, str):
        from .models.formulas import family_of_formula, formula_model
        from .models.given import shown_given, with_functions, with_offset, with_weights
        from .models.linear import settled

        need(data, "a formula")
        if rows[2] is not None:
            data = with_functions(data, rows[2])
        data, weights = with_weights(data, weights)
        text, data = with_offset(model, data, rows[0])
        carried: tuple[str, ...] = ()
        if isinstance(weights, Importance | Probability):
            carried, weighting, weights = (weights.column,), weights, None
        column = _column_name(weights)
        chosen = family_of_formula(model, family)
        built, source = formula_model(
            text,
            data,
            chosen,
            parameters=parameters,
            weights=column,
            carried=carried,
            missing=missing,
            trusted=trusted,
            reml=integral[0],
            quadrature=integral[1],
            subset=rows[1],
            collinear=rows[3] or "raise",
        )
        call |= {
            name: shown_given(v)
            for name, v in zip(("offset", "subset"), rows[:2], strict=True)
            if v is not None
        }
        call |= {"collinear": rows[3]} if rows[3] else {}
        call |= {"functions": sorted(rows[2])} if rows[2] else {}
        call |= {"reml": True} if integral[0] else {}
        call |= {"quadrature": integral[1]} if integral[1] != 1 else {}
        _, kept = settled(
            chosen, dict(parameters)
        )  # of a family that has others in it, the model's tells them
        call |= {"formula": model, "family": str(chosen), "parameters": kept, "weights": column}
        call |= {"trusted": True} if trusted else {}
    elif isinstance(model, Family):
        need(data, f"{model}")
        built, source = density_of(model, data, _column_name(weights), parameters, missing)
        call |= {"family": str(model), "parameters": dict(parameters)}
    elif isinstance(model, nn.Module):
        if parameters:
            raise BadArgument(
                f"a model has no parameter {next(iter(parameters))!r} to be given here: give it to the model."
            )
        if weights is not None and not isinstance(weights, str) and not callable(weights):
            raise BadArgument(
                "weights= is a column's name or a function (batch, log_prob) → weights; received "
                f"{type(weights).__name__}. Of an array: put it into the data as a column, and name that."
            )
        column = weights if isinstance(weights, str) else None
        if isinstance(model, Custom):
            source = source_of(data, model, column)
            built = described(model, source)
        elif isinstance(model, Binds):
            need(data, "a model")
            built, source = model.bound(data, column)
        else:
            built, source = model, source_of(data, model, column)
        built = _with_integral(built, *integral)
        weighting = None if isinstance(weights, str) else weights
        call |= {"model": type(model).__name__, "weights": weights if isinstance(weights, str) else None}
    else:
        raise BadArgument(
            f"a {type(model).__name__} cannot be fitted. Accepted: a formula, a family, a model, a "
            "likelihood made by @th.model."
        )
    _whole(source, call.get("weights"))
    return built, source, weighting, call


def _with_integral(model: nn.Module, reml: bool, quadrature: int) -> nn.Module:
    """A likelihood of one's own with another way to its integral."""
    if not reml and quadrature == 1:
        return model
    what = "reml=True" if reml else f"quadrature={quadrature!r}"
    if reml or not isinstance(model, Integrates):
        raise BadArgument(
            f"{what} is of a formula with random effects{'' if reml else ', or of a likelihood with th.latent(…)'}. Leave it out."
        )
    return model.with_points(quadrature)


def _whole(source: SourceLike, column: str | None) -> None:
    """Warn where frequency weights are not whole numbers: standard errors take Σ w as the number of
    observations."""
    part = source.fractional if isinstance(source, HasFractional) else 0
    if part:
        warnings.warn(
            f"{part} of the weights in column {column!r} are not whole numbers. Frequency weights say how "
            "many equal observations a row stands "
            f"for, and standard errors take their sum as the number of observations. For sampling weights: "
            f"weights=th.weights.Probability({column!r}); for known precisions: "
            f"weights=th.weights.Variance({column!r}).",
            stacklevel=4,
        )


def _priors(prior: Plain) -> list[Prior]:
    found = [prior] if isinstance(prior, Prior) else [] if prior is None else prior
    if not isinstance(found, (list, tuple)) or not all(isinstance(each, Prior) for each in found):
        raise BadArgument(
            f"prior={prior!r}. Accepted: a prior such as th.priors.Normal(2.5), or a list of them."
        )
    return list(found)


def _column_name(weights: Plain) -> str | None:
    if weights is None or isinstance(weights, str):
        return weights
    raise BadArgument(
        "with a formula, weights is the name of a column, or th.weights.Probability(…), Variance(…) or "
        "Importance(…); with a family, a column; "
        f"received {type(weights).__name__}. Of an array: put it into the data as a column, and name that."
    )


def _failure(certificate: Certificate) -> str:
    return certificate.detail or str(certificate)
