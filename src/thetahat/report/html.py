"""The HTML report: one file that opens offline. Charts are inline SVG; no script, no font and no picture
comes from anywhere else."""

from __future__ import annotations

import math
import platform
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import altair as alt
import jinja2
import numpy as np
import torch
import vl_convert
from markupsafe import Markup

from ..data.processes import replicated
from ..errors import BadArgument, ThetahatError
from ..evaluation.confusion import classifies
from ..files import usable, write_text
from ..language.autoregressive import Autoregressive
from ..models.random_effects import RandomEffects
from ..printable import everywhere, printable
from ..protocols import Draws, HasContext, classes_of, levels_of, shape_of
from ..types import Chart
from . import formatting, plots, random_effects, reproduce, smooths, theme
from .cells import cells, heads
from .effects import effects, proportional
from .facts import Facts, Fold, Joint, Line, gather, is_network
from .pictures import grid

if TYPE_CHECKING:
    from ..result import Fit

PALETTE = {
    "ink": theme.INK,
    "quiet": theme.QUIET,
    "grid": theme.GRID,
    "main": theme.MAIN,
    "second": theme.SECOND,
}
LARGE, TOKENS = (
    20_000_000,
    200,
)  # parameters of a language model up to which texts of so many tokens are drawn
PROFILE_ROWS = 200_000  # above, a hundred refits are not made unasked
FEW_DRAWS = 199  # of a calibration error's interval, on more rows than that


@dataclass(frozen=True)
class Figures:
    """The charts of one section, or the sentence that says why there are none."""

    charts: tuple[Markup, ...] = ()
    why: str = ""


def write(fit: Fit, path: Path) -> Path:
    """Write the report of a fit to one HTML file, whole or not at all.

    Parameters
    ----------
    path
        of the file; one that stands there is replaced once the new one is complete

    Returns
    -------
    Path
        path

    Raises
    ------
    BadArgument
        the folder does not exist, or the path is one
    """
    return written(page(fit), path)


def written(text: str, path: Path) -> Path:
    """The text in one file, whole or not at all.

    Raises
    ------
    BadArgument
        the folder does not exist, or the path is one
    NotWritten
        the disk is full
    """
    path = usable(path)
    if path.is_dir() or not path.parent.is_dir():
        reason = "is a folder" if path.is_dir() else f"lies in {str(path.parent)!r}, which is no folder"
        raise BadArgument(
            f"report({str(path)!r}): the path {reason}. Give the path of a file in a folder that exists."
        )
    return write_text(path, text)


def page(fit: Fit, level: float = 0.95) -> str:
    """The report's HTML."""
    facts = gather(fit, level=level)
    number = iter(range(10**6))

    def figures(draw: Callable[[], list[Chart]]) -> Figures:
        try:
            return Figures(tuple(svg(chart, f"f{next(number)}-") for chart in draw()))
        except ThetahatError as error:
            return Figures(why=f"Not shown: {error}")

    def judged(draw: Callable[[], list[Chart]]) -> Figures:
        if not certificate.ok:
            return Figures(why="Not shown: there is no estimate whose predictions could be judged.")
        if not replicated(fit.source):
            return Figures(why="Not shown: each process holds a part of the rows.")
        return figures(draw)

    certificate, opening = fit.certificate, effects(fit, facts)
    margins = opening.margins
    return (
        environment()
        .get_template("template.html")
        .render(
            facts=facts,
            headline=headline(facts),
            opening=opening,
            effects=Figures() if margins is None else figures(lambda: [margins.plot()]),
            certificate=certificate,
            verdict=formatting.verdict(certificate),
            meaning=formatting.meaning(certificate),
            explained=formatting.explained(certificate),
            trace=figures(lambda: [*plots.measured(fit), *([] if plots.drawn(fit) else plots.trace(fit))]),
            estimates=Figures() if facts.without else figures(lambda: [plots.estimates_of(facts)]),
            calibration=judged(lambda: plots.calibration(fit)),
            components=random_effects.components(fit),
            shares=random_effects.shares(fit),
            caterpillars=caterpillars(fit, figures),
            smooth_tests=smooths.tests(fit),
            curves=figures(lambda: smooths.charts(fit))
            if (smooths.drawn(fit) or smooths.drawn_by_group(fit)) and fit.certificate.ok
            else Figures(),
            categories=judged(lambda: plots.confusion(fit)),
            residuals=judged(lambda: plots.residuals(fit)),
            proportional=proportional(fit),
            profiles=profiles(fit, facts, figures),
            scores=scores(facts),
            network=is_network(fit),
            draws=draws(fit, figures),
            texts=texts(fit),
            sureness=sureness(fit),
            python=reproduce.python(fit),
            command=reproduce.command(fit),
            versions=versions(),
            date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
            palette=PALETTE,
        )
    )


def caterpillars(fit: Fit, figures: Callable[..., Figures]) -> Figures:
    """Conditional modes of a mixed model's random effects."""
    model = fit.model
    if not isinstance(model, RandomEffects) or not fit.certificate.ok:
        return Figures()
    if all(r.smooth or r.each for r in model.random):
        return Figures()
    return figures(lambda: random_effects.charts(fit))


def draws(fit: Fit, figures: Callable[..., Figures]) -> Figures:
    """Images drawn from the model, where it draws images."""
    shape, levels = shape_of(fit.source), levels_of(fit.source)
    if not isinstance(fit.model, Draws) or shape is None or len(shape) != 2 or levels is None:
        return Figures()
    classes, title, label = classes_of(fit.model), "drawn from the model", None
    if classes is not None:  # a class after the other
        title, label = (
            f"drawn from the model, of class 0, 1, … {classes - 1} in turn",
            torch.arange(20) % classes,
        )
    return figures(
        lambda: [
            grid(fit.sample(20, label=label), shape, levels, columns=10).properties(title=alt.Title(title))
        ]
    )


def texts(fit: Fit) -> list[str]:
    """Two texts drawn from a language model, of a tokenizer that is known and no more parameters than a CPU reads soon."""
    model, tokenizer = fit.model, fit.tokenizer
    large = sum(p.numel() for p in model.parameters()) > LARGE
    if tokenizer is None or large or not isinstance(model, Autoregressive):
        return []
    context = fit.source.context if isinstance(fit.source, HasContext) else None
    first = tokenizer.end
    if first is None:
        first = int(next(iter(fit.source.batches()))[model.inputs].reshape(-1)[0])
    prompt = torch.full((2, 1), first)
    drawn = model.sample(
        prompt, TOKENS, context=context, end=tokenizer.end, generator=torch.Generator().manual_seed(0)
    )
    whole = torch.cat([prompt, drawn], 1)  # a vocabulary may be padded beyond what the tokenizer has text for
    return [tokenizer.decode(row[row < tokenizer.vocabulary].tolist()) for row in whole]


def sureness(fit: Fit) -> str:
    """How far a classifier's probabilities are from what happened; "" of another model."""
    if not classifies(fit.model) or not fit.certificate.ok or not replicated(fit.source):
        return ""
    try:
        draws = 999 if (fit.source.size or 0) <= PROFILE_ROWS else FEW_DRAWS
        return f"Calibration error of the data that were fitted: {fit.calibration_error(draws=draws)}."
    except ThetahatError as error:
        return f"Calibration error: not shown. {error}"


def fragment(facts: Facts) -> str:
    """The summary as HTML for a notebook: a scoped block, without a page around it."""
    return (
        environment()
        .get_template("fragment.html")
        .render(
            facts=facts,
            verdict=formatting.verdict(facts.certificate),
            explained=formatting.explained(facts.certificate),
            scores=scores(facts),
        )
    )


def headline(facts: Facts) -> str:
    """The report in one sentence."""
    where = {
        "certified maximum": f"at a certified {'global' if facts.certificate.concave else 'local'} maximum",
        "boundary": "at the boundary of a parameter",
        "stochastic": "reached by stochastic ascent, without a certificate",
    }.get(facts.certificate.status, f"which is no estimate: {facts.certificate.status}")
    if any(label == "maximised" for label, _ in facts.model):
        where += " of a robust sum in its place"
    if math.isnan(facts.log_likelihood):
        said = formatting.held_out(facts.certificate)
        if said:
            return f"On data held out it reached {said}, {where.removeprefix('reached ')}."
        found = formatting.join([f"{each.name} {each}" for each in facts.measured])
        return f"At the end: {found}; {where}." if found else f"A network, {where}."
    each = (
        f" ({formatting.number(facts.log_likelihood / facts.observations)} an observation)"
        if facts.observations > 0
        else ""
    )
    total = f"The log-likelihood of {formatting.plural(facts.observations, 'observation')}"
    return f"{total} is {formatting.nats(facts.log_likelihood)} nats{each}, {where}."


def profiles(fit: Fit, facts: Facts, figures: Callable[..., Figures]) -> Figures:
    """Profile curves of the first few parameters, where their refits are affordable."""
    if facts.without:
        return Figures(why=f"Not shown: {facts.without}")
    if facts.observations > PROFILE_ROWS:
        why = "Not shown: each curve refits the model some twenty times, which is not done unasked on so many rows. "
        return Figures(why=why + "fit.plot('profile') draws them.")
    return figures(lambda: plots.profile(fit, facts))


def scores(facts: Facts) -> list[tuple[str, str, str]]:
    """(name, value, what it is) of each score."""
    total, n = facts.log_likelihood, facts.observations
    own = [(each.name, str(each), each.where) for each in facts.measured]
    if math.isnan(total):
        said = formatting.held_out(facts.certificate)
        what = f"log {facts.measure} of {facts.units}" + (
            "" if facts.kind == "exact" else f", a {facts.kind}"
        )
        return own + ([("held out", said, what)] if said else [])
    without = "; the prior is not included" if any(label == "prior" for label, _ in facts.model) else ""
    kind = "" if facts.kind == "exact" else f" ({facts.kind})"
    measure = {"mixed": "density with atoms"}.get(facts.measure, facts.measure)
    rows = [
        (
            "log-likelihood",
            f"{formatting.nats(total)} nats",
            f"log {measure} of {facts.units}, summed{kind}{without}",
        )
    ]
    if n > 0:
        rows.append(
            (
                "per observation",
                f"{formatting.number(total / n, 5)} nats",
                f"over {formatting.count(n)} observations",
            )
        )
        rows.append(("", f"{formatting.number(total / n / math.log(2), 5)} bits", "the same in bits"))
    explained = {
        "AIC": "−2ℓ + 2p: twice the expected loss on new data, if the model is nearly true",
        "AICc": "AIC corrected for small samples",
        "BIC": "−2ℓ + p log n: twice minus the log evidence, roughly",
        "TIC": "−2ℓ + 2 tr(K J⁻¹): AIC without assuming that the model is true",
    }
    if facts.lack_of_fit is not None:
        rows.append(
            (
                "from the best",
                f"{formatting.number(facts.lack_of_fit.value, 3)} nats an observation",
                str(facts.lack_of_fit),
            )
        )
    return (
        own
        + rows
        + [
            (name, formatting.number(value, 6), explained.get(name, ""))
            for name, value in facts.criteria.items()
        ]
    )


def versions() -> str:
    own = [
        ("thetahat", version("thetahat")),
        ("Python", platform.python_version()),
        ("torch", torch.__version__),
        ("numpy", np.__version__),
    ]
    return ", ".join(f"{name} {number}" for name, number in own)


# ---- parts -------------------------------------------------------------------------------------------------


def svg(chart: Chart, prefix: str) -> Markup:
    """A chart as an inline SVG of its own size that shrinks where it must.

    It is parsed and written anew, so that it is well-formed; its identifiers are made unique by `prefix`;
    coordinates keep two decimals.
    """
    root = ET.fromstring(vl_convert.vegalite_to_svg(everywhere(plots.styled(chart, "transparent").to_dict())))
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
        kept = {
            name.rpartition("}")[2]: value
            for name, value in node.attrib.items()
            if not name.startswith("aria-") and name != "role"
        }
        node.attrib = {
            name: re.sub(r"(\d\.\d\d)\d+", r"\1", re.sub(r"url\(#", f"url(#{prefix}", value))
            for name, value in kept.items()
        }
        if "id" in node.attrib:
            node.attrib["id"] = prefix + node.attrib["id"]
    width = root.attrib.pop("width")
    for name in ("height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {
        "style": f"width:{width}px",
        "role": "img",
        "aria-label": " ".join(str(chart.title.text).split()),
    }
    return Markup(ET.tostring(root, encoding="unicode"))


def environment() -> jinja2.Environment:
    out = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
    )
    out.tests |= {
        kind.__name__.lower(): lambda item, kind=kind: isinstance(item, kind) for kind in (Line, Fold, Joint)
    }
    out.filters |= {
        "cells": cells,
        "heads": heads,
        "number": formatting.number,
        "probability": formatting.probability,
        "minuses": formatting.minuses,
    }
    return out
