"""Reading a graph: the boxes and arrows of a drawing, with what is written in and on them.

A node of the graph keeps no numbers except those that its derivative needs. So a value is shown where somebody has it:
the tensors that the caller named, the outputs, living leaves, and what ops have kept for backward.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from minidl import dtypes
from minidl.autograd import BackwardStep
from minidl.backend import Array, backend_of
from minidl.graph import Kept, Node
from minidl.nn.module import Parameter
from minidl.tensors import Tensor

MOST_NUMBERS = 6                            # larger tensors are shown by their shape alone


@dataclass
class Line:
    """A line of text. role: "title", "note", "value" or "grad", which decides its colour."""

    text: str
    role: str


@dataclass
class Box:
    """kind: "parameter", "leaf" (another tensor that requires grad), "data" (one that does not), "op" or "output"."""

    kind: str
    lines: list[Line]
    hint: str = ""                          # the user's line, "train.py:12"


@dataclass
class Arrow:
    """From a tensor to the op that used it: what flows forward, and the gradient that came back along it."""

    source: int                             # a place in Picture.boxes, before that of the target
    target: int
    lines: list[Line]


@dataclass
class Picture:
    """Boxes, each after all those that its arrows come from, and arrows."""

    boxes: list[Box] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)

    def add(self, box: Box) -> int:
        """Append a box; returns its place."""
        self.boxes.append(box)
        return len(self.boxes) - 1


@dataclass
class Gradients:
    """What a walk back found: of each tensor, and the part of it that came through one input of one op."""

    total: dict[Node, Tensor] = field(default_factory=dict)
    part: dict[tuple[Node, int], Tensor] = field(default_factory=dict)

    def add(self, steps: Iterable[BackwardStep]) -> Gradients:
        """Take in the steps of a backward pass. A leaf has no step; its gradient is the sum of its parts."""
        sums: dict[Node, Tensor] = {}
        for step in steps:
            self.total[step.node] = step.incoming
            for i, parent in enumerate(step.node.parents):
                part = step.outgoing.get(step.node._input_name(i))
                if parent is not None and part is not None:
                    self.part[step.node, i] = part
                    sums[parent] = sums[parent] + part if parent in sums else part
        for node, gradient in sums.items():
            self.total.setdefault(node, gradient)
        return self


def read(outputs: Sequence[Tensor], order: Sequence[Node], named: Sequence[tuple[str, Tensor]], values: bool,
         gradients: Gradients) -> Picture:
    """The picture of what `outputs` were computed from.

    order: all nodes of the graph, the oldest first. named: (name, tensor); the first name of a tensor counts.
    """
    return _Reader(outputs, order, named, values, gradients).read()


class _Reader:
    def __init__(self, outputs: Sequence[Tensor], order: Sequence[Node], named: Sequence[tuple[str, Tensor]],
                 values: bool, gradients: Gradients) -> None:
        self.outputs, self.order, self.values, self.gradients = outputs, order, values, gradients
        self.picture = Picture()
        self.index: dict[Node, int] = {}
        self.index_of_data: dict[int, int] = {}             # by the identity of the array
        self.kept = [value for node in order for value in _kept_by(node) if value.version.count == value.at]
        self.names: dict[Node, str] = {}
        self.data_names: dict[int, str] = {}
        for name, tensor in (*named, *_named_by_models(order)):
            if tensor.node is None:
                self.data_names.setdefault(id(tensor.array), name)
            else:
                self.names.setdefault(tensor.node, name)
        self.arrays = self._known_arrays([*outputs, *(tensor for _, tensor in named)])

    def _known_arrays(self, tensors: Sequence[Tensor]) -> dict[Node, Array]:
        """The numbers of each tensor for which somebody has them."""
        arrays = {value.node: value.array for value in self.kept if value.node is not None}
        for node in self.order:
            output = node.kept.get("y")
            if isinstance(output, Kept) and output.version.count == output.at:
                arrays[node] = output.array
            tensor = node.tensor() if node.tensor is not None else None
            if tensor is not None and tensor.node is node:
                arrays[node] = tensor.array
        return arrays | {tensor.node: tensor.array for tensor in tensors if tensor.node is not None}

    def read(self) -> Picture:
        """Boxes and arrows, from the leaves to the outputs."""
        for node in self.order:
            if node.op is None:
                self._add_leaf(node)
            else:
                self._add_op(node)
        for output in self.outputs:
            self._add_output(output)
        self._add_totals()
        return self.picture

    def _add_leaf(self, node: Node) -> None:
        tensor = node.tensor() if node.tensor is not None else None
        kind = "parameter" if isinstance(tensor, Parameter) else "leaf"
        title = self.names.get(node, _shape(node.shape))
        self.index[node] = self.picture.add(Box(kind, [Line(title, "title"), Line(kind, "note")], node.where))

    def _add_op(self, node: Node) -> None:
        sources = [self._data(node, i) if parent is None else self.index[parent]
                   for i, parent in enumerate(node.parents)]
        module = node.module
        lines = [Line(node.name(), "title"), *([Line(module, "note")] if module else [])]
        self.index[node] = self.picture.add(Box("op", lines, node.where))
        for i, (source, parent) in enumerate(zip(sources, node.parents, strict=True)):
            if source is None:
                continue
            if parent is None:
                lines = self._lines_of_data(_kept_input(node, i))
            else:
                lines = self._lines(parent) + self._lines_of_gradient(self.gradients.part.get((node, i)))
            self.picture.arrows.append(Arrow(source, self.index[node], lines))

    def _data(self, node: Node, i: int) -> int | None:
        """The box of an input that needs no gradient; None where the op has not kept it, so that nobody knows it."""
        value = _kept_input(node, i)
        if isinstance(value, Kept):
            key = id(value.array)
            if key not in self.index_of_data:
                title = self.data_names.get(key, _shape(value.array.shape))
                self.index_of_data[key] = self.picture.add(Box("data", [Line(title, "title"), Line("data", "note")]))
            return self.index_of_data[key]
        if isinstance(value, int | float):
            return self.picture.add(Box("data", [Line(_number(value), "title"), Line("number", "note")]))
        return None

    def _add_output(self, output: Tensor) -> None:
        """An arrow that ends in a box of its own; a tensor that no op made is one box with all that is known."""
        node = output.node
        name = self.data_names.get(id(output.array), "") if node is None else self.names.get(node, "")
        if node is None:
            lines = [Line(name or "tensor", "title"), *self._value(output.array.shape, output.array),
                     Line("no graph: it was not computed", "note"), Line("from what requires grad,", "note"),
                     Line("or under no_grad(), or detached", "note")]
            self.picture.add(Box("data", lines))
        elif node.op is None:
            self.picture.boxes[self.index[node]].lines += self._value(node.shape, self.arrays.get(node))
        else:
            lines = [Line(name or "output", "title"), *([Line("output", "note")] if name else [])]
            gradient = self.gradients.total.get(node)
            arrow_lines = self._value(node.shape, output.array) + self._lines_of_gradient(gradient)
            self.picture.arrows.append(Arrow(self.index[node], self.picture.add(Box("output", lines)), arrow_lines))

    def _add_totals(self) -> None:
        """The gradient of a tensor stands in its box if its arrows do not say it, or are several, which add up."""
        arrows_from: dict[int, list[Arrow]] = {}
        for arrow in self.picture.arrows:
            arrows_from.setdefault(arrow.source, []).append(arrow)
        for node, place in self.index.items():
            arrows = arrows_from.get(place, [])
            said = any(line.role == "grad" for arrow in arrows for line in arrow.lines)
            if not said or len(arrows) > 1:
                before = f"sum of {len(arrows)}: " if said else ""
                self.picture.boxes[place].lines += self._lines_of_gradient(self.gradients.total.get(node), before)

    # -- texts --

    def _lines(self, node: Node) -> list[Line]:
        """What flows out of a node: its name if an op has made it (a leaf's box says it), shape and value."""
        name = "" if node.op is None else self.names.get(node, "")
        return self._value(node.shape, self.arrays.get(node), name)

    def _lines_of_data(self, value: object) -> list[Line]:
        return self._value(value.array.shape, value.array) if isinstance(value, Kept) else []

    def _value(self, shape: tuple[int, ...], array: Array | None, name: str = "") -> list[Line]:
        start = f"{name} {_shape(shape)}".strip()
        if array is None or not self.values or array.size > MOST_NUMBERS:
            return [Line(start, "value")]
        return [Line(text, "value") for text in _equation(start, array)]

    def _lines_of_gradient(self, gradient: Tensor | None, before: str = "") -> list[Line]:
        """All numbers of a small gradient, the length of a large one."""
        if gradient is None:
            return []
        if self.values and gradient.array.size <= MOST_NUMBERS:
            return [Line(text, "grad") for text in _equation(f"{before}grad", gradient.array)]
        host = backend_of(gradient.array).to_host(gradient.array).astype(np.float64)
        return [Line(f"{before}‖grad‖ = {_number(float(np.sqrt((host * host).sum())))}", "grad")]


def _kept_input(node: Node, i: int) -> object:
    """What an op has kept of its input i: a Kept, a number, or None for nothing."""
    contract = node.op.contract
    value = node.kept.get(contract.name_of(i))
    return value[i - len(contract.inputs)] if isinstance(value, list) else value


def _kept_by(node: Node) -> list[Kept]:
    """All inputs that a node has kept."""
    values = [item for value in node.kept.values() for item in (value if isinstance(value, list) else [value])]
    return [value for value in values if isinstance(value, Kept)]


def _named_by_models(order: Sequence[Node]) -> list[tuple[str, Tensor]]:
    """The names that the models in which these nodes were made give to their parameters."""
    roots = {id(root): root for node in order if node._modules for root in [node._modules[0]()] if root is not None}
    return [(name, p) for root in roots.values() for name, p in root.named_parameters()]


def _shape(shape: tuple[int, ...]) -> str:
    return str(tuple(shape))


def _number(value: object) -> str:
    """Four digits."""
    return f"{value + 0.0:.4g}" if isinstance(value, float) else str(value)         # + 0.0: no "-0"


def _equation(start: str, array: Array) -> list[str]:
    """`start = numbers`; a matrix gets a line for each row."""
    host = backend_of(array).to_host(array)
    if dtypes.is_floating(host.dtype):
        host = host.astype(np.float64)                      # Python floats of it, also for float16
    texts = _rows(host)
    if len(texts) == 1:
        return [f"{start} = {texts[0]}"]
    return [f"{start} =", *texts]


def _rows(array: np.ndarray) -> list[str]:
    """The numbers in brackets; a matrix gets a line for each row, all of one length, and columns that stand in line."""
    if array.ndim != 2 or array.size == 0 or len(array) == 1:
        return [_in_brackets(array.tolist())]
    width = max(len(_number(value)) for value in array.ravel().tolist())
    rows = ["[" + ", ".join(_number(value).rjust(width) for value in row) + "]" for row in array.tolist()]
    return ["[" + rows[0] + ", ", *(f" {row}, " for row in rows[1:-1]), " " + rows[-1] + "] "]


def _in_brackets(numbers: object) -> str:
    """Nested lists as Python writes them, but with four digits. As deep as a small array is."""
    if isinstance(numbers, list):
        return "[" + ", ".join(map(_in_brackets, numbers)) + "]"
    return _number(numbers)
