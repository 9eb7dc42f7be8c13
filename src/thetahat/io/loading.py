"""`th.load`: a saved fit, or the folder of a run, whoever began it: a command or Python."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadArgument, BadSave
from ..files import usable
from ..types import Data, ModelLike, Plain
from . import runs
from .reading import load as load_file

if TYPE_CHECKING:
    from ..result import Fit


def load(path: str | Path, data: Data = None, *, model: ModelLike = None) -> Fit:
    """The fit of a file that `save` wrote, or of the folder of a run.

    Without its data it gives, to the last bit, the estimates, standard errors, Wald intervals and tests,
    criteria, certificate, summary, and predictions, draws and scores for new rows. With them, everything. A
    fit of a language model has its `tokenizer`; one of a run has the `settings` of that run.

    Parameters
    ----------
    path
        the file, or runs/NAME
    data
        those to which it was fitted: what needs their rows (profiles, the bootstrap, the sandwich, residuals)
        then works again
    model
        the likelihood of one's own, or the network, where the fit was of one that the file does not describe;
        a list where there are several. What is given stays as it is

    Returns
    -------
    Fit

    Raises
    ------
    BadSave
        not a saved fit or a run, damaged, of a version that this library does not read; or a run that has not
        ended
    BadArgument
        the model is missing, is another one, or is not needed
    DataError
        the data are others than those that were fitted

    Examples
    --------
    >>> import tempfile, thetahat as th
    >>> network = th.networks.Transformer(257, layers=1, width=16, heads=2)
    >>> solver = th.Stochastic(steps=2, held_out=None)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = th.fit(th.language.Autoregressive(network), th.language.Tokens(["some text"], context=8), solver=solver, run=f"{folder}/gpt")
    ...     fit = th.load(f"{folder}/gpt")
    >>> fit.tokenizer.decode(fit.tokenizer.encode("θ")), fit.settings["steps"]
    ('θ', '2')
    """
    path = usable(path)
    if not path.is_dir():
        return load_file(path, data, model=model)
    about = runs.read(path)
    if not (path / runs.FIT).exists():
        raise BadSave(
            f"{path} has not ended: run the same call to continue it. Its checkpoint is not a fit yet."
        )
    if about["about"].get("system") is None:
        out: Fit = _with(load_file(path / runs.FIT, data, model=model), settings=about["run"])
        return out
    if model is not None:
        raise BadArgument(
            f"{path} is the run of a thetahat {about['about']['system']}, which needs no model: "
            f"th.load({str(path)!r})."
        )
    from ..cli.systems import again

    system, sizes, fit = again(path, data)
    language = system.language(fit.model, sizes)
    out = _with(fit, settings=system.settings, **({} if language is None else {"_tokenizer": language[1]}))
    return out


def _with(fit: Fit, **known: Plain) -> Fit:
    """The same fit, which knows more of where it comes from."""
    out = copy.copy(fit)
    out.__dict__.update(known)
    return out
