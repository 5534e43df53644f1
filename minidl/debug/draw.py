"""`minidl.draw(loss)`: the graph that a tensor was computed from, as a picture.

    x = minidl.tensor(-2.0, requires_grad=True)
    y = minidl.tensor(5.0, requires_grad=True)
    drawing = minidl.draw(x * y, names={"x": x, "y": y}, gradients=True)
    drawing.save("graph.svg")               # a notebook shows the drawing itself

From top to bottom: the leaves, the ops that used them, the output. An arrow is a tensor on its way to an op. On it
stands what went down (shape, and the numbers of small tensors), and in red the gradient that came up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minidl.autograd import BackwardStep, _roots, topological_order, walk
from minidl.debug.drawing import write
from minidl.debug.drawing.picture import Gradients, read
from minidl.errors import GraphError, SettingError
from minidl.graph import Node
from minidl.tensors import Tensor
from minidl.writing import replace_whole

Names = Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]


@dataclass(frozen=True)
class Drawing:
    """A drawing, as SVG and in the language of Graphviz."""

    svg: str
    dot: str

    def save(self, path: str | Path) -> None:
        """Write it to a file whose name ends in .svg or .dot. Raises `SettingError` for another ending."""
        texts = {".svg": self.svg, ".dot": self.dot}
        suffix = Path(path).suffix.lower()
        if suffix not in texts:
            raise SettingError(f"got {str(path)!r}, expected a name that ends in .svg or .dot", where="Drawing.save")
        replace_whole(path, texts[suffix].encode(), where="Drawing.save")

    def _repr_svg_(self) -> str:
        """What a notebook shows."""
        return self.svg

    def __repr__(self) -> str:
        arrows = self.dot.count(" -> ")
        return f"Drawing({arrows} arrows; .save('graph.svg') writes it, and a notebook shows it)"


def draw(tensor: Tensor | Sequence[Tensor], names: Names | None = None, *, params: Names | None = None,
         values: bool = True, gradients: bool | Iterable[BackwardStep] | None = None,
         max_nodes: int = 500) -> Drawing:
    """Draw the graph that a tensor (or several) was computed from.

    names: {"x": x}, or pairs, for leaves and intermediates; params: more of them, in the word of torchviz. Parameters
    of a model that was called are named without it.
    values: show the numbers of tensors of up to 6: of the outputs, leaves and named tensors, and of what the ops have
    kept for backward, which is gone after it. The numbers are those of now; the shapes always are those of the call.
    gradients: True walks back through the graph, which stays, and writes no `.grad` (hooks are called); the steps of a
    `backward_steps()` show that pass; None shows the `.grad` that leaves and tensors after `retain_grad()` have; False
    shows none. On an arrow is the part that came back along it, in a box the sum.
    An input that needs no gradient is shown where an op has kept it for the gradient of another.

    A tensor without a graph is one box that says so. Raises `GraphError` for a graph of more than `max_nodes` nodes,
    and, with gradients=True, where backward would: after a backward that freed it, or for more than a single number.
    """
    outputs = [tensor] if isinstance(tensor, Tensor) else list(tensor) if isinstance(tensor, list | tuple) else []
    if not outputs or not all(isinstance(output, Tensor) for output in outputs):
        raise SettingError(f"got {type(tensor).__name__}, expected a tensor, or a list of one or more", where="draw")
    named = _pairs(names, "names") + _pairs(params, "params")
    roots = [output.node for output in outputs if output.node is not None]
    order = topological_order(roots)[::-1]                  # the oldest first
    if len(order) > max_nodes:
        raise GraphError(f"got a graph of {len(order):,} nodes, expected at most {max_nodes:,}, for nobody can read "
                         f"more; draw the output of a part, a smaller model, or set max_nodes", where="draw")
    found = _gradients([output for output in outputs if output.node is not None], order, gradients)
    picture = read(outputs, order, named, values, found)
    return Drawing(write.svg(picture), write.dot(picture))


def _pairs(names: Any, where: str) -> list[tuple[str, Tensor]]:
    """{"x": x}, or pairs, as a list of pairs."""
    try:
        pairs = [(name, tensor) for name, tensor in (names.items() if isinstance(names, Mapping) else names or ())]
    except (TypeError, ValueError):
        pairs = [("", None)]
    for name, tensor in pairs:
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise SettingError(f'got {names!r:.60} as {where}, expected names with their tensors: {{"x": x}}',
                               where="draw")
    return pairs


def _gradients(outputs: Sequence[Tensor], order: Sequence[Node],
               asked: bool | Iterable[BackwardStep] | None) -> Gradients:
    """The gradients to show; see `draw`."""
    if asked is False:
        return Gradients()
    if asked is None:
        owners = [(node, node.tensor()) for node in order if node.tensor is not None]
        return Gradients({node: owner.grad for node, owner in owners if owner is not None and owner.grad is not None})
    if asked is True:
        found: dict[Node, Tensor] = {}
        roots = _roots(outputs, [None] * len(outputs), "draw")
        return Gradients(found).add(list(walk(roots, found, None, retain_graph=True, create_graph=False)))
    steps = list(asked)
    if not all(isinstance(step, BackwardStep) for step in steps):
        raise SettingError(f"got {asked!r:.60} as gradients, expected True, False, None or list(z.backward_steps())",
                           where="draw")
    return Gradients().add(steps)
