"""`thetahat sample`: draws from a saved fit, or from a run; and `thetahat play`, of a policy."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

from ..errors import BadArgument, ThetahatError
from ..protocols import classes_of
from ..types import Data, Settings
from .arguments import Play, Sample
from .own import not_of_a_run, saved
from .policies import LONGEST_EVALUATION
from .screen import Screen, may_write, plain_table
from .systems import again, of_runs


def sample(command: Sample, screen: Screen) -> int:
    not_of_a_run(command.fit, command.model)
    if command.fit.is_dir():
        return _drawn(command, screen)
    if command.data is None:
        raise BadArgument(f"sample {command.fit} needs DATA: the rows for which responses are drawn.")
    of_runs(command)
    may_write(command.out, [command.fit, command.data], (".csv", ".parquet"), new=True)
    import pandas as pd

    with screen.busy("drawing"):
        found = saved(command.fit, command.model)
        drawn = found.sample(command.draws, str(command.data), seed=command.seed)
    if drawn.dtype.kind == "f" and found.model.measure == "mass":
        drawn = drawn.astype("int64")
    frame = pd.DataFrame({f"draw_{j + 1}": draw for j, draw in enumerate(drawn)})
    if command.out is not None:
        from ..files import replacing

        with replacing(command.out) as part:
            frame.to_parquet(part) if command.out.suffix == ".parquet" else frame.to_csv(part, index=False)
        screen.note(f"wrote {command.out}: {len(frame)} rows of {command.draws} draws")
    if command.json:
        document = {"seed": command.seed} | (
            {"out": str(command.out)} if command.out is not None else {"draws": drawn.tolist()}
        )
        screen.show(None, document)
    elif command.out is None:
        frame.to_csv(sys.stdout, index=False)
    return 0


def _drawn(command: Sample, screen: Screen) -> int:
    """Draws from a run: text on stdout, images to a .png or .npy, rows as a table."""
    import torch

    if command.data is not None:
        raise BadArgument(f"{command.fit} is a run: it is sampled without DATA.")
    if command.draws < 1:
        raise BadArgument(f"-n {command.draws}. Accepted: 1 or more.")
    system, sizes, fit = again(command.fit, device=command.device)
    if system.draws_nothing:
        raise BadArgument(f"{command.fit} is the run of a {system.name}, {system.draws_nothing}.")
    found_language = system.language(fit.model, sizes)
    if found_language is not None:
        if command.label is not None or command.guidance is not None:
            raise BadArgument(
                "--label and --guidance apply to models of images with classes. Leave them out."
            )
        model, tokenizer, context = found_language
        may_write(command.out, [command.fit], (".txt",), new=True)
        if not command.prompt:
            raise BadArgument(
                "--prompt is empty. Give a character at least, for the language model to continue."
            )
        try:
            begun = tokenizer.encode(command.prompt)
        except ThetahatError as error:
            raise BadArgument(f"--prompt {command.prompt!r} cannot be read: {error}") from error
        prompt = torch.from_numpy(begun).expand(command.draws, -1)
        generator = torch.Generator().manual_seed(command.seed)
        settings = {"context": context, "temperature": command.temperature, "end": tokenizer.end}
        drawn = _with_text(model, tokenizer, screen).sample(
            prompt, command.max_new_tokens, generator=generator, **settings
        )
        texts = [command.prompt + _continuation(tokenizer, begun, row.tolist()) for row in drawn]
        if command.out is not None:
            from ..files import replacing

            with replacing(command.out) as part:
                part.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
            screen.note(f"wrote {command.out}: {len(texts)} texts")
        if command.json:
            where = {"texts": texts} if command.out is None else {"out": str(command.out)}
            screen.show(None, {"seed": command.seed} | where)
        elif command.out is None:
            sys.stdout.write("\n\n".join(texts) + "\n")
        return 0
    may_write(
        command.out,
        [command.fit],
        (".csv", ".parquet") if system.name == "flow" else (".png", ".npy"),
        new=True,
    )
    wanted: Settings = {"label": command.label, "guidance": command.guidance}
    classes = classes_of(fit.model)
    if classes is not None and command.label is None:
        wanted["label"] = torch.arange(command.draws) % classes
    with screen.busy("drawing"):
        drawn = fit.sample(command.draws, seed=command.seed, **wanted)
    if system.name == "flow":
        import pandas as pd

        from ..files import replacing

        rows = drawn * sizes["scale"] + sizes["shift"]
        frame = pd.DataFrame(rows, columns=sizes["columns"])
        if command.out is None:
            frame.to_csv(sys.stdout, index=False)
            return 0
        with replacing(command.out) as part:
            frame.to_parquet(part) if command.out.suffix == ".parquet" else frame.to_csv(part, index=False)
    else:
        if command.out is None:
            raise BadArgument("images need a file: -o draws.png, or -o draws.npy.")
        _images(drawn.reshape(-1, *sizes["shape"]), sizes["levels"], command.out)
    screen.note(f"wrote {command.out}: {len(drawn)} draws")
    if command.json:
        screen.show(None, {"seed": command.seed, "out": str(command.out)})
    return 0


def _with_text(model: Any, tokenizer: Any, screen: Screen) -> Any:
    """The model without the ids that have no text, and a line that says so."""
    from ..language.vocabulary import with_text

    out = with_text(model, tokenizer.vocabulary)
    if out is not model:
        many = model.vocabulary - tokenizer.vocabulary
        screen.note(
            f"{many} of the model's {model.vocabulary} ids have no text (its tokenizer has {tokenizer.vocabulary}): they "
            "are not drawn, and the probabilities of the others are divided by their sum"
        )
    return out


def _continuation(tokenizer: Any, before: Any, after: list[int]) -> str:
    """The text that tokens add to a prompt."""
    from ..language.fast_tokenizers import FastTokenizer

    if isinstance(tokenizer, FastTokenizer):
        return tokenizer.continuation(before, after)
    return str(tokenizer.decode(after))


def _images(images: Data, levels: int, out: Path) -> None:
    """(n, H, W) or (n, C, H, W) as an array, or as one picture."""
    import numpy as np

    from ..files import replacing

    with replacing(out) as part:
        if out.suffix == ".npy":
            with part.open("wb") as file:
                np.save(file, images)
            return
        from ..report.pictures import png, tiled

        sheet, times = (
            tiled(images.reshape(len(images), -1), images.shape[1:], levels),
            max(1, 56 // images.shape[-1]),
        )
        part.write_bytes(
            png(np.ascontiguousarray(sheet.repeat(times, 0).repeat(times, 1)))
        )  # small ones large enough to see


def play(command: Play, screen: Screen) -> int:
    if command.episodes < 1:
        raise BadArgument(f"--episodes {command.episodes}. Accepted: 1 or more.")
    if not command.runs:
        raise BadArgument("play takes the folder of a run, or several.")
    if len(command.runs) > 1 or command.against:
        return _over_runs(command, screen)
    env, several = _played(command, command.runs[0], screen)
    if len(several) > 1:
        return _over_runs(command, screen, [(env, several)])
    (found,) = several.values()
    error = float(found.std()) / len(found) ** 0.5 if len(found) > 1 else float("nan")
    low, middle, high = (float(v) for v in (found.min(), found.median(), found.max()))
    document = {
        "environment": env,
        "episodes": len(found),
        "greedy": not command.draw,
        "mean": float(found.mean()),
    }
    document |= {"standard_error": error, "lowest": low, "median": middle, "highest": high}
    rows = [
        ("return", f"{found.mean():.5g} ± {error:.2g}"),
        ("lowest, median, highest", f"{low:.5g}, {middle:.5g}, {high:.5g}"),
        ("played", f"{len(found)} whole episodes of {env}, {'drawn' if command.draw else 'greedy'}"),
    ]
    screen.show(plain_table(rows), document)
    return 0


def _played(command: Play, run: Path, screen: Screen) -> tuple[str, dict[str, Any]]:
    """(environment, the return of each episode, by the name of the run; of a run of several seeds by that of each)."""
    from ..rl import Seeds
    from ..rl.rollouts import returns

    system, _, fit = again(run, device=command.device)
    if system.name != "policy":
        raise BadArgument(f"{run} is the run of a {system.name}, which plays nothing.")
    with screen.busy("playing"), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", RuntimeWarning)
        found = returns(
            fit.model,
            system.environment,
            command.episodes * (fit.model.seeds if isinstance(fit.model, Seeds) else 1),
            seed=command.seed,
            greedy=not command.draw,
            max_steps=LONGEST_EVALUATION,
            vectorization=system.vectorization,
            **system.made_with,
        )
    for each in said:
        screen.note(f"{run}: {each.message}")
    if not isinstance(fit.model, Seeds):
        return system.env, {str(run): found}
    blocks = found.reshape(fit.model.seeds, -1)
    return system.env, {f"{run} seed {system.seed + s}": block for s, block in enumerate(blocks)}


def _over_runs(command: Play, screen: Screen, first: list[tuple[str, dict[str, Any]]] | None = None) -> int:
    """Of several runs, or seeds of a run, the mean return of each, and what is known of the algorithm.

    first : what the runs played, where they have
    """
    from ..rl.performance import iqm, probability_of_improvement

    played = [
        first
        if first is not None and runs is command.runs
        else [_played(command, run, screen) for run in runs]
        for runs in (command.runs, command.against)
        if runs
    ]
    sides = [
        {name: (env, found) for env, several in side for name, found in several.items()} for side in played
    ]
    names = {env for side in sides for env, _ in side.values()}
    if len(names) > 1:
        raise BadArgument(f"the runs play different environments: {', '.join(sorted(names))}.")
    means = [{run: float(found.mean()) for run, (_, found) in side.items()} for side in sides]
    document: Settings = {"environment": names.pop(), "episodes": command.episodes, "runs": means[0]}
    rows = [(run, f"{mean:.5g}") for side in means for run, mean in side.items()]
    for name, side in zip(("iqm", "iqm_against"), means, strict=False):
        found = iqm(list(side.values()))
        document[name] = {"value": found.value, "low": found.low, "high": found.high}
        rows.append((f"interquartile mean of {len(side)} runs", str(found)))
    if len(means) > 1:
        found = probability_of_improvement(*(list(side.values()) for side in means))
        document["against"] = means[1]
        document["probability_of_improvement"] = {"value": found.value, "low": found.low, "high": found.high}
        rows.append(("probability that a run of the first is better", str(found)))
    screen.show(plain_table(rows), document)
    return 0
