"""Under Ray Train the same call is the same run: two workers of a TorchTrainer end where two processes of torchrun
end, bit for bit, and go on by themselves when one of them is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import thetahat as th
from thetahat.io import runs

from .elastic import AT, WAYS, dies_once, trained

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'thetahat[ray]' 'ray[train]'")
ray_train = pytest.importorskip(
    "ray.train.torch", reason="Ray Train is not installed: pip install 'ray[train]'"
)
pytestmark = pytest.mark.filterwarnings("default")  # Ray's own

SCRIPT = Path(__file__).with_name("elastic.py")


def each_worker(config: dict[str, str]) -> None:
    """What every worker of Ray Train does: processes of torch.distributed are there when it begins."""
    torch.set_num_threads(1)
    folder = Path(config["folder"])
    for way, victim in WAYS.items():
        trained(way, folder / f"{way} whole")
        killed = folder / f"{way} killed"
        trained(way, killed, dies_once(killed, victim))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Of runs under torchrun, and under Ray Train."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    out, there = tmp_path_factory.mktemp("torchrun"), tmp_path_factory.mktemp("ray")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    one = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [*torchrun, str(SCRIPT), str(out), "alone"], env=one, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    path = os.pathsep.join([str(Path(__file__).parents[2]), *(each for each in sys.path if each)])
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=2**28,
        runtime_env={"env_vars": {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}},
    )
    trainer = ray_train.TorchTrainer(
        each_worker,
        train_loop_config={"folder": str(there)},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(
            name="runs", storage_path=str(there / "ray"), failure_config=FailureConfig(max_failures=3)
        ),
    )
    result = trainer.fit()
    ray.shutdown()
    assert result.error is None
    return out, there


@pytest.mark.parametrize("name", ["whole", "killed"])
@pytest.mark.parametrize("way", WAYS)
def test_two_workers_of_ray_end_where_two_processes_of_torchrun_end(folders, way, name):
    """θ, and every number of the log but times; of DDP every byte of the last checkpoint, moments and all."""
    here, there = folders[0] / f"{way} whole", folders[1] / f"{way} {name}"
    assert torch.equal(th.load(there).theta, th.load(here).theta)
    said = [
        [
            {k: v for k, v in line.items() if "second" not in k and k != "data_wait"}
            for line in runs.metrics(run)
        ]
        for run in (here, there)
    ]
    assert said[0] == said[1]
    if way == "ddp":
        assert (there / "checkpoint").read_bytes() == (here / "checkpoint").read_bytes()


@pytest.mark.parametrize("way", WAYS)
def test_a_worker_was_killed_and_all_went_on_from_a_checkpoint(folders, way):
    begun = [(folders[1] / f"{way} killed begins on {k}").read_text().split()[:2] for k in (0, 1)]
    assert begun[0] == begun[1]
    first, second = map(int, begun[0])
    assert first == 0
    assert 3 <= second <= AT
