"""`thetahat score` and `thetahat compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import BadArgument
from ..types import Plain, Settings
from .arguments import Compare, Score
from .networks import Classifier, Generates
from .own import not_of_a_run, of_fits, saved
from .pretrained import is_pretrained_folder
from .screen import Screen, plain_table
from .systems import again, of_runs


def score(command: Score, screen: Screen) -> int:
    not_of_a_run(command.fit, command.model)
    with screen.busy("scoring"):
        if is_pretrained_folder(command.fit):
            fit, data = _language_model(command.fit, command.data, command.context, command.device)
            beside = None
            if command.against is not None or command.labels is not None:
                raise BadArgument(
                    "--against and --labels do not apply to a language model of transformers. Leave them out."
                )
        elif command.fit.is_dir():
            system, sizes, fit = again(command.fit, device=command.device)
            if command.labels is not None and not _labelled(system, sizes):
                raise BadArgument(f"--labels: {command.fit} is the run of a {system.name}, which has none.")
            if command.labels is not None and command.against is not None:
                raise BadArgument(
                    "--against takes no --labels: the labels of the reference are not those of the data."
                )
            if command.labels is None:
                data = system.other(command.data, sizes)
            else:
                data = system.labelled(command.data, command.labels, sizes)
            beside = None if command.against is None else system.other(command.against, sizes)
        else:
            of_runs(command)
            fit, data = saved(command.fit, command.model), str(command.data)
            beside = None if command.against is None else str(command.against)
        if beside is not None:
            from ..evaluation.surprise import surprise

            found: Plain = surprise(
                fit, beside, data, level=command.level, samples=command.samples, seed=command.seed
            )
        else:
            found = _of(fit, data, command.samples, command.seed)
    screen.show(found if beside is not None else plain_table(_score_rows(found)), found.to_dict())
    return 0


def compare(command: Compare, screen: Screen) -> int:
    if len(command.fits) < 2:
        raise BadArgument(f"compare takes two or more saved fits; received {len(command.fits)}.")
    if any(has_samples(path) for path in command.fits):
        return _of_samples(command, screen)
    if command.data is None:
        raise BadArgument("compare needs --data: what the fits are scored on.")
    from ..data.frame import Frame
    from ..evaluation.compare import compare as compared

    stems = [path.name.removesuffix(".thetahat") for path in command.fits]
    names = stems if len(set(stems)) == len(stems) else [str(path) for path in command.fits]
    if len(set(names)) < len(names):
        raise BadArgument(f"a fit is given twice: {', '.join(names)}.")
    models = of_fits(command.fits, command.model)
    with screen.busy("scoring"):
        if any(path.is_dir() for path in command.fits):
            found = compared(
                {
                    name: _scored(command, path, command.data, models.get(path))
                    for name, path in zip(names, command.fits, strict=True)
                }
            )
        else:
            of_runs(command)
            fits = {
                name: saved(path, models.get(path)) for name, path in zip(names, command.fits, strict=True)
            }
            found = compared(fits, Frame(command.data))
    screen.show(found, found.to_dict())
    return 0


def _labelled(system: Any, sizes: Settings) -> bool:
    """Whether the images of a run have labels."""
    return isinstance(system, Classifier) or (isinstance(system, Generates) and bool(sizes.get("classes")))


def _scored(command: Compare, path: Path, data: Path, model: str | None) -> Any:
    """The score of a run, or of a fit beside runs, of the data."""
    if is_pretrained_folder(path):
        return _of(*_language_model(path, data, command.context, command.device), None, command.seed)
    if not path.is_dir():
        return saved(path, model).score(str(data), samples=command.samples, seed=command.seed)
    system, sizes, fit = again(path, device=command.device)
    if command.labels is None:
        asked = system.other(data, sizes)
    elif _labelled(system, sizes):
        asked = system.labelled(data, command.labels, sizes)
    else:
        raise BadArgument(f"--labels: {path} is the run of a {system.name}, which has none.")
    return fit.score(asked, samples=command.samples, seed=command.seed)


def _language_model(folder: Path, data: Path, context: int | None, device: str) -> tuple[Any, Any]:
    """(the model, the tokens) of a language model of transformers and texts."""
    from ..data.devices import chosen
    from ..language.autoregressive import Autoregressive
    from ..language.tokens import Tokens
    from .finetune import texts_of
    from .pretrained import network_in, tokenizer_in

    model = Autoregressive(network_in(folder))
    model.to(chosen(device))
    limit = model.network.limit or 1024
    tokens = Tokens(texts_of(data), tokenizer_in(folder), context=min(context or 1024, limit))
    return model, tokens if model._apart else tokens.laid_out(layout="padded")


def _of(fit: Any, data: Any, samples: int | None, seed: int) -> Any:
    """The score of a fit, or of a model that was not fitted here."""
    from ..evaluation.score import score as scored
    from ..result import Fit

    return fit.score(data, samples=samples, seed=seed) if isinstance(fit, Fit) else scored(fit, data)


def has_samples(path: Path) -> bool:
    """Whether lm-eval wrote it, or into it."""
    if path.is_file():
        return path.name.startswith("samples_") and path.suffix == ".jsonl"
    return path.is_dir() and next(path.rglob("samples_*.jsonl"), None) is not None


def _of_samples(command: Compare, screen: Screen) -> int:
    from ..language.evaluations import compare_samples

    if len(command.fits) != 2 or not all(has_samples(path) for path in command.fits):
        raise BadArgument(
            "lm-eval's samples are compared two by two: give two files samples_TASK_….jsonl, or two folders of them."
        )
    if command.data is not None:
        raise BadArgument("--data: lm-eval's samples hold the scores of their own questions. Leave it out.")
    with screen.busy("comparing"):
        found = compare_samples(*command.fits, by=command.by, level=command.level)
    screen.show(found, found.to_dict())
    return 0


def _score_rows(score: Any) -> list[tuple[str, str]]:
    from ..report.formatting import count, nats, number

    rows = [
        ("log-likelihood", f"{nats(score.total)} nats: {score.described}"),
        ("observations", count(score.n)),
        ("per observation", f"{number(score.mean, 6)} ± {number(score.standard_error, 3)} nats"),
        ("", f"{number(score.bits, 6)} bits"),
    ]
    if score.dimensions > 1:
        rows.append(
            ("per dimension", f"{number(score.bits_per_dimension, 6)} bits, of {count(score.dimensions)}")
        )
    if score.bits_per_byte is not None:
        rows.append(
            ("per byte", f"{number(score.bits_per_byte, 6)} ± {number(score.bits_per_byte_error, 3)} bits")
        )
        rows.append(("perplexity", number(score.perplexity, 6)))
    if score.error:
        rows.append(
            ("noise", f"{number(score.error / score.n, 3)} nats an observation are the model's own draws'")
        )
    if score.note:
        rows.append(("note", score.note))
    rows.append(("fingerprint", score.fingerprint))
    return rows + (
        [("impossible", f"{score.impossible} rows of probability zero")] if score.impossible else []
    )
