"""The tour: systems that share nothing but their principle, each fitted by the one `fit`, each beside what is
known of its answer.

maximise over θ:    Σ_i w_i · log p(x_i | θ)  +  log p(θ)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.table import Table

from ..errors import MissingExtra
from ..evaluation.compare import Comparison, compare
from ..report.formatting import minuses
from . import page
from .examples import example
from .row import Row


def _of(file: str) -> Callable[[bool], Row]:
    """A system, by the name of its file in `examples/`."""

    def run(quick: bool) -> Row:
        row: Row = example(file).run(quick)
        return row

    return run


SYSTEMS: dict[str, Callable[[bool], Row]] = {
    "linear regression": _of("linear_regression"),
    "logistic regression": _of("logistic_regression"),
    "Poisson, with an offset": _of("poisson_regression"),
    "marginal means": _of("marginal_means"),
    "analysis of deviance": _of("analysis_of_deviance"),
    "negative binomial": _of("negative_binomial"),
    "random effects": _of("random_effects"),
    "Cox's hazards": _of("cox"),
    "robust regression": _of("student_t_regression"),
    "a likelihood of one's own": _of("own_likelihood"),
    "nonlinear mixed model": _of("nonlinear_mixed"),
    "Bradley–Terry ratings": _of("ratings"),
    "mixture, by EM": _of("mixture"),
    "lasso": _of("lasso"),
    "ridge, by the evidence": _of("ridge_evidence"),
    "robust line, by density power": _of("density_power"),
    "trimmed likelihood": _of("trimmed_likelihood"),
    "covariate shift": _of("covariate_shift"),
    "least divergence": _of("least_divergence"),
    "preferences with ties": _of("ratings_with_ties"),
    "network classifier": _of("classifier"),
    "GPT": _of("gpt"),
    "REINFORCE": _of("reinforce"),
    "PPO, with a value function": _of("ppo"),
    "C51": _of("c51"),
    "RLHF, by RLOO": _of("rlhf"),
    "DPO": _of("dpo"),
    "BCO": _of("bco"),
    "regressions, pixel by pixel": _of("digits_regressions"),
    "mixture of images": _of("digits_mixture"),
    "flow": _of("digits_flow"),
    "VAE": _of("digits_vae"),
    "diffusion": _of("digits_diffusion"),
    "transformer, pixel by pixel": _of("digits_transformer"),
    "flow matching": _of("flow_matching"),
}


def compared(done: Iterable[Row]) -> Comparison | None:
    """The table of those that were scored on the same images; None of fewer than two."""
    scores = {row.system: row.score for row in done if row.score is not None}
    return compare(scores) if len(scores) > 1 else None


def rows(quick: bool = False, *, begin: Callable[[str], None] | None = None) -> Iterator[Row]:
    """Fit one system after the other.

    Parameters
    ----------
    quick
        fewer steps for those that are trained by stochastic ascent
    begin
        told the name of each system before it is fitted (a progress indicator)

    Returns
    -------
    Iterator[Row]
        Row by row, as each is done. A system whose extra is not installed says so in its row.
    """
    for name, system in SYSTEMS.items():
        if begin is not None:
            begin(name)
        try:
            yield system(quick)
        except MissingExtra as error:
            extra = str(error).partition("'")[2].rstrip("'")
            yield Row(name, "", "", "", None, None, f"needs {extra}", str(error))


# ---- how it is shown ---------------------------------------------------------------------------------------


def render(done: Iterable[Row]) -> Table:
    """The rows as a table for a terminal."""
    table = Table(title="One principle: maximise Σ w·log p(x | θ)", show_lines=True)
    for heading in ("system, and what is maximised", "before → after", "what is known of the answer"):
        table.add_column(heading, overflow="fold")
    for row in done:
        change = f"{row.change}\n[dim]{row.kind}[/]" if row.change else ""
        mark = {True: "[green]✓[/] ", False: "[red]✗[/] ", None: ""}[row.agrees]
        system = f"[bold]{row.system}[/]\n[dim]{row.data}[/]\n{_plain(row.maximised)}"
        table.add_row(system, change, f"{_plain(row.certificate)}\n{mark}{_plain(row.truth)}")
    return table


def show(quick: bool = False, console: Console | None = None) -> list[Row]:
    """Take the tour: a progress bar while it runs (on a terminal), then the table, and the images' models
    compared."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = console or Console()
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    done: list[Row] = []
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("the tour begins", total=len(SYSTEMS))
        for row in rows(quick, begin=lambda name: bar.update(task, description=name)):
            done.append(row)
            bar.advance(task)
    console.print(render(done))
    comparison = compared(done)
    if comparison is not None:
        console.print("\n[bold]The same held-out digits, one scale[/]")
        console.print(comparison)
    return done


__all__ = ["SYSTEMS", "Row", "compared", "example", "page", "render", "rows", "show"]


def _plain(text: str) -> str:
    return minuses(text).replace("[", r"\[")
