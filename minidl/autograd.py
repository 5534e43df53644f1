"""Reverse-mode automatic differentiation: the walk back over the graph that ops have left.

`walk` goes from an output to the leaves, through each node once, after all nodes that use it, and multiplies by one
op's derivative at a time: the chain rule. It is a generator, so a person can stop after any op:

    for step in loss.backward_steps():
        print(step)

`grad` and `Tensor.backward` run the same generator to its end.

Ref: Griewank and Walther 2008, "Evaluating Derivatives"; Baydin et al. 2018, arXiv:1502.05767
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from minidl import kernels
from minidl.backend import backend_of, is_writable, out_of_memory, xp_of
from minidl.custom import Function, Variable
from minidl.errors import DeviceError, GraphError, OutOfMemoryError, ShapeError, no_such_name
from minidl.graph import Cast, Node, Observer, Op, is_tensor, new_tensor, observers
from minidl.recording import HookHandle, Recording, enable_grad, is_grad_enabled, no_grad, set_grad_enabled, state

if TYPE_CHECKING:                       # for the type checker only: imports run one way, and Tensor stands above
    from minidl.tensors import Tensor

__all__ = ["BackwardStep", "Function", "HookHandle", "Node", "Observer", "Op", "Variable", "backward_steps",
           "detect_anomaly", "enable_grad", "grad", "is_grad_enabled", "no_grad", "observers", "set_detect_anomaly",
           "set_grad_enabled"]


class set_detect_anomaly(Recording):
    """PyTorch's switch for better errors in backward. Here they name the user's line always; this changes nothing."""

    def __init__(self, mode: bool = True, check_nan: bool = True) -> None:
        super().__init__(is_grad_enabled())


detect_anomaly = set_detect_anomaly


def __getattr__(name: str) -> Any:
    if name == "gradcheck":                                 # stands above the engine; PyTorch has it here
        return importlib.import_module("minidl.debug.gradcheck").gradcheck
    raise no_such_name("minidl.autograd", name, __all__, {"functional": "use grad(..., create_graph=True)"})


class BackwardStep:
    """One op of a backward pass, after it ran: what came in from above and what goes out below."""

    __slots__ = ("incoming", "node", "op", "outgoing")

    def __init__(self, node: Node, incoming: Tensor, outgoing: dict[str, Tensor]) -> None:
        self.node = node
        self.op: Op = node.op
        self.incoming = incoming            # dL/d(output of op)
        self.outgoing = outgoing            # input name -> dL/d(input), for the inputs that need one

    @property
    def where(self) -> str:
        """The line that called the op, "train.py:12"."""
        return self.node.where

    @property
    def module(self) -> str:
        """The module that called the op, "features.0"."""
        return self.node.module

    def __repr__(self) -> str:
        sent = ", ".join(f"d{name} {tuple(g.array.shape)}" for name, g in self.outgoing.items())
        place = " ".join(part for part in (self.module, self.where) if part)
        return f"{self.op}: dy {tuple(self.incoming.array.shape)} -> {sent}" + (f"   [{place}]" if place else "")


def walk(roots: Sequence[tuple[Node, Tensor]], found: dict[Node, Tensor], wanted: set[Node] | None,
         retain_graph: bool | None, create_graph: bool) -> Iterator[BackwardStep]:
    """Walk the graph back from `roots`, each node after all that use it, and yield after every op.

    roots: nodes and the gradients of their tensors, to start from.
    found: is filled with the complete gradient of each node in `wanted`; where `wanted` is None, of each leaf and
        of tensors after `retain_grad()`.
    retain_graph: whether what was kept stays for another walk; None means as `create_graph` says.
    """
    retain_graph = create_graph if retain_graph is None else retain_graph
    order = topological_order([node for node, _ in roots])
    useful = _leading_to(wanted, order)
    gradient_of: dict[Node, Tensor] = {}
    recording = Recording(create_graph)
    for node, g in roots:
        gradient_of[node] = gradient_of[node] + g if node in gradient_of else g

    for node in order:
        if node not in gradient_of:
            continue
        g = gradient_of.pop(node)                           # complete: all that use this tensor came before
        for hook in list(node.hooks.values()):
            g = _after_hook(hook, g, node, create_graph)
        is_leaf_or_retained = node.op is None or node.retains_grad
        if is_leaf_or_retained if wanted is None else node in wanted:
            found[node] = g
        if not any(parent in useful for parent in node.parents):
            continue
        if node.released:
            raise GraphError(f"backward went through {node.op} before and freed what it had kept; "
                             f"call backward(retain_graph=True) the first time", where=node.where)

        with recording, kernels.use_kernels(node.kernels):
            try:
                if node.op.once_differentiable:
                    sent = _gradients_once(node, g, useful)
                else:
                    sent = node.gradients(g, useful)        # here the op's backward is called
            except OutOfMemoryError:                        # of an op that backward called, in words already
                raise
            except MemoryError as error:
                raise out_of_memory(error, backend_of(g.array), node.where) from error
            for _, parent, gradient in sent:                # a tensor used twice gets the sum of both gradients
                gradient_of[parent] = gradient_of[parent] + gradient if parent in gradient_of else gradient
        if not retain_graph:
            node.release()
        step = BackwardStep(node, g, {name: gradient for name, _, gradient in sent})
        for observer in observers:
            observer.op_went_back(step)
        yield step


def _after_hook(hook: Any, g: Tensor, node: Node, create_graph: bool) -> Tensor:
    """The gradient that a hook returned, or the one it was given."""
    with Recording(create_graph):
        replacement = hook(g)
    if replacement is None:
        return g
    if not is_tensor(replacement):
        raise GraphError(f"a hook returned {type(replacement).__name__}, expected None or a tensor", where=node.where)
    if type(replacement.array) is not type(g.array):
        raise DeviceError(f'a hook returned a gradient on "{replacement.device}", expected one on "{g.device}"',
                          where=node.where)
    if replacement.array.shape != node.shape or replacement.array.dtype != node.dtype:
        raise GraphError(f"a hook returned a gradient of {replacement.array.dtype} {replacement.array.shape}, expected "
                         f"{node.dtype} {node.shape}", where=node.where)
    return replacement  # type: ignore[no-any-return]


def topological_order(roots: Sequence[Node]) -> list[Node]:
    """Every node that the roots were computed from, each after all the nodes that use it: the newest first, because
    a node is made after those that it was computed from.
    """
    found, to_visit = set(roots), list(roots)
    while to_visit:
        for parent in to_visit.pop().parents:
            if parent is not None and parent not in found:
                found.add(parent)
                to_visit.append(parent)
    return sorted(found, key=attrgetter("number"), reverse=True)


def _leading_to(wanted: set[Node] | None, order: list[Node]) -> set[Node]:
    """The nodes on a path to one in `wanted` (all, if None): the others need no gradient."""
    if wanted is None:
        return set(order)
    useful: set[Node] = set()
    for node in reversed(order):
        if node in wanted or any(parent in useful for parent in node.parents):
            useful.add(node)
    return useful


def _gradients_once(node: Node, g: Tensor, useful: set[Node]) -> list[tuple[str, Node, Tensor]]:
    """The gradients of an op that cannot be differentiated twice: asking for more is an error, never a wrong number."""
    recording = state.recording
    with Recording(False):
        sent = node.gradients(g, useful)
    if recording:
        sent = [(name, parent, _refusing_more(gradient, g, node)) for name, parent, gradient in sent]
    return sent


def _refusing_more(gradient: Tensor, g: Tensor, node: Node) -> Tensor:
    """The same gradient, with a node that raises when a second derivative is asked for."""
    refusing = new_tensor(gradient.array)
    refusing.node = Node(_NoSecondDerivative(node), (), (g.node, *node.parents), refusing)
    return refusing


def backward_steps(output: Tensor, gradient: Tensor | None = None, retain_graph: bool | None = None,
                   create_graph: bool = False) -> Iterator[BackwardStep]:
    """Run backward from `output`, one op a step; after the last step the gradients are added to `.grad`.

    An abandoned generator has written no `.grad`. Raises `GraphError`, at once, for an output without a graph.
    """
    roots = _roots([output], [gradient], "backward")
    return _steps_then_grads(roots, retain_graph, create_graph)


def _steps_then_grads(roots: list[tuple[Node, Tensor]], retain_graph: bool | None,
                      create_graph: bool) -> Iterator[BackwardStep]:
    found: dict[Node, Tensor] = {}
    yield from walk(roots, found, None, retain_graph, create_graph)
    while found:
        node, g = found.popitem()
        tensor = None if node.tensor is None else node.tensor()
        if tensor is not None:                              # else nobody can ask for its .grad any more
            is_spare = _holders(g) == _HELD_ONCE
            _add_to_grad(tensor, g, is_spare)


def grad(outputs: Tensor | Sequence[Tensor], inputs: Tensor | Sequence[Tensor],
         grad_outputs: Tensor | Sequence[Tensor | None] | None = None, retain_graph: bool | None = None,
         create_graph: bool = False, only_inputs: bool = True, allow_unused: bool | None = None,
         is_grads_batched: bool = False, materialize_grads: bool = False) -> tuple[Any, ...]:
    """The gradients of `outputs` with respect to `inputs`, as a tuple of Tensors; no `.grad` is touched.

    grad_outputs: the gradient of each output, of its shape; None where an output is a single number (it means 1).
    create_graph: record the computation of the gradients, so that they can be differentiated again.
    allow_unused: None for an input that the outputs do not depend on, instead of an error; materialize_grads: zeros
    for it. only_inputs and is_grads_batched are PyTorch's and may only be True and False.

    Raises `GraphError` for an output without a graph, an unused input, or a graph that was freed.
    """
    if not only_inputs or is_grads_batched:
        raise GraphError("got only_inputs=False or is_grads_batched=True, which are not here; call backward(), or grad "
                         "once for each output", where="grad")
    outputs, inputs = _as_list(outputs), _as_list(inputs)
    from_above = [None] * len(outputs) if grad_outputs is None else _as_list(grad_outputs)
    for i, x in enumerate(inputs):
        if x.node is None:
            raise GraphError(f"input {i} does not require grad; call x.requires_grad_() on it before using it",
                             where="grad")
    found: dict[Node, Tensor] = {}
    wanted = {x.node for x in inputs if x.node is not None}
    roots = _roots(outputs, from_above, "grad")
    for _ in walk(roots, found, wanted, retain_graph, create_graph):
        pass
    for i, x in enumerate(inputs):
        if x.node not in found and materialize_grads:
            found[x.node] = new_tensor(xp_of(x.array).zeros_like(x.array))
        elif x.node not in found and not allow_unused:
            raise GraphError(f"the outputs do not depend on input {i}; pass allow_unused=True to get None for it",
                             where="grad")
    return tuple(found.get(x.node) for x in inputs)


def _as_list(tensors: Any) -> list[Any]:
    return [tensors] if is_tensor(tensors) else list(tensors)


def _roots(outputs: Sequence[Tensor], gradients: Sequence[Tensor | None], where: str) -> list[tuple[Node, Tensor]]:
    """Where a walk starts: each output's node with the gradient that comes from above (1 for a single number)."""
    roots = []
    if len(outputs) != len(gradients):
        raise GraphError(f"got {len(gradients)} gradients for {len(outputs)} outputs, expected one for each",
                         where=where)
    for output, gradient in zip(outputs, gradients, strict=True):
        array = output.array
        if not (gradient is None or is_tensor(gradient)):
            raise GraphError(f"got {type(gradient).__name__} as gradient of the output, expected a tensor of shape "
                             f"{array.shape}; use minidl.tensor(...)", where=where)
        if output.node is None:
            raise GraphError("this tensor has no graph: nothing it was computed from requires grad, or it was computed "
                             "under no_grad() or detached; call requires_grad_() on an input first", where=where)
        if gradient is None:
            if array.size != 1:
                raise GraphError(f"got a tensor of shape {array.shape}, expected a single number; reduce it first "
                                 f"(loss.mean()) or pass its gradient, of the same shape", where=where)
            gradient = new_tensor(xp_of(array).ones_like(array))
        elif gradient.array.shape != array.shape:
            raise ShapeError(f"got a gradient of shape {gradient.array.shape} for an output of shape {array.shape}; "
                             f"they must be equal", where=where)
        elif type(gradient.array) is not type(array):
            raise DeviceError(f'got a gradient on "{gradient.device}" for an output on "{output.device}", expected one '
                              f'device; use gradient.to("{output.device}")', where=where)
        elif gradient.array.dtype != array.dtype:
            gradient = Cast(array.dtype)(gradient)
        roots.append((output.node, gradient))
    return roots


def _holders(thing: object) -> int:
    """How many variables, attributes and containers hold `thing`, with a few more for this call."""
    return sys.getrefcount(thing)


def _holders_of_a_variable() -> int:
    variable = object()
    return _holders(variable)


_HELD_ONCE = _holders_of_a_variable()                       # what `_holders` says of something that one variable holds


def _add_to_grad(tensor: Tensor, g: Tensor, is_spare: bool) -> None:
    """tensor.grad += g. The first gradient becomes an array of the tensor's own, in its layout: the one that backward
    made if it is spare, that is if nobody else holds g or its memory, and a copy otherwise.
    """
    before = tensor.grad
    if g.node is not None or (before is not None and before.node is not None):         # with create_graph
        # Cast to its own dtype: a copy that the graph knows
        tensor.grad = Cast(g.dtype)(g) if before is None else before + g
    elif before is None:
        own = g.array
        is_spare = is_spare and own.base is None and _holders(own) == _HELD_ONCE + 1       # g's and this variable
        if not is_spare or own.strides != tensor.array.strides or not is_writable(own):
            own = xp_of(tensor.array).empty_like(tensor.array)
            own[...] = g.array
        tensor.grad = new_tensor(own)
    elif is_writable(before.array):
        before.array += g.array
        before.version.count += 1
    else:
        tensor.grad = new_tensor(before.array + g.array)


class _NoSecondDerivative(Op):
    """Stands where the derivative of a once-differentiable op's backward would be."""

    def __init__(self, node: Node) -> None:
        self.node_name, self.line = str(node.op), node.where

    def forward(self, *xs: Any) -> Any:
        raise NotImplementedError("never called forward")

    def backward(self, g: Tensor) -> Tensor:
        raise GraphError(f"{self.node_name} can be differentiated only once, because its backward uses intermediates "
                         f"that are not part of the graph; use the unfused layers for second derivatives",
                         where=self.line)
