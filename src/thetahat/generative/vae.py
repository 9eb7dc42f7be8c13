"""VAE: a latent variable integrated out of p(y), bounded below by draws from what an encoder says of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.devices import device_of
from ..data.source import Source
from ..errors import BadArgument, ModelError
from ..families.base import Family, floating
from ..families.bernoulli import Bernoulli
from ..families.discretised_logistic import DiscretisedLogistic
from ..families.mixture_of import MixtureOf
from ..models.base import drawn
from ..protocols import Categories
from ..types import Data, Settings
from .bound import FEWEST, Bound, log_mean_exp, log_mean_exp_error
from .labels import Label, Labelled, asked, check_classes, check_network, labels, observations_of

ESTIMATORS = ("iwae", "doubly reparameterised")
HELD = 2**18  # components of y times draws that a score holds at once: as many as a core's own cache


class VAE(Bound):
    """p(y) = ∫ p(y | z) p(z) dz of a decoder, z ~ Normal(0, I), bounded below by K draws of an encoder's q(z
    | y).

        log p(y | θ) ≥ E log (1/K) Σ_k p(y | z_k) p(z_k) / q(z_k | y),      z_k ~ q(z | y) = Normal(m(y), diag s(y)²)

        K = 1:  log p(y | z) − KL(q(z | y) ‖ p(z)),      KL = ½ Σ (m² + s² − 1 − log s²)

    Of K = 1 the divergence is taken in closed form: the same bound with less noise.

    With classes, the same given the batch's "label" c, (n,), 0 … C − 1:

        p(y | c) = ∫ p(y | z, c) p(z) dz,      z_k ~ q(z | y, c)

    Both networks are then called with the label as well, encoder(y, label) and decoder(z, label); `Labelled`
    makes such a network of any other.

    Parameters
    ----------
    encoder
        y (n, d), as numbers of θ's own precision → (n, 2·latent), m and then log s. Of a family whose support
        is finite, 0 … L − 1, it reads y/(L − 1), between 0 and 1
    decoder
        z (m, latent) → η of the family, (m, d·k), the k of a component beside each other; or a tuple of k
        tensors that broadcast to (m, d), so that a scale shared by all is a parameter of the decoder. A
        Categorical(k) may be given k logits or k − 1
    family
        p(y_j | η_j) of each component j = 1 … d, independent given z
    latent
        components of z
    K
        draws inside the logarithm; a score says how many
    estimator
        of the gradient where K > 1: "iwae", that of the bound as it stands, or "doubly reparameterised",
        whose encoder's part does not drown in noise as K grows. Both are unbiased, and the value is the same
    target
        the tensor that is scored, (n, d)
    dimensions
        d; None: as the first batch has it, and as many as the decoder gives before there was one
    classes
        C: the model is of y given its class; None: of y alone

    Raises
    ------
    BadArgument
        no family of single numbers, latent or K below 1, an unknown estimator; a batch has labels, and the
        model no classes
    UnknownColumn, UnknownLevel, WrongType
        labels are missing, or not 0 … C − 1
    ModelError
        encoder or decoder gives another shape

    References
    ----------
    Kingma and Welling (2014), Auto-encoding variational Bayes; Sohn, Lee and Yan (2015), Learning structured
    output representation using deep conditional generative models (classes); Burda, Grosse and Salakhutdinov
    (2016), Importance weighted autoencoders, eq. 8; Tucker, Lawson, Gu and Maddison (2019), Doubly
    reparameterized gradient estimators for Monte Carlo objectives, eq. 8.

    Examples
    --------
    >>> model = VAE(nn.Linear(6, 4), nn.Linear(2, 6), latent=2, K=5)
    >>> tuple(model.log_prob(Batch({"y": torch.zeros(3, 6)})).shape), tuple(model.draw(4).shape)
    ((3,), (4, 6))
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        family: Family | None = None,
        *,
        latent: int,
        K: int = 1,
        estimator: str = "iwae",
        target: str = "y",
        dimensions: int | None = None,
        classes: int | None = None,
    ):
        super().__init__()
        family = Bernoulli() if family is None else family
        for name, network in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(network, nn.Module):
                raise BadArgument(
                    f"VAE(encoder, decoder): {name} is {type(network).__name__}, not a torch.nn.Module."
                )
        if not isinstance(family, Family):
            raise BadArgument(f"VAE(family={family!r}): not a family (th.families.Bernoulli()).")
        if family.length is not None or family.lacking(()) is not None:
            raise BadArgument(
                f"family={family}: a component of y is one number, without further data (Bernoulli, Normal, "
                "Categorical)."
            )
        check_classes(classes)
        check_network(encoder, classes, "VAE", "y", "label")
        check_network(decoder, classes, "VAE", "z", "label")
        if latent < 1 or K < 1:
            raise BadArgument(f"latent={latent}, K={K}. Accepted: 1 or more of each.")
        if estimator not in ESTIMATORS:
            raise BadArgument(f"estimator={estimator!r}. Accepted: {', '.join(map(repr, ESTIMATORS))}.")
        self.encoder, self.decoder, self.family, self.target = encoder, decoder, family, target
        self.latent, self.K, self.estimator, self.dimensions = latent, K, estimator, dimensions
        self.measure, self.classes = family.measure, classes

    @classmethod
    def images(
        cls,
        shape: Sequence[int],
        levels: int = 256,
        *,
        latent: int = 32,
        width: int = 500,
        components: int = 3,
        K: int = 1,
        estimator: str = "iwae",
        seed: int = 0,
        classes: int | None = None,
    ) -> Self:
        """The usual VAE of images of that shape, drawn from a seed.

        Black and white pixels (levels=2) are Bernoulli, and both networks perceptrons. Of more levels a pixel
        is a mixture of discretised logistics, its decoder convolutional (`LogisticDecoder`): neither the
        networks nor the memory of a step grow with the levels.

        Parameters
        ----------
        shape, levels
            as `Images` has them
        latent
            numbers of z
        width
            of the two hidden layers of a perceptron
        components
            of a pixel's mixture
        K, estimator
            as of `VAE`
        seed
            of the weights
        classes
            C, as of `VAE`: both networks are given the class as a one-hot code behind their input
            (`Labelled`)

        Examples
        --------
        >>> model = VAE.images((3, 32, 32), 256)
        >>> str(model.family), sum(p.numel() for p in model.decoder.parameters()) < 1e6
        ('MixtureOf(family=DiscretisedLogistic(levels=256), k=3)', True)
        """
        from ..networks import mlp
        from .decoder import LogisticDecoder

        check_classes(classes)
        d, C = math.prod(shape), classes or 0
        encoder: nn.Module = mlp(d + C, (width, width), 2 * latent, seed=seed)
        decoder: nn.Module
        family: Family
        if levels == 2:
            decoder, family = mlp(latent + C, (width, width), d, seed=seed + 1), Bernoulli()
        else:
            decoder, one = (
                LogisticDecoder(shape, latent + C, components, seed=seed + 1),
                DiscretisedLogistic(levels),
            )
            family = one if components == 1 else MixtureOf(one, components)
        if classes is not None:
            encoder, decoder = Labelled(encoder, classes), Labelled(decoder, classes)
        settings: Settings = {"K": K, "estimator": estimator, "dimensions": d, "classes": classes}
        return cls(encoder, decoder, family, latent=latent, **settings)

    # ---- the bound -----------------------------------------------------------------------------------------

    def log_prob(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The bound of each observation, made of K draws, (n,)."""
        y, c = self._observed(batch), self._label(batch)
        m, log_s = self._posterior(y, c)
        if self.K == 1:
            return self._closed(y, c, m, log_s, self._noise(1, m, generator)[0])
        if torch.is_grad_enabled():
            return self._bound(y, c, m, log_s, self._noise(self.K, m, generator))
        return log_mean_exp(self._draws(y, c, m, log_s, generator), self.K, HELD // max(y.numel(), 1))

    @torch.no_grad()
    def log_prob_with_error(
        self, batch: Batch, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """The bound of each observation and the standard error of its draws, (n,) each, in one pass; None: too few
        draws to know it (`protocols.KnowsError`)."""
        if self.K < FEWEST:
            return None
        y, c = self._observed(batch), self._label(batch)
        draws = self._draws(y, c, *self._posterior(y, c), generator)
        return log_mean_exp_error(draws, self.K, HELD // max(y.numel(), 1))

    def _draws(
        self, y: Tensor, c: Tensor | None, m: Tensor, log_s: Tensor, generator: torch.Generator | None
    ) -> Callable[[int], Tensor]:
        """k → the log weights of k new draws, (k, n)."""
        return lambda k: self._log_weights(y, c, m, log_s, self._noise(k, m, generator))[0]

    def log_prob_at(self, batch: Batch, noise: Tensor) -> Tensor:
        """The bound at given draws of z = m + s ε, (n,).

        Parameters
        ----------
        noise
            ε (K, n, latent), of standard normal draws
        """
        y, c = self._observed(batch), self._label(batch)
        m, log_s = self._posterior(y, c)
        return (
            self._closed(y, c, m, log_s, noise[0]) if len(noise) == 1 else self._bound(y, c, m, log_s, noise)
        )

    def check(self, batch: Batch) -> None:
        """Refuse labels that are no classes, before a compiled log p is called."""
        self._label(batch)

    def _closed(self, y: Tensor, c: Tensor | None, m: Tensor, log_s: Tensor, noise: Tensor) -> Tensor:
        z = (m + torch.exp(log_s) * noise)[None]
        return self._log_likelihood(y, c, z)[0] - _divergence(m, log_s).sum(-1)

    def parts(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The two parts of the bound of one draw: log p(y | z), (n,), and KL(q(z_j | y) ‖ p(z_j)) of each
        component of z, (n, latent). A component of which the KL is 0 for every y is not used."""
        y, c = self._observed(batch), self._label(batch)
        m, log_s = self._posterior(y, c)
        z = m + torch.exp(log_s) * self._noise(1, m, generator)[0]
        return self._log_likelihood(y, c, z[None])[0], _divergence(m, log_s)

    def _bound(self, y: Tensor, c: Tensor | None, m: Tensor, log_s: Tensor, noise: Tensor) -> Tensor:
        log_w, z = self._log_weights(y, c, m, log_s, noise)
        if self.estimator == "doubly reparameterised" and z.requires_grad:
            share = torch.softmax(log_w.detach(), 0)[..., None]
            z.register_hook(
                lambda slope: share * slope
            )  # logsumexp hands z the share w_k/Σw: the encoder's part has its square
        return torch.logsumexp(log_w, 0) - math.log(len(noise))

    def _log_weights(
        self, y: Tensor, c: Tensor | None, m: Tensor, log_s: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """log p(y | z) + log p(z) − log q(z | y), (K, n), and z, (K, n, latent)."""
        z = m + torch.exp(log_s) * noise
        if self.estimator == "iwae" or not torch.is_grad_enabled():
            log_q = -0.5 * noise.square().sum(-1) - log_s.sum(-1)
        else:  # q's own parameters held still: its density is seen through z alone (Tucker et al., eq. 7)
            still = ((z - m.detach()) * torch.exp(-log_s.detach())).square().sum(-1)
            log_q = -0.5 * still - log_s.detach().sum(-1)
        return self._log_likelihood(y, c, z) - 0.5 * z.square().sum(-1) - log_q, z  # (2π)^½ cancels

    def _log_likelihood(self, y: Tensor, c: Tensor | None, z: Tensor) -> Tensor:
        """log p(y | z), (K, n), of z (K, n, latent)."""
        K, n, d = len(z), *y.shape
        eta = self.predictors(z.reshape(K * n, self.latent), d, None if c is None else c.repeat(K))
        y = y.expand(K, n, d) if K > 1 else y[None]  # a view: y beside each of its draws, not a copy
        if isinstance(eta, Tensor):
            terms = self.family.log_prob_outputs(y, eta.view(K, n, d, -1))
        else:
            eta = tuple(e.view(K, n, d) for e in eta)
            terms = self.family.log_prob_eta(floating(y, eta[0]), *eta)
        return terms.sum(-1)

    def _noise(self, k: int, m: Tensor, generator: torch.Generator | None) -> Tensor:
        device = m.device if generator is None else generator.device
        return torch.randn((k, *m.shape), generator=generator, dtype=m.dtype, device=device).to(m.device)

    # ---- the two networks ----------------------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        """In which the networks compute."""
        held = itertools.chain(self.parameters(), self.buffers())
        return next((t.dtype for t in held if t.is_floating_point()), torch.get_default_dtype())

    def _observed(self, batch: Batch) -> Tensor:
        y = batch[self.target]
        if y.ndim != 2:
            raise ModelError(
                f"{self.target!r} has the shape {tuple(y.shape)}. A VAE scores vectors or flat images, (n, "
                "d)."
            )
        self.dimensions = y.shape[1] if self.dimensions is None else self.dimensions
        out: Tensor = y.to(self.dtype) if y.is_floating_point() else y
        return out

    def _label(self, batch: Batch) -> Tensor | None:
        return labels(batch, self.classes, self, read=(self.target,))

    def _scaled(self, y: Tensor) -> Tensor:
        """What the encoder reads."""
        low, high = self.family.support.low, self.family.support.high
        x = y.to(self.dtype)
        return (x - low) / (high - low) if math.isfinite(low) and math.isfinite(high) else x

    def _posterior(self, y: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self._scaled(y)
        out = self.encoder(x) if c is None else self.encoder(x, c)
        if not isinstance(out, Tensor) or tuple(out.shape) != (len(y), 2 * self.latent):
            given = f"a tensor of shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise ModelError(
                f"the encoder gives {given} for y of shape {tuple(y.shape)}. Accepted: "
                f"{(len(y), 2 * self.latent)}, the means "
                f"and the log scales of latent={self.latent} components."
            )
        m, log_s = out.chunk(2, -1)
        return m, log_s

    def predictors(
        self, z: Tensor, d: int | None = None, label: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """η of the family at z (m, latent): one tensor (m, d, k), or a tuple of k tensors (m, d).

        Parameters
        ----------
        d
            how many components y has; None: those of the batches before, or as many as the decoder gives
        label
            (m,) the class of each z, of a model with classes
        """
        if (label is None) != (self.classes is None):
            raise BadArgument(
                f"predictors(z, label=…): the label of each z is given where the model has classes, and only there "
                f"(classes={self.classes})."
            )
        d = self.dimensions if d is None else d
        out = self.decoder(z) if label is None else self.decoder(z, label)
        k = len(self.family.parameters)
        wanted = (k, k + 1) if isinstance(self.family, Categories) else (k,)
        if isinstance(out, (tuple, list)):
            return self._several(out, wanted, len(z), d)
        if isinstance(out, Tensor) and out.ndim == 2 and len(out) == len(z):
            # a Categorical whose d is not known takes all its logits, where that can be
            for each in wanted if d is not None else reversed(wanted):
                if out.shape[1] == (out.shape[1] // each if d is None else d) * each:
                    return out.view(len(z), -1, each)
        given = f"a tensor of shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        many = "d" if d is None else d
        shapes = " or ".join(f"({len(z)}, {f'd·{each}' if d is None else d * each})" for each in wanted)
        raise ModelError(
            f"the decoder gives {given} for z of shape {tuple(z.shape)}, and {self.family} has {k} "
            f"parameter{'s' * (k > 1)} for each "
            f"of {many} components. Accepted: {shapes}, or a tuple of {k} tensors."
        )

    def _several(
        self, out: Sequence[Any], wanted: tuple[int, ...], rows: int, d: int | None
    ) -> tuple[Tensor, ...]:
        shapes = [tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__ for each in out]
        try:
            if len(out) not in wanted:
                raise RuntimeError
            full = torch.broadcast_tensors(*out)
            if full[0].ndim != 2 or len(full[0]) != rows or d not in (None, full[0].shape[1]):
                raise RuntimeError
        except (RuntimeError, TypeError) as error:
            many = " or ".join(map(str, wanted))
            raise ModelError(
                f"the decoder gives {len(out)} things of shapes {shapes}. Accepted: {many} tensors for "
                f"{self.family} "
                f"({', '.join(self.family.parameters)}) that broadcast to {(rows, 'd' if d is None else d)}."
            ) from error
        return tuple(full)

    # ---- draws, codes, reconstructions ---------------------------------------------------------------------

    @torch.no_grad()
    def draw(self, n: int, *, label: Label | None = None, generator: torch.Generator | None = None) -> Tensor:
        """n observations, (n, d): z ~ Normal(0, I), then y ~ p(y | z), or p(y | z, label).

        Parameters
        ----------
        label
            of a model with classes: the class of all draws, or of each, (n,)
        """
        c = asked(label, n, self.classes, self, device_of(self))
        like = torch.empty((n, self.latent), dtype=self.dtype, device=device_of(self))
        y = drawn(self.family, self._natural(self._noise(1, like, generator)[0], c), generator)
        return y.to(torch.int64) if self.family.support.integer else y

    @torch.no_grad()
    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What is known of z: the mean and the scale of q(z | y), (n, latent) each."""
        m, log_s = self._posterior(self._observed(batch), self._label(batch))
        return m, torch.exp(log_s)

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Tensor:
        """E[y | z] at the mean of q(z | y), (n, d); of categories, the mean of their codes."""
        c = self._label(batch)
        m, _ = self._posterior(self._observed(batch), c)
        parameters = self._natural(m, c)
        if isinstance(self.family, Categories):
            p = self.family.probabilities(*parameters)
            return p @ torch.arange(p.shape[-1], dtype=p.dtype, device=p.device)
        return self.family.expectation(*parameters)

    def _natural(self, z: Tensor, c: Tensor | None) -> list[Tensor]:
        """The family's parameters at z, (m, d) each; a Categorical's logits as they are."""
        eta = self.predictors(z, label=c)
        eta = eta.unbind(-1) if isinstance(eta, Tensor) else eta
        return self.family.natural(eta) if len(eta) == len(self.family.parameters) else list(eta)

    # ---- data ----------------------------------------------------------------------------------------------

    def source(self, data: Data, weights: str | None = None) -> Source | None:
        """An array (n, d), or a table whose columns are the components of y, and the label of a model with
        classes."""
        plain = isinstance(data, dict) and self.target in data
        return None if weights is not None or plain else observations_of(data, self.target, self.classes)


def _divergence(m: Tensor, log_s: Tensor) -> Tensor:
    """KL(Normal(m, s²) ‖ Normal(0, 1)) of each component, (n, latent)."""
    return 0.5 * (m.square() + torch.exp(2 * log_s) - 1 - 2 * log_s)
