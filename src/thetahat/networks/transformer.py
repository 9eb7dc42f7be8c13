"""The transformer: a decoder of tokens in one screen a part. Its weights are named as Llama's, and load there
as they stand.

    h⁰_t = E[x_t]                                                        (+ E₂[x_{t−1} x_t] + E₃[x_{t−2} x_{t−1} x_t] …)
    a    = h + W_o · attention(R W_q n(h), R W_k n(h), W_v n(h)),        R: rotation by position, n: RMSNorm
    h'   = a + W_down (silu(W_gate n(a)) ∘ W_up n(a))                     or  a + W_down relu(W_up n(a))²
    logits_t = W n(h^L_t)

References
----------
Vaswani et al. (2017), Attention is all you need; Su et al. (2021), RoFormer; Zhang and Sennrich (2019), Root
mean square layer normalization; Shazeer (2020), GLU variants improve transformer; So et al. (2021), Primer
(relu²); Ainslie et al. (2023), GQA; Huang et al. (2025), Over-tokenized transformer (embeddings of n-grams,
by a hash).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadArgument, ModelError
from ..types import Plain, Settings
from .aligned import Aligned

ACTIVATIONS = ("swiglu", "relu2")
LLAMAS = ("llama", "arcee", "mistral")  # types of transformers' models that compute this network's function
Cache = list[tuple[Tensor, Tensor]]  # of each layer the keys and values so far, (B, H, T, d)
Read = tuple[Cache, Tensor]  # and the last tokens, (B, n − 1), of which the next n-grams begin


@runtime_checkable
class Configured(Protocol):
    """A model of transformers."""

    config: Plain


class RMSNorm(nn.Module):
    """x / √(mean x² + ε) ∘ w, the mean in float32 or better."""

    def __init__(self, width: int, epsilon: float, dtype: torch.dtype):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, dtype=dtype))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        return F.rms_norm(x.to(wide), (x.shape[-1],), eps=self.epsilon).to(x.dtype) * self.weight


class Attention(nn.Module):
    """softmax(q kᵀ / √d) v of each head, over the positions that the mask allows; fewer key than query heads
    share them."""

    def __init__(self, width: int, heads: int, kv_heads: int, dtype: torch.dtype):
        super().__init__()
        self.size = width // heads
        self.q_proj = _linear(width, width, dtype)
        self.k_proj = _linear(width, kv_heads * self.size, dtype)
        self.v_proj = _linear(width, kv_heads * self.size, dtype)
        self.o_proj = _linear(width, width, dtype)

    def forward(
        self,
        x: Tensor,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor | None,
        before: tuple[Tensor, Tensor] | None,
        dropout: float,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        B, T, _ = x.shape
        q, k, v = (
            w(x).view(B, T, -1, self.size).transpose(1, 2) for w in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = _rotated(q, *rotation), _rotated(k, *rotation)
        if before is not None:
            k, v = torch.cat([before[0], k], 2), torch.cat([before[1], v], 2)
        out = F.scaled_dot_product_attention(
            q, k, v, mask, dropout, is_causal=mask is None and T > 1, enable_gqa=q.shape[1] != k.shape[1]
        )
        return self.o_proj(out.transpose(1, 2).reshape(B, T, -1)), (k, v)


class Feedforward(nn.Module):
    def __init__(self, width: int, hidden: int, activation: str, dtype: torch.dtype):
        super().__init__()
        if activation == "swiglu":
            self.gate_proj = _linear(width, hidden, dtype)
        self.up_proj = _linear(width, hidden, dtype)
        self.down_proj = _linear(hidden, width, dtype)
        self.gated = activation == "swiglu"

    def forward(self, x: Tensor) -> Tensor:
        up = self.up_proj(x)
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * up if self.gated else F.relu(up).square())
        return out


class Block(nn.Module):
    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int,
        hidden: int,
        activation: str,
        epsilon: float,
        dtype: torch.dtype,
    ):
        super().__init__()
        self.self_attn = Attention(width, heads, kv_heads, dtype)
        self.mlp = Feedforward(width, hidden, activation, dtype)
        self.input_layernorm = RMSNorm(width, epsilon, dtype)
        self.post_attention_layernorm = RMSNorm(width, epsilon, dtype)

    def forward(
        self,
        h: Tensor,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor | None,
        before: tuple[Tensor, Tensor] | None,
        dropout: float,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        out, kept = self.self_attn(self.input_layernorm(h), rotation, mask, before, dropout)
        h = h + F.dropout(out, dropout, self.training)
        return h + F.dropout(self.mlp(self.post_attention_layernorm(h)), dropout, self.training), kept


class Transformer(nn.Module):
    """Tokens (B, T) → logits of the next token (B, T, V).

    Matrices are drawn with standard deviation 1/√columns, those that write to the residual stream begin at 0,
    so that every block begins as the identity; a tied embedding has 1/√D, an untied one 1, and an untied
    output begins at 0 (all tokens equally probable).

    Parameters
    ----------
    vocabulary
        V
    layers, width, heads
        L, D, H; D is a multiple of 2H. Without layers it is a bigram model: logits are a function of the
        token alone
    kv_heads
        heads of keys and values, a divisor of H; None: H
    hidden
        width of the feed-forward part; None: 8D/3 up to a multiple of 16 for "swiglu", 4D for "relu2"
    activation
        "swiglu" (loads into transformers' LlamaForCausalLM), "relu2" (into its ArceeForCausalLM)
    tied
        one matrix is both the embedding and the output
    dropout
        of attention and of both residual branches, while training
    ngrams
        rows of E₂, E₃, …: what the last two, three … tokens are together, read at the first layer for next to
        nothing. Where there are fewer rows than n-grams, a hash makes some share one. An n-gram stays within
        its row and its document
    theta
        base of the rotary frequencies
    epsilon
        of RMSNorm
    seed
        of the weights, where no generator is given

    Examples
    --------
    >>> net = Transformer(65, layers=2, width=32, heads=4)
    >>> tuple(net(torch.zeros(3, 7, dtype=torch.long)).shape), sum(p.numel() for p in net.parameters())
    ((3, 7, 65), 30944)
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        layers: int = 4,
        width: int = 128,
        heads: int = 4,
        kv_heads: int | None = None,
        hidden: int | None = None,
        activation: str = "swiglu",
        tied: bool = False,
        dropout: float = 0.0,
        ngrams: Sequence[int] = (),
        theta: float = 10000.0,
        epsilon: float = 1e-5,
        seed: int = 0,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        if activation not in ACTIVATIONS:
            raise BadArgument(f"activation={activation!r}. Accepted: {', '.join(map(repr, ACTIVATIONS))}.")
        if (
            min(vocabulary, width, heads, kv_heads) < 1
            or layers < 0
            or width % (2 * heads)
            or heads % kv_heads
        ):
            raise BadArgument(
                f"vocabulary={vocabulary}, layers={layers}, width={width}, heads={heads}, "
                f"kv_heads={kv_heads}. Accepted: positive, "
                "width a multiple of 2 · heads, heads a multiple of kv_heads."
            )
        if not 0 <= dropout < 1:
            raise BadArgument(f"dropout={dropout}. Accepted: a number in [0, 1).")
        if any(rows < 1 for rows in ngrams):
            raise BadArgument(f"ngrams={tuple(ngrams)}. Accepted: rows of 1 or more.")
        if hidden is None:
            hidden = 4 * width if activation == "relu2" else 16 * math.ceil(8 * width / 48)
        self.vocabulary, self.heads, self.kv_heads, self.hidden, self.activation = (
            vocabulary,
            heads,
            kv_heads,
            hidden,
            activation,
        )
        self.width, self.tied, self.dropout, self.theta, self.epsilon = width, tied, dropout, theta, epsilon
        self.model = nn.ModuleDict(  # the name that Llama has for what lies below the output
            {
                "embed_tokens": torch.nn.utils.skip_init(nn.Embedding, vocabulary, width, dtype=dtype),
                "layers": nn.ModuleList(
                    Block(width, heads, kv_heads, hidden, activation, epsilon, dtype) for _ in range(layers)
                ),
                "norm": RMSNorm(width, epsilon, dtype),
            }
        )
        self.ngrams = nn.ModuleList(
            torch.nn.utils.skip_init(nn.Embedding, rows, width, dtype=dtype) for rows in ngrams
        )
        self.lm_head = _linear(width, vocabulary, dtype)
        if tied:
            self.lm_head.weight = self.model["embed_tokens"].weight  # type: ignore[assignment]
        self._draw(torch.Generator().manual_seed(seed) if generator is None else generator)

    @torch.no_grad()
    def _draw(self, generator: torch.Generator) -> None:
        for name, p in self.named_parameters():
            if p.is_meta:  # a shape without numbers, which are loaded later
                continue
            if p.ndim == 2:
                zero = name.endswith(("o_proj.weight", "down_proj.weight")) or name == "lm_head.weight"
                spread = (
                    1.0
                    if "embed_tokens" in name and not self.tied
                    else 0.5
                    if "ngrams" in name
                    else p.shape[1] ** -0.5
                )
                drawn = (
                    torch.randn(p.shape, generator=generator, dtype=torch.float32, device=generator.device)
                    * spread
                )
                p.copy_(torch.zeros_like(p) if zero else drawn)

    # ---- the function --------------------------------------------------------------------------------------

    def features(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """n(h^L), (B, T, D): what the output matrix reads.

        Parameters
        ----------
        documents
            (B, T); a position sees those before it of the same document alone. None: each row is one
        """
        mask = None
        if documents is not None:
            T = tokens.shape[1]
            mask = torch.ones(T, T, dtype=torch.bool, device=tokens.device).tril()
            mask = (mask & (documents[:, :, None] == documents[:, None, :]))[:, None]
        return self.through(self._embedded(tokens, documents), mask)[0]

    def forward(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        out: Tensor = self.lm_head(self.features(tokens, documents))
        return out

    def extend(self, tokens: Tensor, cache: Read | None) -> tuple[Tensor, Read]:
        """Logits of the token after these, (B, V), and what was read: what came before is not read again."""
        T, (kept, last) = tokens.shape[1], cache or ([], tokens[:, :0])
        past = kept[0][0].shape[2] if kept else 0
        seen = (
            torch.arange(past + T, device=tokens.device)
            <= past + torch.arange(T, device=tokens.device)[:, None]
        )
        window = torch.cat([last, tokens], 1)
        h, kept = self.through(
            self._embedded(window)[:, last.shape[1] :], seen if past and T > 1 else None, kept
        )
        n = len(self.ngrams)
        return self.lm_head(h[:, -1]), (kept, window[:, -n:] if n else last)

    reads_rows = shares_prompts = True

    def read(self, tokens: Tensor, lengths: Tensor, cache: Aligned | None) -> tuple[Tensor, Aligned]:
        """Logits of the token after each row's last, (B, V), and what was read (`protocols.ReadsRows`)."""
        rows = torch.arange(len(tokens), device=tokens.device)
        if cache is None:
            h, begun = self._begun(tokens, lengths)
            return self.lm_head(h[rows, lengths.to(tokens.device) - 1]), begun
        h, kept = self._after(tokens, cache)
        last = torch.cat([cache.last, tokens], 1)[:, tokens.shape[1] :]
        return self.lm_head(h[:, -1]), Aligned(kept, cache.lengths + tokens.shape[1], last)

    def features_after(self, prompts: Tensor, lengths: Tensor, answers: Tensor, prompt_of: Tensor) -> Tensor:
        """Features of each prompt's last token and of the answers' tokens, (R, 1 + A, D)
        (`protocols.SharesPrompts`)."""
        h, begun = self._begun(prompts, lengths)
        ends = h[torch.arange(len(prompts), device=prompts.device), lengths.to(prompts.device) - 1]
        own = ends.index_select(0, prompt_of)[:, None]
        return torch.cat([own, self._after(answers, begun[prompt_of])[0]], 1) if answers.shape[1] else own

    def _begun(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Aligned]:
        """n(h^L) of the first tokens of rows of these lengths, and what was read."""
        n = len(self.ngrams)
        before = tokens.new_full((len(tokens), n), self.vocabulary)
        h, kept = self.through(self._embedded(tokens))
        whole = torch.cat([before, tokens], 1)
        ends = lengths.to(tokens.device)
        last = whole.gather(1, ends[:, None] + torch.arange(n, device=tokens.device))
        return h, Aligned.of(kept, lengths, last)

    def _after(self, tokens: Tensor, cache: Aligned) -> tuple[Tensor, Cache]:
        """n(h^L) of the next tokens of all rows, T each, and the keys and values."""
        T = tokens.shape[1]
        mask = None if cache.full and T == 1 else cache.seen(T).to(tokens.device)[:, None, None]
        if mask is not None and T > 1:
            now = torch.arange(T, device=tokens.device)
            causal = torch.cat([now.new_ones(T, cache.columns), now <= now[:, None]], 1).bool()
            mask = mask & causal
        return self.through(
            self._embedded(tokens, past=cache.last), mask, list(cache.layers), past=cache.lengths
        )

    def _embedded(
        self, tokens: Tensor, documents: Tensor | None = None, past: Tensor | None = None
    ) -> Tensor:
        """h⁰, (B, T, D); past (B, n − 1): the tokens before these, V where there was none."""
        h, code, before, T = self.model["embed_tokens"](tokens), tokens, self.vocabulary + 1, tokens.shape[1]
        tables: Any = self.ngrams
        n = len(tables)
        if past is None:
            past = tokens.new_full((len(tokens), n), self.vocabulary)
        whole = torch.cat([past, tokens], 1)
        for k, table in enumerate(tables, start=1):
            earlier = whole[:, n - k : n - k + T]
            if documents is not None:
                same = documents == F.pad(documents, (k, 0), value=-1)[:, :T]
                earlier = torch.where(same, earlier, self.vocabulary)
            code = code * before + earlier
            rows = table.num_embeddings
            h = h + table(code if rows >= before ** (k + 1) else (code * 2654435761 >> 7) % rows)
        out: Tensor = h
        return out

    def through(
        self,
        h: Tensor,
        mask: Tensor | None = None,
        cache: Cache | None = None,
        past: int | Tensor | None = None,
    ) -> tuple[Tensor, Cache]:
        """n(h^L) of what the blocks begin with, h⁰ (B, T, D), and the keys and values.

        past : how many tokens came before, of all rows or (B,) of each; None: as many as the cache holds
        """
        if past is None:
            past = 0 if not cache else cache[0][0].shape[2]
        rotation = self._rotation(past, h.shape[1], h)
        kept: Cache = []
        dropout = self.dropout if self.training else 0.0
        blocks: Any = self.model["layers"]
        for i, block in enumerate(blocks):
            h, own = block(h, rotation, mask, cache[i] if cache else None, dropout)
            kept.append(own)
        return self.model["norm"](h), kept

    def _rotation(self, past: int | Tensor, T: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin of position · θ^(−2j/d), (T, d), of rows with their own past (B, 1, T, d): in float32 or better,
        whatever the arithmetic of the step."""
        wide, d = torch.promote_types(like.dtype, torch.float32), self.width // self.heads
        frequency = self.theta ** (-torch.arange(0, d, 2, device=like.device, dtype=wide) / d)
        place = torch.arange(T, device=like.device, dtype=wide)
        begin = past.to(like.device, wide)[:, None, None] if isinstance(past, Tensor) else past
        angle = (place + begin)[..., None] * frequency
        both = torch.cat([angle, angle], -1)
        return both.cos().to(like.dtype), both.sin().to(like.dtype)

    # ---- transformers --------------------------------------------------------------------------------------

    def llama(self, context: int = 2048) -> Settings:
        """The arguments of transformers' LlamaConfig (relu2: ArceeConfig) of the same network; the state dict
        is the same.

        Raises
        ------
        BadArgument
            it has embeddings of n-grams, which Llama has not
        """
        if len(self.ngrams):
            raise BadArgument(
                f"a network with ngrams={tuple(t.num_embeddings for t in self.ngrams)} is no Llama. "
                "Accepted: ngrams=()."
            )
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "intermediate_size": self.hidden,
            "num_hidden_layers": len(self.model["layers"]),  # type: ignore[arg-type]
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "hidden_act": "silu" if self.activation == "swiglu" else "relu2",
            "rms_norm_eps": self.epsilon,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.theta},
            "max_position_embeddings": context,
            "tie_word_embeddings": self.tied,
        }

    @classmethod
    def from_llama(cls, llama: nn.Module) -> Transformer:
        """The network of a transformers Llama, Arcee, or Mistral without a window (SmolLM2 and its kin),
        weights copied.

        Raises
        ------
        ModelError
            a model of another type; its logits are not those of the copy; or (BadArgument) it has parts that
            this network lacks (biases, scaled rotations, heads of another width)
        """
        c: Any = llama.config if isinstance(llama, Configured) else None
        known = {} if c is None else c.to_dict()
        kind = known.get("model_type")
        if kind not in LLAMAS:
            raise ModelError(
                f"a {type(llama).__name__} of the type {kind!r} is not a Llama. Accepted: models of the "
                f"types {', '.join(LLAMAS)}; any other "
                "causal language model of transformers is a network as it stands (language.Pretrained)."
            )
        rope = c.rope_parameters
        lacks = {
            "rope_parameters": rope.get("rope_type", "default") != "default",
            "attention_bias": known.get("attention_bias", False),
            "mlp_bias": known.get("mlp_bias", False),
            "head_dim": (c.head_dim or c.hidden_size // c.num_attention_heads)
            != c.hidden_size // c.num_attention_heads,
            "hidden_act": c.hidden_act not in ("silu", "relu2")
            or (c.hidden_act == "relu2") != (kind == "arcee"),
            "sliding_window": known.get("sliding_window") is not None,
        }
        for name, own in lacks.items():
            if own:
                raise BadArgument(
                    f"the model's {name} is {known[name]!r}, which Transformer has not: fit the model itself."
                )
        out = cls(
            c.vocab_size,
            layers=c.num_hidden_layers,
            width=c.hidden_size,
            heads=c.num_attention_heads,
            kv_heads=c.num_key_value_heads,
            hidden=c.intermediate_size,
            activation="swiglu" if c.hidden_act == "silu" else "relu2",
            tied=c.tie_word_embeddings,
            theta=rope["rope_theta"],
            epsilon=c.rms_norm_eps,
            dtype=llama.get_input_embeddings().weight.dtype,  # type: ignore[operator]
        ).to(llama.get_input_embeddings().weight.device)  # type: ignore[operator]
        try:
            out.load_state_dict(llama.state_dict())
        except RuntimeError as error:
            raise ModelError(
                f"the tensors of the {type(llama).__name__} are not those of a Llama: {error}"
            ) from error
        _compared(out, llama)
        return out


@torch.no_grad()
def _compared(network: Transformer, llama: nn.Module) -> None:
    """Refuse a copy that computes other logits than the model that it was made of."""
    weight = network.lm_head.weight
    tokens = torch.randint(network.vocabulary, (2, 16), generator=torch.Generator().manual_seed(0)).to(
        weight.device
    )
    modes = {m: m.training for m in llama.modules()}
    llama.eval()
    try:
        theirs = llama(input_ids=tokens, use_cache=False).logits
    finally:
        for m, mode in modes.items():
            m.training = mode
    network.eval()
    ours = network(tokens)
    network.train()
    apart = float((ours - theirs).abs().max() / theirs.abs().max())
    if not apart <= (1e-4 if weight.dtype in (torch.float32, torch.float64) else 5e-2):
        raise ModelError(
            f"the logits of the copy differ from those of the {type(llama).__name__} by {apart:.2g} of the "
            "largest: it computes another function. "
            "Fit the model itself (language.Pretrained)."
        )


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair (x_j, x_{j + d/2}) turned by its angle."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def _linear(columns: int, rows: int, dtype: torch.dtype) -> nn.Linear:
    out: nn.Linear = torch.nn.utils.skip_init(nn.Linear, columns, rows, bias=False, dtype=dtype)
    return out
