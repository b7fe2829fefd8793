"""Checkpoints: everything that a run needs to go on as if it had never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from newrelax.errors import UserError, one_line
from plugin.process.tensors import Damaged, Unreadable, load_checked, save_checked
from plugin.training.loop import TrainState

FILE_NAME = "checkpoint.pt"


def save(path: Path, state: TrainState) -> None:
    """Writes the state of a run atomically, in the middle of an epoch too.

    Raises:
        NonFiniteLoss: the run went bad; the checkpoint before stays.
        UserError: the device is full; the checkpoint before stays.
    """
    state.check_finite()
    state.check_weights()
    devices = [state.device] if state.device.type == "cuda" else []
    content = {
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "meter": state.meter.state_dict(),
        "average": None if state.average is None else state.average.state_dict(),
        "order_at_epoch": state.order_at_epoch,
        "cpu_stream": torch.get_rng_state(),
        "device_streams": [torch.cuda.get_rng_state(device) for device in devices],
        "device": state.device.type,
        "step": state.step,
        "epoch": state.epoch,
        "epoch_step": state.epoch_step,
        "seconds": state.seconds,
    }
    save_checked(path, content)


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. No code in it can run.

    Raises:
        UserError: the file is absent, not a checkpoint of this program, or damaged.
    """
    try:
        return dict(load_checked(path, ours=True))
    except OSError as problem:
        raise UserError(f"cannot read checkpoint {path}: {problem.strerror}") from problem
    except Damaged as problem:
        raise UserError(
            f"{path} is not a checkpoint of this program, or it is damaged or truncated: its checksum does not "
            "match; nothing of it was loaded"
        ) from problem
    except (Unreadable, TypeError, ValueError) as problem:
        raise UserError(f"checkpoint {path} holds what this program never writes; it was not loaded") from problem


def restore(path: Path, state: TrainState) -> None:
    """Puts a run back to where `path` was saved; the random streams last.

    Raises:
        UserError: as `read` does, and when the checkpoint belongs to another run.
    """
    content = read(path)
    if content.get("device") != state.device.type:
        raise UserError(
            f"checkpoint {path} was saved on {content.get('device')}, the run is to go on on {state.device.type}: "
            f"continue with --device {content.get('device')}"
        )
    try:
        state.model.load_state_dict(content["model"])
        state.optimizer.load_state_dict(content["optimizer"])
        state.meter.load_state_dict(content["meter"])
        if state.average is not None:
            state.average.load_state_dict(content["average"])
        state.order_at_epoch = content["order_at_epoch"]
        for name in ("step", "epoch", "epoch_step"):
            setattr(state, name, int(content[name]))
        state.seconds = float(content["seconds"])
        torch.set_rng_state(content["cpu_stream"])
        for stream in content["device_streams"]:
            torch.cuda.set_rng_state(stream, state.device)
    except (KeyError, ValueError, TypeError, RuntimeError) as problem:
        raise UserError(
            f"checkpoint {path} does not fit this run's network and optimiser: {one_line(problem, 160)}"
        ) from problem
