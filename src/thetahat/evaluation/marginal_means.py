"""Estimated marginal means: the means that the groups would have if the design were balanced, and their differences.

    m_g = Σ_h w_h η(g, h),      h the combinations of the other categories, numbers and offsets at their means

on the scale of the link where the mean is a function of one linear predictor, and then mapped back (of m trials to the
probability); of other means, and of probabilities of categories, on their own scale.

References
----------
Searle, Speed and Milliken (1980), Population marginal means in the linear model: an alternative to least squares means;
Lenth (2016), Least-squares means: the R package lsmeans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch
from ..errors import BadArgument
from ..families.links import Identity, Log, Logit
from ..protocols import encoder_of
from ..types import Level
from .adjustment import check
from .design_slopes import factors_of
from .effects import exponential, joined, link_of, some
from .fitted_values import centre, eta_of, extras_of, free_of, natural_at, with_slopes
from .margin_estimates import Estimates
from .margin_grids import balanced, chosen, grid, two_or_levels, typical
from .margin_rows import At, Observed, Rows, require, variables
from .row_functions import LABEL, Setting, Versions, averages, prediction, quantities

WEIGHTS = ("equal", "proportional")
PAIRS = {True: "pairwise", "pairwise": "pairwise", "reference": "reference", "sequential": "sequential"}


def means(
    setting: Setting,
    of: str | Sequence[str],
    at: At = None,
    *,
    pairs: bool | str = False,
    adjust: str | None = "tukey",
    what: str = "response",
    weights: str = "equal",
    exponentiate: bool = False,
    by: str | Sequence[str] = (),
) -> Estimates:
    """Marginal means of categories, or their differences (`Fit.means`)."""
    check(adjust)
    if pairs not in (False, *PAIRS):
        raise BadArgument(f"pairs={pairs!r}. Accepted: False, True, 'reference', 'sequential'.")
    if weights not in WEIGHTS:
        raise BadArgument(f"weights={weights!r}. Accepted: {', '.join(map(repr, WEIGHTS))}.")
    _ = setting.family  # which is needed
    names, within = ((v,) if isinstance(v, str) else tuple(v) for v in (of, by))
    twice = next((n for n in within if n in names), None)
    if twice is not None:
        raise BadArgument(f"means(by={twice!r}): the means are of that column. Accepted: another.")
    names = (*names, *within)
    rows = _reference(setting, names, at, weights)
    back, ratio = _scale(setting, what, exponentiate)
    asked = quantities(setting, what if back is None else "link", some(setting))
    functions = [prediction(setting, q) for q in asked]
    offsets = _mean_offsets(setting, at)

    def versions(frame: pd.DataFrame) -> Versions:
        tensors = dict(setting.encoded(frame).tensors)
        one = torch.ones(len(frame), dtype=torch.float64)
        return Versions([Batch({**tensors, **{name: value * one for name, value in offsets.items()}})])

    found = averages(setting, rows.parts(), versions, functions, rows.labels)
    title = f"Marginal means of {', '.join(names)}" + _averaged(setting, names, at)
    out = joined(setting, [(found, found.value.unbind(1), found.gradient)], asked, Rows([], ()), title)
    if not pairs:
        return Estimates(**{**vars(out), "back": back})
    cells = _cells(out, [q.group for q in asked] if len(asked) > 1 else None, within)
    title = {"ratio": "Ratios", "odds ratio": "Odds ratios"}.get(
        str(ratio), "Differences"
    ) + " of marginal means of "
    title += ", ".join(n for n in names if n not in within) + (f" by {', '.join(within)}" if within else "")
    title += " on the link's scale" if ratio is None and (back is not None or what == "link") else ""
    return _differences(cells, PAIRS[pairs], adjust, ratio, title)


def _reference(setting: Setting, names: Sequence[str], at: At, weights: str) -> Rows:
    """The reference grid."""
    if not names:
        raise BadArgument("means() names no column. Accepted: a category of the formula, or several.")
    if at is not None and not isinstance(at, Mapping):
        raise BadArgument(f"means(at={at!r}). Accepted: values of columns, such as {{'x': 10}}.")
    known = variables(setting)
    frame, weight = Observed(setting).whole()
    values = {} if at is None else chosen(setting, at, frame)
    for name in names:
        require(setting, name, known, "means")
        if name not in values and two_or_levels(setting, name, frame) is None:
            raise BadArgument(
                f"means({name!r}): the column is a number. Accepted: a category; or its values, at={{{name!r}: [1, 2]}}; "
                "or fit.slopes."
            )
    own = balanced(setting, values, frame)
    ordered = {**{n: own[n] for n in names}, **{n: v for n, v in own.items() if n not in names}}
    base = typical(setting, frame, weight, "mean")
    rows = grid(setting, base, ordered)
    w = np.ones(len(rows))
    others = [n for n in ordered if n not in names and n not in values]
    if weights == "proportional" and others:
        share = pd.Series(weight).groupby([frame[n].to_numpy() for n in others]).sum()
        keys = list(rows[others].itertuples(index=False, name=None))
        w = np.array([float(share.get(k if len(others) > 1 else k[0], 0.0)) for k in keys])
    return Rows([(rows.assign(**{LABEL: np.arange(len(rows))}), w)], tuple(names))


def _mean_offsets(setting: Setting, at: At) -> dict[str, float]:
    """Offsets at their means on the scale of the link, as emmeans has them, unless `at` says a column that they read."""
    encoder = encoder_of(setting.reader)
    fixed = set(at) if isinstance(at, Mapping) else set()
    out = {}
    for slot, design in enumerate(() if encoder is None else encoder.designs):
        if design.offset is None or any(fixed & read for _, read in factors_of(design.offset, design)):
            continue
        parts = [(design.offsets(frame), weight) for frame, weight in Observed(setting)]
        total = sum(float((w * o).sum()) for o, w in parts if o is not None)
        out[f"offset{slot}"] = total / sum(float(w.sum()) for _, w in parts)
    return out


def _averaged(setting: Setting, names: Sequence[str], at: At) -> str:
    given = at if isinstance(at, Mapping) else {}
    frame, _ = Observed(setting).whole()
    over = [n for n in balanced(setting, {}, frame) if n not in names and n not in given]
    return f", averaged over {', '.join(over)}" if over else ""


def _scale(
    setting: Setting, what: str, exponentiate: bool
) -> tuple[Callable[[Tensor], Tensor] | None, str | None]:
    """How means on the link's scale are reported (None: they are not on it, or as they are), and what differences of them
    are, mapped: "ratio", "odds ratio", None."""
    if exponentiate:
        exp = exponential(setting, what)
        return exp, "odds ratio" if isinstance(link_of(setting), Logit) else "ratio"
    if what not in ("response", "mean"):
        return None, None
    family, model = setting.family, setting.model
    if not family.has("expectation"):
        return None, None
    batch = some(setting)
    extras = extras_of(model, batch)
    eta = [e.detach() for e in eta_of(model, batch)]
    mean, slopes = with_slopes(lambda *e: centre(family, natural_at(family, e), **extras), eta)
    moving = [j for j in free_of(model, range(len(slopes))) if bool((slopes[j] != 0).any())]
    link = link_of(setting)
    own = link.inverse(eta[0]) * extras.get("trials", 1.0)  # of m trials the mean of one, as emmeans has it
    same = mean.ndim == 1 and torch.allclose(mean, own, rtol=1e-12, atol=0.0)
    if moving != [0] or not same or isinstance(link, Identity):
        return None, None
    return link.inverse, "ratio" if isinstance(link, Log) else "odds ratio" if isinstance(
        link, Logit
    ) else None


def _cells(
    out: Estimates, groups: Sequence[Level] | None, within: Sequence[str]
) -> list[tuple[dict[str, object], Estimates]]:
    """The means apart: of each category of the response, and of each combination of the levels of `within`."""
    names = [*within, *(["category"] if groups is not None else [])]
    if not names:
        return [({}, out)]
    seen = out.labels[names].drop_duplicates()
    found = []
    for row in seen.to_dict("records"):
        index = np.flatnonzero((out.labels[names] == pd.Series(row)).all(axis=1).to_numpy())
        labels = out.labels.iloc[index].drop(columns=names).reset_index(drop=True)
        own = Estimates(**{**vars(out), "labels": labels, "value": out.value[index], "G": out.G[index]})
        found.append(({str(k): v for k, v in row.items()}, own))
    return found


def _differences(
    cells: Sequence[tuple[dict[str, object], Estimates]],
    kind: str,
    adjust: str | None,
    ratio: str | None,
    title: str,
) -> Estimates:
    """Of the means of each cell in turn, one family of contrasts each."""
    made = [part.pairs(kind, adjust) for _, part in cells]
    labels = []
    for (cell, _), found in zip(cells, made, strict=True):
        own = found.labels
        if ratio is not None:
            own = own.assign(contrast=own["contrast"].str.replace(" - ", " / ", regex=False))
        for name, value in cell.items():
            own = own.assign(**{name: pd.Series([value] * len(own), index=own.index)})
        labels.append(own)
    return Estimates(
        pd.concat(labels, ignore_index=True),
        torch.cat([m.value for m in made]),
        torch.cat([m.G for m in made]),
        made[0].V,
        title,
        back=torch.exp if ratio is not None else None,
        adjust=made[0].adjust,
        means=made[0].means,
        families=np.repeat(np.arange(len(made)), [len(m.value) for m in made]) if len(made) > 1 else None,
    )
