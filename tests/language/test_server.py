"""A server draws: its probabilities beside the trainer's own, and the weights that correct for the difference.

The server of these tests serves a tiny model on 127.0.0.1, with its weights moved by a known perturbation; what is wanted is
computed from the two networks' whole logits, which neither sampler nor trainer reads."""

from __future__ import annotations

import copy
import itertools
import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from tests.language.test_sampling import network

import thetahat as th
from thetahat.errors import BadArgument, DataError
from thetahat.language import (
    Autoregressive,
    ContinuousBatching,
    Gap,
    Generations,
    Sampling,
    Server,
    TruncatedImportance,
)
from thetahat.rl import Advantage, Clipped

END = 4
PROMPTS = [torch.tensor(p) for p in ([0], [1, 2, 3], [5, 6], [7, 8, 9, 10, 11])]


def own_log_prob(net, prompt, answer, sampling=None):
    """log q of each token of an answer, of the whole text's logits."""
    whole = torch.cat([prompt, answer])[None]
    with torch.no_grad():
        logits = net(whole[:, :-1])[0, len(prompt) - 1 :]
    q = torch.softmax(logits, -1) if sampling is None else sampling.probabilities(logits)
    return torch.log(q).gather(-1, answer[:, None])[:, 0]


class Serving:
    """vLLM's two paths, as far as they are asked for."""

    def __init__(self, net, mode="raw", change=lambda reply: reply, status=200):
        self.net, self.mode, self.change, self.status = net, mode, change, status
        self.asked = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                self.answer({"data": [{"id": "policy"}, {"id": "other"}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(body)
                if outer.status != 200:
                    self.send_error(outer.status, "Bad Request")
                    return
                self.answer(outer.change(outer.completed(body)))

            def answer(self, reply):
                data = json.dumps(reply).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def completed(self, body):
        top_k = None if body["top_k"] == -1 else body["top_k"]
        sampling = Sampling(body["temperature"], top_k, body["top_p"])
        prompt = torch.tensor(body["prompt"])
        (end,) = body["stop_token_ids"] or (None,)
        drawn = ContinuousBatching().draw(
            Autoregressive(self.net, sampling=sampling),
            [prompt],
            num_generations=body["n"],
            max_new_tokens=body["max_tokens"],
            end=end,
            seed=(body["seed"], 0),
        )
        choices = []
        for j, answer in enumerate(drawn.tokens):
            of = sampling if self.mode == "processed" else None
            values = own_log_prob(self.net, prompt, answer, of).tolist()
            with torch.no_grad():
                logits = self.net(prompt[None])[0, -1]
            q = torch.softmax(logits, -1) if of is None else of.probabilities(logits)
            ended = answer[-1] == end
            choices.append(
                {
                    "index": j,
                    "text": "",
                    "token_ids": answer.tolist(),
                    "prompt_token_ids": prompt.tolist(),
                    "finish_reason": "stop" if ended else "length",
                    "logprobs": {
                        "tokens": [f"token_id:{t}" for t in answer.tolist()],
                        "token_logprobs": values,
                        "top_logprobs": [{"a": float(torch.log(q.max()))}],
                    },
                }
            )
        return {"choices": choices[::-1]}

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *args):
        self.server.shutdown()
        self.server.server_close()


def moved(net, by=0.05):
    other, g = copy.deepcopy(net), torch.Generator().manual_seed(9)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(by * torch.randn(p.shape, generator=g, dtype=p.dtype))
    return other


def generations(server, **more):
    return Generations(
        PROMPTS,
        lambda prompts, answers: torch.tensor([float((a == 1).sum()) for a in answers]),
        max_new_tokens=6,
        end=END,
        num_generations=4,
        advantage=th.language.RLOO(),
        sampler=server,
        **more,
    )


def answers_of(batch):
    """(prompt, answer) of each row."""
    for i in range(len(batch)):
        n = int((batch.count[i] > 0).nonzero()[0])
        whole = torch.cat([batch["input"][i, :1], batch["target"][i, : n + int(batch.count[i].sum())]])
        yield whole[: n + 1], whole[n + 1 :]


SAMPLINGS = [Sampling(), Sampling(0.7), Sampling(0.8, top_k=10, top_p=0.95)]


@pytest.mark.parametrize("mode", ["raw", "processed"])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("by", [0.0, 0.05])
def test_the_gap_is_the_difference_of_the_two_models(sampling, mode, by):
    """log p of both models' whole logits; raw log-probabilities are compared with the raw model's."""
    net = network()
    policy = Autoregressive(net, sampling=sampling)
    with Serving(moved(net, by), mode) as serving:
        server = Server(serving.url, "policy")
        draws = generations(server)
        batch = next(draws.batches(policy))
    plain = sampling == Sampling()
    of = sampling if mode == "processed" else None
    d = []
    for prompt, answer in answers_of(batch):
        theirs = own_log_prob(serving.net, prompt, answer, of)
        if of is None:
            d.append(own_log_prob(net, prompt, answer) - theirs)
        else:  # a token that the trainer's own set leaves out takes the place of the least
            whole = torch.cat([prompt, answer])[None]
            with torch.no_grad():
                logits = net(whole[:, :-1])[0, len(prompt) - 1 :]
            d.append(of.log_prob(logits, answer) - theirs)
    every = torch.cat(d)
    gap = draws.gap
    assert gap.tokens == len(every) == int(batch.count.sum())
    assert gap.mean == pytest.approx(float(every.mean()), abs=1e-12)
    assert gap.mean_abs == pytest.approx(float(every.abs().mean()), abs=1e-12)
    assert gap.max_abs == pytest.approx(float(every.abs().max()), abs=1e-12)
    assert gap.ratio == pytest.approx(float(every.exp().mean()), abs=1e-12)
    w = torch.stack([each.sum().exp() for each in d])
    assert gap.sequence_ratio == pytest.approx(float(w.mean()), abs=1e-11)
    assert gap.effective == pytest.approx(float(w.sum() ** 2 / (w**2).sum()), abs=1e-9)
    assert draws.measured()["gap"] == gap.mean_abs
    assert (gap.max_abs < 1e-12) == (by == 0)
    known = plain or mode == "processed"
    assert ("sampler_log_prob" in batch) == known
    assert ("drew with" in draws.remark) == (not known)
    weights = TruncatedImportance(Advantage(), cap=1.02)
    if not known:
        with pytest.raises(BadArgument, match="processed_logprobs"):
            weights(batch, batch["log_prob"])
        return
    rho = torch.exp(batch["log_prob"] - batch["sampler_log_prob"]).clamp(max=1.02)
    torch.testing.assert_close(weights(batch, batch["log_prob"]), batch["advantage"] * rho)
    if by == 0:
        torch.testing.assert_close(weights(batch, batch["log_prob"]), batch["advantage"])
    else:
        assert 0 < weights.measured()["truncated_share"] < 1


def test_a_request_says_everything_that_changes_the_distribution():
    """vLLM takes what is not sent from the model's generation_config.json."""
    net = network()
    with Serving(net, "processed") as serving:
        draws = generations(Server(serving.url + "/v1/", "policy", logprobs="processed"), seed=3)
        next(draws.batches(Autoregressive(net, sampling=Sampling(0.7, 5, 0.9))))
        bodies = serving.asked
    assert len(bodies) == len(PROMPTS)
    assert sorted(b["prompt"] for b in bodies) == sorted(p.tolist() for p in PROMPTS)
    assert len({b["seed"] for b in bodies}) == len(PROMPTS)
    for body in bodies:
        wanted = {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "n": 4, "max_tokens": 6, "min_p": 0.0}
        wanted |= {"repetition_penalty": 1.0, "stop_token_ids": [END], "ignore_eos": True}
        assert {name: body[name] for name in wanted} == wanted


def test_a_policy_is_fitted_to_the_answers_of_a_server():
    net = network()
    policy = Autoregressive(net, sampling=Sampling(0.9))
    with Serving(moved(net), "processed") as serving:
        weights = TruncatedImportance(Clipped(0.2), cap=2.0)
        fit = th.fit(
            policy,
            generations(Server(serving.url, "policy")),
            weights=weights,
            solver=th.Stochastic(steps=3, learning_rate=0.01),
        )
    assert fit.certificate.status == "stochastic"
    assert {"sampler_ratio", "truncated_share", "clip_fraction"} <= weights.measured().keys()


# ---- weights -----------------------------------------------------------------------------------------------


def test_truncated_weights_are_the_hand_formula():
    """ρ = 3, ½ of the first answer, 2 of the second, whose other term is filled up; times A = 1 and −2."""
    batch = th.data.Batch(
        {
            "advantage": torch.tensor([[1.0, 1.0], [-2.0, 0.0]]),
            "log_prob": torch.log(torch.tensor([[0.6, 0.2], [0.8, 1.0]])),
            "sampler_log_prob": torch.log(torch.tensor([[0.2, 0.4], [0.4, 0.5]])),
        },
        count=torch.tensor([[1.0, 1.0], [1.0, 0.0]]),
        dims=2,
    )
    for level, cap, wanted in (
        ("token", 2.0, [[2.0, 0.5], [-4.0, 0.0]]),
        ("token", math.inf, [[3.0, 0.5], [-4.0, 0.0]]),
        ("sequence", 1.2, [[1.2, 1.2], [-2.4, 0.0]]),
        ("sequence", math.inf, [[1.5, 1.5], [-4.0, 0.0]]),
    ):
        weights = TruncatedImportance(Advantage(), cap, level)
        torch.testing.assert_close(weights(batch, batch["log_prob"]), torch.tensor(wanted))
    later = batch["log_prob"] + torch.log(
        torch.tensor(1.1)
    )  # Clipped's own ratio is to the trainer that drew
    found = TruncatedImportance(Clipped(0.2), 2.0)(batch, later)
    torch.testing.assert_close(found, torch.tensor([[2.2, 0.55], [-4.4, 0.0]]))


V, LENGTH = 3, 3


def tree(seed):
    """log π(a_t | a_<t) of every beginning, a table."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(sum(V**t for t in range(LENGTH)), V, generator=g, dtype=torch.float64)


def terms(table, every):
    """log π of each token of every sequence, (n, LENGTH)."""
    out, begin = [], 0
    code = torch.zeros(len(every), dtype=torch.long)
    for t in range(LENGTH):
        log_p = torch.log_softmax(table, -1)[begin + code]
        out.append(log_p.gather(-1, every[:, t : t + 1])[:, 0])
        code, begin = code * V + every[:, t], begin + V**t
    return torch.stack(out, 1)


@pytest.mark.parametrize(
    ("level", "length", "exact"), [("sequence", 3, True), ("token", 1, True), ("token", 3, False)]
)
def test_the_expected_step_on_a_servers_draws_is_the_policy_gradient(level, length, exact):
    """All 27 sequences, each as often as the server draws it, c = ∞: ∇ E_π r to 1e-12 by the ratios of whole answers; by
    those of tokens for answers of one token alone."""
    every = torch.tensor(list(itertools.product(range(V), repeat=LENGTH)))
    r = torch.randn(len(every), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    if length == 1:
        r = r[:: V**2].repeat_interleave(V**2)  # the first token alone is worth something
    own, theirs = tree(1).requires_grad_(), tree(2)
    count = (torch.arange(LENGTH) < length).double().expand(len(every), -1)
    log_p, log_q = terms(own, every), terms(theirs, every)
    batch = th.data.Batch(
        {
            "advantage": r[:, None].expand(-1, LENGTH),
            "log_prob": log_p.detach(),
            "sampler_log_prob": log_q,
        },
        count=count,
        dims=2,
    )
    weights = TruncatedImportance(Advantage(), math.inf, level)(batch, log_p.detach())
    drawn = log_q.sum(1).exp()
    (found,) = torch.autograd.grad((drawn[:, None] * count * weights * log_p).sum(), own, retain_graph=True)
    (wanted,) = torch.autograd.grad((log_p.sum(1).exp() * r).sum(), own)
    apart = float((found - wanted).abs().max())
    assert (apart < 1e-12) == exact
    assert exact or apart > 1e-3


@pytest.mark.parametrize("settings", [{"cap": 0.0}, {"cap": math.nan}, {"level": "word"}], ids=str)
def test_weights_that_are_not_defined_are_refused(settings):
    with pytest.raises(BadArgument, match="Accepted"):
        TruncatedImportance(Advantage(), **settings)


def test_a_gap_of_nothing_is_refused():
    with pytest.raises(BadArgument, match="0 tokens"):
        Gap.of(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2))


# ---- errors ------------------------------------------------------------------------------------------------


def drawn_from(url, model="policy", **more):
    policy = Autoregressive(network())
    server = Server(url, model, logprobs="raw", timeout=5, **more)
    return server.draw(policy, PROMPTS[:2], num_generations=2, max_new_tokens=6, end=END)


def test_a_server_that_is_not_there_or_serves_another_model_is_named():
    with Serving(network()) as serving:
        with pytest.raises(BadArgument, match=r"does not serve 'gpt'\. It serves: policy, other"):
            drawn_from(serving.url, "gpt")
        url = serving.url
    with pytest.raises(BadArgument, match=f"no server answers at {url}"):
        drawn_from(url)
    with Serving(network(), status=400) as serving, pytest.raises(BadArgument, match="answered 400"):
        drawn_from(serving.url)


def changed(**fields):
    def change(reply):
        for choice in reply["choices"]:
            choice.update({name: value(choice) for name, value in fields.items()})
        return reply

    return change


def nine_times(choice):
    return {"token_logprobs": choice["logprobs"]["token_logprobs"] * 9}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed(logprobs=lambda c: None), "no log-probabilities"),
        (changed(token_ids=lambda c: None, logprobs=lambda c: c["logprobs"] | {"tokens": ["a"]}), "no token ids"),
        (changed(token_ids=lambda c: [t + 1 for t in c["token_ids"]]), "tokens differ"),
        (changed(prompt_token_ids=lambda c: [11]), "read prompt 0 as the tokens"),
        (changed(token_ids=lambda c: c["token_ids"] * 9, logprobs=nine_times), "goes on after its end"),
        (changed(token_ids=lambda c: [1], logprobs=lambda c: {"token_logprobs": [-1.0]}), "without the end token 4"),
        (changed(logprobs=lambda c: {"token_logprobs": [None] * len(c["token_ids"])}), "log-probability None"),
        (lambda reply: {"choices": reply["choices"][:1]}, "gave 1 answers"),
        (lambda reply: ["a"], "gave no answers"),
    ],
)  # fmt: skip
def test_answers_that_cannot_be_used_are_named(change, said):
    with Serving(network(), change=change) as serving, pytest.raises(DataError, match=said):
        drawn_from(serving.url)


def test_a_server_that_does_not_answer_in_time_is_named():
    stop = threading.Event()

    def wait(reply):
        stop.wait(5)
        return reply

    with Serving(network(), change=wait) as serving:
        server = Server(serving.url, "policy", logprobs="raw", timeout=0.2)
        with pytest.raises(BadArgument, match=r"no answer within timeout=0.2 s"):
            server.draw(Autoregressive(network()), PROMPTS[:1], max_new_tokens=2)
        stop.set()


def test_a_servers_log_probabilities_are_not_reused_as_the_policys():
    with pytest.raises(BadArgument, match="not the policy's own"):
        generations(Server("http://127.0.0.1:1", "policy"), reuse_log_prob=True)
    for settings in ({"url": "127.0.0.1"}, {"logprobs": "some"}, {"timeout": 0.0}):
        with pytest.raises(BadArgument, match="Accepted"):
            Server(**({"url": "http://a", "model": "m"} | settings))
