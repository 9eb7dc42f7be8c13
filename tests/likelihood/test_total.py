"""`total` is the one place that sums over data: over batches, and over processes of torch.distributed."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from thetahat.data import Tensors
from thetahat.likelihood import total

PROCESS = """
import json, sys
import numpy as np, torch
import thetahat as th

rank, port = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
r = np.random.default_rng(0)
x = torch.tensor(r.normal(size=(301, 2)))
y = torch.tensor(r.poisson(np.exp(0.3 + 0.5 * x[:, 0].numpy())).astype(float))

@th.model(a=0.0, b=torch.zeros(2, dtype=torch.float64))
def poisson(batch, a, b):
    return th.families.Poisson().log_prob_eta(batch["y"], a + batch["x"] @ b)

own = slice(0, 100) if rank == 0 else slice(100, 301)
fit = th.fit(poisson, th.data.Tensors({"x": x[own], "y": y[own]}, block=37))
t = fit.objective.taylor(order=2)
found = [fit.estimates.tolist(), fit.log_likelihood, fit.observations, t.information.dense().tolist(), fit.certificate.ok]
print(json.dumps(found))
torch.distributed.destroy_process_group()
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_the_sum_over_batches_is_the_sum():
    y = torch.arange(11.0, dtype=torch.float64)
    for block in (1, 4, 11, 100):
        assert float(total(lambda b: b["y"].sum(), Tensors({"y": y}, block=block))) == 55.0


@pytest.fixture(scope="module")
def found():
    """What each of two processes prints, each with its own part of the rows."""
    port = str(free_port())
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), port],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    out = [p.communicate(timeout=120) for p in started]
    assert [p.returncode for p in started] == [0, 0], out
    return [json.loads(text.splitlines()[-1]) for text, _ in out]


def test_two_processes_find_what_one_finds(found):
    """The same rows in one process, by the library's own Poisson regression."""
    import thetahat as th

    assert found[0] == found[1]
    estimates, log_likelihood, observations, information, ok = found[0]
    r = np.random.default_rng(0)
    x = r.normal(size=(301, 2))
    y = r.poisson(np.exp(0.3 + 0.5 * x[:, 0])).astype(float)
    one = th.fit("y ~ u + v", {"y": y, "u": x[:, 0], "v": x[:, 1]}, "poisson")
    assert ok
    assert observations == 301.0
    np.testing.assert_allclose(estimates, one.estimates, rtol=1e-9, atol=1e-10)
    assert log_likelihood == pytest.approx(one.log_likelihood, rel=1e-12)
    np.testing.assert_allclose(information, one.objective.taylor(order=2).information.dense(), rtol=1e-9)
