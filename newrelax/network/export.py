"""A model's program as `torch.export` gives it, and where its weights are; the model is left as it was."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, default_decompositions, export
from torch.export.graph_signature import InputKind
from torch.nn.modules import transformer

from newrelax.errors import UserError
from newrelax.network.kernels import kept_whole
from newrelax.network.operators.base import Shape
from newrelax.network.operators.rule import Rule
from newrelax.network.place import line_of

SIZES = {"aten.sym_size.int"}
"""What stands in a graph beside operators on tensors."""


def exported(model: nn.Module, input_shape: Shape, rules: Mapping[str, Rule]) -> ExportedProgram:
    """The model's program, its composed operators written in others; the model is left as it was."""
    like = next((p for p in (*model.parameters(), *model.buffers()) if p.is_floating_point()), torch.empty(0))
    sample = torch.rand((2, *input_shape), generator=torch.Generator().manual_seed(0), dtype=like.dtype).to(like.device)
    with _as_in_evaluation(model), _quiet(), _plain_attention(), kept_whole(rules):
        try:
            program = _program(model, sample)
            if _is_written_out(program, rules):
                return program
            for node in program.graph.nodes:  # what is written in others may lie in memory in another order
                if node.target is torch.ops.aten.view.default:
                    node.target = torch.ops.aten.reshape.default
            decomposed: ExportedProgram = program.run_decompositions(_decompositions(rules))
            return decomposed
        except UserError:
            raise
        except Exception as error:
            raise UserError(_explained(model, error)) from None  # torch's own traceback is longer than a screen


def _decompositions(rules: Mapping[str, Rule]) -> dict[Any, Any]:
    """How what has no rule is written in other operators, as far as torch and composed rules know."""
    table: dict[Any, Any] = {
        overload: function for overload, function in default_decompositions().items() if str(overload) not in rules
    }
    for rule in rules.values():
        if rule.bounded == "composed":
            table |= {overload: rule.function for name in rule.names if (overload := _overload(name)) is not None}
    return table


def _is_written_out(program: ExportedProgram, rules: Mapping[str, Rule]) -> bool:
    """Whether every operator has a rule of its own, so that there is nothing to write in others: torch takes longer to look
    than to trace."""
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    if "aten.batch_norm.default" in targets:  # its statistics are known by the operator that it is written in
        return False
    return all(target in rules and rules[target].bounded != "composed" for target in targets - SIZES)


def _program(model: nn.Module, sample: Tensor) -> ExportedProgram:
    """The model's program for batches of any size.

    A size that Python itself has asked for, len(x), is a number only if torch reads the code (strict), which takes longer.
    """
    dynamic = ({0: Dim.DYNAMIC},)
    try:
        return export(model, (sample,), dynamic_shapes=dynamic, strict=False)
    except Exception as error:
        if not _is_for_one_size(error):
            raise
        return export(model, (sample,), dynamic_shapes=dynamic, strict=True)


def _is_for_one_size(error: Exception) -> bool:
    return "specialized" in str(error) or "ConstraintViolation" in type(error).__name__


def _overload(name: str) -> Any:
    namespace, packet, overload = name.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), packet, None), overload, None)


def _explained(model: nn.Module, error: Exception) -> str:
    """One line for what torch.export could not do."""
    name, text = type(model).__name__, " ".join(str(error).split())
    where = line_of(error)
    if "data-dependent" in text or "DataDependent" in type(error).__name__:
        return (
            f"{name} depends on values in a way that no graph has, such as a branch on them ({where}): "
            "write it with torch functions (relu, clamp, maximum), or take it out"
        )
    if _is_for_one_size(error):
        return f"{name} works for one batch size only ({where}): bounds need a function of each example, whatever the batch"
    return f"torch.export cannot trace {name} ({where}): {type(error).__name__}: {text[:200]}"


def leaves_of(program: ExportedProgram, model: nn.Module) -> dict[fx.Node, Any]:
    """Placeholders → (owner, name) of the model's own tensor, or a tensor that export lifted out of the code."""
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    found: dict[fx.Node, Any] = {}
    for spec in program.graph_signature.input_specs:
        node = placeholders[spec.arg.name]
        if spec.kind in (InputKind.USER_INPUT, InputKind.TOKEN):
            continue
        target = spec.target or ""
        owner_name, _, name = target.rpartition(".")
        try:
            owner = model.get_submodule(owner_name)
            live = name in owner._parameters or name in owner._buffers
        except AttributeError:
            live = False
        if live:
            found[node] = (owner, name)
        else:
            constant = program.constants[target] if target in program.constants else program.state_dict[target]
            found[node] = constant.detach() if isinstance(constant, Tensor) else constant
    return found


@contextlib.contextmanager
def _as_in_evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module's own mode, and buffers that tracing made anew, are back."""
    attributes = [(module, dict(module.__dict__)) for module in model.modules()]  # a module's mode is one of them
    model.eval()
    try:
        yield
    finally:
        for module, values in attributes:
            for name in set(module.__dict__) - set(values):
                del module.__dict__[name]
            module.__dict__.update(values)


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention layers call torch's plain operators, not one that does all of it (as they do where nothing is trained), and
    take a mask as it is: their stacks look whether its values are a causal one's, which no graph can."""
    before, detect = torch.backends.mha.get_fastpath_enabled(), getattr(transformer, "_detect_is_causal_mask", None)
    torch.backends.mha.set_fastpath_enabled(False)
    if detect is not None:
        transformer._detect_is_causal_mask = lambda mask, is_causal=None, size=None: bool(is_causal)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
        if detect is not None:
            transformer._detect_is_causal_mask = detect


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Tracing says nothing but its error."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    nowhere = io.StringIO()  # torch prints the graph that it could not finish
    with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(disabled)
