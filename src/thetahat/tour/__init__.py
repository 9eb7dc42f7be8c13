"""The tour: systems that share nothing but their principle, each fitted by the one `fit`, each beside what is
known of its answer.

maximise over θ:    Σ_i w_i · log p(x_i | θ)  +  log p(θ)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.table import Table

from ..errors import MissingExtra
from ..report.formatting import minuses
from . import alignment, digits, networks, page, preferences, priors, returns, robust, shift, tables
from .row import Row

SYSTEMS: dict[str, Callable[[bool], Row]] = {
    "linear regression": tables.linear,
    "logistic regression": tables.logistic,
    "Poisson, with an offset": tables.poisson,
    "negative binomial": tables.negative_binomial,
    "robust regression": tables.student,
    "a likelihood of one's own": tables.custom,
    "Bradley–Terry ratings": tables.preferences,
    "mixture, by EM": tables.mixture,
    **priors.SYSTEMS,
    **robust.SYSTEMS,
    **shift.SYSTEMS,
    **preferences.SYSTEMS,
    "network classifier": networks.classifier,
    "GPT": networks.gpt,
    "REINFORCE": networks.reinforce,
    "PPO, with a value function": networks.ppo,
    **returns.SYSTEMS,
    **alignment.SYSTEMS,
    **digits.SYSTEMS,
}


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
    comparison = digits.compared(done)
    if comparison is not None:
        console.print("\n[bold]The same held-out digits, one scale[/]")
        console.print(comparison)
    return done


__all__ = ["SYSTEMS", "Row", "digits", "networks", "page", "render", "rows", "show", "tables"]


def _plain(text: str) -> str:
    return minuses(text).replace("[", r"\[")
