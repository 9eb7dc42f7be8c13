"""Two models on the same questions: the difference, its error and its interval against closed forms and simulation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tests.llama import llama, saved
from tests.llama import tokenizer as bytewise

from thetahat.cli import main
from thetahat.errors import DataError, EmptyData, MalformedFile
from thetahat.language.evaluations import Evaluated, compare_samples, read_samples


def write(
    folder: Path,
    task: str,
    scores,
    *,
    metric="acc",
    time="2025-01-31T12-00-00.000000",
    keys=None,
    passage=None,
) -> Path:
    """As lm-eval writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = range(len(scores)) if keys is None else keys
    lines = [
        {
            "doc_id": int(k),
            "doc": {"question": f"q{k}", "passage": int(k if passage is None else passage[i])},
            "doc_hash": f"h{k}",
            "resps": [["x"]],
            "filter": "none",
            "metrics": [metric],
            metric: float(s),
        }
        for i, (k, s) in enumerate(zip(keys, scores, strict=True))
    ]
    path = folder / f"samples_{task}_{time}.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


def of(*columns, clusters=None) -> Evaluated:
    scores = {("t", "acc"): pd.Series(np.asarray(columns[0], dtype=float))}
    return Evaluated(scores, {"t": pd.Series(range(len(columns[0])) if clusters is None else clusters)})


def test_the_paired_difference_is_a_paired_t_test():
    """scipy's."""
    g = np.random.default_rng(0)
    a, b = (g.random(60) < 0.7).astype(float), (g.random(60) < 0.6).astype(float)
    row = compare_samples(of(a), of(b), level=0.9).table.iloc[0]
    wanted = stats.ttest_rel(a, b)
    assert row["p"] == pytest.approx(wanted.pvalue)
    low, high = wanted.confidence_interval(0.9)
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    assert row["unpaired_error"] == pytest.approx(math.hypot(a.std(ddof=1), b.std(ddof=1)) / 60**0.5)


def test_questions_about_one_passage_are_one_piece_of_evidence():
    """Each question four times over says no more than once."""
    g = np.random.default_rng(1)
    a, b = g.random(30), g.random(30)
    clusters = np.repeat(np.arange(30), 4)
    four = compare_samples(
        of(np.repeat(a, 4), clusters=clusters), of(np.repeat(b, 4), clusters=clusters)
    ).table.iloc[0]
    once = compare_samples(of(a), of(b)).table.iloc[0]
    assert four["clusters"] == 30
    for name in ("difference", "standard_error", "low", "high", "p"):
        assert four[name] == pytest.approx(once[name])


@pytest.mark.parametrize("clustered", [False, True])
def test_intervals_cover_the_truth_and_are_half_as_wide_as_unpaired_ones(clustered):
    """Simulated answers: how hard a question is counts for most, as it does; 95 % intervals of 2,000 comparisons,
    of whose coverage the standard error is √(0.95 · 0.05/2000) = 0.0049: half the tolerance."""
    g = np.random.default_rng(2)
    covered, ratio = [], []
    n, size = 240, 4 if clustered else 1
    for _ in range(2000):
        hard = np.repeat(g.normal(0, 3, n // size), size)
        taste = (
            np.repeat(g.normal(0, 0.5, n // size), size) if clustered else 0.0
        )  # of the difference, per passage
        pa, pb = (1 / (1 + np.exp(-(hard + shift))) for shift in (0.4 + taste, 0.0))
        u = g.random(n)  # both answer alike but for what they know
        a, b = (u < pa).astype(float), (np.where(g.random(n) < 0.8, u, g.random(n)) < pb).astype(float)
        row = compare_samples(
            *(of(x, clusters=np.repeat(np.arange(n // size), size)) for x in (a, b))
        ).table.iloc[0]
        truth = _truth(clustered)
        covered.append(row["low"] <= truth <= row["high"])
        ratio.append(row["unpaired_error"] / row["standard_error"])
    assert 0.94 <= np.mean(covered) <= 0.96
    assert np.median(ratio) >= 2


def _truth(clustered: bool, cache: dict = {}) -> float:  # noqa: B006
    """The mean difference of the process, by quadrature over how hard a question is, and the taste."""
    if clustered not in cache:
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        weights = weights / weights.sum()
        taste = 0.5 * nodes if clustered else np.zeros(1)
        mass = weights if clustered else np.ones(1)
        logistic = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
        each = logistic(3 * nodes[:, None] + 0.4 + taste) - logistic(3 * nodes[:, None])
        cache[clustered] = float(weights @ each @ mass)
    return cache[clustered]


def test_the_error_of_seeds_is_told_apart_from_that_of_questions():
    """Seeds that differ by a constant: Var = 0 + s²/S of each side."""
    base = np.linspace(0, 1, 50)
    a, b = [of(base + s) for s in (0.0, 0.2, 0.4)], [of(base + s) for s in (0.1, 0.3)]
    row = compare_samples(a, b).table.iloc[0]
    wanted = math.sqrt(0.04 / 3 + 0.02 / 2)
    assert row["seed_error"] == pytest.approx(wanted)
    assert row["standard_error"] == pytest.approx(wanted)
    assert row["difference"] == pytest.approx(0.0, abs=1e-12)


def test_many_tasks_are_told_with_the_false_discovery_rate_of_benjamini_and_hochberg():
    """Their procedure by hand."""
    g = np.random.default_rng(3)
    sides = []
    for shift in (0.15, 0.0):
        scores = {(f"t{k}", "acc"): pd.Series(g.random(40) + (shift if k < 3 else 0)) for k in range(12)}
        sides.append(Evaluated(scores, {f"t{k}": pd.Series(range(40)) for k in range(12)}))
    table = compare_samples(*sides).table
    order = np.argsort(table["p"].to_numpy())
    q, least = np.empty(12), 1.0
    for rank in range(12, 0, -1):
        least = min(least, table["p"].iloc[order[rank - 1]] * 12 / rank)
        q[order[rank - 1]] = least
    np.testing.assert_allclose(table["q"], q)


def test_the_files_of_lm_eval_are_read(tmp_path):
    """The latest of each task; tasks whose names have underscores and digits; questions of one alone are left out."""
    write(tmp_path / "a" / "model", "mmlu_college_2024", [0, 0, 0, 0], time="2024-12-31T12-00-00.000000")
    write(tmp_path / "a" / "model", "mmlu_college_2024", [1, 1, 0, 1])
    write(tmp_path / "a" / "model", "gsm8k", [1, 0, 1], metric="exact_match")
    write(tmp_path / "b", "mmlu_college_2024", [0, 1, 0, 1, 1], keys=[0, 1, 2, 3, 9])
    write(tmp_path / "b", "gsm8k", [0, 0, 1], metric="exact_match")
    found = compare_samples(tmp_path / "a", tmp_path / "b")
    assert found.table[["task", "metric", "n"]].to_numpy().tolist() == [
        ["gsm8k", "exact_match", 3],
        ["mmlu_college_2024", "acc", 4],
    ]
    assert found.table["difference"].tolist() == pytest.approx([1 / 3, 0.25])
    assert found.unmatched == {"mmlu_college_2024": 1}
    assert "1 questions of one model alone" in str(found)


def test_what_lm_eval_did_not_write_is_refused(tmp_path):
    path = write(tmp_path / "a", "t", [1, 0], keys=[0, 0])
    with pytest.raises(DataError, match="the question h0 stands there twice"):
        read_samples(path)
    with pytest.raises(MalformedFile, match="log_samples"):
        read_samples(tmp_path / "none")
    other = write(tmp_path / "b", "t", [1, 0])
    with pytest.raises(DataError, match="no field 'topic'"):
        read_samples(other, by="topic")
    (tmp_path / "samples_x.jsonl").write_text("{broken")
    with pytest.raises(MalformedFile, match="not what lm-eval writes"):
        read_samples(tmp_path / "samples_x.jsonl")
    with pytest.raises(EmptyData, match="no two questions"):
        compare_samples(other, write(tmp_path / "c", "u", [1, 0]))


def test_the_command_compares_two_folders(tmp_path, capsys):
    g = np.random.default_rng(0)
    u = g.random(80)
    for name, p in (("a", 0.8), ("b", 0.6)):
        write(tmp_path / name, "arc", u < p, passage=np.arange(80) // 2)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--by", "passage", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["tasks"]
    assert row["clusters"] == 40
    assert row["difference"] == pytest.approx(float(((u < 0.8).astype(float) - (u < 0.6)).mean()))
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    shown = capsys.readouterr().out
    assert "95 % interval" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--data", "x.csv"]) == 2


@pytest.mark.parametrize("unit", [[0, 0, 0], [0, 1, 2]], ids=["one passage", "the same difference"])
def test_a_difference_whose_error_is_not_known_has_no_p_value(unit):
    """Three questions about one passage are one cluster; three questions that all differ by 1 have no spread."""
    sides = [
        Evaluated(
            {("t", "acc"): pd.Series([x] * 3), ("s", "acc"): pd.Series([1.0, 0.0, x])},
            {"t": pd.Series(unit), "s": pd.Series([0, 1, 2])},
        )
        for x in (1.0, 0.0)
    ]
    found = compare_samples(*sides)
    row = found.table.set_index("task").loc["t"]
    assert row["difference"] == 1
    assert row[["standard_error", "low", "high", "p", "q"]].isna().all()
    assert found.table.set_index("task").loc["s", "q"] == pytest.approx(
        found.table.set_index("task").loc["s", "p"]
    )
    assert "not known" in str(found)
    assert found.to_dict()["tasks"][1]["p"] is None


# ---- scores of a model of transformers ---------------------------------------------------------------------


def test_a_model_of_transformers_is_scored_on_texts_with_bits_per_byte(tmp_path, capsys):
    """Against its own cross-entropy, document by document."""
    import torch

    saved(tmp_path / "m")
    model, tokenizer = llama(), bytewise()
    texts = ["to be or not to be", "that is the question", "whether 'tis nobler"]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    assert main(["score", str(tmp_path / "m"), str(tmp_path / "t.jsonl"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    total = 0.0
    for text in texts:
        ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer.encode(text), tokenizer.eos_token_id]])
        with torch.no_grad():
            total -= float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
    assert found["total"] == pytest.approx(total, rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(
        -total / math.log(2) / sum(len(t) for t in texts), rel=1e-5
    )
    assert (
        main(["compare", str(tmp_path / "m"), str(tmp_path / "m"), "--data", str(tmp_path / "t.jsonl")]) == 2
    )
