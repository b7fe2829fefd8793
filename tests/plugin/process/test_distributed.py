"""Several processes train as one: parts that make up the whole, sums that are the single process's, lost processes."""

import multiprocessing
import os
import socket
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest
import torch
import torch.distributed as dist
from torch import nn

from newrelax.bounds import BoundedNetwork
from newrelax.errors import UserError
from newrelax.registry import Registry
from plugin.process.distributed import ProcessWorld, agree_on_round, connect, process_device
from plugin.process.world import World
from plugin.training.losses import Batch, Learner
from plugin.training.losses.certified import Certified
from plugin.training.schedule import Values

SIZE = 2
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["plugin.process.distributed", "plugin.training.losses.certified"])


def in_processes(task, tmp_path, size=SIZE):
    """Run `task(world)` in `size` connected processes; what each returned, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [CONTEXT.Process(target=body, args=(task, rank, size, port, tmp_path)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * size, [
        path.read_text() for path in sorted(tmp_path.glob("error*"))
    ]
    return [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(size)]


def body(task, rank, size, port, folder):
    torch.set_num_threads(1)
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in variables.items()})
    try:
        with connect(os.environ, "cpu") as world:
            torch.save(task(world), folder / f"{rank}.pt")
    except BaseException:
        (folder / f"error{rank}").write_text(traceback.format_exc())
        sys.exit(1)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 50])
def test_parts_make_up_the_whole(size, count):
    parts = [list(range(count)[ProcessWorld(rank, size).part(count)]) for rank in range(size)]
    assert list(chain.from_iterable(parts)) == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert len(parts[0]) == max(map(len, parts))


def small_network(batch_norm=False):
    torch.manual_seed(3)
    middle = [nn.BatchNorm1d(16)] if batch_norm else []
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 16), *middle, nn.ReLU(), nn.Linear(16, 10))


def gradients(method, part=slice(None), total=11):
    """Model, loss and gradients of the certified loss on a part of a fixed batch of 11."""
    model = small_network()
    net = BoundedNetwork(model, (1, 4, 4), Registry.load().get_method(method))
    draw = torch.Generator().manual_seed(5)
    x, y = torch.rand(total, 1, 4, 4, generator=draw), torch.randint(10, (total,), generator=draw)
    terms = Certified()(Learner(net), Batch(x[part], y[part], total), Values(eps=0.1, kappa=0.5, beta=0.5, lr=0.1))
    terms.loss.backward()
    return model, terms.loss.detach()


def certified_step(world):
    found = {}
    for method in ("IBP", "CROWN-IBP", "DeepZ"):
        model, loss = gradients(method, world.part(11))
        world.sum_gradients(model)
        world.sum_([loss])
        found[method] = [loss, *(parameter.grad for parameter in model.parameters())]
    return found


def test_the_certified_loss_and_its_gradients_are_the_single_process_s(tmp_path):
    for found in in_processes(certified_step, tmp_path):
        for method, (loss, *grads) in found.items():
            model, expected = gradients(method)
            torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
            for grad, parameter in zip(grads, model.parameters(), strict=True):
                torch.testing.assert_close(grad, parameter.grad, rtol=1e-4, atol=1e-7)


def conversation(world):
    model = small_network(batch_norm=True)
    model[1].weight.grad = torch.full_like(model[1].weight, world.rank + 1.0)
    model[4].bias.grad = torch.ones(10) if world.rank else None
    model[2].running_mean += world.rank
    world.sum_gradients(model)
    torch.manual_seed(0)
    world.seed_streams(7, step=3)
    return {
        "summed": model[1].weight.grad[0, 0],
        "one had it": model[4].bias.grad[0],
        "none had it": torch.tensor(model[4].weight.grad is None),
        "statistics": model[2].running_mean[0],
        "batches seen": model[2].num_batches_tracked,
        "shared": torch.tensor(list(world.share("ε = 0.3" if world.is_writer else None).encode())),
        "nothing shared": torch.tensor(len(world.share("" if world.is_writer else None))),
        "stop": torch.tensor(world.agreed_stop(15 if world.rank else None)),
        "no stop": torch.tensor(world.agreed_stop(None) is None),
        "draw": torch.rand(()),
    }


def test_what_processes_tell_each_other(tmp_path):
    first, second = in_processes(conversation, tmp_path)
    for name in first.keys() - {"draw"}:
        torch.testing.assert_close(first[name], second[name])
    assert first["summed"] == 3
    assert first["one had it"] == 1
    assert first["none had it"]
    assert first["statistics"] == 0.5
    assert first["batches seen"] == 0
    assert bytes(first["shared"].tolist()).decode() == "ε = 0.3"
    assert first["nothing shared"] == 0
    assert first["stop"] == 15
    assert first["no stop"]
    assert first["draw"] != second["draw"], "each process has random streams of its own"


def lose_the_other(world):
    if world.rank == 1:
        torch.save({}, os.environ["GONE"])
        os._exit(0)
    try:
        world.sum_([torch.ones(3)])
    except UserError as error:
        return {"message": torch.tensor(list(str(error).encode()))}
    return {}


def test_a_lost_process_is_one_line(tmp_path, monkeypatch):
    found = in_processes(LoseTheOther(str(tmp_path / "1.pt")), tmp_path)
    message = bytes(found[0]["message"].tolist()).decode()
    assert "process 0 lost the others" in message
    assert "--resume" in message


class LoseTheOther:
    """`lose_the_other` with a place to leave the lost process's result at."""

    def __init__(self, place):
        self.place = place

    def __call__(self, world):
        os.environ["GONE"] = self.place
        return lose_the_other(world)


def test_a_single_process_needs_no_connection():
    with connect({}, "cpu") as world:
        assert type(world) is World
        assert world.size == 1
        assert world.is_writer


def test_half_an_environment_is_refused():
    missing = "RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not: start .* with torchrun"
    with pytest.raises(UserError, match=missing), connect({"WORLD_SIZE": "2"}, "cpu"):
        pass


def test_a_store_that_outlives_its_processes_gives_each_start_a_name_of_its_own():
    store = dist.HashStore()
    names = []
    for _ in range(3):
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda rank: agree_on_round(store, rank, 3), [2, 1, 0]))
        assert len(set(found)) == 1
        names += found[:1]
    assert len(set(names)) == 3


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert process_device({"LOCAL_RANK": "1"}, "cuda") == torch.device("cuda", 1)
    assert process_device({"LOCAL_RANK": "1"}, "cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="--device cuda:1: several processes take a GPU each"):
        process_device({"LOCAL_RANK": "1"}, "cuda:1")
    with pytest.raises(UserError, match="3 processes on a machine with 2 GPUs"):
        process_device({"LOCAL_RANK": "2"}, "cuda")
