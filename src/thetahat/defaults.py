"""torch's defaults, which belong to the user: those under which nothing can be computed are refused, and
none is changed."""

from __future__ import annotations

import torch
from torch import nn

from .errors import BadArgument

PRECISIONS = (torch.float32, torch.float64)


def check_defaults() -> None:
    """Refuse a default device without numbers, and a default precision in which sums lose their digits.

    Raises
    ------
    BadArgument
    """
    if torch.get_default_device().type == "meta":
        raise BadArgument(
            "torch's default device is 'meta', whose tensors hold no numbers. Accepted: "
            "torch.set_default_device('cpu'), or th.fit outside of "
            "`with torch.device('meta')`."
        )
    if torch.get_default_dtype() not in PRECISIONS:
        raise BadArgument(
            f"torch's default type is {torch.get_default_dtype()}, which has 3 digits or 4. Accepted: "
            "torch.set_default_dtype(torch.float32) or "
            "float64. Networks may be of any type; for faster products of matrices: "
            "th.Stochastic(precision=torch.bfloat16)."
        )


def check_values(module: nn.Module) -> None:
    """Refuse a network whose parameters or buffers hold no numbers.

    Raises
    ------
    BadArgument
    """
    for name, t in (*module.named_parameters(), *module.named_buffers()):
        if t.is_meta:
            raise BadArgument(
                f"{name} of {type(module).__name__} is on the device 'meta', and holds no numbers. Load or "
                "draw its values first."
            )
