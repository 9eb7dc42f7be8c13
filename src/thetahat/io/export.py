"""Export: the trained tensors of a network as plain safetensors, which any library reads without this one.

    tensors       named as `fit.model.network.named_parameters()` and buffers name them ("model.layers.0.self_attn.q_proj.weight"), in their
                  own precision, row by row
    metadata      format   "thetahat export, version 1"
                  about    JSON: model, network (class names), measure, units, parameters; of a run of the command also
                           system, settings, sizes: what made the network

A network is an arithmetic of its own: to run it elsewhere needs its code as well. `fit.save` writes what this library
reads back.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from ..errors import BadArgument, NotWritten
from ..files import replacing
from ..protocols import network_of, taylor_of
from ..types import Named

if TYPE_CHECKING:
    from ..result import Fit

FORMAT = "thetahat export, version 1"


def export(fit: Fit, path: str | Path, about: Named | None = None) -> Path:
    """Write the tensors of a fit's network; returns the path.

    Parameters
    ----------
    about
        plain values that the metadata keeps besides

    Raises
    ------
    BadArgument
        the fit has no network, or the path does not end in .safetensors or is there already
    NotWritten
        the disk is full

    Examples
    --------
    >>> import tempfile, torch, thetahat as th
    >>> model = th.models.Conditional(th.families.Normal(), th.networks.mlp(1, (), 2))
    >>> rows = {"x": torch.zeros(8, 1), "y": torch.zeros(8)}
    >>> fit = th.fit(model, rows, solver=th.Stochastic(steps=2, held_out=None))
    >>> from safetensors.torch import load_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sorted(load_file(export(fit, f"{folder}/line.safetensors")))
    ['0.bias', '0.weight']
    """
    from safetensors.torch import save

    path, model = Path(path), fit.model
    own = network_of(model)
    network = model if own is None else own
    if taylor_of(model) is not None or not isinstance(network, nn.Module):  # of a table
        raise BadArgument(
            f"a fit of {type(model).__name__} has no network to export: fit.save(path) writes it."
        )
    if path.suffix != ".safetensors" or path.exists():
        raise BadArgument(
            f"{path} "
            + ("exists." if path.exists() else "does not end in .safetensors.")
            + " Give another path."
        )
    said = {
        "model": type(model).__name__,
        "network": type(network).__name__,
        "measure": model.measure,
        "units": fit.source.units,
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in network.state_dict().items()}
    raw = save(tensors, {"format": FORMAT, "about": json.dumps(said | dict(about or {}))})
    try:
        with replacing(path) as part:
            part.write_bytes(raw)
    except OSError as error:
        raise NotWritten.of(path, error, "Nothing was written.") from error
    return path
