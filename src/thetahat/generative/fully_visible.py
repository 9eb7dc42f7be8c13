"""FullyVisible: the chain rule over the components of an observation, such as the pixels of an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..errors import BadArgument, ModelError
from ..families.base import Family
from ..models.base import Model, drawn
from ..networks.causality import first_peek
from ..protocols import Categories, pixels_of
from ..types import ModelLike


class FullyVisible(Model):
    """p(y) = Π_j p(y_j | y_0 … y_{j−1}): each pixel of a family whose parameters a network reads off the
    pixels before it.

        log p(y | θ) = Σ_j log p(y_j | g⁻¹(η_j)),      η = f_θ(y),      η_j a function of y_<j alone

    With a linear network it is a regression a pixel, with a masked network MADE, with a transformer an image
    GPT; with a network that reads nothing the pixels are independent.

    Before the first batch the network is tried, with weights drawn at random: if its output for some pixel
    changes with that pixel or a later one, what it says is not a probability, and it is refused.

    Parameters
    ----------
    family
        of a pixel, p(y_j | its k parameters); Categorical(L) also takes L logits, one of which is then left
        over
    network
        y (n, d), in the precision of its weights, → η (n, d, k): `th.generative.MaskedMLP`,
        `th.generative.PixelTransformer`, or one's own
    target
        the tensor that is scored, (n, d)

    Raises
    ------
    ModelError
        the network peeks; its outputs are not as many as the family's parameters
    BadArgument
        the family is of vectors, or needs extras

    References
    ----------
    Frey, Hinton and Dayan (1996), Does the wake-sleep algorithm produce good density estimators?; Germain et
    al. (2015), MADE: masked autoencoder for distribution estimation; van den Oord, Kalchbrenner and
    Kavukcuoglu (2016), Pixel recurrent neural networks.

    Examples
    --------
    >>> from thetahat.families import Bernoulli
    >>> from thetahat.generative import MaskedMLP
    >>> model = FullyVisible(Bernoulli(), MaskedMLP(4, 1))
    >>> tuple(model.log_prob(Batch({"y": torch.tensor([[0, 1, 1, 0]])})).shape)
    (1,)
    """

    def __init__(self, family: Family, network: nn.Module, *, target: str = "y"):
        super().__init__()
        if not isinstance(family, Family):
            raise BadArgument(
                f"FullyVisible(family, network): family is {type(family).__name__}, not a family."
            )
        if not isinstance(network, nn.Module):
            raise BadArgument(
                f"FullyVisible(family, network): network is {type(network).__name__}, not a torch.nn.Module."
            )
        if family.length is not None or family.extras:
            raise BadArgument(
                f"{family} does not describe a pixel on its own. Accepted: a family of one number, without "
                "extras."
            )
        self.family, self.target, self.measure = family, target, family.measure
        self.network: ModelLike = network
        self._tried = False

    # ---- p -------------------------------------------------------------------------------------------------

    def log_prob(self, batch: Batch) -> Tensor:
        """log p of each observation, (n,)."""
        y = batch[self.target]
        if y.ndim != 2:
            raise ModelError(
                f"{self.target!r} has the shape {tuple(y.shape)}. Accepted: (n, d), an observation a row."
            )
        if not self._tried:
            self._tried = self._audited(y)
        eta = self._eta(y)
        return self.family.log_prob_eta(y.to(eta[0].dtype), *eta).sum(-1)

    def extras(self, batch: Batch) -> dict[str, Tensor]:
        return {}

    def _eta(self, y: Tensor) -> list[Tensor]:
        """The linear predictors of each pixel, k tensors (n, d)."""
        out = _Read(self.network)(y)
        k = len(self.family.parameters)
        wanted = (k, k + 1) if isinstance(self.family, Categories) else (k,)
        if out.ndim != 3 or out.shape[:2] != y.shape or out.shape[2] not in wanted:
            raise ModelError(
                f"the network gives a tensor of shape {tuple(out.shape)} for {tuple(y.shape)} pixels, and "
                f"{self.family} has {k} "
                f"parameters. Accepted: {' or '.join(str((*y.shape, w)) for w in wanted)}."
            )
        return list(out.unbind(-1))

    # ---- no pixel sees itself ------------------------------------------------------------------------------

    @torch.no_grad()
    def _audited(self, y: Tensor) -> bool:
        """Refuse a network whose η_i changes when y_j, j ≥ i, does. False: all pixels of y are alike, and
        nothing can be tried.

        Row j of a trial has every pixel from j on exchanged. The weights are drawn anew, since a network
        whose last layer begins at 0 hides what it reads until it has been fitted.
        """
        low, high = y.min(), y.max()
        if bool(low == high):
            return False
        own = y[:1]
        found = first_peek(
            _Read(self.network), own, torch.where(own == low, high, low), rows=max(len(y), 2), own=True
        )
        if found is not None:
            pixel, seen = found
            raise ModelError(
                f"the network peeks: its output for pixel {pixel} changes with pixel "
                f"{seen if seen > pixel else pixel} or a later one. "
                f"η_j may depend on the pixels before j alone, or Σ p(y) is not 1."
            )
        return True

    # ---- draws ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def draw(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """n observations, (n, d): a pixel at a time, one pass of the network each."""
        d = pixels_of(self.network)
        first = next(self.network.parameters(), None)
        if not isinstance(d, int) or first is None:
            raise BadArgument(
                f"{type(self.network).__name__} does not say how many pixels it reads: give it an attribute "
                "`pixels`."
            )
        y = torch.zeros(n, d, dtype=first.dtype, device=first.device)
        for j in range(d):
            eta = [e[:, j] for e in self._eta(y)]
            parameters = self.family.natural(eta) if len(eta) == len(self.family.parameters) else eta
            y[:, j] = drawn(self.family, parameters, generator).to(y.dtype)
        return y.long() if self.measure == "mass" else y

    def sample(self, batch: Batch, *, generator: torch.Generator | None = None) -> Tensor:
        """One draw for each row: the pixels have no predictors, so each row's is a draw of p."""
        return self.draw(len(batch), generator=generator)


class _Read(nn.Module):
    """A network of pixels in the precision of its weights."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, y: Tensor) -> Tensor:
        first = next(self.network.parameters(), None)
        out: Tensor = self.network(y if first is None else y.to(first.dtype))
        return out
