"""Linear restrictions on the estimates, as text: R v = r.

    hypothesis   = restriction {"," restriction}
    restriction  = sum "=" sum {"=" sum}
    sum          = ["-"] product {("+" | "-") product}
    product      = factor {("*" | "/") factor}
    factor       = number | name | "`" name "`" | "(" sum ")"

A name is that of an estimate, whatever is in it: "C(region)[T.b]", "x:z". Names are matched as they stand,
the longest first; columns in them may be in backticks, as formulas write them.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import BadArgument
from .natural import unknown

NUMBER = re.compile(r"(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf\b|∞)")
WORD = re.compile(r"[^\s+\-*/=(),`]+")
RANK = 1e-10  # of the singular values of R, each row of unit length


@dataclass(frozen=True)
class Linear:
    """coefficients · v + constant."""

    coefficients: np.ndarray
    constant: float

    @property
    def number(self) -> bool:
        return not self.coefficients.any()


@dataclass(frozen=True)
class Restrictions:
    """R v = r: R (m, q), r (m,), and what was written."""

    R: np.ndarray
    r: np.ndarray
    text: str


def parse(hypothesis: str | Sequence[str], names: Sequence[str]) -> Restrictions:
    """R and r of a hypothesis.

    Parameters
    ----------
    hypothesis
        "x = 0", "x = z", "2*x + z = 1", "x = z = 0", "x = 0, z = 1", or a list of such
    names
        of the estimates

    Raises
    ------
    BadArgument
        what cannot be read, a name that no estimate has, a product of names, restrictions that contradict or
        repeat each other

    Examples
    --------
    >>> parse("2*x - `z` = 1, x = z", ["x", "z"]).R.tolist()
    [[2.0, -1.0], [1.0, -1.0]]
    """
    texts = [hypothesis] if isinstance(hypothesis, str) else list(hypothesis)
    if not texts or not all(isinstance(t, str) for t in texts):
        raise BadArgument(
            f"a hypothesis is text such as 'x = 0', or a list of such; received {hypothesis!r}."
        )
    rows: list[Linear] = []
    for text in texts:
        rows += _Parser(text, names).restrictions()
    R, r = np.array([row.coefficients for row in rows]), np.array([-row.constant for row in rows])
    _check(R, r, ", ".join(texts))
    return Restrictions(R, r, ", ".join(t.strip() for t in texts))


def _check(R: np.ndarray, r: np.ndarray, text: str) -> None:
    norms = np.linalg.norm(R, axis=1)
    if not norms.all():
        raise BadArgument(f"the hypothesis {text!r} has a restriction that no estimate enters.")
    U, s, _ = np.linalg.svd(R / norms[:, None])
    rank = int((s > RANK).sum())
    if rank < len(R):
        finite = np.where(np.isfinite(r), r, 0.0) / norms
        what = (
            "contradict"
            if np.abs(U[:, rank:].T @ finite).max() > 1e-9 * (1 + np.abs(finite).max())
            else "repeat"
        )
        raise BadArgument(
            f"the restrictions of {text!r} {what} each other: {len(R)} are given, {rank} are independent."
        )


class _Parser:
    """Recursive descent over one hypothesis."""

    def __init__(self, text: str, names: Sequence[str]):
        self.text, self.names = text, list(names)
        self.tokens: list[tuple[str, str]] = []
        self.at = 0
        self._tokenise()

    # ---- tokens --------------------------------------------------------------------------------------------

    def _tokenise(self) -> None:
        longest, text, i = sorted(self.names, key=len, reverse=True), self.text, 0
        while i < len(text):
            if text[i].isspace():
                i += 1
                continue
            found = next(((n, end) for n in longest if n and (end := self._end(n, i)) is not None), None)
            if found is None and text[i] == "`":
                end = text.find("`", i + 1)
                raise self._error("a backtick is not closed") if end < 0 else self._unknown(text[i + 1 : end])
            number = NUMBER.match(text, i)
            if found is not None:
                self.tokens.append(("name", found[0]))
                i = found[1]
            elif number:
                self.tokens.append(("number", number.group()))
                i = number.end()
            elif text[i] in "+-*/=(),":
                i = i + 1 if text[i] != "=" or text[i : i + 2] != "==" else i + 2
                self.tokens.append((text[i - 1], text[i - 1]))
            else:
                word = WORD.match(text, i)
                raise self._unknown(word.group() if word else text[i])

    def _end(self, name: str, i: int) -> int | None:
        """Where a name that stands at i ends; None: it does not stand there. 'x' is not found in 'xy'.

        Columns may be in backticks, as a formula writes them, or not: "`site name`[T.b]" is "site name[T.b]".
        They are closed within the name.
        """
        text, quotes = self.text, 0
        for character in name.replace("`", ""):
            while text[i : i + 1] == "`":
                i, quotes = i + 1, quotes + 1
            if text[i : i + 1] != character:
                return None
            i += 1
        while text[i : i + 1] == "`" and quotes % 2:
            i, quotes = i + 1, quotes + 1
        return i if quotes % 2 == 0 and not (_wordy(name[-1]) and _wordy(text[i : i + 1])) else None

    def _unknown(self, name: str) -> BadArgument:
        return unknown(name, self.names, f"the hypothesis {self.text!r}: ")

    def _error(self, what: str) -> BadArgument:
        return BadArgument(
            f"the hypothesis {self.text!r} cannot be read: {what}. It is like 'x = 0', 'x = z', '2*x + z = "
            "1', 'x = 0, z = 0'."
        )

    # ---- grammar -------------------------------------------------------------------------------------------

    def restrictions(self) -> list[Linear]:
        out: list[Linear] = []
        while True:
            sides = [self._sum()]
            while self._take("="):
                sides.append(self._sum())
            if len(sides) < 2:
                raise self._error("a restriction needs '='")
            out += [_minus(a, b) for a, b in itertools.pairwise(sides)]
            if not self._take(","):
                break
        if self.at < len(self.tokens):
            raise self._error(f"{self.tokens[self.at][1]!r} is not expected there")
        return out

    def _take(self, kind: str) -> str | None:
        if self.at < len(self.tokens) and self.tokens[self.at][0] == kind:
            self.at += 1
            return self.tokens[self.at - 1][1]
        return None

    def _sum(self) -> Linear:
        out = self._product()
        while True:
            if self._take("+"):
                out = _minus(out, _times(self._product(), -1.0))
            elif self._take("-"):
                out = _minus(out, self._product())
            else:
                return out

    def _product(self) -> Linear:
        out = self._factor()
        while True:
            if self._take("*"):
                other = self._factor()
                if not (out.number or other.number):
                    raise self._error("two estimates are multiplied, which is not linear")
                out = _times(out, other.constant) if other.number else _times(other, out.constant)
            elif self._take("/"):
                other = self._factor()
                if not other.number or other.constant == 0:
                    raise self._error("a division is by a number other than 0")
                out = _times(out, 1 / other.constant)
            else:
                return out

    def _factor(self) -> Linear:
        if self._take("-"):
            return _times(self._factor(), -1.0)
        if self._take("+"):
            return self._factor()
        number = self._take("number")
        if number is not None:
            return Linear(np.zeros(len(self.names)), math.inf if number == "∞" else float(number))
        name = self._take("name")
        if name is not None:
            unit = np.zeros(len(self.names))
            unit[self.names.index(name)] = 1.0
            return Linear(unit, 0.0)
        if self._take("("):
            inner = self._sum()
            if not self._take(")"):
                raise self._error("a bracket is not closed")
            return inner
        raise self._error(
            f"{self.tokens[self.at][1]!r} is not expected there"
            if self.at < len(self.tokens)
            else "it ends too early"
        )


def _wordy(text: str) -> bool:
    return bool(text) and (text.isalnum() or text == "_")


def _minus(a: Linear, b: Linear) -> Linear:
    return Linear(a.coefficients - b.coefficients, a.constant - b.constant)


def _times(a: Linear, factor: float) -> Linear:
    return Linear(a.coefficients * factor, a.constant * factor)
