"""The Ray engine, on a real local Ray: the same results as local processes, failures tried again there."""

import fcntl
import os
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from experiments.run import main
from experiments.runner.grid import expand
from experiments.runner.jobs import make_job
from experiments.runner.ray_engine import RayEngine
from experiments.runner.table_file import load_table
from tests.support.calls import invoke
from tests.support.fake_runs import IDS, TABLE, Bench

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # read at import, see ray_engine.py
try:
    import ray
except ImportError:
    ray = None

needs_ray = pytest.mark.skipif(ray is None, reason="ray is not installed (the extra newrelax[ray])")


@pytest.fixture(scope="module")
def cluster():
    """A local cluster; one at a time on a machine, since a second one may wait for the first one's workers for ever."""
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # a busy machine takes its time
    with open(Path(tempfile.gettempdir()) / "newrelax-ray-tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@needs_ray
@pytest.mark.parametrize("gather", [False, True], ids=["shared folder", "gathered"])
def test_same_results_as_local_processes(cluster, bench, tmp_path, gather):
    (tmp_path / "local").mkdir()
    local = Bench(tmp_path / "local")
    local.run()
    assert bench.run(engine="ray", gather=gather) == 0
    assert bench.results() == local.results()
    assert set(bench.results()) == IDS
    assert bench.run(engine="ray", gather=gather) == 0
    if not gather:  # gathered runs keep their journal on their node
        assert bench.count("start") == dict.fromkeys(IDS, 1)


@needs_ray
@pytest.mark.parametrize("gather", [False, True], ids=["shared folder", "gathered"])
def test_verdicts_come_back(cluster, bench, gather):
    bench.table.write_text(f"{TABLE}[decide]\n")
    assert bench.run(engine="ray", gather=gather, only="seed=0") == 0
    assert set(bench.verdicts()) == {name for name in IDS if name.endswith("seed0")}


@needs_ray
def test_failures_are_tried_again_there(cluster, bench, capsys):
    bench.misbehave(IBP=["kill", "CUDA out of memory"], CROWN=["the loss is not finite"] * 9, hBox=["kill"] * 9)
    assert bench.run(engine="ray", only="seed=0", retries=2) == 1
    output = capsys.readouterr().out
    assert bench.count("end") == {"FC-IBP-seed0": 1}
    assert bench.count("start") == {"FC-IBP-seed0": 3, "FC-CROWN-seed0": 1, "FC-hBox-seed0": 3}
    assert "FC-CROWN-seed0: the loss is not finite" in output
    assert "FC-hBox-seed0: gave up after 3 attempts: ended by SIGKILL" in output


@needs_ray
def test_stopping_ends_the_runs_gently(cluster, bench):
    jobs = [make_job(run, bench.out, bench.commands(pause=2.0)) for run in expand(load_table(bench.table))]
    stopped = threading.Event()

    class Watcher:
        outcomes: dict = {}

        def started(self, job): ...

        def waiting(self, job, message): ...

        def ended(self, job, outcome):
            self.outcomes[job.id] = outcome.state.value

        def tick(self):
            if len(bench.journal()) >= 2:
                stopped.set()

    RayEngine().run(jobs, Watcher(), stopped.is_set)
    assert Watcher.outcomes == dict.fromkeys(IDS, "stopped")
    assert bench.count("start").total() == 2
    assert not bench.count("end")
    assert not bench.live_trainers()


@needs_ray
def test_no_node_is_large_enough(cluster, bench, capsys):
    result = invoke(main, [str(bench.table), "--engine", "ray", "--gpus", "3", "--out", str(bench.out)])
    assert result.exit_code == 2
    assert "error: no node of the cluster has 1 CPUs and 3 GPUs for one run" in result.output


def test_without_ray_the_extra_is_named(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # whether it is installed or not
    result = invoke(main, [str(bench.table), "--engine", "ray", "--out", str(bench.out)])
    assert result.exit_code == 2
    assert result.output.endswith("error: --engine ray needs Ray: install the extra, `pip install 'newrelax[ray]'`\n")
