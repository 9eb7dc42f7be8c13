"""What a model says of its rows, and how that changes with a column: predictions, comparisons and slopes, of each row or
averaged.

    prediction    f(x_i)
    comparison    f(x_i with x at its higher value) less, over, … f(x_i with x at its lower value)
    slope         ∂f(x_i)/∂x

f is E[y], a linear predictor, a probability or a parameter (`row_functions.quantities`). Of a comparison of averages the two
averages are compared: a ratio is that of the average predictions. Errors by the delta method (`margin_estimates`).

References
----------
Williams (2012), Using the margins command, Stata Journal 12; Arel-Bundock, Greifer and Heiss (2024), How to interpret
statistical models using marginaleffects for R and Python, Journal of Statistical Software 111.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.columns import numeric_column
from ..distributions import student
from ..errors import BadArgument
from ..families.links import CLogLog, Identity, Link, Log, Logit
from ..models.described import DescribesRows
from ..protocols import Categories, encoder_of
from ..types import Data
from .contrasts import Contrast, Spec, contrasts, named
from .design_slopes import slope_batches, steps_of
from .fitted_values import eta_of, gradient_rows, natural_at, with_slopes
from .margin_estimates import Estimates
from .margin_grids import rows_at
from .margin_rows import At, By, Observed, Rows, levels_of, require, shown_as, variables
from .predict import _shares, _Target, _target
from .row_functions import (
    CELLS,
    LABEL,
    Averages,
    Quantity,
    RowFunction,
    Setting,
    Versions,
    averages,
    derivative,
    prediction,
    quantities,
    weighted_sum,
)

COMPARE = ("difference", "ratio", "log odds ratio", "lift")
SCALES = {"dydx": "dy/dx", "eyex": "ey/ex", "eydx": "ey/dx", "dyex": "dy/ex"}


def predictions(
    setting: Setting,
    at: At = None,
    by: By = None,
    *,
    what: str = "response",
    level: float = 0.95,
    data: Data = None,
    counterfactual: bool = False,
    exponentiate: bool = False,
) -> Estimates:
    """f of rows, or its averages (`Fit.predictions`)."""
    check_level(level)
    setting = replace(setting, data=data)
    rows, words = rows_at(setting, at, by, data, counterfactual, averaged=False)
    asked = quantities(setting, what, some(setting))
    back = exponential(setting, what) if exponentiate else None
    functions = [prediction(setting, q) for q in asked]
    found = averages(setting, rows.parts(), lambda f: Versions([setting.encoded(f)]), functions, rows.labels)
    out = joined(
        setting, [(found, found.value.unbind(1), found.gradient)], asked, rows, f"Predictions, {words}"
    )
    ends = single(setting, rows, what, level, len(asked)) if rows.by is None else None
    return Estimates(**{**vars(out), "ends": ends, "back": back})


def comparisons(
    setting: Setting,
    of: Spec = None,
    at: At = None,
    by: By = None,
    *,
    compare: str = "difference",
    what: str = "response",
    data: Data = None,
    counterfactual: bool = False,
    exponentiate: bool = False,
) -> Estimates:
    """f with a column at one value against f with it at another (`Fit.comparisons`)."""
    if compare not in COMPARE:
        raise BadArgument(f"compare={compare!r}. Accepted: {', '.join(map(repr, COMPARE))}.")
    back = None
    if exponentiate:
        if compare not in ("difference", "log odds ratio"):
            raise BadArgument(
                f"exponentiate=True with compare={compare!r}: it is of differences on the link's scale, and of log odds."
            )
        back = torch.exp if compare == "log odds ratio" else exponential(setting, what)
    setting = replace(setting, data=data)
    asked = quantities(setting, what, some(setting))
    known = variables(setting)
    parts, rows, words = [], None, ""
    for name, spec in named(of, known).items():
        require(setting, name, known, "comparisons")
        for contrast in contrasts(setting, name, spec, data, "/" if exponentiate else SIGNS[compare]):
            focal = name if contrast.both else None
            rows, words = rows_at(setting, at, by, data, counterfactual, averaged=at is None, focal=focal)
            parts.append(_compared(setting, rows, contrast, asked, compare))
    assert rows is not None
    title = f"Comparisons, {words}"
    if compare == "ratio":
        return _on_logarithms(joined(setting, parts, asked, rows, title, null=1.0))
    return joined(setting, parts, asked, rows, title, back=back)


def _on_logarithms(ratios: Estimates) -> Estimates:
    """Ratios, tested and with intervals on the logarithm of each: of a log link those of its coefficient, mapped.

    On its own scale a ratio of 0.1 would lie as many errors from 1 as it pleases, and an interval could hold 0. Ratios of
    predictions that differ in sign have no logarithm, and stay as they are.
    """
    value = ratios.value
    if not bool((value > 0).all()):
        return ratios
    return replace(ratios, value=value.log(), G=ratios.G / value[:, None], null=0.0, back=torch.exp)


SIGNS = {"difference": "-", "ratio": "/", "log odds ratio": "-", "lift": "-"}
Part = tuple[Averages, Sequence[Tensor], Sequence[Tensor]]


def _compared(
    setting: Setting, rows: Rows, contrast: Contrast, asked: Sequence[Quantity], compare: str
) -> Part:
    """Labels, and of each quantity the compared averages with their gradients."""

    def versions(frame: pd.DataFrame) -> Versions:
        return Versions([setting.encoded(contrast.low(frame)), setting.encoded(contrast.high(frame))])

    functions = [prediction(setting, q, version) for q in asked for version in (0, 1)]
    found = averages(setting, rows.parts(), versions, functions, rows.labels)
    values, gradients = [], []
    for j in range(len(asked)):
        low, high = found.value[:, 2 * j], found.value[:, 2 * j + 1]
        value, (of_low, of_high) = with_slopes(_comparison(compare), [low, high])
        values.append(value)
        gradients.append(
            of_low[:, None] * found.gradient[2 * j] + of_high[:, None] * found.gradient[2 * j + 1]
        )
    labels = _labelled(found.labels, contrast.name, contrast.label)
    return Averages(labels, found.value, found.gradient), values, gradients


def _comparison(compare: str) -> Callable[[Tensor, Tensor], Tensor]:
    def of(low: Tensor, high: Tensor) -> Tensor:
        if compare == "difference":
            return high - low
        if compare == "ratio":
            return high / low
        if compare == "lift":
            return (high - low) / low
        for v in (low, high):
            if not bool(((v > 0) & (v < 1)).all()):
                raise BadArgument(
                    f"compare='log odds ratio' is of probabilities, and a prediction is {float(v.detach()[0]):g}. Accepted: "
                    "'difference', 'ratio', 'lift'."
                )
        return torch.logit(high) - torch.logit(low)

    return of


def slopes(
    setting: Setting,
    of: str | Sequence[str] | None = None,
    at: At = None,
    by: By = None,
    *,
    scale: str = "dydx",
    what: str = "response",
    data: Data = None,
    counterfactual: bool = False,
) -> Estimates:
    """∂f/∂x; of a category the differences from its first level (`Fit.slopes`)."""
    if scale not in SCALES:
        raise BadArgument(f"scale={scale!r}. Accepted: {', '.join(map(repr, SCALES))}.")
    setting = replace(setting, data=data)
    asked = quantities(setting, what, some(setting))
    known = variables(setting)
    parts, rows, words = [], None, ""
    wanted = [of] if isinstance(of, str) else known if of is None else list(of)
    if not wanted:
        raise BadArgument("no column moves the mean: there is no slope.")
    for name in wanted:
        require(setting, name, known, "slopes")
        levels = levels_of(setting, name)
        if levels is not None and scale != "dydx" and of is not None:
            raise BadArgument(
                f"scale={scale!r} of {name!r}: a category has no elasticity. Accepted: scale='dydx', the differences "
                "from its first level; or fit.comparisons."
            )
        if levels is not None:
            for contrast in contrasts(setting, name, "reference", data, "-") if scale == "dydx" else ():
                rows, words = rows_at(setting, at, by, data, counterfactual, averaged=at is None, focal=name)
                parts.append(_compared(setting, rows, contrast, asked, "difference"))
            continue
        rows, words = rows_at(setting, at, by, data, counterfactual, averaged=at is None)
        versions, make = _moves(setting, name)
        functions = [make(setting, q, scale) for q in asked]
        found = averages(setting, rows.parts(), versions, functions, rows.labels)
        labels = _labelled(found.labels, name, SCALES[scale])
        found = Averages(labels, found.value, found.gradient)
        parts.append((found, found.value.unbind(1), found.gradient))
    if rows is None:
        raise BadArgument(f"scale={scale!r} is of numbers, and every column is a category.")
    return joined(setting, parts, asked, rows, f"Slopes, {words}")


def _moves(
    setting: Setting, name: str
) -> tuple[Callable[[pd.DataFrame], Versions], Callable[[Setting, Quantity, str], RowFunction]]:
    """The versions of the rows of which a derivative in x is made, and how."""
    values = np.concatenate([numeric_column(frame, name) for frame, _ in Observed(setting, setting.data)])
    steps = steps_of(values, name)
    encoder = encoder_of(setting.reader)
    in_extras = encoder is not None and name in encoder.extras.values()

    def five(frame: pd.DataFrame) -> Versions:
        points = list(steps.points(frame))
        batches = [setting.encoded(frame), *(setting.encoded(moved) for moved, _ in points)]
        return Versions(batches, tuple(torch.from_numpy(w) for _, w in points), _x(frame, name))

    def exact(frame: pd.DataFrame) -> Versions:
        batch, one = setting.encoded(frame), torch.ones(len(frame), dtype=torch.float64)
        assert encoder is not None
        moved, nothing = slope_batches(encoder, batch, frame, steps)
        return Versions([batch, moved, nothing], (one, -one), _x(frame, name))

    if in_extras:
        return five, weighted_sum
    if encoder is None or isinstance(setting.model, DescribesRows):
        return five, derivative
    return exact, derivative


def _x(frame: pd.DataFrame, name: str) -> Tensor:
    return torch.from_numpy(np.array(numeric_column(frame, name), dtype=np.float64))


# ---- put together ------------------------------------------------------------------------------------------


def _labelled(labels: pd.DataFrame, term: str, contrast: str) -> pd.DataFrame:
    own = pd.DataFrame({"term": [term] * len(labels), "contrast": [contrast] * len(labels)})
    return pd.concat([own, labels.reset_index(drop=True)], axis=1)


def joined(
    setting: Setting,
    parts: Sequence[Part],
    asked: Sequence[Quantity],
    rows: Rows,
    title: str,
    *,
    null: float = 0.0,
    back: Callable[[Tensor], Tensor] | None = None,
) -> Estimates:
    """One table: cells in the order of their labels, and within each the categories."""
    labels, values, gradients = [], [], []
    for found, value, gradient in parts:
        order = _order(found.labels, rows.by)
        k = len(asked)
        v = torch.stack(list(value), 1)[order].reshape(-1)
        g = torch.stack(list(gradient), 1)[order].reshape(-1, setting.size)
        own = found.labels.iloc[np.repeat(order, k)].reset_index(drop=True).rename(columns={LABEL: "row"})
        if k > 1:
            at = min(2, own.shape[1]) if "term" in own else 0
            own.insert(at, "category", [q.group for q in asked] * len(order))
        labels.append(own)
        values.append(v)
        gradients.append(g)
    return Estimates(
        pd.concat(labels, ignore_index=True), torch.cat(values), torch.cat(gradients), setting.V, title, null,
        back=back,
    )  # fmt: skip


def _order(labels: pd.DataFrame, by: tuple[str, ...] | None) -> np.ndarray:
    if not by:
        return np.arange(len(labels))
    found = labels.reset_index(drop=True)
    try:
        return np.array(found.sort_values([shown_as(b) for b in by], kind="stable").index)
    except TypeError:  # values without an order
        return np.arange(len(labels))


def some(setting: Setting) -> Batch:
    """A row, of which it is asked what the family has."""
    _ = setting.family  # which is needed
    frame, _ = next(iter(Observed(setting, setting.data)))
    return setting.encoded(frame.iloc[:1])


def check_level(level: float) -> None:
    if isinstance(level, bool) or not isinstance(level, (int, float)) or not 0 < level < 1:
        raise BadArgument(f"level={level!r}. Accepted: a number between 0 and 1, such as 0.95.")


def exponential(setting: Setting, what: str) -> Callable[[Tensor], Tensor]:
    """exp, where the scale is that of logarithms: of means, odds or hazards.

    Raises
    ------
    BadArgument
        another scale
    """
    if what not in ("link", "linear"):
        raise BadArgument(
            "exponentiate=True is of the link's scale, on which differences are logarithms of ratios: what='link'."
        )
    link = link_of(setting)
    if not isinstance(link, (Log, Logit, CLogLog, Identity)):
        raise BadArgument(
            f"exponentiate=True: differences on the scale of {link} are not logarithms of ratios. Accepted: the "
            "links log, logit, cloglog, and identity of what is a logarithm."
        )
    return torch.exp


def link_of(setting: Setting) -> Link:
    """Of the first parameter."""
    return next(iter(setting.family.parameters.values())).link


# ---- intervals of single predictions -----------------------------------------------------------------------


def single(setting: Setting, rows: Rows, what: str, level: float, k: int) -> Tensor | None:
    """(m, 2), made where the prediction is nearly normal and mapped back, as `predict` does."""
    if what in ("link", "linear"):
        return None
    parts = []
    for frame, _, _ in rows.parts():
        step = max(256, CELLS // max(setting.size, 1))
        for start in range(0, len(frame), step):
            batch = setting.encoded(frame.iloc[start : start + step])
            found = [_ends(setting, batch, target, level) for target in _targets(setting, what, batch, k)]
            parts.append(torch.stack(found, 1).reshape(-1, 2))
    return torch.cat(parts)


def _targets(setting: Setting, what: str, batch: Batch, k: int) -> Iterator[_Target]:
    model, family = setting.model, setting.family
    mean = family.has("expectation")
    if what == "probabilities" or (
        what in ("response", "mean") and not mean and isinstance(family, Categories)
    ):
        of = _shares(family)
        for j in range(k):

            def forward(*eta: Tensor, j: int = j) -> Tensor:
                return torch.logit(of(*natural_at(family, eta))[..., j])

            yield _Target(forward, lambda t, eta, high: torch.sigmoid(t))
    else:
        yield _target(model, batch, "mean" if what == "response" else what)


def _ends(setting: Setting, batch: Batch, target: _Target, level: float) -> Tensor:
    eta = [e.detach() for e in eta_of(setting.model, batch)]
    t, own = with_slopes(target.forward, eta)
    G = setting.lifted(gradient_rows(setting.model, batch, own).detach())
    q = torch.from_numpy(np.asarray(student.ppf((1 + level) / 2, setting.V.freedom(G).numpy())))
    half = q * setting.V.diagonal(G).sqrt()
    ends = torch.stack([target.back(t - half, eta, False), target.back(t + half, eta, True)], 1)
    return torch.stack([ends.amin(1), ends.amax(1)], 1)
