"""Autoregressive: a text is as probable as its tokens are, each given those before it. GPT's likelihood.

Of a network with features and an output matrix only the tokens that count are taken through the matrix
(`token_log_prob`), and a prompt that several rows begin with is read once (`shared_prompts`).
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
from ..protocols import Extends, HasFeatures, HasVocabulary, SharesPrompts, fact
from ..types import ModelLike
from .adapters import Adapted, adapted_by, without
from .pretrained import Pretrained, is_pretrained
from .sampling import Sampling
from .shared_prompts import PROMPT, SharedPrompts
from .token_log_prob import columns_read, in_float, logits_log_prob, selects, token_log_prob

SHORT = 128  # tokens on which a large network is tried


class Autoregressive(Model):
    """p(x) = Π_t p(x_t | x_<t) of tokens.

        log p(x_t | x_<t, θ) = f_θ(x_<t)_{x_t} − log Σ_v exp f_θ(x_<t)_v

    Terms are (B, T), in nats per token; those with count 0 (padding, context alone) are exactly 0. Rows that begin with
    one prompt read it once where the batch says so: "prompt" (B, T), the number of the row's prompt at its tokens, −1
    elsewhere.

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
    language model.

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
        if not torch.compiler.is_compiling():
            self.check(batch)
        T = columns_read(batch)
        if batch.shape[1] > T:  # what fills all rows up is not read
            return F.pad(self._log_prob(batch[:, :T]), (0, batch.shape[1] - T))
        return self._log_prob(batch)

    def _log_prob(self, batch: Batch) -> Tensor:
        if self._headed:
            return self._of_counted(batch)
        y, logits = batch[self.target], self._logits(batch[self.inputs], batch, self._documents(batch))
        if self.sampling is not None:
            return unpadded(self.sampling.log_prob(logits, y, batch.tensors.get("kept")), batch)
        return unpadded(logits_log_prob(logits, y), batch)

    def _of_counted(self, batch: Batch) -> Tensor:
        """log p of the tokens that count, from their features; 0 of the others."""
        y, kept, head = batch[self.target], batch.tensors.get("kept"), self.network.lm_head
        counted = torch.nonzero(batch.count, as_tuple=True) if selects(batch) else None
        if counted is None:
            h = self.network.features(batch[self.inputs], *self._documents(batch))
        else:
            h, y = self._features(batch, *counted), y[counted]
            kept = None if kept is None else kept[counted]
        if self.sampling is not None:
            out = self.sampling.log_prob(in_float(head(h)), y, kept)
        elif isinstance(head, Adapted):  # its matrix is a sum, of which no block can be taken
            out = logits_log_prob(head(h), y)
        else:
            out = token_log_prob(h, head.weight, head.bias, y, self.chunk)
        if counted is None:
            return unpadded(out, batch)
        return out.new_zeros(batch.shape).index_put(counted, out)

    def _features(self, batch: Batch, rows: Tensor, columns: Tensor) -> Tensor:
        """The features at these places, (N, D); a prompt that several rows have is read once."""
        x, network, given = batch[self.inputs], self.network, self._documents(batch)
        shared = None
        if PROMPT in batch and not given and isinstance(network, SharesPrompts) and network.shares_prompts:
            shared = SharedPrompts.of(x, batch[PROMPT], rows, columns)
        if shared is None:
            h = network.features(x, *given)
        else:
            h = network.features_after(shared.prompts, shared.lengths, shared.answers, shared.prompt_of)
            columns = columns - (shared.begin[rows] - 1)  # 0 is the last token of the prompt
        out: Tensor = h.flatten(0, 1).index_select(0, rows * h.shape[1] + columns)
        return out

    def _logits(self, x: Tensor, batch: Batch, given: tuple[Tensor, ...]) -> Tensor:
        """(B, T, V), float32 or better."""
        logits = self.network(x, *given)
        if tuple(logits.shape[:-1]) != batch.shape:
            raise ModelError(
                f"the network gives a tensor of shape {tuple(logits.shape)} for terms of shape {batch.shape}."
            )
        return in_float(logits)

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
            token = _draw(in_float(logits), sampling, generator)
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


def _draw(logits: Tensor, sampling: Sampling, generator: torch.Generator | None) -> Tensor:
    """One token of each row, (B, 1)."""
    if sampling.temperature == 0:
        return logits.argmax(-1, keepdim=True)
    p = sampling.probabilities(logits)
    where = p.device if generator is None else generator.device
    return torch.multinomial(p.to(where), 1, generator=generator).to(p.device)
