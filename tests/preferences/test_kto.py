"""KTO: its published loss and gradient. BCO: a logistic regression."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from torch import nn

import thetahat as th
from thetahat.data.batch import Batch
from thetahat.errors import BadArgument, DataError, EmptyData, UnknownColumn, WrongType
from thetahat.evaluation.score import score
from thetahat.language import Autoregressive, Bytes
from thetahat.likelihood import LogLikelihood, Objective
from thetahat.preferences import BCO, KTO, Labelled, Pairs, Prospect, kto

ROWS = [
    {"prompt": [0, 1], "completion": [2, 3, 4], "label": True},
    {"prompt": [3], "completion": [1], "label": False},
    {"prompt": [2], "completion": [4, 0], "label": False},
    {"prompt": [4, 4], "completion": [3, 3, 1, 1], "label": True},
    {"prompt": [1], "completion": [0], "label": True},
]
BETA, WEIGHTS = 0.7, (1.3, 0.6)


def policy(seed: int) -> Autoregressive:
    torch.manual_seed(seed)
    return Autoregressive(nn.Embedding(5, 5).double())


def log_p(weight: torch.Tensor, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """Σ log π of an answer's tokens, by hand."""
    table, whole = torch.log_softmax(weight, -1), prompt + answer
    return torch.stack([table[whole[t - 1], whole[t]] for t in range(len(prompt), len(whole))]).sum()


def published(now: torch.Tensor, before: torch.Tensor, rows: list[dict]) -> torch.Tensor:
    """Σ over answers of TRL 1.x, KTOTrainer (kto_trainer.py: chosen_losses, rejected_losses), each prompt's KL with the
    answer of the row before it, clamped at 0 and detached."""

    def ratio(prompt, answer):
        return log_p(now, prompt, answer) - log_p(before, prompt, answer)

    kl = torch.stack([ratio(rows[i]["prompt"], rows[i - 1]["completion"]) for i in range(len(rows))])
    kl = kl.mean().detach().clamp(min=0)
    losses = []
    for row in rows:
        r = ratio(row["prompt"], row["completion"])
        if row["label"]:
            losses.append(WEIGHTS[0] * (1 - torch.sigmoid(BETA * (r - kl))))
        else:
            losses.append(WEIGHTS[1] * (1 - torch.sigmoid(BETA * (kl - r))))
    return torch.stack(losses)


DESIRABLE = [{**row, "label": True} for row in ROWS]
UNDESIRABLE = [{**row, "label": False} for row in ROWS]


@pytest.mark.parametrize("rows", [ROWS, DESIRABLE, UNDESIRABLE], ids=["both", "desirable", "undesirable"])
@pytest.mark.parametrize("seeds", [(0, 1), (2, 3)])
def test_kto_is_its_published_loss_with_its_gradient(rows, seeds):
    now, before = policy(seeds[0]), policy(seeds[1])
    weight = now.network.weight.detach().clone().requires_grad_()
    losses = published(weight, before.network.weight.detach(), rows)
    (gradient,) = torch.autograd.grad(-losses.sum(), weight)

    source, model, prospect = Labelled(rows, context=8), KTO(now, before, BETA), Prospect(*WEIGHTS)
    found = prospect.losses(source.whole, model.log_prob(source.whole).detach())
    torch.testing.assert_close(found, losses.detach(), rtol=1e-12, atol=1e-12)
    log_prob = model.log_prob(source.whole)
    (ours,) = torch.autograd.grad(
        (prospect(source.whole, log_prob.detach()) * log_prob).sum(), now.network.weight
    )
    torch.testing.assert_close(ours, gradient, rtol=1e-10, atol=1e-12)
    objective = kto(now, source, before, BETA, desirable_weight=WEIGHTS[0], undesirable_weight=WEIGHTS[1])
    torch.testing.assert_close(
        objective.taylor(order=1).gradient, gradient.reshape(-1), rtol=1e-10, atol=1e-12
    )


def test_both_sides_of_the_reference_points_bound_are_tried():
    """z0 = max(0, KL): of the seeds above one estimate is below 0 and one above."""
    signs = set()
    for a, b in ((0, 1), (2, 3)):
        model, batch = KTO(policy(a), policy(b), BETA), Labelled(ROWS, context=8).whole
        rewards = model.mismatched(batch).detach()
        signs.add(bool(rewards.mean() > 0))
        z0 = model.reference_point(rewards, batch.count)
        assert float(z0) == pytest.approx(max(0.0, float(rewards.mean())))
    assert signs == {True, False}


def test_the_reference_point_is_held_fixed():
    """Its own path would add to the gradient: a finite difference of the whole value is another number."""
    now, before = policy(2), policy(3)
    if float(KTO(now, before, BETA).mismatched(Labelled(ROWS, context=8).whole).detach().mean()) <= 0:
        now, before = policy(0), policy(1)
    source, model = Labelled(ROWS, context=8), KTO(now, before, BETA)
    (fixed,) = torch.autograd.grad(model.log_prob(source.whole).sum(), now.network.weight)
    r = model.reward(source.whole, "answer")
    u = r - model.mismatched(source.whole).mean()
    label = source.whole["label"]
    (moving,) = torch.autograd.grad(
        nn.functional.logsigmoid(torch.where(label, u, -u)).sum(), now.network.weight
    )
    assert (fixed - moving).abs().max() > 1e-3


def test_a_permuted_batch_is_the_same_batch():
    """A mismatched answer belongs to its row: the value of each, and z0, do not depend on the order."""
    model, whole = KTO(policy(0), policy(1), BETA), Labelled(ROWS, context=8).whole
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(
        model.log_prob(whole[order]), model.log_prob(whole)[order], rtol=1e-12, atol=1e-14
    )


def test_weights_of_the_two_labels_are_weights_of_their_rows():
    """λ_D = 3: each desirable answer counted three times, at the z0 of the batch as it was."""
    now, before = policy(0), policy(1)
    model = KTO(now, before, BETA)
    batch = next(Labelled(ROWS, context=8).batches(model))
    plain = Objective([LogLikelihood(model, th.data.Tensors(batch, target="label"), Prospect())])
    count = torch.where(batch["label"], 3.0, 1.0).double()
    counted = th.data.Tensors(batch.with_count(count), target="label")
    three = Objective([LogLikelihood(model, th.data.Tensors(batch, target="label"), Prospect(3.0))])
    times = Objective([LogLikelihood(model, counted, Prospect())])
    a, b, one = (o.taylor(order=1).gradient for o in (three, times, plain))
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    assert (a - one).abs().max() > 1e-3


def test_a_score_takes_the_reference_point_of_all_that_is_scored_however_it_is_cut():
    now, before = policy(0), policy(1)
    rows, model = ROWS, KTO(now, before, BETA)
    weights = now.network.weight.detach(), before.network.weight.detach()

    def ratio(prompt, answer):
        return BETA * float(log_p(weights[0], prompt, answer) - log_p(weights[1], prompt, answer))

    z0 = max(0.0, sum(ratio(rows[i]["prompt"], rows[i - 1]["completion"]) for i in range(5)) / 5)
    u = [ratio(row["prompt"], row["completion"]) - z0 for row in rows]
    right = [-math.log1p(math.exp(-v if row["label"] else v)) for v, row in zip(u, rows, strict=True)]
    for block in (1, 2, 16):
        found = score(model, Labelled(rows, context=8, block=block))
        assert found.per_observation.tolist() == pytest.approx(right, rel=1e-10)
        assert "reference point" in found.note
        assert found.measure == "mass"
    known = score(model, model.referenced(Labelled(rows, context=8, block=2)))
    assert known.per_observation.tolist() == pytest.approx(right, rel=1e-10)


# ---- BCO ---------------------------------------------------------------------------------------------------


def test_bco_is_a_probability_of_the_two_labels():
    model = BCO(policy(0), policy(1), BETA)
    model.shift.data.fill_(0.4)
    a, b = (
        model.log_prob(Labelled(rows, context=8).whole).detach().exp() for rows in (DESIRABLE, UNDESIRABLE)
    )
    torch.testing.assert_close(a + b, torch.ones_like(a))
    now, before = (m.network.weight.detach() for m in (model.policy, model.reference))
    first = ROWS[0]["prompt"], ROWS[0]["completion"]
    r = BETA * float(log_p(now, *first) - log_p(before, *first))
    assert float(a[0]) == pytest.approx(1 / (1 + math.exp(0.4 - r)), rel=1e-10)


def test_bcos_shift_is_the_log_odds_where_the_policy_says_nothing():
    """Policy and reference alike and held: p(desirable) = σ(−δ), so δ̂ = −log(3/2) of 3 in 5."""
    held = policy(0)
    held.network.weight.requires_grad_(False)
    fit = th.fit(BCO(held, copy.deepcopy(held)), Labelled(ROWS, context=8), solver=th.LBFGS())
    assert float(fit.model.shift.detach()) == pytest.approx(-math.log(3 / 2), abs=1e-6)
    assert fit.score(Labelled(ROWS, context=8)).total == pytest.approx(
        3 * math.log(0.6) + 2 * math.log(0.4), abs=1e-6
    )


@pytest.mark.parametrize("method", ["kto", "bco"])
def test_desirable_answers_become_more_probable_than_others(method):
    rows = [{"prompt": [p], "completion": [c, c], "label": c == 1} for p in (0, 3, 4) for c in (1, 2)] * 4
    source, before = Labelled(rows, context=4), policy(0)
    solver = th.Stochastic(steps=60, learning_rate=0.05, batch_size=8, held_out=None)
    if method == "kto":
        fit = th.maximize(kto(copy.deepcopy(before), source, before, 0.5), solver=solver)
    else:
        fit = th.fit(BCO(copy.deepcopy(before), before, 0.5), source, solver=solver)
    assert fit.score(source).mean > math.log(0.5) + 0.1
    w, v = fit.model.policy.network.weight.detach(), before.network.weight.detach()
    assert float(log_p(w, [0], [1, 1]) - log_p(v, [0], [1, 1])) > float(
        log_p(w, [0], [2, 2]) - log_p(v, [0], [2, 2])
    )


# ---- data --------------------------------------------------------------------------------------------------


def test_rows_are_read_from_lines_of_json_as_trl_has_them(tmp_path):
    rows = [
        {"prompt": "2+2=", "completion": "4", "label": True},
        {"prompt": "1+1=", "completion": "3", "label": False},
    ]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source, same = Labelled(tmp_path / "d.jsonl", Bytes(), context=16), Labelled(rows, Bytes(), context=16)
    assert source.fingerprint == same.fingerprint
    shown = [
        Bytes().decode(ids[mask].tolist())
        for ids, mask in zip(source.whole["answer"], source.whole["answer_mask"], strict=True)
    ]
    assert shown == ["4", "3"]
    assert source.whole["label"].tolist() == [True, False]
    assert int(source.whole["answer_mask"].sum()) == 4  # each answer and its end
    turned = [{**row, "label": not row["label"]} for row in rows]
    assert Labelled(turned, Bytes(), context=16).fingerprint != source.fingerprint


def test_pairs_become_one_desirable_and_one_undesirable_answer():
    pairs = Pairs([
        {"prompt": "2+2=", "chosen": "4", "rejected": "five"},
        {"prompt": "1+1=", "chosen": "2", "rejected": "2.0", "tie": True},
        {"prompt": "3+1=", "chosen": "4", "rejected": "one"},
    ])  # fmt: skip
    source = Labelled.of_pairs(pairs, Bytes(), context=16)
    answers = (("2+2=", "4"), ("2+2=", "five"), ("3+1=", "4"), ("3+1=", "one"))
    rows = [{"prompt": p, "completion": c, "label": c == "4"} for p, c in answers]
    assert source.fingerprint == Labelled(rows, Bytes(), context=16).fingerprint


def test_a_mismatched_answer_is_that_of_another_prompt():
    """The nearest before it, around the beginning; both answers of one prompt have that of the prompt before."""
    rows = [{"prompt": [p], "completion": [c], "label": True} for p, c in ((0, 1), (0, 2), (3, 4), (0, 3))]
    source = Labelled(rows, context=4)
    mask = source.whole["mismatched_mask"]
    assert source.whole["mismatched"][mask].tolist() == [4, 4, 2, 4]
    assert source.whole["mismatched"][:, 0].tolist() == [0, 0, 3, 0]


def test_what_cannot_be_used_is_refused_with_its_row_and_field():
    with pytest.raises(UnknownColumn, match=r"row 0 lacks the field 'label'. It has: prompt, completion"):
        Labelled([{"prompt": "a", "completion": "b"}], Bytes())
    with pytest.raises(WrongType, match=r"row 0: label is 'yes'"):
        Labelled([{"prompt": "a", "completion": "b", "label": "yes"}], Bytes())
    with pytest.raises(DataError, match=r"row 0 does not fit in context=4"):
        Labelled([{"prompt": "abcdef", "completion": "b", "label": True}], Bytes(), context=4)
    with pytest.raises(EmptyData, match="1 dropped"):
        Labelled([{"prompt": "a", "completion": "bcdef", "label": True}], Bytes(), context=4, overlong="drop")
    cut = Labelled(
        [{"prompt": "abcdef", "completion": "b", "label": True}], Bytes(), context=4, overlong="cut"
    )
    assert cut.whole["answer"].tolist() == [[101, 102, 98, 256]]
    alone = Labelled([{"prompt": [0], "completion": [1], "label": True}], context=4)
    with pytest.raises(DataError, match="all to one"):
        KTO(policy(0), policy(1)).log_prob(alone.whole)
    with pytest.raises(BadArgument, match="undesirable_weight=0"):
        Prospect(1.0, 0)
    with pytest.raises(BadArgument, match=r"KTO\(policy, reference\)"):
        KTO(nn.Linear(1, 1), policy(0))
    assert isinstance(alone.whole, Batch)
