"""Flow: a density made by bending a simple one. Any flow of zuko is a model as it stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.devices import CPU, device_of
from ..data.source import Source
from ..errors import BadArgument, MissingExtra, ModelError
from ..models.base import Model
from ..networks.mlp import ACTIVATIONS
from ..types import Data, Plain
from .labels import LABEL, Label, asked, check_classes, labels, observations_of, one_hot


class Flow(Model):
    """p(y) of a normalising flow: y is mapped, one-to-one, to z of a simple density.

        log p(y | x, θ) = log p(z) + log |det ∂z/∂y|,      z = f_θ(y; x),      z ~ Normal(0, I)

    `Flow.spline(d)` and `Flow.affine(d)` make the usual two, drawn from a seed. Flows bend what lies near 0:
    give them standardised data (`th.data.Transformed(rows, "standardise")`), and the score is still one of
    the rows themselves.

    With classes, p(y | label) is conditional on the batch's "label", one-hot. It is exact, as p(y) is.

    Parameters
    ----------
    flow
        a zuko flow (`zuko.flows.NSF(features=d)`, MAF, NAF, CNF …): called with nothing, or with x, it gives
        a distribution
    inputs
        the tensor that the flow is conditioned on, (n, c), or the columns that are stacked to it; None: p(y)
        alone
    target
        the tensor that is scored, (n, d)
    classes
        C, of the batch's "label", (n,), 0 … C − 1: the flow is called with its one-hot code, (n, C), behind
        the inputs, if there are any (`zuko.flows.NSF(features=d, context=C)`); None: there is no class

    Raises
    ------
    ModelError
        y has another number of components than the flow
    UnknownColumn, UnknownLevel, WrongType, BadArgument
        labels are missing, or not 0 … C − 1; a batch has labels, and the flow no classes
    MissingExtra
        zuko is not installed (extra "flows")

    References
    ----------
    Rezende and Mohamed (2015), Variational inference with normalizing flows; Papamakarios et al. (2021),
    Normalizing flows for probabilistic modeling and inference; Rozet et al., zuko.

    Examples
    --------
    >>> model = Flow.affine(2, hidden=(8,), transforms=1)
    >>> tuple(model.log_prob(Batch({"y": torch.zeros(5, 2)})).shape), tuple(model.draw(3).shape)
    ((5,), (3, 2))
    >>> digits = Flow.affine(2, classes=10, hidden=(8,))
    >>> tuple(digits.draw(3, label=7).shape)
    (3, 2)
    """

    def __init__(
        self,
        flow: nn.Module,
        *,
        inputs: str | Sequence[str] | None = None,
        target: str = "y",
        classes: int | None = None,
    ):
        super().__init__()
        check_classes(classes)
        if not isinstance(flow, nn.Module):
            raise BadArgument(
                f"Flow(flow): flow is {type(flow).__name__}, not a flow of zuko (zuko.flows.NSF(features=3))."
            )
        self.flow, self.target, self.classes = flow, target, classes
        self.inputs = inputs if inputs is None or isinstance(inputs, str) else tuple(inputs)
        if classes is not None and LABEL in self._read:
            raise BadArgument(
                f"inputs={inputs!r}, target={target!r}, classes={classes}: the tensor {LABEL!r} is the class. "
                "Accepted: other names."
            )

    @classmethod
    def spline(
        cls,
        features: int,
        *,
        context: int = 0,
        transforms: int = 3,
        hidden: Sequence[int] = (64, 64),
        bins: int = 8,
        activation: str = "relu",
        seed: int = 0,
        inputs: str | Sequence[str] | None = None,
        classes: int | None = None,
    ) -> Self:
        """An autoregressive flow of monotone rational-quadratic splines: bends within ±5, the identity
        beyond.

        Parameters
        ----------
        features
            d
        context
            columns of x, with `inputs`
        transforms, hidden, bins
            maps in a row, the widths of their networks, pieces of a spline
        activation
            of the networks: "relu", "gelu", "silu", or "tanh", which stays bounded far from the data (small
            tables)
        seed
            of the weights
        inputs, classes
            as of `Flow`

        References
        ----------
        Durkan et al. (2019), Neural spline flows.

        Examples
        --------
        >>> Flow.spline(2, bins=4).draw(3, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([3, 2])
        """
        check_classes(classes)
        sizes = {
            "features": features,
            "context": context + (classes or 0),
            "transforms": transforms,
            "hidden_features": hidden,
            "bins": bins,
        }
        given = _conditioned(inputs, context)
        return cls(_made("NSF", seed, activation, **sizes), inputs=given, classes=classes)

    @classmethod
    def affine(
        cls,
        features: int,
        *,
        context: int = 0,
        transforms: int = 3,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        seed: int = 0,
        inputs: str | Sequence[str] | None = None,
        classes: int | None = None,
    ) -> Self:
        """A masked autoregressive flow: each component is shifted and scaled by those before it.

        Parameters
        ----------
        features, context, transforms, hidden, activation, seed, inputs, classes
            as of `spline`

        References
        ----------
        Papamakarios, Pavlakou and Murray (2017), Masked autoregressive flow for density estimation.

        Examples
        --------
        >>> Flow.affine(2, context=1, inputs="x").inputs
        'x'
        """
        check_classes(classes)
        sizes = {
            "features": features,
            "context": context + (classes or 0),
            "transforms": transforms,
            "hidden_features": hidden,
        }
        given = _conditioned(inputs, context)
        return cls(_made("MAF", seed, activation, **sizes), inputs=given, classes=classes)

    # ---- p -------------------------------------------------------------------------------------------------

    def distribution(self, batch: Batch | None = None) -> Any:
        """What the flow gives: a torch distribution of y, of each row's x and class where it is
        conditioned."""
        if batch is None:
            if self.inputs is None and self.classes is None:
                return self.flow()
            raise BadArgument(
                f"this flow is conditioned on {self.inputs or LABEL!r}: it has no distribution without rows of it."
            )
        label = labels(batch, self.classes, self, read=self._read)
        given = [] if self.inputs is None else [self._inputs_of(batch).to(self._dtype)]
        if label is not None and self.classes is not None:
            given.append(one_hot(label, self.classes, self._dtype))
        return self.flow(torch.cat(given, -1)) if given else self.flow()

    def _inputs_of(self, batch: Batch) -> Tensor:
        if isinstance(self.inputs, str):
            one: Tensor = batch[self.inputs]
            return one
        return torch.stack([batch[name] for name in self.inputs or ()], -1)

    def check(self, batch: Batch) -> None:
        """Refuse labels that are no classes, before a compiled log p is called."""
        labels(batch, self.classes, self, read=self._read)

    @property
    def _read(self) -> tuple[str, ...]:
        """The tensors that are read under their own names."""
        own = (self.inputs,) if isinstance(self.inputs, str) else self.inputs or ()
        return (self.target, *own)

    def log_prob(self, batch: Batch) -> Tensor:
        p, y = self.distribution(batch), batch[self.target].to(self._dtype)
        if tuple(y.shape[1:]) != tuple(p.event_shape):
            raise ModelError(
                f"the flow is of {' × '.join(map(str, p.event_shape))} components, and {self.target!r} has "
                "the shape "
                f"{tuple(y.shape)}. Accepted: {(len(y), *p.event_shape)}."
            )
        out: Tensor = p.log_prob(y)
        return out

    @property
    def _dtype(self) -> torch.dtype:
        first = next(self.parameters(), None)
        return torch.float32 if first is None else first.dtype

    # ---- draws ---------------------------------------------------------------------------------------------

    def draw(self, n: int, *, label: Label | None = None, generator: torch.Generator | None = None) -> Tensor:
        """n observations, (n, d).

        Parameters
        ----------
        label
            of a flow with classes: the class of all draws, or of each, (n,)
        """
        if self.inputs is not None:
            raise BadArgument(
                f"this flow is conditioned on {self.inputs!r}: model.sample(batch) draws a y for each row of "
                "it."
            )
        given = asked(label, n, self.classes, self, device_of(self))
        if given is None:
            return self._drawn(None, (n,), generator)
        return self._drawn(Batch({LABEL: given}), (), generator)

    def sample(self, batch: Batch, *, generator: torch.Generator | None = None) -> Tensor:
        """One draw of y for each row, (n, d)."""
        plain = self.inputs is None and self.classes is None
        return self._drawn(batch, (len(batch),) if plain else (), generator)

    @torch.no_grad()
    def _drawn(
        self, batch: Batch | None, shape: tuple[int, ...], generator: torch.Generator | None
    ) -> Tensor:
        with _randomness(generator, device_of(self)):
            out: Tensor = self.distribution(batch).sample(shape)
            return out

    # ---- data ----------------------------------------------------------------------------------------------

    def source(self, data: Data, weights: str | None = None) -> Source | None:
        """An array (n, d), or a table whose columns are the components of y, and the label of a flow with
        classes; None where the flow is conditioned and reads columns by name."""
        plain = isinstance(data, dict) and self.target in data
        if self.inputs is not None or weights is not None or plain:
            return None
        return observations_of(data, self.target, self.classes)


def _conditioned(inputs: str | Sequence[str] | None, context: int) -> str | Sequence[str] | None:
    if context < 0 or (context > 0) != (inputs is not None):
        raise BadArgument(f"context={context} columns of inputs={inputs!r}. Accepted: both, or neither.")
    return inputs


def _made(name: str, seed: int, activation: str, **settings: Plain) -> nn.Module:
    try:
        from zuko import flows
    except ImportError as error:
        raise MissingExtra.named("zuko", "flows") from error
    small = [key for key in ("features", "transforms", "bins") if settings.get(key, 1) < 1]
    if small:
        raise BadArgument(f"{small[0]}={settings[small[0]]}. Accepted: 1 or more.")
    if activation not in ACTIVATIONS:
        raise BadArgument(f"activation={activation!r}. Accepted: {', '.join(map(repr, ACTIVATIONS))}.")
    with _randomness(torch.Generator().manual_seed(seed)), _in_float32():
        out: nn.Module = vars(flows)[name](activation=ACTIVATIONS[activation], **settings)
        return out


@contextmanager
def _in_float32() -> Iterator[None]:
    """torch's default precision, in which zuko makes its weights, as it is where nobody has changed it."""
    before = torch.get_default_dtype()
    if before == torch.float32:
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _randomness(generator: torch.Generator | None, device: torch.device = CPU) -> Iterator[None]:
    """torch's own randomness, which is all that zuko draws from, seeded by the generator, and as it was
    afterwards."""
    if generator is None:
        yield
        return
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    others = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(others, device_type="cuda" if not others else device.type):
        torch.manual_seed(seed)
        yield
