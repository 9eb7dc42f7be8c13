"""A server of vLLM as a sampler: it draws, over HTTP, and says with which log-probability.

    POST /v1/completions    a prompt as token ids → answers as token ids, log p of each token
    GET  /v1/models         the names that it serves

Only Python's own urllib is used. The weights that the server holds are its own affair: bring them up to date between passes,
and read the gap (`language.Gap`), which grows with their age.
"""

from __future__ import annotations

import hashlib
import json
import math
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from ..errors import BadArgument, DataError
from ..types import ModelLike, Plain, Settings
from .samplers import Drawn, asked
from .sampling import Sampling

MODES = ("ask", "raw", "processed")
SAME = 1e-4  # log p at two temperatures that differ by less are the raw model's; a server rounds to float32


class Server:
    """Answers drawn by a server with the completions API of OpenAI and the token ids of vLLM.

    A request a prompt, several at a time, with a seed of its own, so that a pass can be drawn again. Every setting that
    changes the distribution is sent, or a server would take those of its model's generation_config.json.

    Parameters
    ----------
    url
        "http://127.0.0.1:8000", without /v1
    model
        the name under which it serves the model
    logprobs
        what its log-probabilities are of: "processed", after temperature, top k and top p (vLLM's --logprobs-mode
        processed_logprobs); "raw", of the model itself (vLLM's default); "ask": found out with two requests at two
        temperatures. Raw ones are those of the draws at temperature 1 without truncation alone
    timeout
        seconds that a request may take
    concurrent
        requests at a time
    api_key
        sent as "Authorization: Bearer …"; None: nothing is sent

    Raises
    ------
    BadArgument
        no server at the URL, another model, a request that it refuses; temperature 0
    DataError
        an answer without token ids or log-probabilities, of another prompt, or that stopped for another reason than its
        end or its length

    References
    ----------
    Kwon et al. (2023), Efficient memory management for large language model serving with PagedAttention.

    Examples
    --------
    >>> Server("http://127.0.0.1:8000/", "policy").url
    'http://127.0.0.1:8000'
    """

    exact = False

    def __init__(
        self,
        url: str,
        model: str,
        *,
        logprobs: str = "ask",
        timeout: float = 600.0,
        concurrent: int = 64,
        api_key: str | None = None,
    ):
        if not url.startswith(("http://", "https://")):
            raise BadArgument(f"url={url!r}. Accepted: a URL that begins with http:// or https://.")
        if logprobs not in MODES:
            raise BadArgument(f"logprobs={logprobs!r}. Accepted: {', '.join(map(repr, MODES))}.")
        if not 0 < timeout < math.inf or concurrent < 1:
            raise BadArgument(
                f"timeout={timeout}, concurrent={concurrent}. Accepted: seconds above 0, and 1 or more."
            )
        self.url, self.model, self.logprobs = url.rstrip("/").removesuffix("/v1"), model, logprobs
        self.timeout, self.concurrent, self._api_key = timeout, concurrent, api_key
        self._known = False  # whether the server was asked which models it serves

    def __repr__(self) -> str:
        return f"Server({self.url!r}, {self.model!r}, logprobs={self.logprobs!r})"

    def draw(
        self,
        model: ModelLike,
        prompts: Sequence[Tensor],
        *,
        num_generations: int = 1,
        max_new_tokens: int,
        end: int | None = None,
        seed: tuple[int, int] = (0, 0),
    ) -> Drawn:
        """Answers of the server, under the `sampling` of the model (see `ContinuousBatching.draw`)."""
        prompts = asked(prompts, num_generations, max_new_tokens)
        sampling = model.sampling or Sampling()
        if sampling.temperature == 0:
            raise BadArgument("temperature=0 always takes the most probable token, of probability 1.")
        self._check_model()
        mode = self._asked_mode(prompts[0]) if self.logprobs == "ask" else self.logprobs
        settings = self._settings(sampling, max_new_tokens, end) | {"n": num_generations, "logprobs": 1}
        with ThreadPoolExecutor(min(self.concurrent, len(prompts))) as pool:
            jobs = [
                pool.submit(self._completed, p, settings | {"seed": _seed(*seed, i)}, i)
                for i, p in enumerate(prompts)
            ]
            found = [answer for job in jobs for answer in job.result()]
        tokens = [torch.tensor(t, dtype=torch.long) for t, _ in found]
        values = [torch.tensor(v, dtype=torch.float64) for _, v in found]
        plain = sampling.temperature == 1 and not sampling.truncates
        if mode == "processed" or plain:
            return Drawn(tokens, values)
        remark = (
            f"The server at {self.url} gives log p of the raw model, and it drew with {sampling}: with which "
            "probability it drew is not known. Accepted: --logprobs-mode processed_logprobs."
        )
        return Drawn(tokens, None, raw_log_prob=values, remark=remark)

    # ---- requests ------------------------------------------------------------------------------------------

    def _settings(self, sampling: Sampling, length: int, end: int | None) -> Settings:
        return {
            "model": self.model,
            "max_tokens": length,
            "temperature": sampling.temperature,
            "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
            "top_k": -1 if sampling.top_k is None else sampling.top_k,  # -1: all
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "ignore_eos": True,  # the end is the one that is asked for, not the model's
            "stop_token_ids": [] if end is None else [end],
            "skip_special_tokens": False,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,  # for servers that know no return_token_ids
        }

    def _completed(
        self, prompt: Tensor, settings: Settings, number: int
    ) -> list[tuple[list[int], list[float]]]:
        """(tokens, log p) of each answer to one prompt."""
        ids = prompt.tolist()
        reply = self._send("/v1/completions", settings | {"prompt": ids})
        choices = reply.get("choices") if isinstance(reply, dict) else None
        n = settings["n"]
        if not isinstance(choices, list) or len(choices) != n:
            raise DataError(
                f"{self.url} gave {len(choices) if isinstance(choices, list) else 'no'} answers to prompt {number}, and "
                f"{n} were asked for."
            )
        choices = sorted(choices, key=lambda choice: choice.get("index", 0))
        for choice in choices:
            given = choice.get("prompt_token_ids")
            if given is not None and list(given) != ids:
                raise DataError(
                    f"{self.url} read prompt {number} as the tokens {list(given)[:12]}, and {ids[:12]} were sent."
                )
        (end,) = settings["stop_token_ids"] or (None,)
        return [self._answer(c, f"{number}.{j}", settings["max_tokens"], end) for j, c in enumerate(choices)]

    def _answer(
        self, choice: Plain, name: str, length: int, end: int | None
    ) -> tuple[list[int], list[float]]:
        where = f"answer {name} of {self.url}"
        known = choice.get("logprobs") or {}
        values, said = known.get("token_logprobs"), known.get("tokens") or []
        spelled = [int(t.removeprefix("token_id:")) for t in said if str(t).startswith("token_id:")]
        tokens = choice.get("token_ids") or spelled
        if not values:
            raise DataError(f"{where} has no log-probabilities (logprobs.token_logprobs). Accepted: vLLM's.")
        if not tokens:
            raise DataError(
                f"{where} has no token ids (token_ids, or tokens as 'token_id:…'): a text alone cannot be scored. "
                "Accepted: vLLM's, with return_token_ids."
            )
        if len(tokens) != len(values) or (spelled and spelled != list(tokens)):
            raise DataError(
                f"{where}: its tokens differ from those that its log-probabilities are of: {list(tokens)[:12]} and "
                f"{spelled[:12] or len(values)}."
            )
        bad = [v for v in values if not isinstance(v, (int, float)) or not -math.inf < v <= 1e-6]
        if bad:
            raise DataError(f"{where} has the log-probability {bad[0]!r} of a token that it drew.")
        if len(tokens) > length or (end is not None and end in tokens[:-1]):
            raise DataError(
                f"{where} goes on after its end, or has more than {length} tokens: {list(tokens)[:12]}."
            )
        if len(tokens) < length and (end is None or tokens[-1] != end):
            raise DataError(
                f"{where} stopped after {len(tokens)} of {length} tokens without the end token {end} "
                f"(finish_reason={choice.get('finish_reason')!r}, stop_reason={choice.get('stop_reason')!r}): has the "
                "server a smaller context, or another end?"
            )
        return [int(t) for t in tokens], [min(float(v), 0.0) for v in values]

    def _check_model(self) -> None:
        if self._known:
            return
        reply = self._send("/v1/models", None)
        data = reply.get("data") if isinstance(reply, dict) else None
        names = [str(each.get("id")) for each in data] if isinstance(data, list) else []
        if self.model not in names:
            raise BadArgument(
                f"{self.url} does not serve {self.model!r}. It serves: {', '.join(names) or 'nothing'}."
            )
        self._known = True

    def _asked_mode(self, prompt: Tensor) -> str:
        """Whether log p of the most probable token stays the same at another temperature. Asked at every pass: a
        prompt after which all tokens are equally probable cannot tell, and is taken as raw."""
        found = []
        for temperature in (1.0, 2.0):
            settings = self._settings(Sampling(temperature), 1, None) | {"n": 1, "logprobs": 1, "seed": 0}
            reply = self._send("/v1/completions", settings | {"prompt": prompt.tolist()})
            try:
                (top,) = reply["choices"][0]["logprobs"]["top_logprobs"]
                found.append(max(float(v) for v in top.values()))
            except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
                raise DataError(
                    f"{self.url} gives no logprobs.top_logprobs, which are needed to distinguish raw log-probabilities from "
                    "processed ones. Accepted: Server(…, logprobs='raw') or 'processed'."
                ) from error
        return "raw" if abs(found[0] - found[1]) < SAME else "processed"

    def _send(self, path: str, body: Settings | None) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._api_key is not None:
            headers["Authorization"] = f"Bearer {self._api_key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode("utf-8", "replace")
            raise BadArgument(f"{self.url}{path} answered {error.code} {error.reason}: {said}") from error
        except TimeoutError as error:
            raise BadArgument(
                f"{self.url}{path} gave no answer within timeout={self.timeout:g} s."
            ) from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise BadArgument(
                    f"{self.url}{path} gave no answer within timeout={self.timeout:g} s."
                ) from error
            raise BadArgument(f"no server answers at {self.url}: {error.reason}.") from error
        except (OSError, ValueError) as error:
            raise BadArgument(f"{self.url}{path} gave an answer that cannot be read: {error}.") from error


def _seed(*numbers: int) -> int:
    """One number below 2⁶³ of several, which differs where any of them does."""
    told = "/".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "big") >> 1
