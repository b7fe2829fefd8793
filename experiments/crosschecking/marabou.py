"""Marabou (Wu et al., "Marabou 2.0: a versatile formal analyzer of neural networks", 2024), asked about an ONNX file."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from newrelax.errors import UserError, with_type
from plugin.formats.extras import require
from plugin.formats.property import Case, Conjunction, Property

Verdict = Literal["unsat", "sat", "unknown", "timeout", "void"]
"""void: `unsat`, from a solver that calls the box itself empty."""
CONTROL = 20
"""Seconds for the question whether a box has points at all."""
STARTING = 30.0
"""Seconds for the process to start and to end by itself, beyond those for Marabou."""


@dataclass(frozen=True)
class Reply:
    """An answer. point: flat inputs, for sat. seconds: what it took."""

    verdict: Verdict
    point: Tensor | None
    seconds: float


@dataclass(frozen=True)
class Marabou:
    """A network as Marabou reads it; content: an ONNX file's.

    Each question has a process of its own, which is killed when time is out: Marabou looks at its clock too seldom, and prints.
    """

    content: bytes

    def answer(self, asked: Property, seconds: float) -> Reply:
        """Whether the property has a counterexample.

        A box without constraints on outputs has points. Marabou 2.0.0 calls some empty, those of networks with many weights
        below 1e-4 above all: its `unsat` is void there.

        Raises:
            UserError: Marabou is not installed, or cannot read the network.
        """
        require("maraboupy", "asking Marabou", extra="crosscheck")
        began = time.monotonic()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_serve, args=(theirs, readable(self.content), asked, seconds), daemon=True)
        process.start()
        theirs.close()
        try:
            found: Any = ours.recv() if ours.poll(seconds + STARTING) else ("timeout", None)
        except EOFError:  # it died: Marabou aborts where its numbers go wrong
            found = ("unknown", None)
        finally:
            process.kill()
            process.join()
            ours.close()
        if isinstance(found, UserError):
            raise found
        verdict, point = found
        tensor = None if point is None else torch.tensor(point, dtype=torch.float64)
        return Reply(verdict, tensor, time.monotonic() - began)


def _serve(reply: Connection, content: bytes, asked: Property, seconds: float) -> None:
    """The other process: answers once, in silence."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        reply.send(_Query(content).answer(asked, seconds))
    except UserError as problem:
        reply.send(problem)


class _Query:
    """A network in Marabou's terms, asked conjunction by conjunction."""

    def __init__(self, content: bytes) -> None:
        self._marabou = require("maraboupy.Marabou", "asking Marabou", extra="crosscheck")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            path.write_bytes(content)
            try:
                self._network: Any = self._marabou.read_onnx(str(path))
            except Exception as problem:  # assertions and all else, for what its reader does not know
                raise UserError(f"Marabou cannot read the network ({with_type(problem, 160)})") from problem
        self._inputs = [int(each) for each in self._network.inputVars[0].flatten()]

    def answer(self, asked: Property, seconds: float) -> tuple[Verdict, list[float] | None]:
        began = time.monotonic()
        left_open = False
        for case in asked.cases:
            for unsafe in case.unsafe:
                left = int(seconds - (time.monotonic() - began))
                if left < 1:  # Marabou counts whole seconds, and takes 0 for no limit
                    return "timeout", None
                code, values = self._solve(case, unsafe, left)
                if code == "sat":
                    return "sat", [values[i] for i in self._inputs]
                left_open |= code != "unsat"
        if left_open:
            return "unknown", None
        return "unsat" if all(map(self._finds_points, asked.cases)) else "void", None

    def _finds_points(self, case: Case) -> bool:
        none = Conjunction(torch.zeros(0, 0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
        return self._solve(case, none, CONTROL)[0] != "unsat"

    def _solve(self, case: Case, unsafe: Conjunction, seconds: int) -> tuple[str, dict[int, float]]:
        network = self._network
        network.clearProperty()
        for variable, lower, upper in zip(self._inputs, case.lower.tolist(), case.upper.tolist(), strict=True):
            network.setLowerBound(variable, lower)
            network.setUpperBound(variable, upper)
        outputs = [int(each) for each in network.outputVars[0].flatten()]
        for row, limit in zip(unsafe.matrix.tolist(), unsafe.limit.tolist(), strict=True):
            terms = [(variable, factor) for variable, factor in zip(outputs, row, strict=True) if factor]
            network.addInequality([v for v, _ in terms], [factor for _, factor in terms], limit, isProperty=True)
        options = self._marabou.createOptions(verbosity=0, timeoutInSeconds=seconds)
        code, values, _ = network.solve(verbose=False, options=options)
        return str(code), values


def readable(content: bytes) -> bytes:
    """The file with (X − mean) · factor as one batch normalisation: Marabou's reader takes Sub and Mul of equal shapes only."""
    onnx = require("onnx", "writing ONNX files")
    model = onnx.load_from_string(content)
    graph = model.graph
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    if [node.op_type for node in graph.node[:2]] != ["Sub", "Mul"]:
        return content
    first, second = graph.node[:2]
    if first.input[1] not in constants or second.input[1] not in constants:
        return content
    mean, factor = constants[first.input[1]].flatten(), constants[second.input[1]].flatten()
    parts = {"factor": factor, "bias": 0 * factor, "mean": mean, "variance": 0 * factor + 1}
    names = [f"normalisation.{name}" for name in parts]
    graph.initializer.extend(onnx.numpy_helper.from_array(value, n) for n, value in zip(names, parts.values(), strict=True))
    together = onnx.helper.make_node("BatchNormalization", [first.input[0], *names], [second.output[0]], epsilon=0.0)
    del graph.node[:2]
    graph.node.insert(0, together)
    return bytes(model.SerializeToString())
