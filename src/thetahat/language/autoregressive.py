"""Autoregressive: a text is as probable as its tokens are, each given those before it. GPT's likelihood.

With the features h and the output matrix W of a network, log p of one token needs no (B, T, V) tensor, only
its logsumexp, which is gathered over blocks of the vocabulary; a block's logits are computed again when the
gradient asks for them.
"""

from __future__ import annotations

import inspect

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.devices import device_of
from ..data.processes import is_shard
from ..data.source import evaluating
from ..errors import BadArgument, ModelError, OutOfSupport
from ..models.base import Model, unpadded
from ..networks.causality import SMALL, first_peek
from ..protocols import Extends, HasFeatures, HasVocabulary, fact
from ..types import ModelLike
from .adapters import adapted_by, without
from .pretrained import Pretrained, is_pretrained
from .sampling import Sampling

SHORT = 128  # tokens on which a large network is tried


class Autoregressive(Model):
    """p(x) = Π_t p(x_t | x_<t) of tokens.

        log p(x_t | x_<t, θ) = f_θ(x_<t)_{x_t} − log Σ_v exp f_θ(x_<t)_v

    Terms are (B, T), in nats per token; those with count 0 (padding, context alone) are exactly 0.

    Parameters
    ----------
    network
        tokens (B, T) → logits (B, T, V): a `th.networks.Transformer`, any causal language model of
        transformers, or a module of one's own (`nn.Embedding(V, V)` is the Markov chain of order one)
    sampling
        the distribution q that is drawn from and scored in the place of p (`language.Sampling`): for a policy that is
        trained on its own draws. A text is scored by p: None
    chunk
        tokens of the vocabulary whose logits are held at once, where the network has features and an output
        matrix
    inputs, target
        the tensors of a batch, (B, T), that are read and scored

    Raises
    ------
    OutOfSupport
        a token outside the vocabulary
    ModelError
        the network's output does not match the terms; it sees the future: on the first batch it is tried
        whether its output at a position changes with a later token (`networks.causality`), or whether the
        batch gives it the very token that it is to predict
    BadArgument
        rows hold several documents, and the network cannot keep them apart

    References
    ----------
    Shannon (1951), Prediction and entropy of printed English; Bengio et al. (2003), A neural probabilistic
    language model; Wijmans et al. (2024), Cut your losses in large-vocabulary language models (blocks of the
    vocabulary).

    Examples
    --------
    >>> model = Autoregressive(nn.Embedding(5, 5))
    >>> batch = Batch({"input": torch.tensor([[0, 1, 2]]), "target": torch.tensor([[1, 2, 3]])}, dims=2)
    >>> tuple(model.log_prob(batch).shape), model.vocabulary
    ((1, 3), 5)
    """

    measure = "mass"

    def __init__(
        self,
        network: nn.Module,
        *,
        sampling: Sampling | None = None,
        chunk: int = 8192,
        inputs: str = "input",
        target: str = "target",
    ):
        super().__init__()
        if not isinstance(network, nn.Module):
            raise BadArgument(
                f"Autoregressive(network): network is {type(network).__name__}, not a torch.nn.Module."
            )
        if chunk < 1:
            raise BadArgument(f"chunk={chunk}. Accepted: 1 or more.")
        foreign = is_pretrained(network)
        self.network: ModelLike = Pretrained(network) if foreign else network
        self.chunk, self.inputs, self.target, self.sampling = chunk, inputs, target, sampling
        self._tried = False
        self._apart = (
            isinstance(network, nn.Embedding)
            or "documents" in inspect.signature(self.network.forward).parameters
        )
        self._apart = self._apart and not (isinstance(self.network, Pretrained) and not self.network.masks)
        self._headed = isinstance(self.network, HasFeatures) and not (
            isinstance(self.network, Pretrained) and not self.network.linear
        )

    @property
    def vocabulary(self) -> int | None:
        """V, where the network says."""
        if isinstance(self.network, nn.Embedding):
            return self.network.num_embeddings
        return self.network.vocabulary if isinstance(self.network, HasVocabulary) else None

    # ---- p -------------------------------------------------------------------------------------------------

    def log_prob(self, batch: Batch) -> Tensor:
        """log p of each token given those before it, (B, T); exactly 0 where the count is 0."""
        x, y = batch[self.inputs], batch[self.target]
        if not torch.compiler.is_compiling():
            self.check(batch)
        given = self._documents(batch)
        if self.sampling is not None:
            kept = batch.tensors.get("kept")
            out = self.sampling.log_prob(self._logits(x, batch, given), y, kept)
        elif self._headed:
            head = self.network.lm_head
            out = token_log_prob(self.network.features(x, *given), head.weight, head.bias, y, self.chunk)
        else:
            out = torch.log_softmax(self._logits(x, batch, given), -1).gather(-1, y[..., None])[..., 0]
        return unpadded(out, batch)

    def _logits(self, x: Tensor, batch: Batch, given: tuple[Tensor, ...]) -> Tensor:
        """(B, T, V), float32 or better."""
        logits = self.network(x, *given)
        if tuple(logits.shape[:-1]) != batch.shape:
            raise ModelError(
                f"the network gives a tensor of shape {tuple(logits.shape)} for terms of shape {batch.shape}."
            )
        return _wide(logits)

    @torch.no_grad()
    def kept(self, batch: Batch) -> Tensor | None:
        """How many tokens the sampling leaves to be drawn from at each place, (B, T); None: all."""
        if self.sampling is None or not self.sampling.truncates:
            return None
        return self.sampling.kept(self._logits(batch[self.inputs], batch, self._documents(batch)))

    def base_log_prob(self, batch: Batch) -> Tensor:
        """log p of each token by the network without its adapters (`language.add_lora`), (B, T).

        Raises
        ------
        BadArgument
            it has none: there is nothing to leave out
        """
        if not adapted_by(self.network):
            raise BadArgument(
                "the network has no adapters to be left out: language.add_lora(network), or give another "
                "reference."
            )
        with without(self.network):  # a reference is p, of which q is a part
            return self.raw_log_prob(batch)

    def raw_log_prob(self, batch: Batch) -> Tensor:
        """log p of each token before temperature, top k and top p, (B, T)."""
        sampling, self.sampling = self.sampling, None
        try:
            return self.log_prob(batch)
        finally:
            self.sampling = sampling

    def _documents(self, batch: Batch) -> tuple[Tensor, ...]:
        if "document" not in batch:
            return ()
        if not self._apart:
            raise BadArgument(
                f"the rows hold several documents, and {type(self.network).__name__} cannot keep them apart. "
                "Accepted: layout='padded', "
                "mask=False, or a network whose forward takes documents (B, T)."
            )
        return () if isinstance(self.network, nn.Embedding) else (batch["document"],)

    def check(self, batch: Batch) -> None:
        """A token outside the vocabulary reads other memory on an accelerator, and fails without a name
        elsewhere."""
        self._inside(batch[self.inputs], batch[self.target])
        if not self._tried:
            self._tried = self._causal(batch)

    # ---- no position sees the future -----------------------------------------------------------------------

    @torch.no_grad()
    def _causal(self, batch: Batch) -> bool:
        """Refuse a network that sees the future. False: nothing could be tried on this batch."""
        x, y = batch[self.inputs], batch[self.target]
        if x.ndim != 2 or x.shape[1] < 2 or x.is_meta or any(is_shard(p) for p in self.network.parameters()):
            return False  # of a shard no copy can be made: a score of the whole network tries it
        shown = (x == y).all() & ~(x[:, 1:] == y[:, :-1]).all()
        if bool(shown) and x.shape == y.shape:
            raise ModelError(
                f"{self.target!r} is {self.inputs!r}, so that each position is shown the token that it is to "
                "predict. Accepted: the tokens after "
                f"them: {self.inputs}=tokens[:, :-1], {self.target}=tokens[:, 1:]."
            )
        own = x[:1]
        if sum(p.numel() for p in self.network.parameters()) > SMALL and isinstance(self.network, Extends):
            own = own[:, :SHORT]
        other = self._exchanged(own)
        if other is None:
            return False
        documents = tuple(d[:1, : own.shape[1]] for d in self._documents(batch))
        found = first_peek(
            self.network,
            own,
            other,
            *documents,
            rows=max(len(x), 2),
            method="features" if self._headed else "forward",
        )
        if found is not None:
            raise ModelError(
                f"the network sees the future: its output at position {found[0]}, which is to predict token "
                f"{found[0] + 1}, changes with the token "
                f"at position {found[1]} or a later one, so that Π p(x_t | x_<t) is not a probability. "
                "Accepted: a network whose output at t depends "
                "on the tokens up to t alone (a causal mask)."
            )
        return True

    def _exchanged(self, tokens: Tensor) -> Tensor | None:
        """Another token at every position; None where no other is known."""
        V = self.vocabulary
        if V is not None and V > 1:
            away = torch.randint(V - 1, tokens.shape, generator=torch.Generator().manual_seed(0)).to(
                tokens.device
            )
            return (tokens + 1 + away) % V
        low, high = torch.aminmax(tokens)
        return None if bool(low == high) else torch.where(tokens == low, high, low)

    def _inside(self, *tokens: Tensor) -> None:
        V = self.vocabulary
        if V is None:
            return
        for each in tokens:
            low, high = (int(v) for v in torch.aminmax(each))
            if low < 0 or high >= V:
                at = tuple(torch.nonzero((each < 0) | (each >= V))[0].tolist())
                raise OutOfSupport(
                    f"the token {int(each[at])} at {at} is outside the vocabulary 0 … {V - 1} of the network."
                )

    # ---- draws ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        prompt: Tensor,
        max_new_tokens: int = 100,
        *,
        context: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        end: int | None = None,
        cached: bool = True,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Tokens that follow a prompt, each drawn given those before it.

        Parameters
        ----------
        prompt
            (B, T) or (T,) tokens, at least one; one document is drawn for each row
        max_new_tokens
            tokens to draw
        context
            the longest window that the network reads; when it is full, its first half is forgotten. None: no
            limit
        temperature, top_k, top_p
            of `Sampling`: 1, None, None draw from p; temperature 0 takes the most probable token. None of them given:
            the model's own `sampling`
        end
            the token that closes a document; what follows it is filled with it
        cached
            keep the keys and values of what was read, where the network can: the same draws, sooner

        Returns
        -------
        Tensor
            (B, max_new_tokens) tokens

        Raises
        ------
        BadArgument
            no prompt, or a setting out of range
        """
        if isinstance(prompt, Batch):
            raise BadArgument(
                "a model of sequences continues a prompt of tokens: fit.model.sample(prompt, max_new_tokens)."
            )
        prompt = torch.as_tensor(prompt)
        window = (prompt[None] if prompt.ndim == 1 else prompt).to(device_of(self))
        if window.ndim != 2 or window.shape[1] < 1 or window.is_floating_point():
            raise BadArgument(
                f"a prompt is (T,) or (B, T) tokens, T of 1 or more; received {window.dtype} of shape "
                f"{tuple(prompt.shape)}."
            )
        if max_new_tokens < 0 or (context is not None and context < 2):
            raise BadArgument(
                f"max_new_tokens={max_new_tokens}, context={context}. Accepted: max_new_tokens of 0 or more, context "
                "of 2 or more."
            )
        sampling = self.sampling or Sampling()
        if (temperature, top_k, top_p) != (None, None, None):
            sampling = Sampling(1.0 if temperature is None else temperature, top_k, top_p)
        self._inside(window)
        with evaluating(self):
            return self._drawn(
                window if context is None else window[:, -context:],
                max_new_tokens,
                context,
                sampling,
                end,
                cached,
                generator,
            ).to(prompt.device)

    def _drawn(
        self,
        window: Tensor,
        max_new_tokens: int,
        context: int | None,
        sampling: Sampling,
        end: int | None,
        cached: bool,
        generator: torch.Generator | None,
    ) -> Tensor:
        cached = cached and isinstance(self.network, Extends) and fact(self.network, "extends", True)
        out, cache, unread = [window[:, :0]], None, window
        over = torch.zeros(len(window), 1, dtype=torch.bool, device=window.device)
        for _ in range(max_new_tokens):
            if cached:
                logits, cache = self.network.extend(unread, cache)
            else:
                logits = self.network(window)[:, -1]
            token = _draw(_wide(logits), sampling, generator)
            if end is not None:
                token = torch.where(over, end, token)
                over |= token == end
            out.append(token)
            window, unread = torch.cat([window, token], 1), token
            if context is not None and window.shape[1] > context:
                window = window[:, -(context // 2) :]
                cache, unread = None, window
            if bool(over.all()):
                out.append(token.expand(-1, max_new_tokens - len(out) + 1))
                break
        return torch.cat(out, 1)


def token_log_prob(h: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, chunk: int = 8192) -> Tensor:
    """log softmax(W h + b)_y without the logits of the whole vocabulary.

        log p(y | h) = w_yᵀh + b_y − log Σ_k exp(l_k),      l_k = log Σ_{v in block k} exp(w_vᵀh + b_v)

    Parameters
    ----------
    h
        (…, D)
    weight, bias
        (V, D), and (V,) or None
    y
        (…,) tokens
    chunk
        tokens of a block; where V is no more, there is one block, and nothing is computed twice

    Returns
    -------
    Tensor
        (…,) nats, float32 or better

    Examples
    --------
    >>> h, W, y = torch.randn(2, 3, 4), torch.randn(10, 4), torch.randint(10, (2, 3))
    >>> whole = torch.log_softmax(h @ W.T, -1).gather(-1, y[..., None])[..., 0]
    >>> bool(torch.allclose(token_log_prob(h, W, None, y, chunk=3), whole, atol=1e-5))
    True
    """
    V = len(weight)
    if chunk >= V:
        normaliser, chosen = _block(h, weight, bias, y)
        return chosen - normaliser
    from torch.utils.checkpoint import checkpoint

    normalisers, chosen = (
        [],
        torch.zeros((), dtype=torch.promote_types(h.dtype, torch.float32), device=h.device),
    )
    biases: tuple[Tensor | None, ...] = (None,) * -(-V // chunk) if bias is None else bias.split(chunk)
    for k, (W, b) in enumerate(zip(weight.split(chunk), biases, strict=True)):
        normaliser, own = checkpoint(
            _block, h, W, b, y - k * chunk, use_reentrant=False, preserve_rng_state=False
        )
        normalisers.append(normaliser)
        chosen = chosen + own
    return chosen - torch.logsumexp(torch.stack(normalisers), 0)


def _block(h: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor) -> tuple[Tensor, Tensor]:
    """(log Σ_v exp(logit_v), logit_y or 0 where y lies in another block) of a block of the vocabulary."""
    logits = _wide(F.linear(h, weight, bias))
    inside = (y >= 0) & (y < len(weight))
    own = logits.gather(-1, y.clamp(0, len(weight) - 1)[..., None])[..., 0]
    return torch.logsumexp(logits, -1), torch.where(inside, own, torch.zeros_like(own))


def _wide(logits: Tensor) -> Tensor:
    """float32 or better: a logsumexp of bfloat16 is worth two digits."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _draw(logits: Tensor, sampling: Sampling, generator: torch.Generator | None) -> Tensor:
    """One token of each row, (B, 1)."""
    if sampling.temperature == 0:
        return logits.argmax(-1, keepdim=True)
    p = sampling.probabilities(logits)
    where = p.device if generator is None else generator.device
    return torch.multinomial(p.to(where), 1, generator=generator).to(p.device)
