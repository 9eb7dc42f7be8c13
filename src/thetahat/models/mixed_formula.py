"""From the random and smooth terms of a formula to the terms of a mixed model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..data.columns import numeric_column
from ..data.design import Design, build
from ..data.formula import Predictors, read
from ..data.frame import Frame
from ..data.random_terms import Grouping, RandomCall, build_grouping, take_apart
from ..data.selection import Selection
from ..data.smooths import Curve, SmoothCall, build_curves
from ..errors import BadArgument, BadFormula
from ..families.base import Family
from .regression import NARROW
from .scales import STRUCTURES, Diagonal, Penalised, Structure

if TYPE_CHECKING:
    from .random_effects import Random


@dataclass(frozen=True)
class Sides:
    """A right-hand side taken apart: what is fixed, and its random and smooth terms."""

    fixed: str
    random: tuple[RandomCall, ...]
    smooth: tuple[str, ...]

    @property
    def plain(self) -> bool:
        return not self.random and not self.smooth


def sides(text: str) -> Sides:
    fixed, random, smooth = take_apart(text)
    return Sides(fixed, tuple(random), tuple(smooth))


def effects_read(found: Mapping[str, Sides], frame: Frame, *, trusted: bool) -> dict[str, Predictors]:
    """The right-hand sides before the bars, read against the columns.

    Raises
    ------
    BadFormula, UnknownColumn
    """
    out: dict[str, Predictors] = {}
    for each in found.values():
        for call in each.random:
            frame.require(sorted(call.group))
            if call.effects not in out:
                out[call.effects] = read(call.effects, frame, trusted=trusted)
                if out[call.effects].offsets:
                    raise BadFormula(
                        f"{call.text!r}: an offset stands outside the brackets of a random effect."
                    )
    return out


class Builder:
    """Collects what the encoder needs of random terms: designs of their effects, and groupings."""

    def __init__(
        self, rows: Selection, effects: Mapping[str, Predictors], designs: list[Design], family: Family
    ):
        self.rows, self.effects, self.designs, self.family = rows, effects, designs, family
        self.groupings: list[Grouping] = []
        self.curves: list[Curve] = []
        self._of_call: dict[SmoothCall, tuple[int, ...]] = {}
        self._slots: dict[str, int] = {}
        self._grouped: dict[tuple[str, ...], int] = {}

    def random(self, parameter: str, calls: Sequence[RandomCall]) -> list[Random]:
        """The terms of one parameter of the family."""
        from .random_effects import Random  # brings scipy, which takes long to load

        out = []
        seen: set[tuple[str, ...]] = set()
        for call in calls:
            key = (call.effects, *call.group)
            if key in seen:
                raise BadFormula(f"{call.text!r} stands twice in the formula of {parameter}.")
            seen.add(key)
            slot, source = self._design(call), self._grouping(call.group, call.text)
            design, grouping = self.designs[slot], self.groupings[source]
            names = tuple(design.names)
            self._refuse(call, design, grouping)
            kind = STRUCTURES[call.structure]
            structure: Structure = Diagonal(1)
            if len(names) == 1:
                if call.structure in ("cs", "ar1"):
                    raise BadFormula(
                        f"{call.text!r}: {call.structure}(…) needs several effects, such as (0 + f | g)."
                    )
            else:
                structure = kind(len(names))
            out.append(Random(parameter, grouping.label, names, structure, slot, source, call.text))
        return out

    def places(self, calls: Sequence[SmoothCall]) -> list[int]:
        """Which curves those calls are, all of one parameter, built on the rows the first time."""
        calls = _sharing(calls)
        for call in calls:
            if call not in self._of_call:
                made = build_curves(call, self.rows.read(sorted(call.required)), self._counts())
                self._of_call[call] = tuple(range(len(self.curves), len(self.curves) + len(made)))
                self.curves += made
        return [i for call in calls for i in self._of_call[call]]

    def _counts(self) -> np.ndarray | None:
        """Frequency weights of the rows."""
        name = self.rows.weights
        return None if name is None else numeric_column(self.rows.read([name]), name)

    def smooth(self, parameter: str, calls: Sequence[SmoothCall]) -> list[Random]:
        """The penalised parts of the smooth terms of one parameter of the family."""
        from .random_effects import Random, curve_of_each_group

        out = []
        for i in self.places(calls):
            curve = self.curves[i]
            factor = curve.smooth.call.factor
            if factor is not None:
                source = self._grouping((factor,), curve.smooth.call.text)
                out.append(curve_of_each_group(parameter, i, curve, source, self.groupings[source].label))
                continue
            structure = Penalised.of(curve.penalties, curve.smooth.of_what)
            out.append(
                Random(parameter, curve.label, (curve.label,), structure, -1, i, curve.smooth.call.text)
            )
        return out

    def _design(self, call: RandomCall) -> int:
        if call.effects not in self._slots:
            self._slots[call.effects] = len(self.designs)
            self.designs.append(build(self.effects[call.effects], self.rows, intercept=True))
        return self._slots[call.effects]

    def _grouping(self, key: tuple[str, ...], text: str) -> int:
        if key not in self._grouped:
            self._grouped[key] = len(self.groupings)
            self.groupings.append(build_grouping(key, self.rows, text))
        return self._grouped[key]

    def _refuse(self, call: RandomCall, design: Design, grouping: Grouping) -> None:
        """Effects that the groups cannot tell apart."""
        if not design.names:
            raise BadFormula(
                f"{call.text!r} has no effect before the |. For a random intercept write (1 | g)."
            )
        if any(term.size > NARROW for term in design.coded):
            raise BadFormula(
                f"{call.text!r} gives each group {len(design.names)} correlated effects. Write (1 | {grouping.label}:f) for "
                "one variance."
            )
        code = grouping.codes(self.rows.read(list(grouping.columns)))
        for name in design.numeric:
            x = numeric_column(self.rows.read([name]), name)
            low, high = np.full(grouping.size, np.inf), np.full(grouping.size, -np.inf)
            np.minimum.at(low, code, x)
            np.maximum.at(high, code, x)
            if design.intercept and bool((low == high).all()):
                raise BadFormula(
                    f"{call.text!r}: column {name!r} is constant within every group of {grouping.label}, so that its slope "
                    f"cannot be told from the intercept. Write (1 | {grouping.label})."
                )


def _sharing(calls: Sequence[SmoothCall]) -> list[SmoothCall]:
    """Of the curves of each group of one factor the first has the groups' constant."""
    factors = [call.factor for call in calls]
    return [
        replace(call, shared=call.factor is not None and call.factor in factors[:i])
        for i, call in enumerate(calls)
    ]


def check_normal_rows(
    random: Sequence[Random], groupings: Sequence[Grouping], n: int, family: Family
) -> None:
    """Refuse a random intercept that is the residual itself.

    Raises
    ------
    BadFormula
        as many groups as rows, of a normal response
    """
    from ..families.normal import Normal

    if not isinstance(family, Normal):
        return
    for r in random:
        if not r.smooth and r.parameter == "mean" and groupings[r.source].size >= n:
            raise BadFormula(
                f"(… | {r.label}) has {groupings[r.source].size} groups in {n} rows, one row a group: its variance cannot be "
                "told from the residual's. Leave the term out."
            )


def check_curvature(random: Sequence[Random], family: Family) -> None:
    """Refuse effects on a parameter in which log p has no curvature: their integral has no Laplace approximation.

    Raises
    ------
    BadArgument
    """
    from ..families.laplace import AsymmetricLaplace, Laplace

    if not isinstance(family, (Laplace, AsymmetricLaplace)):
        return
    straight = next(iter(family.parameters))
    found = next((r for r in random if r.parameter == straight), None)
    if found is not None:
        raise BadArgument(
            f"{family} is a straight line in its {straight} on either side of y, without curvature, so that {found.text} has no "
            f"Laplace approximation. Accepted: curves of fixed columns, ns(x, df=4) or bs(x, df=4), and {found.text} in the "
            "scale."
        )


def check_shared_parts(random: Sequence[Random], curves: Sequence[Curve]) -> None:
    """Refuse two terms that give the groups of one factor the same effect: the sum of its two variances alone is in the
    likelihood.

    Raises
    ------
    BadFormula
    """
    seen: dict[tuple[str, int, str], Random] = {}
    for r in random:
        if r.smooth:
            continue
        effects = list(r.effects)
        if r.each:
            own = curves[r.curve]
            effects = ["Intercept", *own.smooth.call.variables][
                : len(own.penalties) - 1 + own.smooth.call.shared
            ]
            effects = effects[own.smooth.call.shared :]
        for effect in effects:
            before = seen.setdefault((r.parameter, r.source, effect), r)
            if before is not r and (r.each or before.each):
                what = "an intercept" if effect == "Intercept" else f"a slope of {effect}"
                raise BadFormula(
                    f"{before.text} and {r.text} both give each group of {r.label} {what}, so that its two variances cannot be told "
                    "apart. Leave one of the terms out: a curve of each group has its intercept and its slope already."
                )


def check_quadrature(random: Sequence[Random], points: int, reml: bool) -> None:
    """Refuse what Gauss and Hermite's rule does not reach.

    Raises
    ------
    BadArgument
    """
    if isinstance(points, bool) or not isinstance(points, int) or not 1 <= points <= 100:
        raise BadArgument(f"quadrature={points!r}. Accepted: a whole number of nodes, 1 (Laplace) to 100.")
    if points == 1:
        return
    factors = {r.source for r in random if not r.smooth}
    effects = sum(len(r.effects) for r in random if not r.smooth)
    if any(r.smooth for r in random) or len(factors) > 1 or effects > 3:
        raise BadArgument(
            f"quadrature={points} is of one grouping factor with at most 3 effects a group, and no smooth term; the model has "
            f"{len(factors)} grouping factors and {effects} effects. Use quadrature=1, Laplace's approximation."
        )
    if reml:
        raise BadArgument(
            f"quadrature={points} and reml=True cannot be given together. Leave one of them out."
        )


def needs_terms(reml: bool, quadrature: int) -> None:
    """Refuse settings of random effects where there are none.

    Raises
    ------
    BadArgument
    """
    if reml:
        raise BadArgument(
            "reml=True integrates fixed effects out beside random effects or smooth terms, and the formula has neither: "
            "(1 | g), s(x). Of a normal linear model the standard errors allow for n − p already."
        )
    if quadrature != 1:
        raise BadArgument(
            f"quadrature={quadrature}: the formula has no random effects to integrate over: (1 | g)."
        )
