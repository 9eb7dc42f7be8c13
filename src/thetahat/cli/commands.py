"""What the commands do. Each reads, calls the library, and says what it found on a `Screen`; what is heavy is imported where it is used."""

from __future__ import annotations

import inspect
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import BadArgument, BadSave, DataError, FitError, IncomparableScores, ThetahatError
from .arguments import Command, Compare, Fit, Play, Report, Reward, Sample, Score, Tour
from .systems import System, again, free

DATA = (".csv", ".csv.gz", ".tsv", ".txt", ".parquet", ".pq")

# what messages advise, as it is written here
_OPTIONS = {"prior=th.priors.Normal(2.5)": "--prior normal:2.5", 'on_failure="return"': "--on-failure return"}


class Screen:
    """stdout for what was found, stderr for progress and errors; with --json one document on stdout."""

    def __init__(self, as_json: bool):
        from rich.console import Console

        self.as_json = as_json
        self.out, self.err = Console(file=sys.stdout), Console(file=sys.stderr, highlight=False)

    def show(self, shown: Any, document: Any) -> None:
        """The table for a reader, or the document for a program."""
        if self.as_json:
            sys.stdout.write(json.dumps(finite(document), ensure_ascii=False, allow_nan=False, indent=2) + "\n")
        else:
            self.out.print(shown)

    def note(self, text: str) -> None:
        self.err.print(text, style="dim", markup=False, soft_wrap=True)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """A progress indicator, on a terminal."""
        if self.err.is_terminal:
            with self.err.status(what):
                yield
        else:
            yield

    def fail(self, error: ThetahatError) -> None:
        message = str(error)
        for in_python, here in _OPTIONS.items():
            message = message.replace(in_python, here)
        self.err.print(f"{type(error).__name__}: {message}", style="bold red", markup=False, soft_wrap=not self.err.is_terminal)
        if self.as_json:
            found: dict[str, Any] = {"type": type(error).__name__, "message": message}
            if isinstance(error, FitError) and error.certificate is not None:
                found["certificate"] = error.certificate.to_dict()
            self.show(None, {"error": found})


def run(command: Command) -> int:
    """Do it, and return the exit code; an error of the tree becomes a message."""
    screen = Screen(command.json)
    try:
        do: Any = _climb if isinstance(command, System) else _DO[type(command)]
        return do(command, screen)
    except ThetahatError as error:
        if command.traceback:
            import traceback

            traceback.print_exc()
        screen.fail(error)
        return code_of(error)


def code_of(error: ThetahatError) -> int:
    """1 no maximum, 2 usage or model, 3 data or file, 4 incomparable.

    >>> code_of(BadSave("")), code_of(FitError("")), code_of(IncomparableScores("")), code_of(BadArgument(""))
    (3, 1, 4, 2)
    """
    if isinstance(error, FitError):
        return 1
    if isinstance(error, IncomparableScores):
        return 4
    return 3 if isinstance(error, (DataError, BadSave)) else 2


# ---- the commands ------------------------------------------------------------------------------------------------------------


def _fit(command: Fit, screen: Screen) -> int:
    outputs = [path for path in (command.save, command.report) if path is not None]
    for path, endings in ((command.save, ()), (command.report, (".html", ".htm"))):
        _may_write(path, [command.data], endings)
    if len({p.resolve() for p in outputs}) < len(outputs):
        raise BadArgument(f"--save and --report both name {outputs[0]}.")
    if not 0 < command.level < 1:
        raise BadArgument(f"--level {command.level:g}. Accepted: a number between 0 and 1, such as 0.95.")
    priors = [_prior(text) for text in command.prior]
    parameters = dict(_assigned(text) for text in command.set)
    with screen.busy("fitting"):
        from ..fit import fit

        found = fit(
            command.formula,
            str(command.data),
            command.family,
            weights=command.weights,
            prior=priors or None,
            missing=command.missing,
            robust=command.robust,
            on_failure=command.on_failure,
            **parameters,
        )
        by = list(command.by) or None
        kind = command.covariance if command.covariance != "auto" else "cluster" if by else "observed"
        summary = found.summary(level=command.level, covariance=kind, by=by)
    document = summary.to_dict()
    if not command.json:
        screen.show(summary, None)  # before the files: a disk that is full must not cost the answer
    if command.save is not None:
        document["saved"] = str(found.save(command.save))
    if command.report is not None:
        with screen.busy("writing the report"):
            document["report"] = str(found.report(command.report))
    if command.json:
        screen.show(None, document)
    for path in outputs:
        screen.note(f"wrote {path}")
    return 0 if found.certificate.ok else 1


def _reward(command: Reward, screen: Screen) -> int:
    for path, endings in ((command.save, ()), (command.report, (".html", ".htm"))):
        _may_write(path, [command.pairs], endings)
    from .reward import reward

    with screen.busy("fitting"):
        found = reward(
            command.pairs,
            count=command.count,
            network=command.network,
            context=command.context,
            words=command.words,
            held_out=command.held_out,
            prior=command.prior,
            level=command.level,
            seed=command.seed,
        )
    screen.show(_plain_text(str(found)), found.to_dict())
    for path, write in ((command.save, found.fit.save), (command.report, found.fit.report)):
        if path is not None:
            write(path)
            screen.note(f"wrote {path}")
    return 0 if found.fit.certificate.ok else 1


def _climb(command: System, screen: Screen) -> int:
    """fit gpt, policy and the other systems: a run."""
    from ..fit import maximize
    from ..runs import CHECKPOINT, CONFIG, FIT, REPORT, Run

    folder = command.run if command.run is not None else free(command.name)
    begun = (folder / CONFIG).exists()
    if command.resume and not begun:
        raise BadArgument(
            f"--resume: {folder} is no run. Without it a new one is begun." if command.run else "--resume needs --run FOLDER."
        )
    if begun and not command.resume:
        raise BadArgument(f"{folder} is a run already. Give --resume to go on with it, or another --run.")
    with screen.busy("reading"):
        sizes, source = command.read()
        model = command.model(sizes)
    objective = command.objective(model, source, sizes)
    record = Run(folder, objective, command.solver(), command.about(sizes), lambda: command.measure(model))
    if begun and (folder / CHECKPOINT).exists():
        screen.note(f"going on with {folder}")
    count = sum(p.numel() for p in model.parameters())
    screen.note(f"{command.name}: {count:,} parameters, {record.solver.steps:,} steps; {folder} holds what is reached")
    said = _Lines(screen, record)
    found = maximize(objective, solver=record.solver, run=record, on_failure="return", watch=said)
    summary = found.summary()
    screen.show(summary, summary.to_dict() | {"run": str(folder)})
    if found.certificate.ok:
        screen.note(f"wrote {folder / FIT}, {folder / REPORT}")
    return 0 if found.certificate.ok else 1


class _Lines:
    """A line a look, where stderr is no terminal and has no bar: a log that shows that the climb is alive."""

    def __init__(self, screen: Screen, record: Any):
        self.screen, self.record, self.looks, self.begun, self.before = screen, record, 0, time.monotonic(), 0.0

    def __call__(self, state: Any) -> None:
        from ..solvers.progress import said

        if not self.looks:
            self.before = state.seen
        if len(state.trace) > self.looks and not self.screen.err.is_terminal:
            found, told = self.record.measured, ""
            for name, value in found.items():
                if not name.endswith("_error"):
                    error = f" ± {found[f'{name}_error']:.2g}" if f"{name}_error" in found else ""
                    told += f", {name.replace('_', ' ')} {value:.5g}{error}"
            self.screen.note(f"step {state.step}: {said(state, time.monotonic() - self.begun, self.before)}{told}")
        self.looks = len(state.trace)


def _score(command: Score, screen: Screen) -> int:
    from ..saving import load

    with screen.busy("scoring"):
        if command.fit.is_dir():
            system, sizes, fit = again(command.fit)
            if command.labels is not None and not hasattr(system, "labelled"):
                raise BadArgument(f"--labels: {command.fit} is the run of a {system.name}, which has none.")
            if command.labels is not None and command.against is not None:
                raise BadArgument("--against takes no --labels: the labels of the reference are not those of the data.")
            labelled: Any = getattr(system, "labelled", None)
            labels = command.labels
            data = system.other(command.data, sizes) if labels is None else labelled(command.data, labels)
            beside = None if command.against is None else system.other(command.against, sizes)
        else:
            fit, data = load(command.fit), str(command.data)
            beside = None if command.against is None else str(command.against)
        if beside is not None:
            from ..evaluation.surprise import surprise

            found: Any = surprise(fit, beside, data, level=command.level, samples=command.samples, seed=command.seed)
        else:
            found = fit.score(data, samples=command.samples, seed=command.seed)
    screen.show(found if beside is not None else _plain_table(_score_rows(found)), found.to_dict())
    return 0


def _compare(command: Compare, screen: Screen) -> int:
    if len(command.fits) < 2:
        raise BadArgument(f"compare takes two or more saved fits; received {len(command.fits)}.")
    from ..data.frame import Frame
    from ..evaluation.compare import compare
    from ..saving import load

    stems = [path.name.removesuffix(".thetahat") for path in command.fits]
    names = stems if len(set(stems)) == len(stems) else [str(path) for path in command.fits]
    if len(set(names)) < len(names):
        raise BadArgument(f"a fit stands twice: {', '.join(names)}.")
    with screen.busy("scoring"):
        fits = {name: load(path) for name, path in zip(names, command.fits, strict=True)}
        found = compare(fits, Frame(command.data))
    screen.show(found, found.to_dict())
    return 0


def _sample(command: Sample, screen: Screen) -> int:
    if command.fit.is_dir():
        return _drawn(command, screen)
    if command.data is None:
        raise BadArgument(f"sample {command.fit} needs DATA: the rows for which responses are drawn.")
    _may_write(command.out, [command.fit, command.data], (".csv", ".parquet"), new=True)
    import pandas as pd

    from ..saving import load

    with screen.busy("drawing"):
        found = load(command.fit)
        drawn = found.sample(command.draws, str(command.data), seed=command.seed)
    if drawn.dtype.kind == "f" and found.model.measure == "mass":
        drawn = drawn.astype("int64")
    frame = pd.DataFrame({f"draw_{j + 1}": draw for j, draw in enumerate(drawn)})
    if command.out is not None:
        from ..archive import aside

        with aside(command.out) as part:
            frame.to_parquet(part) if command.out.suffix == ".parquet" else frame.to_csv(part, index=False)
        screen.note(f"wrote {command.out}: {len(frame)} rows of {command.draws} draws")
    if command.json:
        document = {"seed": command.seed} | ({"out": str(command.out)} if command.out is not None else {"draws": drawn.tolist()})
        screen.show(None, document)
    elif command.out is None:
        frame.to_csv(sys.stdout, index=False)
    return 0


def _drawn(command: Sample, screen: Screen) -> int:
    """Draws from a run: text on stdout, images to a .png or .npy, rows as a table."""
    import torch

    if command.data is not None:
        raise BadArgument(f"{command.fit} is a run: it is sampled without DATA.")
    system, sizes, fit = again(command.fit)
    if system.draws_nothing:
        raise BadArgument(f"{command.fit} is the run of a {system.name}, {system.draws_nothing}.")
    if system.name == "gpt":
        tokenizer = system.alphabet(sizes)  # type: ignore[attr-defined]
        prompt = torch.from_numpy(tokenizer.encode(command.prompt)).expand(command.draws, -1)
        generator = torch.Generator().manual_seed(command.seed)
        settings = {"context": system.context, "temperature": command.temperature, "end": tokenizer.end}  # type: ignore[attr-defined]
        drawn = fit.model.sample(prompt, command.length, generator=generator, **settings)
        texts = [command.prompt + tokenizer.decode(row) for row in drawn]
        if command.json:
            screen.show(None, {"seed": command.seed, "texts": texts})
        else:
            sys.stdout.write("\n\n".join(texts) + "\n")
        return 0
    _may_write(command.out, [command.fit], (".csv", ".parquet") if system.name == "flow" else (".png", ".npy"), new=True)
    with screen.busy("drawing"):
        drawn = fit.sample(command.draws, seed=command.seed)
    if system.name == "flow":
        import pandas as pd

        from ..archive import aside

        rows = drawn * sizes["scale"] + sizes["shift"]
        frame = pd.DataFrame(rows, columns=sizes["columns"])
        if command.out is None:
            frame.to_csv(sys.stdout, index=False)
            return 0
        with aside(command.out) as part:
            frame.to_parquet(part) if command.out.suffix == ".parquet" else frame.to_csv(part, index=False)
    else:
        if command.out is None:
            raise BadArgument("images need a file: -o draws.png, or -o draws.npy.")
        _images(drawn.reshape(-1, *sizes["shape"]), sizes["levels"], command.out)
    screen.note(f"wrote {command.out}: {len(drawn)} draws")
    if command.json:
        screen.show(None, {"seed": command.seed, "out": str(command.out)})
    return 0


def _images(images: Any, levels: int, out: Path) -> None:
    """(n, H, W) or (n, C, H, W) as an array, or as one picture."""
    import numpy as np

    from ..archive import aside

    with aside(out) as part:
        if out.suffix == ".npy":
            with part.open("wb") as file:
                np.save(file, images)
            return
        from ..report.pictures import png, tiled

        sheet, times = tiled(images.reshape(len(images), -1), images.shape[1:], levels), max(1, 56 // images.shape[-1])
        part.write_bytes(png(np.ascontiguousarray(sheet.repeat(times, 0).repeat(times, 1))))  # small ones large enough to see


def _play(command: Play, screen: Screen) -> int:
    if command.episodes < 1:
        raise BadArgument(f"--episodes {command.episodes}. Accepted: 1 or more.")
    from ..data.rollouts import returns

    system, _, fit = again(command.run)
    if system.name != "policy":
        raise BadArgument(f"{command.run} is the run of a {system.name}, which plays nothing.")
    with screen.busy("playing"):
        found = returns(fit.model, system.env, command.episodes, seed=command.seed, greedy=not command.draw)  # type: ignore[attr-defined]
    error = float(found.std()) / len(found) ** 0.5 if len(found) > 1 else float("nan")
    low, middle, high = (float(v) for v in (found.min(), found.median(), found.max()))
    document = {"environment": system.env, "episodes": len(found), "greedy": not command.draw, "mean": float(found.mean())}  # type: ignore[attr-defined]
    document |= {"standard_error": error, "lowest": low, "median": middle, "highest": high}
    rows = [
        ("return", f"{found.mean():.5g} ± {error:.2g}"),
        ("lowest, median, highest", f"{low:.5g}, {middle:.5g}, {high:.5g}"),
        ("played", f"{len(found)} whole episodes of {system.env}, {'drawn' if command.draw else 'greedy'}"),  # type: ignore[attr-defined]
    ]
    screen.show(_plain_table(rows), document)
    return 0


def _report(command: Report, screen: Screen) -> int:
    name = command.fit.name.removesuffix(".thetahat") + ".html"
    out = command.out if command.out is not None else command.fit.with_name(name)
    _may_write(out, [command.fit, command.data], (".html", ".htm"))
    from ..saving import load

    with screen.busy("writing the report"):
        written = load(command.fit, str(command.data)).report(out)
    if command.json:
        screen.show(None, {"report": str(written)})
    screen.note(f"wrote {written}")
    return 0


def _tour(command: Tour, screen: Screen) -> int:
    _may_write(command.html, [], (".html", ".htm"))
    from .. import tour

    if command.json:
        done = list(tour.rows(command.quick))
        screen.show(None, {"rows": [row.to_dict() for row in done]})
    else:
        done = tour.show(command.quick, screen.out)
    if command.html is not None:
        from ..tour import page

        page.write(done, command.html)
        screen.note(f"wrote {command.html}")
    return 1 if any(row.agrees is False for row in done) else 0


_DO: dict[type, Any] = {
    Fit: _fit,
    Reward: _reward,
    Score: _score,
    Compare: _compare,
    Sample: _sample,
    Play: _play,
    Report: _report,
    Tour: _tour,
}


# ---- words to values ---------------------------------------------------------------------------------------------------------


def _assigned(text: str) -> tuple[str, Any]:
    """--set name=value: a formula, a number, or a column."""
    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if not (name and equals and value):
        raise BadArgument(f"--set {text!r}. Accepted: NAME=VALUE, such as dispersion='~ age', df=4, trials=n.")
    from ..fit import fit

    if name in inspect.signature(fit).parameters:
        raise BadArgument(f"--set {name}=… is no parameter of a family. Use --{name.replace('_', '-')}.")
    try:
        return name, float(value)
    except ValueError:
        return name, value


def _prior(text: str) -> Any:
    """--prior normal:2.5, student_t:2.5:df=4, normal:1:on=x*."""
    from ..likelihood import priors

    known = priors.registry
    before, on, pattern = text.partition(":on=")  # last, since names of coefficients may hold colons
    name, *rest = before.split(":")
    accepted = f"Accepted: {', '.join(f'{n}:SCALE' for n in known)}, then :location=NUMBER, :df=NUMBER, and last :on=PATTERN."
    if name not in known:
        raise BadArgument(f"--prior {text!r} names {name!r}. {accepted}")
    settings: dict[str, Any] = {"on": pattern} if on else {}
    for part in rest:
        key, equals, value = part.partition("=")
        try:
            settings[key if equals else "scale"] = float(value if equals else key)
        except ValueError as error:
            raise BadArgument(f"--prior {text!r}: {part!r} is no number. {accepted}") from error
    wrong = [key for key in settings if key not in inspect.signature(known[name]).parameters]
    if wrong:
        raise BadArgument(f"--prior {text!r}: {name} has no {wrong[0]!r}. {accepted}")
    return known[name](**settings)


def _may_write(path: Path | None, inputs: Sequence[Path], endings: tuple[str, ...], *, new: bool = False) -> None:
    """Refuse, before anything is computed, a path that would replace data or that cannot be written."""
    if path is None:
        return
    if any(path.resolve() == each.resolve() for each in inputs):
        raise BadArgument(f"{path} is read by this command: it is not written to.")
    if path.is_dir() or not path.resolve().parent.is_dir():
        raise BadArgument(f"{path} cannot be written: " + ("it is a folder." if path.is_dir() else "there is no such folder."))
    if endings and path.suffix.lower() not in endings:
        raise BadArgument(f"{path} ends in {path.suffix or 'nothing'!r}. Accepted: {', '.join(endings)}.")
    if path.exists() and (new or path.name.lower().endswith(DATA)):
        raise BadArgument(f"{path} exists, and a file of data is not overwritten. Give another path, or remove it.")


# ---- how it is shown -----------------------------------------------------------------------------------------------------------


def _score_rows(score: Any) -> list[tuple[str, str]]:
    from ..report.words import count, nats, number

    rows = [
        ("log-likelihood", f"{nats(score.total)} nats: {score.described}"),
        ("observations", count(score.n)),
        ("per observation", f"{number(score.mean, 6)} ± {number(score.standard_error, 3)} nats"),
        ("", f"{number(score.bits, 6)} bits"),
    ]
    if score.dimensions > 1:
        rows.append(("per dimension", f"{number(score.bits_per_dimension, 6)} bits, of {count(score.dimensions)}"))
    if score.bits_per_byte is not None:
        rows.append(("per byte", f"{number(score.bits_per_byte, 6)} ± {number(score.bits_per_byte_error, 3)} bits"))
        rows.append(("perplexity", number(score.perplexity, 6)))
    if score.error:
        rows.append(("noise", f"{number(score.error / score.n, 3)} nats an observation are the model's own draws'"))
    rows.append(("fingerprint", score.fingerprint))
    return rows + ([("impossible", f"{score.impossible} rows of probability zero")] if score.impossible else [])


def _plain_text(text: str) -> Any:
    from rich.text import Text

    return Text(text)


def _plain_table(rows: list[tuple[str, str]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows:
        table.add_row(label, Text(text))
    return table


def finite(value: Any) -> Any:
    """Plain values for strict JSON: tuples as lists, a number that is not finite as null.

    >>> finite({"a": (1.0, float("nan"))})
    {'a': [1.0, None]}
    """
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    if hasattr(value, "item") and callable(value.item):
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
