"""Which of auto_LiRPA's own operators bound anything for a user: those that pass the check, on the installed version.

Each is put over many boxes, from points to wide ones, in float32 and float64. Its lines and its bounds, by intervals,
backwards and forwards, have to hold at sampled points, at the boxes' ends and at the corners where each output's gradient
points; all of them and their gradients have to be finite. Operators on images have convolutions behind them, so that patches
pass through, and the bounds of what enters those layers are looked at, too. What fails is bounded by operators of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from newrelax.lirpa import bridge
from newrelax.lirpa.candidates import FOREIGN, USED
from newrelax.lirpa.examination import Failed, examine
from newrelax.network.operators.rule import Rule


@dataclass(frozen=True)
class Verdict:
    """What the check found out about one operator of auto_LiRPA's.

    kind: the operator's ATen name, perhaps with a kind of it in brackets. used: whether the engine takes it where it passes
    (the others are bounded by operators of ours in any case). passed: by intervals and backwards. reason: one line; it also
    says where forward mode or patches fail.
    """

    kind: str
    used: bool
    passed: bool
    reason: str


Mode = Literal["bounds", "forward", "patches"]
"""By intervals and backwards; in forward mode; backwards, with the coefficients of convolutions as patches."""


def passed(kind: str, mode: Mode = "bounds") -> bool:
    """Whether auto_LiRPA's operator of that kind may bound in that mode; raises `KeyError` for unknown kinds."""
    return _why(kind, mode) is None


def verdict(kind: str) -> Verdict:
    """The check of one kind of operator; raises `KeyError` for others than `verdicts` lists."""
    used, failed = kind in USED, _why(kind, "bounds")
    if failed is not None:
        return Verdict(kind, used, False, f"auto_LiRPA {bridge.VERSION}: {failed}")
    more: tuple[Mode, ...] = ("forward", "patches") if used else ("forward",)
    parts = [f"sound and finite in auto_LiRPA {bridge.VERSION}"]
    parts += [f"not in {mode} mode: {why}" for mode in more if (why := _why(kind, mode)) is not None]
    return Verdict(kind, used, True, "; ".join(parts))


def verdicts() -> dict[str, Verdict]:
    """The check of every operator that it knows, by kind. Takes some seconds the first time."""
    return {kind: verdict(kind) for kind in (*USED, *FOREIGN)}


def verdicts_of(rule: Rule) -> tuple[Verdict, ...]:
    """What the check says about auto_LiRPA's own operators for a rule's; none where there is nothing to say.

    Whatever it says, both engines bound every rule's steps: auto_LiRPA by operators of ours where its own ones fail.
    """
    names = {name.split(".")[1].strip("_") for name in rule.names}
    return tuple(verdict(kind) for kind in (*USED, *FOREIGN) if kind.split(" (")[0] in names)


@cache
def _why(kind: str, mode: Mode) -> str | None:
    """Why the operator fails in that mode, None where it passes."""
    candidate = USED[kind] if kind in USED else FOREIGN[kind]
    ways = {"bounds": ("interval", "backward"), "forward": ("forward",), "patches": ("backward",)}[mode]
    for dtype in (torch.float32, torch.float64):
        try:
            with torch.inference_mode(False), torch.enable_grad():  # wherever it is first asked
                for subject in candidate.subjects(dtype, mode == "patches"):
                    examine(subject, ways)
        except Failed as failure:
            return f"{failure} ({str(dtype).removeprefix('torch.')})"
        except Exception as error:  # tracing is another library's code, which may raise anything
            text = " ".join((str(error) or type(error).__name__).split())
            return f"it cannot be traced: {text[:120]} ({str(dtype).removeprefix('torch.')})"
    return None
