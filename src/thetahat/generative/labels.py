"""Labels: the class of each observation, in a batch or for a draw.

    p(y | c),      c = 0 … C − 1      the batch's "label", (n,), beside its "y"

A model that is made with `classes=C` reads the label, and its log p is that of y given the label. A model
that is made without refuses a batch that holds one.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.source import Source, Tensors, is_table
from ..data.transformed import observations
from ..errors import BadArgument, UnknownColumn, UnknownLevel, WrongType
from ..types import Data, Plain

LABEL = "label"
Label = int | Sequence[int] | np.ndarray | Tensor  # one class for all draws, or one for each


class Labelled(nn.Module):
    """(x (n, k), label (n,)) → network([x, one-hot(label)]): any network of vectors, given the class as well.

        [x, e_c],      e_c (classes,) is 1 at c and 0 elsewhere

    In a first layer that is affine, this is a bias of its own for each class.

    Parameters
    ----------
    network
        of vectors of k + classes numbers
    classes
        C

    Raises
    ------
    BadArgument

    Examples
    --------
    >>> from ..networks import mlp
    >>> net = Labelled(mlp(4 + 3, 16, 2), 3)
    >>> tuple(net(torch.zeros(5, 4), torch.tensor([0, 1, 2, 0, 1])).shape)
    (5, 2)
    """

    def __init__(self, network: nn.Module, classes: int):
        super().__init__()
        check_classes(classes)
        if classes is None:
            raise BadArgument(
                "Labelled(network, classes=None): the network is given no class. Accepted: 1 or more."
            )
        self.network, self.classes = network, classes

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        out: Tensor = self.network(torch.cat([x, one_hot(label, self.classes, x.dtype)], 1))
        return out


def one_hot(label: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """(n, classes), 1 at the label."""
    return (label[:, None] == torch.arange(classes, device=label.device)).to(dtype)


def check_classes(classes: int | None) -> None:
    """Refuse what is not a number of classes."""
    if classes is not None and (isinstance(classes, bool) or not isinstance(classes, int) or classes < 1):
        raise BadArgument(f"classes={classes!r}. Accepted: a whole number of at least 1; None: no classes.")


def check_network(network: Callable[..., Plain], classes: int | None, model: str, *called_with: str) -> None:
    """Refuse a network that was made for another number of classes than its model, or that takes no label.

    Parameters
    ----------
    called_with
        the names of what a model with classes calls it with, the label last
    """
    kind = type(network).__name__
    if isinstance(network, nn.Module) and vars(network).get("classes", classes) != classes:
        raise BadArgument(
            f"{model}(…, classes={classes}): the {kind} given was made with classes={network.classes}. "
            "Give the same number to both."
        )
    if classes is None:
        return
    forward = network.forward if isinstance(network, nn.Module) else network
    try:
        inspect.signature(forward).bind(*called_with)
    except TypeError as error:
        raise BadArgument(
            f"{model}(…, classes={classes}) calls its network with ({', '.join(called_with)}), and the {kind} given "
            f"takes other arguments ({error}). th.generative.Labelled(network, {classes}) gives a network of vectors "
            "the label; Denoiser and UNet take classes=."
        ) from error
    except ValueError:  # a function of another language, which says nothing of its arguments
        return


def labels(batch: Batch, classes: int | None, model: nn.Module, *, read: Sequence[str] = ()) -> Tensor | None:
    """The label of each row, (n,) int64; None of a model without classes.

    Parameters
    ----------
    classes
        C of the model, None: it has none
    model
        for the message
    read
        the tensors that the model reads under their own names: a "label" among them is used, if not as a
        class

    Raises
    ------
    UnknownColumn
        the model has classes, and the batch has no "label"
    BadArgument
        the batch has a "label" that the model would not use; or its shape is not (n,)
    WrongType
        a label is not a whole number
    UnknownLevel
        a label is outside 0 … C − 1
    """
    if classes is None:
        if LABEL in batch and LABEL not in read:
            raise BadArgument(
                f"the batch holds {LABEL!r}, and this {type(model).__name__} has no classes: its log p would "
                f"ignore the labels. Make it with classes=C, or leave {LABEL!r} out of the data."
            )
        return None
    if LABEL not in batch:
        raise UnknownColumn(
            f"this {type(model).__name__} is a model of y given its class, one of {classes}, and the data have "
            f'no {LABEL!r}. Give the class of each row, 0 … {classes - 1}: {{"y": …, "{LABEL}": …}}. '
            f"The data have: {', '.join(batch)}."
        )
    found = batch[LABEL]
    if found.ndim != 1:
        raise BadArgument(
            f"{LABEL!r} has the shape {tuple(found.shape)}. Accepted: ({len(batch)},), one class a row."
        )
    # a compiled function raises no named errors: the model's `check` inspects the batch before
    return found.to(torch.int64) if torch.compiler.is_compiling() else _checked(found, classes, "the batch")


def _checked(label: Tensor, classes: int, where: str) -> Tensor:
    """Whole numbers 0 … classes − 1, as int64."""
    if label.dtype == torch.bool or label.is_complex():
        raise WrongType(f"{LABEL!r} is of type {label.dtype}. Accepted: whole numbers 0 … {classes - 1}.")
    whole = label.to(torch.int64)
    bad = (whole < 0) | (whole >= classes)
    if label.is_floating_point():
        # NaN and infinity become some whole number, which differs from them
        bad = bad | (whole.to(label.dtype) != label)
    if bool(bad.any()):
        at = int(torch.nonzero(bad)[0, 0])
        value = label[at].item()
        kind = WrongType if isinstance(value, float) and not value.is_integer() else UnknownLevel
        raise kind(
            f"{LABEL!r} is {value:g} in row {at} of {where}. Accepted: whole numbers 0 … {classes - 1} "
            f"(classes={classes}; {int(bad.sum())} such rows)."
        )
    return whole


def asked(
    label: Label | None,
    n: int,
    classes: int | None,
    model: nn.Module,
    device: torch.device,
    *,
    marginal: bool = False,
) -> Tensor | None:
    """The class of each of n draws, (n,) int64; None of a model without classes, or where none is wanted.

    Parameters
    ----------
    label
        what was given: one class for all, or one for each
    classes
        C of the model, None: it has none
    model
        for the message
    marginal
        whether the model can draw without a class

    Raises
    ------
    BadArgument, WrongType, UnknownLevel
    """
    name = type(model).__name__
    if classes is None:
        if label is None:
            return None
        raise BadArgument(
            f"a label was given, and this {name} has no classes. Make it with classes=C, or leave label out."
        )
    if label is None:
        if marginal:
            return None
        raise BadArgument(
            f"this {name} draws y given its class, one of {classes}: give label=0 … {classes - 1}, or a tensor of "
            f"{n}, one for each draw."
        )
    try:
        given = torch.as_tensor(label)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadArgument(
            f"label={label!r}. Accepted: a class, 0 … {classes - 1}, or one for each draw."
        ) from error
    if given.ndim == 0:
        given = given.expand(n)
    if tuple(given.shape) != (n,):
        raise BadArgument(
            f"label has the shape {tuple(given.shape)}, and {n} draws are asked for. Accepted: one class for all, or "
            f"({n},), one for each."
        )
    return _checked(given, classes, "those asked for").to(device)


def observations_of(data: Data, target: str, classes: int | None) -> Source:
    """An array (n, d), or a table of numbers whose columns are the components of y; of a model with classes
    its column "label" is the class."""
    if classes is None or not is_table(data):
        return observations(data, target)
    from ..data.frame import Frame  # brings pandas
    from ..data.table import numeric_tensors

    columns = numeric_tensors(Frame(data))
    label = columns.pop(LABEL, None)
    y = torch.stack(list(columns.values()), -1)
    return Tensors({target: y} | ({} if label is None else {LABEL: label}), target=target, copy=False)


def check_guidance(guidance: float) -> None:
    """Refuse what is not a weight of guidance."""
    if isinstance(guidance, bool) or not isinstance(guidance, (int, float)) or not 0 <= guidance < math.inf:
        raise BadArgument(
            f"guidance={guidance!r}. Accepted: a number of at least 0 (1: none, the conditional model as it is; above 1: "
            "towards the class)."
        )
