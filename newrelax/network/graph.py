"""A model's graph, exported by torch, and the network that it is with the weights of a given moment.

`torch.export` runs the model on symbols once, with a batch of any size. What depends on parameters and buffers only is
computed anew for each network, so it has gradients; every other node becomes steps by the rule of its operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from newrelax.errors import UserError, with_type
from newrelax.network.build import Builder, Site, Size, Traced, resolve
from newrelax.network.export import exported, leaves_of
from newrelax.network.inner_lines import inner_line
from newrelax.network.layout import Layout
from newrelax.network.network import Network, Structure
from newrelax.network.operators.base import Shape
from newrelax.network.operators.move import Constant, Reshape
from newrelax.network.operators.rule import Rule
from newrelax.network.place import place_of
from newrelax.network.repeated import layout_of
from newrelax.network.rules.movers import filled, reshape
from newrelax.network.unbounded import reason

BATCH_NORM = "aten._native_batch_norm_legit_no_training.default"

Statistics = Mapping[int, tuple[Tensor, Tensor]]
"""Mean and variance of a clean batch for the graph's batch norms, by their number in the order of the forward pass."""


@dataclass(frozen=True)
class _Node:
    """A node of the exported graph, ready to be evaluated again and again."""

    node: fx.Node
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    rule: Rule | None  # None: depends on weights only
    site: Site
    batch_norm: int | None
    sized: bool = False  # a constant made with the number of examples


class Graph:
    """The graph of a model.

    rules: by operator name. Raises `UserError` in one line for what has no graph or no rule.
    """

    def __init__(self, model: nn.Module, input_shape: Sequence[int], rules: Sequence[Rule]) -> None:
        self.model, self.input_shape = model, tuple(input_shape)
        self._rules = {name: rule for rule in rules for name in rule.names}
        program = exported(model, self.input_shape, self._rules)
        self._leaves = leaves_of(program, model)
        self._nodes: list[_Node] = []
        self._batch_norms: list[tuple[Any, Any]] = []
        self._structure: Structure | None = None
        self._sites: dict[fx.Node, Site] = {}  # layouts stay the same, whatever the weights
        self._repeated: dict[fx.Node, Layout] = {}  # constants that the network has once for each example
        self._prepare(program)
        with torch.no_grad():
            self.output_shape = self.network().steps[-1].shape

    @property
    def has_batch_norm(self) -> bool:
        return bool(self._batch_norms)

    @property
    def constants(self) -> list[tuple[str, str]]:
        """The operators that compute what depends on weights alone, and where in the user's code they stand."""
        return [(str(part.node.target), place_of(part.node)) for part in self._nodes if part.rule is None]

    def batch_norm_buffers(self) -> list[Tensor]:
        """The running means of the graph's batch norms, in the order of the forward pass: they tell which is which."""
        return [self._leaf(leaf) for leaf, _ in self._batch_norms]

    def network(self, statistics: Statistics | None = None) -> Network:
        """The steps with the weights of now. statistics: in place of running ones."""
        values: dict[fx.Node, Any] = {node: self._leaf(leaf) for node, leaf in self._leaves.items() if leaf is not None}
        like = next((v for v in values.values() if isinstance(v, Tensor) and v.is_floating_point()), None)
        build = Builder(torch.empty(0) if like is None else like)
        values[self._input] = Traced(-1, self.input_shape)
        thrice: dict[fx.Node, Any] = {}  # constants that grow with the number of examples, for three
        steps: dict[fx.Node, Traced] = {}

        def given(node: fx.Node) -> Any:
            if node not in self._repeated:
                return _typed(values[node], build)
            if node not in steps:
                steps[node] = self._repeating(build, node, values[node])
            return steps[node]

        for prepared in self._nodes:
            if prepared.rule is None:
                values[prepared.node] = self._constant(prepared, values)
                if self._structure is None and (prepared.sized or any(n in thrice for n in prepared.node.all_input_nodes)):
                    thrice[prepared.node] = self._constant(prepared, {**values, **thrice}, examples=3)
                    self._compare(prepared, values[prepared.node], thrice[prepared.node])
                continue
            arguments = fx.node.map_arg(prepared.arguments, given)
            if prepared.batch_norm is not None and statistics is not None and prepared.batch_norm in statistics:
                arguments = (*arguments[:3], *statistics[prepared.batch_norm], *arguments[5:])
            if prepared.node not in self._sites:
                self._sites[prepared.node] = self._sited(prepared, arguments)
            build.site = self._sites[prepared.node]
            values[prepared.node] = self._built(build, prepared.rule, prepared.node, arguments)
        output = values[self._output]
        if not isinstance(output, Traced):
            raise UserError(f"{type(self.model).__name__} gives the same outputs for all inputs: there is nothing to bound")
        if not (output.layout.is_plain or output.layout.alone):
            raise UserError(
                f"{type(self.model).__name__} gives outputs whose first axis is not the examples': expected [batch, *outputs]"
            )
        if not build.steps or output.index != len(build.steps) - 1:  # the last step is what bounds are of
            build.site = Site("output", "", ((output.shape, output.layout),))
            build.step(Reshape(output.shape, output.shape), output)
        if self._structure is None:
            self._structure = Structure(build.steps, self.input_shape)
        return Network(tuple(build.steps), self.input_shape, self._structure, self.model.training)

    def _sited(self, prepared: _Node, arguments: Any) -> Site:
        """Where a node stands, its outputs' layouts as they follow from its inputs'."""
        site, inputs = prepared.site, [part for part in pytree.tree_leaves(arguments) if isinstance(part, Traced)]
        if all(layout.is_plain for _, layout in site.outputs) and all(part.layout.is_plain for part in inputs):
            return site
        if site.operator not in reshape.names:
            return replace(
                site, outputs=tuple((shape, layout.like([x.layout for x in inputs])) for shape, layout in site.outputs)
            )
        (shape, layout), x = site.outputs[0], inputs[0]
        found = x.layout.after_view(x.shape, layout.axis, layout.sizes(shape))
        if found is None:
            raise self._refusal(site.operator, prepared.node, "takes examples apart: they see each other")
        return replace(site, outputs=((shape, found),))

    def _constant(self, prepared: _Node, values: Mapping[fx.Node, Any], examples: int = 1) -> Any:
        """The value of what depends on weights only, as for so many examples."""
        target: Any = prepared.node.target
        arguments, keywords = (fx.node.map_arg(part, values.__getitem__) for part in (prepared.arguments, prepared.keywords))
        return target(*resolve(arguments, examples), **resolve(keywords, examples))

    def _compare(self, prepared: _Node, one: Any, three: Any) -> None:
        """Refuses a constant that is not the same for each example, and notes where the network has folded the examples."""
        layout = layout_of(one, three) if isinstance(one, Tensor) else Layout()
        if layout is None:
            self._refuse(prepared.site.operator, prepared.node, "computes with the number of examples")
        if layout.multiple > 1:
            self._repeated[prepared.node] = layout

    def _repeating(self, build: Builder, node: fx.Node, value: Tensor) -> Traced:
        """A constant that the network has once for each example, folded into another axis, as a step."""
        if not value.is_floating_point():
            self._refuse(str(node.target), node, "repeats what is no floating-point number for each example")
        layout = self._repeated[node]
        (tensor,) = layout.canonical(build.finite(value))
        build.site = Site(str(node.target), place_of(node), ((tuple(tensor.shape), layout),))
        return build.step(Constant(tensor, self.input_shape), Traced(-1, self.input_shape))

    def _built(self, build: Builder, rule: Rule, node: fx.Node, arguments: Any) -> Any:
        """The steps of a rule; what it did not expect is refused in a line, too."""
        try:
            return rule.function(build, *arguments)
        except UserError as error:
            place = inner_line(self.model, self.input_shape, _as_called(node, build.site.operator), build.site.place)
            raise UserError(str(error).replace(build.site.place, place)) from None
        except Exception as error:
            raise UserError(
                f"{build.site.operator} has no bounds with these arguments ({build.site.place}): {with_type(error, 160)}"
            ) from error

    def _leaf(self, leaf: Any) -> Any:
        if isinstance(leaf, tuple):
            owner, name = leaf
            return getattr(owner, name)
        return leaf

    def _prepare(self, program: ExportedProgram) -> None:
        signature = program.graph_signature
        changed = [spec for spec in signature.output_specs if spec.kind not in (OutputKind.USER_OUTPUT, OutputKind.TOKEN)]
        if changed:
            raise UserError(
                f"{type(self.model).__name__} changes {changed[0].target or 'its input'} in evaluation mode: "
                "bounds need a function"
            )
        graph = program.graph
        graph.eliminate_dead_code()
        (output,) = [node for node in graph.nodes if node.op == "output"]
        pairs = zip(output.args[0], signature.output_specs, strict=True)
        found = [value for value, spec in pairs if spec.kind is OutputKind.USER_OUTPUT]
        results = [value for value in found if isinstance(value, fx.Node)]
        if len(found) != 1 or len(results) != 1:
            raise UserError(f"{type(self.model).__name__} gives {len(found)} outputs: expected one tensor")
        self._output = results[0]
        user = [spec.arg.name for spec in signature.input_specs if spec.kind is InputKind.USER_INPUT]
        traced: set[fx.Node] = set()
        sizes: dict[fx.Node, Size] = {}
        checks: set[fx.Node] = set()  # numbers that only torch's own assertions ask for
        for node in graph.nodes:
            if node.op == "placeholder":
                if node.name in user:
                    self._input = node
                    traced.add(node)
            elif node.op == "call_function":
                value = node.meta.get("val")
                known = any(n in traced or n in sizes or n in checks for n in node.all_input_nodes)
                if isinstance(value, (torch.SymInt, int)) and not isinstance(value, bool) and known:
                    if value_of := self._size(value, node):
                        sizes[node] = self._leaves[node] = value_of
                    else:
                        checks.add(node)
                    continue
                if (isinstance(value, (torch.SymFloat, torch.SymBool, float, bool)) and known) or str(
                    node.target
                ) in _ASSERTIONS:
                    checks.add(node)
                    continue
                if any(n in checks for n in node.all_input_nodes):
                    self._refuse(
                        str(node.target), node, "computes with the number of examples: bounds need a function of each alone"
                    )
                depends = any(n in traced for n in node.all_input_nodes)
                if depends and str(node.target) in filled.names:  # a constant in the shape of a step
                    self._nodes.append(self._filled(node))
                    continue
                if depends:
                    traced.add(node)
                self._nodes.append(self._prepared(node, depends, any(n in sizes for n in node.all_input_nodes)))

    def _size(self, value: torch.SymInt | int, node: fx.Node) -> Size | None:
        """A number that torch computed from sizes; None if it is no multiple of the number of examples and a constant."""
        if isinstance(value, int):
            return Size(0, value)
        expression: Any = value.node.expr
        if not expression.free_symbols:
            return Size(0, int(expression))
        if len(expression.free_symbols) > 1:
            return None
        (symbol,) = expression.free_symbols
        multiple, rest = expression.coeff(symbol), expression.subs(symbol, 0)
        if expression != multiple * symbol + rest or not multiple.is_integer or not rest.is_integer:
            return None
        return Size(int(multiple), int(rest))

    def _filled(self, node: fx.Node) -> _Node:
        """A constant in the shape of a step, for one example."""
        name, target = str(node.target), node.target
        arguments = _in_order(target, tuple(node.args), dict(node.kwargs))
        value = node.meta["val"]
        sizes = tuple(found.at(1) if (found := self._size(n, node)) else 0 for n in value.shape)

        def constant(build: Builder, *given: Any) -> Tensor:
            found: Tensor = filled.function(build, *given)
            return found if value.dtype.is_floating_point else found.to(value.dtype)

        rule = Rule(filled.names, filled.bounded, constant)
        return _Node(node, arguments, {}, rule, Site(name, place_of(node), ((sizes, Layout()),)), None)

    def _prepared(self, node: fx.Node, depends: bool, sized: bool) -> _Node:
        target: Any = node.target
        name = str(target)
        arguments, keywords = tuple(node.args), dict(node.kwargs)
        if name == "aten.sym_size.int" or not depends:
            if _is_random(target):
                self._refuse(name, node, "draws random numbers in evaluation mode: bounds need a function")
            return _Node(node, arguments, keywords, None, Site(name, "", ()), None, sized)
        if name == "<built-in function getitem>":
            return _Node(node, arguments, keywords, _GETITEM, Site(name, place_of(node), ()), None)
        rule = self._rules.get(name)
        if rule is None or rule.bounded == "composed":
            self._refuse(name, node, self._why(name, target))
        arguments = _in_order(target, arguments, keywords)
        number = None
        if name == BATCH_NORM:
            number = len(self._batch_norms)
            mean: Any = arguments[3]
            self._batch_norms.append((self._leaves.get(mean), node))
        return _Node(node, arguments, {}, rule, Site(name, place_of(node), self._outputs(node, name)), number)

    def _why(self, name: str, target: Any) -> str:
        if found := reason(name):
            return found
        if _is_random(target) or "dropout" in name:
            return "draws random numbers in evaluation mode: bounds need a function"
        packet = name.split(".")[1].strip("_") if name.count(".") == 2 else name
        near = [known for known in self._rules if known.split(".")[1].strip("_") == packet]
        known = f"known is {', '.join(near)}; " if near else ""
        return f"has no rule: {known}`python -m newrelax.check --operators` lists what has, and a plugin can bring one"

    def _outputs(self, node: fx.Node, name: str) -> tuple[tuple[Shape, Layout], ...]:
        value = node.meta.get("val")
        values = value if isinstance(value, (tuple, list)) else (value,)
        if isinstance(value, Tensor):
            self._check_type(value.dtype, node, name)
        return tuple(self._shape_and_layout(part, node, name) for part in values if isinstance(part, Tensor))

    def _check_type(self, dtype: torch.dtype, node: fx.Node, name: str) -> None:
        """Refuses whole numbers, and floats with fewer digits than those of float32."""
        if dtype not in (torch.float32, torch.float64):
            self._refuse(
                name, node, f"computes in {str(dtype).removeprefix('torch.')}: bounds need float32 or float64 throughout"
            )

    def _shape_and_layout(self, value: Tensor, node: fx.Node, name: str) -> tuple[Shape, Layout]:
        growing = [i for i, size in enumerate(value.shape) if isinstance(size, torch.SymInt) and size.node.expr.free_symbols]
        if not growing:
            if value.numel() == 0:
                return (0,), Layout()
            self._refuse(name, node, "gives a value without an axis for the batch: examples see each other")
        if len(growing) > 1:
            self._refuse(name, node, "gives a value with two axes of the batch's size: examples see each other")
        (axis,) = growing
        size = self._size(value.shape[axis], node)
        if size is None or size.rest or size.multiple < 1:
            raise self._refusal(name, node, "adds to the batch: examples see each other")
        layout = Layout.of(axis, size.multiple, value.ndim)
        sizes = tuple(0 if i == axis else int(n) for i, n in enumerate(value.shape))
        return layout.shape(sizes), layout

    def _refuse(self, name: str, node: fx.Node, reason: str) -> NoReturn:
        raise self._refusal(name, node, reason)

    def _refusal(self, name: str, node: fx.Node, reason: str) -> UserError:
        own = _as_called(node, name)
        place = inner_line(self.model, self.input_shape, own, place_of(node))
        called = name if own == name else f"{own} (by {name})"
        return UserError(f"{type(self.model).__name__}: {called} {reason} ({place})")


def _as_called(node: fx.Node, name: str) -> str:
    """The operator that the user called, where torch has written it in others."""
    original = node.meta.get("original_aten")
    return name if original is None else str(original)


def _getitem(build: Builder, parts: Any, index: int) -> Any:
    part = parts[index]
    if part is None:
        build.refuse("gives indices, which have no bounds")
    return part


_GETITEM = Rule(("getitem",), "exact affine", _getitem)


def _is_random(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in target.tags


def _in_order(target: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, ...]:
    """All arguments of a call in the order of its operator's schema, defaults included."""
    found = []
    for i, argument in enumerate(target._schema.arguments):
        if i < len(arguments):
            found.append(arguments[i])
        elif argument.name in keywords:
            found.append(keywords[argument.name])
        else:
            found.append(argument.default_value)
    return tuple(found)


def _typed(value: Any, build: Builder) -> Any:
    """Constants as steps take them: in the network's own type, where a part of it computes with more digits."""
    return build.constant(value) if isinstance(value, Tensor) and value.is_floating_point() else value


_ASSERTIONS = {"aten._assert_scalar.default", "aten._assert_async.msg", "aten.sym_constrain_range_for_size.default"}
