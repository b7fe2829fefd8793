"""Networks as onnxruntime computes them: what a stranger sees who has only the file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from newrelax.errors import UserError, with_type
from plugin.formats.extras import require
from plugin.formats.files import read_bytes


class Runtime:
    """The function of an ONNX file."""

    def __init__(self, content: bytes) -> None:
        """content: the file's. Raises UserError where onnxruntime is not installed, or refuses it."""
        runtime = require("onnxruntime", "computing ONNX files")
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors: early files have weights among their inputs, which it warns of
        options.intra_op_num_threads = 1
        try:
            self._session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as problem:  # the library's own
            raise UserError(f"onnxruntime refuses the network ({with_type(problem, 160)})") from problem
        self._input = self._session.get_inputs()[0]

    @classmethod
    def of(cls, path: Path) -> Runtime:
        return cls(read_bytes("network", path))

    def outputs(self, x: Tensor) -> Tensor:
        """Flat outputs [batch, outputs] in float32 of inputs [batch, …], one at a time as the competition runs them."""
        sizes = [size if isinstance(size, int) and size > 0 else 1 for size in self._input.shape]
        rows = [
            torch.from_numpy(self._session.run(None, {self._input.name: each.numpy()})[0]).flatten()
            for each in x.detach().cpu().float().reshape(len(x), *sizes)
        ]
        return torch.stack(rows)
