"""`thetahat predict` and `thetahat export`: what is done with a fit once it is made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadArgument
from ..types import ModelLike, Named
from .arguments import Export, Predict
from .networks import Classifier
from .own import not_of_a_run, saved
from .screen import Screen, may_write
from .systems import again, of_runs

if TYPE_CHECKING:
    import pandas as pd


def predict(command: Predict, screen: Screen) -> int:
    import numpy as np
    import pandas as pd

    may_write(command.out, [command.fit, command.data], (".csv", ".parquet"), new=True)
    not_of_a_run(command.fit, command.model)
    with screen.busy("predicting"):
        if command.fit.is_dir():
            found = _of_images(command)
        else:
            of_runs(command)
            fit = saved(command.fit, command.model)
            answer = fit.predict(str(command.data), command.what, level=command.level, kind=command.interval)
            values = {"value": np.asarray(answer)}
            found = answer if isinstance(answer, pd.DataFrame) else pd.DataFrame(values)
    if command.out is not None:
        from ..files import replacing

        with replacing(command.out) as part:
            found.to_parquet(part) if command.out.suffix == ".parquet" else found.to_csv(part, index=False)
        screen.note(f"wrote {command.out}: {len(found)} rows")
    if command.json:
        rows = {"rows": len(found)} if command.out is not None else found.to_dict("list")
        screen.show(None, {str(name): values for name, values in rows.items()})
    elif command.out is None:
        found.to_csv(sys.stdout, index=False)
    return 0


def _of_images(command: Predict) -> pd.DataFrame:
    """The probability of each class of each image."""
    system, sizes, fit = again(command.fit, device=command.device)
    if not isinstance(system, Classifier):
        raise BadArgument(
            f"{command.fit} is the run of a {system.name}, which predicts nothing of rows. Accepted: the run of a "
            "classifier, or a fit that fit --save wrote."
        )
    if command.what not in ("mean", "probabilities") or command.level is not None:
        raise BadArgument("the run of a classifier predicts probabilities. Leave --what and --level out.")
    inputs = system.inputs(command.data, sizes)
    out: pd.DataFrame = fit.predict(inputs, "probabilities")
    return out.set_axis(sizes["names"], axis=1) if "names" in sizes else out


def _folder(command: Export, model: ModelLike, about: Named) -> Path:
    """A folder for transformers, or of adapters for peft."""
    from ..language.huggingface import save_adapters, save_pretrained
    from .pretrained import raw_tokenizer

    base = about.get("settings", {}).get("network")
    if command.adapters:
        return save_adapters(model, command.out, base)
    return save_pretrained(model, command.out, None if base is None else raw_tokenizer(Path(base)))


def export(command: Export, screen: Screen) -> int:
    from ..io.export import export as exported
    from ..io.reading import load
    from ..io.runs import read

    language: Any = None
    if command.fit.is_dir():
        system, sizes, fit = again(command.fit)
        about, language = read(command.fit)["about"], system.language(fit.model, sizes)
    else:
        fit, about = load(command.fit), {}
    if command.out.suffix == ".safetensors":
        written = exported(fit, command.out, about)
    else:
        written = _folder(command, fit.model if language is None else language[0], about)
    if command.json:
        screen.show(None, {"export": str(written)})
    screen.note(f"wrote {written}")
    return 0
