"""The formats of Hugging Face: a folder that `transformers` loads, and adapters that `peft` loads, which answer the same.

    save_pretrained(model, folder)     config.json, model.safetensors, and the tokenizer's files; adapters are merged first
    save_adapters(model, folder)       adapter_config.json, adapter_model.safetensors: the low-rank changes alone
    add_adapters(network, folder)      such a folder, of ours or of peft, put on a network

Both are written beside their place and renamed: a folder is there whole, or not at all.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BadArgument, BadSave
from ..files import new_folder
from ..protocols import network_of
from ..types import Plain, Settings
from .adapters import Adapted, adapted_by, add_lora, is_conv1d, merge
from .pretrained import Pretrained, is_pretrained

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
HEAD = "base_model.model."  # what peft writes before a module's name


def save_pretrained(model: Plain, folder: str | Path, tokenizer: Plain = None) -> Path:
    """Write a causal language model of transformers, its adapters merged, for `from_pretrained`.

    Parameters
    ----------
    model
        a network of transformers, `Pretrained`, or a model of it (`Autoregressive`, a fit's `model`)
    tokenizer
        of transformers, whose files are written beside; None: none

    Raises
    ------
    BadArgument
        the network is not of transformers (`io.export` writes its tensors), or the folder is there already
    NotWritten
        the disk is full
    """
    own = _own(model)
    if adapted_by(own):
        own = merge(copy.deepcopy(own))
    with new_folder(folder) as part:
        own.save_pretrained(part)
        if tokenizer is not None:
            tokenizer.save_pretrained(part)
    return Path(folder)


def save_adapters(model: Plain, folder: str | Path, base: str | None = None) -> Path:
    """Write the adapters of a network for peft's `PeftModel.from_pretrained`.

    Parameters
    ----------
    base
        name or path of the model that they change; None: what its configuration says

    Raises
    ------
    BadArgument
        there are no adapters, they are of several ranks or scales, or the folder is there already
    """
    from safetensors.torch import save_file

    own = _own(model)
    found = {name: m for name, m in own.named_modules() if isinstance(m, Adapted)}
    if not found:
        raise BadArgument("the network has no adapters. th.language.add_lora(network) makes them.")
    kinds = {(len(m.A), m.scale, is_conv1d(m.linear)) for m in found.values()}
    if len(kinds) > 1:
        raise BadArgument(
            f"the adapters differ in rank, scale or kind of layer ({len(kinds)} kinds), and one folder of peft holds one."
        )
    rank, scale, transposed = next(iter(kinds))
    config: Settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base or own.config._name_or_path or None,
        "r": rank,
        "lora_alpha": scale * rank,
        "lora_dropout": 0.0,
        "target_modules": sorted(found),
        "fan_in_fan_out": transposed,
        "bias": "none",
        "inference_mode": True,
    }
    tensors: dict[str, Tensor] = {}
    for name, m in found.items():
        for letter, value in (("A", m.A), ("B", m.B)):
            tensors[f"{HEAD}{name}.lora_{letter}.weight"] = value.detach().cpu().contiguous().clone()
    with new_folder(folder) as part:
        (part / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
        save_file(tensors, part / WEIGHTS, {"format": "pt"})
    return Path(folder)


def add_adapters(network: nn.Module, folder: str | Path) -> nn.Module:
    """The network, changed in place, with the adapters of a folder that `save_adapters` or peft wrote; nothing else of it
    is free.

    Raises
    ------
    BadSave
        the folder holds no LoRA adapters, or they are of another network; the message says what differs
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError) as error:
        raise BadSave(f"{folder} holds no adapters: {error}.") from error
    unlike = {
        "use_dora": False,
        "use_rslora": False,
        "bias": "none",
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    for name, plain in unlike.items():
        if config.get(name, plain) not in (plain, None):
            raise BadSave(f"{folder}: {name}={config[name]!r}. Accepted: plain LoRA, {name}={plain!r}.")
    if config.get("peft_type") != "LORA":
        raise BadSave(f"{folder} holds adapters of the kind {config.get('peft_type')!r}. Accepted: 'LORA'.")
    names = sorted({key.removeprefix(HEAD).rpartition(".lora_")[0] for key in tensors})
    own = _own(network)
    try:
        add_lora(own, config["r"], float(config["lora_alpha"]), names)
    except BadArgument as error:
        raise BadSave(f"{folder} is of another network: {error}") from error
    with torch.no_grad():
        for name in names:
            m: Any = own.get_submodule(name)
            for letter, into in (("A", m.A), ("B", m.B)):
                value = tensors[f"{HEAD}{name}.lora_{letter}.weight"]
                if value.shape != into.shape:
                    raise BadSave(
                        f"{folder}: {name}.lora_{letter} has the shape {tuple(value.shape)}, here {tuple(into.shape)}."
                    )
                into.copy_(value)
    return network


def _own(model: Plain) -> Plain:
    """The network of transformers inside a model, or the network that it is."""
    while not isinstance(model, Pretrained) and (inner := network_of(model)) is not None:
        model = inner
    own = model.own if isinstance(model, Pretrained) else model
    if not is_pretrained(own):
        raise BadArgument(
            f"a {type(own).__name__} is not a network of transformers. Accepted: one of it; the tensors of any network are written "
            "by thetahat.io.export."
        )
    return own
