"""Which prior, and of what scale: by rows that the fit has not seen, or by the evidence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch, concatenate
from ..data.source import Source, Tensors
from ..errors import BadArgument, FitError
from ..inference.evidence import evidence, unheld
from ..likelihood import LogLikelihood, LogPrior, Objective
from ..likelihood.priors import Prior
from ..likelihood.total import spread
from ..notebook import block
from ..printable import encoded, printable
from ..protocols import OfRows, Together, log_determinant_of, target_of, units_of
from ..solvers import Certificate, Newton, Proximal, optimise
from ..solvers import choose as solver_for
from ..threads import one_thread
from ..types import Plain, fields_of
from .score import score

BY = ("held out", "one standard error", "evidence")

Priors = tuple[Prior, ...]

FORMATS = {
    **dict.fromkeys(("held_out", "error", "difference", "difference_error"), "{:.4f}".format),
    "evidence": "{:.2f}".format,
}


def _cell(name: Plain, value: Plain) -> str:
    if isinstance(value, float):
        return "—" if math.isnan(value) else FORMATS.get(name, "{:g}".format)(value).replace("-", "−")
    return str(value)


@dataclass
class Choice:
    """Several priors on the same model, and which of them the data ask for. It prints itself.

        held_out, error              mean nats of a row that the fit had not seen, and its standard error
        difference, difference_error what it is less than the best, and the standard error of that, row by row
        evidence                     nats, of all rows; NaN where there is none (a kink, or other coordinates without a prior)
        zeros                        coefficients that are exactly zero in the fit to all rows
        maximum                      what the fit to all rows came to

    Parameters
    ----------
    table
        a row a candidate, with columns
    best
        the number of the chosen row
    prior
        the chosen priors
    by
        how they were chosen
    folds
        parts of the rows, each held out once
    flat
        coordinates without a prior, over which the evidence is known up to a constant only, the same in every
        row
    fit
        with the chosen priors, to all rows
    """

    table: pd.DataFrame
    best: int
    prior: Priors
    by: str
    folds: int
    flat: tuple[str, ...] = ()
    fit: Plain = None

    @property
    def scale(self) -> float:
        """Of the first of the chosen priors."""
        if not self.prior:
            raise BadArgument("the chosen candidate is not a prior at all: it has no scale.")
        return self.prior[0].scale

    def _shown(self) -> pd.DataFrame:
        """The table without what says nothing, and an arrow at the chosen row."""
        shown = self.table.dropna(axis="columns", how="all")
        if (shown["maximum"] == "certified maximum").all():
            shown = shown.drop(columns="maximum")
        if "zeros" in shown:
            shown = shown.assign(zeros=["—" if pd.isna(z) else str(z) for z in shown["zeros"]])
        shown.insert(0, "", ["→" if i == self.best else "" for i in range(len(shown))])
        return shown

    def _notes(self) -> list[str]:
        how = {"evidence": "by the evidence", "held out": f"by rows held out ({self.folds} parts)"}.get(
            self.by,
            f"by rows held out ({self.folds} parts): the least scale within one standard error of the best",
        )
        flat = [f"No prior is on {', '.join(self.flat)}: the evidence is up to a constant."]
        return [f"Chosen {how}: {_called(self.prior)}.", *(flat if self.flat else [])]

    @encoded
    def __str__(self) -> str:
        text = self._shown().to_string(formatters=FORMATS, na_rep="—")
        return printable("\n".join([text, "", *self._notes()]))

    def _repr_html_(self) -> str:
        shown = self._shown()
        rows = [[_cell(name, value) for name, value in row.items()] for row in shown.to_dict("records")]
        text = [j for j, c in enumerate(shown) if not pd.api.types.is_numeric_dtype(shown[c])]
        return block("", list(map(str, shown)), rows, self._notes(), left=text)

    __repr__ = __str__


def choose(
    objective: Objective,
    theta: Tensor,
    candidates: Sequence[Prior | Sequence[Prior] | None],
    by: str = "held out",
    *,
    folds: int = 10,
    seed: int = 0,
) -> Choice:
    """Fit with each candidate in the place of the objective's own priors, and choose among them.

        held out             argmax Σ_k Σ_{i in part k} log p(x_i | θ̂ of the other parts); of Cox's model, whose rows
                             have a likelihood together only, Σ_k ℓ(all rows) − ℓ(the other parts), at that θ̂
        one standard error   of the same kind as that, the least scale whose difference from it is within one standard error
        evidence             argmax log ∫ p(data | θ) p(θ) dθ (`inference.evidence`)

    Parameters
    ----------
    objective
        of one log-likelihood, in the state θ̂ = `theta`, (p,)
    candidates
        each a prior, several priors, or None for none
    by
        one of `BY`
    folds
        parts of the rows (of the groups, where the batches name them), each held out once
    seed
        of the parts, which are the same for all candidates

    Returns
    -------
    Choice
        whose `fit` is for the caller to make

    Raises
    ------
    BadArgument
        fewer than one candidate, an unknown `by`, fewer rows than parts; several terms, or a weighting
    NotConverged
        no candidate can be judged by that criterion

    References
    ----------
    Stone (1974), Cross-validatory choice and assessment of statistical predictions; Breiman et al. (1984),
    Classification and regression trees, §3.4.3 (one standard error); MacKay (1992), Bayesian interpolation.
    """
    objective = objective.at(theta)
    tried = _checked(objective, candidates, by, folds)
    term = objective.terms[0]
    with one_thread():
        whole = along(term, term.source, tried)
        flat, nats = _evidences(whole)
        values, count, group = _held_out(term, tried, folds, seed)
    table = _table(values, count, group)
    table["evidence"] = nats
    table["zeros"] = pd.array([certificate.zeros for certificate, _ in whole], dtype="Int64")
    table["maximum"] = [certificate.status for certificate, _ in whole]
    table.index = pd.Index([_called(priors) for priors in tried], name="prior")
    best = _best(table, tried, by)
    return Choice(table, best, tried[best], by, folds, flat if table["evidence"].notna().any() else ())


def _checked(objective: Objective, candidates: Plain, by: str, folds: int) -> list[Priors]:
    if by not in BY:
        raise BadArgument(f"by={by!r}. Accepted: {', '.join(map(repr, BY))}.")
    if (
        len(objective.terms) != 1
        or objective.terms[0].weights is not None
        or objective.terms[0].robust is not None
    ):
        raise BadArgument(
            "a prior is chosen for an objective of one log-likelihood without a weighting: its rows are what "
            "is held out."
        )
    if isinstance(candidates, Prior) or not isinstance(candidates, Sequence) or not len(candidates):
        raise BadArgument(
            f"candidates={candidates!r}: a list of priors, such as [th.priors.Normal(s) for s in (0.1, 1.0, "
            "10.0)]."
        )
    tried: list[Priors] = []
    for candidate in candidates:
        several = (
            candidate if isinstance(candidate, (list, tuple)) else [] if candidate is None else [candidate]
        )
        tried.append(tuple(several))
        for each in several:
            if not isinstance(each, Prior):
                raise BadArgument(f"candidates hold {each!r}: each is a prior, a list of priors, or None.")
            each.coordinates(objective.model)
    size = objective.rows
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2 or size is None or folds > size:
        raise BadArgument(f"folds={folds!r}: a whole number from 2 to the number of rows ({size}).")
    return tried


# ---- the fits ----------------------------------------------------------------------------------------------


class _Part(Tensors):
    """Some rows of a source, in its units."""

    def __init__(self, rows: Batch, of: Source):
        super().__init__(rows, target=target_of(of))
        self.of = of
        self.scored_in = units_of(of)

    def log_determinant(self, batch: Batch) -> Tensor | None:
        return log_determinant_of(self.of, batch)


def along(term: LogLikelihood, source: Source, tried: list[Priors]) -> list[tuple[Certificate, Objective]]:
    """A fit of the term's model to a source under each candidate, each begun where the one before ended: its
    certificate, and the objective there, of a simpler model where a parameter is at its boundary."""
    out: list[tuple[Certificate, Objective]] = []
    for priors in tried:
        own = Objective([term.over(source)], [LogPrior(each, term.model) for each in priors])
        solver = solver_for(own)
        if out and out[-1][0].status == "certified maximum" and isinstance(solver, (Newton, Proximal)):
            solver = dataclasses.replace(solver, begin=out[-1][1].theta)
        ended, certificate, _ = optimise(own, solver)
        out.append((certificate, ended))
    return out


def _evidences(fits: list[tuple[Certificate, Objective]]) -> tuple[tuple[str, ...], list[float]]:
    """The coordinates left without a prior by those that leave fewest, and the evidence of each candidate
    that leaves those."""
    left = [tuple(unheld(objective)) for _, objective in fits]
    reference = min(left, key=len)
    out = []
    for (certificate, objective), names in zip(fits, left, strict=True):
        if (
            objective.terms[0].robust is not None
            or names != reference
            or not certificate.ok
            or objective.kinked
            or any(isinstance(p.prior, OfRows) for p in objective.priors)  # known up to a factor
            or len(names) == objective.size
        ):
            out.append(math.nan)
            continue
        try:
            out.append(evidence(objective, objective.theta, flat=True))
        except FitError:
            out.append(math.nan)
    return reference, out


def _held_out(
    term: LogLikelihood, tried: list[Priors], folds: int, seed: int
) -> tuple[list[Tensor], Tensor, Tensor | None]:
    """log p of each row under each candidate's fit to the other parts, (n,); the rows' counts and groups. NaN
    where such a fit has no maximum."""
    rows = concatenate(list(term.source.batches(term.model)))
    if isinstance(term.model, Together):
        own = _held_out_together(term, rows, tried, folds, seed)
        count = rows.count.to(torch.float64).reshape(-1)
        return own, count, rows.group.reshape(-1) if rows.grouped else None
    held: list[list[Tensor]] = [[] for _ in tried]
    counts: list[Tensor] = []
    groups: list[Tensor] = []
    for inside, outside in _parts(rows, folds, seed):
        train, test = _Part(rows[inside], term.source), _Part(rows[outside], term.source)
        counts.append(test.whole.count.to(torch.float64).reshape(-1))
        groups.append(test.whole.group.reshape(-1))
        for own, (certificate, ended) in zip(held, along(term, train, tried), strict=True):
            found = (
                score(ended.model, test).per_observation
                if certificate.ok
                else torch.full_like(counts[-1], math.nan)
            )
            own.append(found)
    return [torch.cat(own) for own in held], torch.cat(counts), torch.cat(groups) if rows.grouped else None


def _held_out_together(
    term: LogLikelihood, rows: Batch, tried: list[Priors], folds: int, seed: int
) -> list[Tensor]:
    """Of rows that have a likelihood together only: each row's part, (n,), of

        Σ_k ℓ(θ̂ of the other parts; all rows) − ℓ(θ̂ of the other parts; the other parts)

    Source: Verweij and van Houwelingen (1993), Cross-validation in survival analysis.
    """
    held = [torch.zeros(len(rows), dtype=torch.float64) for _ in tried]
    for inside, _ in _parts(rows, folds, seed):
        train = rows[inside]
        for own, (certificate, ended) in zip(
            held, along(term, _Part(train, term.source), tried), strict=True
        ):
            if not certificate.ok:
                own.fill_(math.nan)
                continue
            with torch.no_grad():
                own += ended.model.log_prob(rows)
                own[inside] -= ended.model.log_prob(train)
    return held


def _parts(rows: Batch, folds: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows to fit to, rows held out), as many as there are parts: nearly equal, at random, groups whole."""
    units = rows.group.reshape(len(rows), -1)[:, 0] if rows.grouped else torch.arange(len(rows))
    codes = torch.unique(units, return_inverse=True)[1].numpy()
    part = (np.random.default_rng(seed).permutation(int(codes.max()) + 1) % folds)[codes]
    for k in range(folds):
        yield torch.from_numpy(np.flatnonzero(part != k)), torch.from_numpy(np.flatnonzero(part == k))


# ---- the choice --------------------------------------------------------------------------------------------


def _table(values: list[Tensor], count: Tensor, group: Tensor | None) -> pd.DataFrame:
    n = float(count.sum())
    means = [float((count * v).sum()) / n for v in values]
    top = max(range(len(means)), key=lambda i: -math.inf if math.isnan(means[i]) else means[i])
    out = []
    for v, mean in zip(values, means, strict=True):
        apart = v - values[top]
        lost = math.isnan(mean)
        error, between = (
            (math.nan, math.nan) if lost else (spread(v, count, group) / n, spread(apart, count, group) / n)
        )
        out.append(
            {"held_out": mean, "error": error, "difference": mean - means[top], "difference_error": between}
        )
    return pd.DataFrame(out)


def _best(table: pd.DataFrame, tried: list[Priors], by: str) -> int:
    column = table["evidence" if by == "evidence" else "held_out"]
    usable = (
        column.notna().to_numpy()
        & table["maximum"].isin(["certified maximum", "boundary", "stochastic"]).to_numpy()
    )
    if not usable.any():
        raise BadArgument(
            "no candidate has an evidence: it needs smooth priors (Normal, StudentT) and a certified "
            "maximum. Choose by='held out'."
            if by == "evidence"
            else "no candidate has a certified maximum on every part of the rows. Give priors, or priors of smaller scale."
        )
    best = int(np.where(usable, column.to_numpy(), -math.inf).argmax())
    if by != "one standard error" or not tried[best]:
        return best
    kind = [type(each) for each in tried[best]]
    near = [
        i
        for i, priors in enumerate(tried)
        if usable[i]
        and [type(each) for each in priors] == kind
        and -table["difference"].iloc[i] <= table["difference_error"].iloc[i]
    ]
    return min(near, key=lambda i: tried[i][0].scale)


def _called(priors: Priors) -> str:
    """Normal(0.5); with the settings that are not as they stand by default."""
    out = []
    for each in priors:
        default, own = {f.name: f.default for f in dataclasses.fields(each)}, fields_of(each)
        if isinstance(each, OfRows):
            out.append(str(each))
            continue
        inside = [
            f"{each.scale:.4g}",
            *(f"{n}={v!r}" for n, v in own.items() if n != "scale" and v != default[n]),
        ]
        out.append(f"{type(each).__name__}({', '.join(inside)})")
    return " and ".join(out) or "none"
