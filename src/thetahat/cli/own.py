"""`thetahat fit --model FILE.py:NAME DATA`: a likelihood of your own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from ..errors import BadArgument
from .common import Common, Covariance, Data

if TYPE_CHECKING:
    from ..result import Fit
    from ..types import Data as Rows
    from .screen import Screen

Model = Annotated[str | None, arg(metavar="FILE.py:NAME", help_behavior_hint="")]

HELP = (
    "Fit a likelihood of your own to the rows of a file.",
    """The file holds a function that returns log p of each row, or its distribution:

  import torch, thetahat as th

  @th.model(asymptote=200.0, middle=725.0, scale=350.0,
            sigma=th.positive(8.0), b=th.latent(by="tree", sd=30.0))
  def growth(batch, asymptote, middle, scale, sigma, b):
      age = (batch["age"] - middle) / scale
      mean = (asymptote + b) / (1 + torch.exp(-age))
      return th.families.Normal().at(mean, sigma)

A number is a parameter's first value; th.latent(by=…) is integrated out.

Columns must be numbers; those of th.latent(by=…) may be text.

The file is run as code: give only one that you trust.

Examples:
  thetahat fit --model growth.py:growth orange.csv
  thetahat fit --model growth.py:growth orange.csv --save growth.thetahat
  thetahat predict growth.thetahat orange.csv --model growth.py:growth""",
)


@dataclass(frozen=True, kw_only=True)
class Own(Common):
    data: Positional[Data]
    """The rows: .csv, .csv.gz, .tsv or .parquet."""
    model: Annotated[str, arg(metavar="FILE.py:NAME", help_behavior_hint="(required)")]
    """What @th.model made of a function in that file (or MODULE:NAME), or a torch.nn.Module with a log_prob."""
    quadrature: int = 1
    """With latent variables of one grouping factor: nodes of adaptive Gauss-Hermite quadrature. 1: Laplace's approximation."""
    weights: Annotated[str | None, arg(metavar="COLUMN", help_behavior_hint="")] = None
    """Column of frequency weights."""
    prior: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME:SCALE")] = ()
    """Prior on parameters, named theta.NAME, before their constraints: normal:2.5:on=theta.slope, laplace:1:on=theta.b*."""
    robust: Annotated[str | None, arg(metavar="NAME:VALUE", help_behavior_hint="")] = None
    """Robust fit, where some rows may come from another distribution: density_power:0.5, or trimmed:0.75 (the share of rows kept)."""
    on_failure: Literal["raise", "return"] = "raise"
    """Without a maximum: an error, or the fit as it stands with its certificate. The exit code is 1 in either case."""
    covariance: Covariance = "auto"
    """Kind of covariance for standard errors, intervals and tests. auto: the model's default; with --by, cluster-robust."""
    by: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="COLUMN")] = ()
    """Column whose values identify clusters, for cluster-robust standard errors; given twice, two-way."""
    level: float = 0.95
    """Confidence level of the intervals."""
    save: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Write the fit, for score, compare, predict, sample, report and th.load, which are given --model again: code is not saved."""
    report: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Write an HTML report that opens offline."""


def fit_own(command: Own, screen: Screen) -> int:
    from .imported import model_of
    from .outputs import check_outputs, prior_of, shown

    check_outputs(command.data, command.save, command.report, command.level)
    priors = [prior_of(text) for text in command.prior]
    model = model_of("--model", command.model)
    with screen.busy("fitting"):
        from ..fitting import fit

        found = fit(
            model,
            str(command.data),
            weights=command.weights,
            prior=priors or None,
            robust=command.robust,
            on_failure=command.on_failure,
            covariance=None if command.covariance == "auto" else command.covariance,
            by=list(command.by) or None,
            quadrature=command.quadrature,
        )
        summary = found.summary(level=command.level)
    return shown(found, summary, screen, command.json, command.save, command.report)


def saved(path: Path, model: str | None, data: Rows = None) -> Fit:
    """A fit that --save wrote; of a likelihood of one's own with its model, which --model names.

    Raises
    ------
    BadArgument
        it needs one, or none
    """
    from ..io.reading import load
    from .imported import model_of

    return load(path, data, model=None if model is None else model_of("--model", model))


def of_fits(fits: Sequence[Path], models: Sequence[str]) -> dict[Path, str]:
    """Which --model belongs to which of several fits: to those of likelihoods of one's own, in their order.

    Raises
    ------
    BadArgument
        their numbers differ
    """
    from ..io.reading import described

    own = [path for path in fits if path.is_file() and not described(path)] if models else []
    if (models and len(models) not in {1, len(own)}) or (models and not own):
        raise BadArgument(
            f"--model is given {len(models)} times, and {len(own)} of the fits are of likelihoods of your own. Accepted: one for all, "
            "or one for each, in their order."
        )
    return dict(zip(own, models if len(models) > 1 else [*models] * len(own), strict=True))


def not_of_a_run(fit: Path, model: str | None) -> None:
    """Refuse --model of a run.

    Raises
    ------
    BadArgument
    """
    if model is not None and fit.is_dir():
        raise BadArgument(
            f"--model: {fit} is a folder, of a run or a network, which says what its model is. Leave it out."
        )
