"""How a model was made, as plain values: a saved fit of the library's own networks and models is built again
without a line of code.

    {"of": "Transformer", "settings": {"vocabulary": 65, "layers": 4, …}}           a class that was recorded, and what it was called with
    {"of": "Flow", "by": "spline", "settings": …}                                   … by one of its constructors
    {"of": "Sequential", "parts": [{"of": "Linear", "settings": …}, …]}             layers of torch
    {"again": 2}                                                                    the third module of the description, once more: shared

What is built is of the classes in this list and of nothing else; their parameters and buffers then come from
the file. A subclass, a layer that is not listed, or a network that was changed after it was made has no
description.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import torch
from torch import Tensor, nn

from ..errors import BadArgument, BadSave
from ..families.base import Family
from ..made import KINDS, NAMES, own_of
from ..types import Named, Plain, Settings
from .families import from_config, to_config
from .values import plain, rich

SYSTEMS = ("generative", "language", "rl", "preferences", "models", "networks")
LAYERS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features", "bias"),
    nn.Embedding: ("num_embeddings", "embedding_dim"),
    nn.BatchNorm1d: ("num_features", "eps", "momentum", "affine", "track_running_stats"),
    nn.BatchNorm2d: ("num_features", "eps", "momentum", "affine", "track_running_stats"),
    nn.LayerNorm: ("normalized_shape", "eps", "elementwise_affine"),
    nn.Dropout: ("p",),
    nn.Flatten: ("start_dim", "end_dim"),
    nn.MaxPool2d: ("kernel_size", "stride", "padding"),
    nn.AvgPool2d: ("kernel_size", "stride", "padding"),
    nn.Conv1d: (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
        "bias",
    ),
    nn.Conv2d: (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
        "bias",
    ),
    **dict.fromkeys((nn.GELU, nn.ReLU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Identity), ()),
}
_LAYERS = {kind.__name__: kind for kind in LAYERS}


class Undescribed(Exception):
    """Something has no description; the text says what."""


def describe(modules: Sequence[nn.Module]) -> list[Settings] | None:
    """A description of each, or None where one of them has none."""
    seen: dict[int, int] = {}
    try:
        return [_described(module, seen) for module in modules]
    except Undescribed:
        return None


def _described(module: nn.Module, seen: dict[int, int]) -> Settings:
    if id(module) in seen:
        return {"again": seen[id(module)]}
    seen[id(module)] = len(seen)
    kind = type(module)
    if kind is nn.Sequential:
        return {
            "of": "Sequential",
            "parts": [_described(each, seen) for each in module._modules.values() if each is not None],
        }
    if kind in LAYERS:
        found = {name: getattr(module, name) for name in LAYERS[kind]}
        if "bias" in found:
            found["bias"] = found["bias"] is not None
        return {"of": kind.__name__, "settings": {name: _plain(v, seen) for name, v in found.items()}}
    if kind not in NAMES or "_made" not in module.__dict__:
        raise Undescribed(f"a {kind.__name__}")
    by, settings, own = module.__dict__["_made"]
    if own != own_of(module):
        raise Undescribed(f"a {kind.__name__} whose attributes were changed")
    within = {id(each) for each in module.modules()}
    if any(isinstance(v, nn.Module) and id(v) not in within for v in settings.values()):
        raise Undescribed(f"a {kind.__name__} whose parts were replaced")
    return {
        "of": NAMES[kind],
        **({"by": by} if by else {}),
        "settings": {n: _plain(v, seen) for n, v in settings.items()},
    }


def _plain(value: Plain, seen: dict[int, int]) -> Plain:
    if isinstance(value, nn.Module):
        return {"module": _described(value, seen)}
    if isinstance(value, Family):
        return {"family": to_config(value)}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, Tensor) and value.numel() <= 10_000 and not value.is_complex():
        kind = str(value.dtype).removeprefix("torch.")
        return {
            "tensor": _plain(value.detach().cpu().to(torch.float64).tolist(), seen)["value"],
            "dtype": kind,
        }
    if type(value) in NAMES and "_made" in vars(value):  # the actions of a policy
        return {
            "of": NAMES[type(value)],
            "settings": {name: _plain(v, seen) for name, v in value._made[1].items()},
        }
    try:
        return {"value": plain(list(value) if isinstance(value, range) else value)}
    except BadArgument as error:
        raise Undescribed(f"a {type(value).__name__}") from error


# ---- and back ----------------------------------------------------------------------------------------------


def build(descriptions: Sequence[Named]) -> list[nn.Module]:
    """The modules that `describe` described; what is drawn in them is to be replaced.

    Raises
    ------
    BadSave
        for anything that `describe` does not write
    """
    for name in SYSTEMS:
        import_module(f"..{name}", __package__)  # it records its classes
    made: list[Plain] = []
    try:
        return [_built(each, made) for each in descriptions]
    except (BadSave, MemoryError):
        raise
    except Exception as error:  # whatever a constructor says of settings that it was not made with
        raise BadSave(f"the file describes a model that cannot be built: {error!r}.") from error


def _built(config: Named, made: list[Plain]) -> Plain:
    if "again" in config:
        return made[config["again"]]
    place = len(made)
    made.append(None)
    name = config["of"]
    if name == "Sequential":
        made[place] = nn.Sequential(*(_built(each, made) for each in config["parts"]))
        return made[place]
    settings = {key: _rich(value, made) for key, value in config["settings"].items()}
    kind = _LAYERS.get(name) or KINDS.get(name)
    if kind is None:
        raise BadSave(f"the file describes a {name!r}, which this library does not know.")
    by = config.get("by", "")
    if by and not (isinstance(vars(kind).get(by), classmethod) and not by.startswith("_")):
        raise BadSave(f"the file describes a {name!r} made by {by!r}, which this library does not know.")
    made[place] = (getattr(kind, by) if by else kind)(**settings)
    return made[place]


def _rich(config: Named, made: list[Plain]) -> Plain:
    if "module" in config:
        return _built(config["module"], made)
    if "family" in config:
        return from_config(config["family"])
    if "tensor" in config:
        return torch.tensor(rich(config["tensor"]), dtype=torch.float64).to(_dtype(config["dtype"]))
    if "dtype" in config:
        return _dtype(config["dtype"])
    if "of" in config:
        kind = KINDS[config["of"]]
        if issubclass(kind, nn.Module):
            raise BadSave(f"the file holds a {config['of']!r} instead of a setting.")
        return kind(**{name: _rich(v, made) for name, v in config["settings"].items()})
    return rich(config["value"])


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise BadSave(f"the file names a type {name!r}, which torch does not have.")
    return found
