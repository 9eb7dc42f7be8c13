"""Evaluations: what lm-eval wrote of two language models on the same questions, compared question by question.

    d_i = s_i(A) − s_i(B),      difference = mean d,      error² = Σ_g (Σ_{i in g} (d_i − d̄))² · G/(G − 1) / n²

Pairing is what makes it sharp: a question that is hard for both says nothing of the difference, and two unpaired
intervals take it for noise. Questions about one passage are no independent evidence: they are one cluster g. Where a model was
asked several times (seeds), the error of the questions and that of the seeds are told apart:

    Var = Var_questions / n + Var_seeds(A) / S_A + Var_seeds(B) / S_B

Over many tasks some differences are large by chance: q is the false discovery rate at which each would be called one.

References
----------
Miller (2024), Adding error bars to evals (pairing, clusters); Benjamini and Hochberg (1995), Controlling the false discovery rate.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import BadArgument, DataError, EmptyData, MalformedFile
from ..notebook import Printed
from ..printable import as_text, encoded
from ..types import Plain, Settings


@dataclass(frozen=True)
class Evaluated:
    """Scores of one model: (task, metric) → a Series of one score a question, by the question's key; and the cluster of
    each question."""

    scores: dict[tuple[str, str], pd.Series]
    clusters: dict[str, pd.Series]


@dataclass(frozen=True)
class Evaluations(Printed):
    """The comparison of two models.

    Parameters
    ----------
    table
        a row a task and metric: task, metric, n (questions of both), clusters, a, b (means), difference (a − b),
        standard_error, low, high, seed_error, unpaired_error, p, q
    level
        of the intervals
    names
        of the two models
    """

    table: pd.DataFrame
    level: float
    names: tuple[str, str] = ("a", "b")
    unmatched: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> Settings:
        """Plain values, for JSON."""
        rows = [
            {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}
            for row in self.table.to_dict("records")
        ]
        return {
            "level": self.level,
            "a": self.names[0],
            "b": self.names[1],
            "tasks": rows,
            "unmatched": self.unmatched,
        }

    @encoded
    def __str__(self) -> str:
        return as_text(self)

    def __rich_console__(self, screen: Plain, options: Plain) -> Iterator[Plain]:
        from rich.table import Table
        from rich.text import Text

        yield Text(f"a: {self.names[0]}\nb: {self.names[1]}\n")
        shown = Table(box=None, pad_edge=False)
        interval = f"{100 * self.level:g} % interval"
        for head in ("task", "n", "a", "b", "a − b", interval, "p", "q"):
            shown.add_column(head, justify="left" if head == "task" else "right", no_wrap=head != "task")
        for row in self.table.to_dict("records"):
            difference, low, high = (_shown(row[c], "+.3f") for c in ("difference", "low", "high"))
            means = [f"{row[c]:.3f}" for c in ("a", "b")]
            chances = [_shown(row[c], ".2g") for c in ("p", "q")]
            shown.add_row(
                f"{row['task']} {row['metric']}",
                f"{row['n']:,}",
                *means,
                difference,
                f"{low} to {high}" if math.isfinite(row["low"]) else "not known",
                *chances,
            )
        yield shown
        yield Text(
            "Differences are of the same questions. q: false discovery rate among the rows.", style="dim"
        )
        sharper = float((self.table["unpaired_error"] / self.table["standard_error"]).median())
        if math.isfinite(sharper):
            yield Text(f"Unpaired intervals would be {sharper:.2g} times as wide (median).", style="dim")
        for task, n in self.unmatched.items():
            yield Text(f"{task}: {n} questions of one model alone were left out.", style="dim")


def read_samples(path: str | Path, by: str | None = None) -> Evaluated:
    """What `lm-eval --log_samples` wrote: a file samples_TASK_TIME.jsonl, or a folder of them (the latest of each task).

    Parameters
    ----------
    by
        a field of the questions ("doc") whose values are clusters, such as the passage that several ask about; None:
        each question is one

    Raises
    ------
    MalformedFile, EmptyData
        no such file, not lines of JSON, no scores in them
    DataError
        a question twice, or without that field
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(path.rglob("samples_*.jsonl")) if path.is_dir() else []
    if not files:
        raise MalformedFile(
            f"{path} holds no samples_*.jsonl: lm-eval writes them with --log_samples --output_path {path}."
        )
    latest = {_task(file): file for file in files}  # times sort
    scores: dict[tuple[str, str], pd.Series] = {}
    clusters: dict[str, pd.Series] = {}
    for task, file in latest.items():
        values: dict[str, dict[str, float]] = {}
        unit: dict[str, str] = {}
        for line, where in _lines(file):
            filtered = line.get("filter", "none")
            key = str(line.get("doc_hash", line.get("doc_id")))
            for metric in line.get("metrics") or [m for m in ("acc", "exact_match") if m in line]:
                value = line.get(metric)
                if isinstance(value, bool | int | float) and math.isfinite(value):
                    name = metric if filtered == "none" else f"{metric},{filtered}"
                    if key in values.setdefault(name, {}):
                        raise DataError(f"{where}: the question {key} stands there twice.")
                    values[name][key] = float(value)
            unit[key] = key if by is None else _cluster(line, by, where)
        for metric, own in values.items():
            scores[task, metric] = pd.Series(own, dtype=float)
        clusters[task] = pd.Series(unit)
    if not scores:
        raise EmptyData(f"{path} holds no numeric scores of single questions.")
    return Evaluated(scores, clusters)


def _shown(value: float, form: str) -> str:
    return format(value, form).replace("-", "−") if math.isfinite(value) else "–"


def _task(file: Path) -> str:
    """samples_TASK_2025-01-31T12-00-00.000000.jsonl → TASK."""
    stem = file.stem.removeprefix("samples_")
    head, _, last = stem.rpartition("_")
    return head if head and last[:4].isdigit() and "T" in last else stem


def _lines(file: Path) -> Iterator[tuple[Settings, str]]:
    try:
        for number, text in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
            if text.strip():
                line = json.loads(text)
                if not isinstance(line, dict):
                    raise ValueError(f"line {number} is not an object")
                yield line, f"{file.name}:{number}"
    except (ValueError, OSError) as error:
        raise MalformedFile(f"{str(file)!r} is not what lm-eval writes: {error}.") from error


def _cluster(line: Settings, by: str, where: str) -> str:
    doc = line.get("doc")
    if not isinstance(doc, dict) or by not in doc:
        have = ", ".join(map(str, doc)) if isinstance(doc, dict) else "nothing"
        raise DataError(f"{where}: the question has no field {by!r}. It has: {have}.")
    return str(doc[by])


def compare_samples(
    a: Plain, b: Plain, *, by: str | None = None, level: float = 0.95, names: tuple[str, str] | None = None
) -> Evaluations:
    """Two models on the same questions.

    Parameters
    ----------
    a, b
        a file or folder of lm-eval, or an `Evaluated`; a list of them: the same model with several seeds
    by
        as of `read_samples`
    level
        of the intervals, which are Student's with G − 1 degrees of freedom. Of one cluster, and where all questions
        have the same difference (not 0), no error is known: it is NaN, and so are the interval and p

    Raises
    ------
    EmptyData
        they have no question of a task in common

    Examples
    --------
    >>> scores = lambda *s: Evaluated({("t", "acc"): pd.Series(s)}, {"t": pd.Series(range(len(s)))})
    >>> found = compare_samples(scores(1.0, 1.0, 0.0, 1.0), scores(1.0, 0.0, 0.0, 1.0))
    >>> found.table[["difference", "standard_error"]].to_numpy().tolist()
    [[0.25, 0.25]]
    """
    from scipy.stats import false_discovery_control

    if not 0 < level < 1:
        raise BadArgument(f"level={level}. Accepted: a number in (0, 1), such as 0.95.")
    sides = [
        [_evaluated(each, by) for each in (given if isinstance(given, (list, tuple)) else [given])]
        for given in (a, b)
    ]
    rows: list[Settings] = []
    unmatched: dict[str, int] = {}
    for task, metric in sorted(set.intersection(*(set(e.scores) for side in sides for e in side))):
        frames = [pd.concat([e.scores[task, metric] for e in side], axis=1) for side in sides]
        both = pd.concat(frames, axis=1, keys=["a", "b"])
        whole = both.dropna()
        if len(whole) < 2:
            continue
        if len(both) > len(whole):
            unmatched[task] = max(unmatched.get(task, 0), len(both) - len(whole))
        asked = [np.asarray(whole.xs(side, axis=1)).reshape(len(whole), -1) for side in "ab"]
        unit = sides[0][0].clusters[task].reindex(whole.index).to_numpy()
        rows.append({"task": task, "metric": metric} | _paired(asked, unit, level))
    if not rows:
        raise EmptyData("the two models have no two questions of a task and metric in common.")
    table = pd.DataFrame(rows)
    known = table["p"].notna()
    table["q"] = math.nan
    if known.any():
        table.loc[known, "q"] = false_discovery_control(table.loc[known, "p"].to_numpy())
    return Evaluations(table, level, names or (_name(a), _name(b)), unmatched)


def _paired(asked: list[np.ndarray], unit: np.ndarray, level: float) -> Settings:
    """One row of the table: the scores of both models, each (questions, seeds), and the cluster of each question."""
    from ..distributions import student as t

    codes = np.unique(unit, return_inverse=True)[1]
    G, n = int(codes.max()) + 1, len(codes)
    means = [each.mean(1) for each in asked]
    difference = float((means[0] - means[1]).mean())
    seeds = [each.mean(0).var(ddof=1) / each.shape[1] if each.shape[1] > 1 else 0.0 for each in asked]
    seed = math.sqrt(float(sum(seeds)))
    error = math.hypot(_error(means[0] - means[1], codes, G), seed)
    if error == 0 and difference != 0:  # the same difference at each question says nothing of its spread
        error = math.nan
    half = float(t.ppf((1 + level) / 2, G - 1)) * error if G > 1 else math.nan
    p = float(2 * t.sf(abs(difference) / error, G - 1)) if error > 0 else 1.0 if error == 0 else math.nan
    return {
        "n": n,
        "clusters": G,
        "a": float(means[0].mean()),
        "b": float(means[1].mean()),
        "difference": difference,
        "standard_error": error,
        "low": difference - half,
        "high": difference + half,
        "seed_error": seed,
        "unpaired_error": math.hypot(*(_error(m, codes, G) for m in means)),
        "p": p,
    }


def _error(x: np.ndarray, codes: np.ndarray, G: int) -> float:
    """The standard error of a mean over clusters; NaN of one."""
    if G < 2:
        return math.nan
    sums = np.bincount(codes, x - x.mean(), G)
    return math.sqrt(G / (G - 1) * float((sums**2).sum())) / len(x)


def _evaluated(given: Plain, by: str | None) -> Evaluated:
    return given if isinstance(given, Evaluated) else read_samples(given, by)


def _name(given: Plain) -> str:
    if isinstance(given, (list, tuple)):
        return _name(given[0]) + (f" and {len(given) - 1} more" if len(given) > 1 else "")
    return Path(given).name if isinstance(given, str | Path) else "a model"


__all__: Sequence[str] = ["Evaluated", "Evaluations", "compare_samples", "read_samples"]
