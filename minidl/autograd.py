"""Reverse-mode automatic differentiation: what an op is, what it leaves behind, and the walk back over it.

Calling an op on tensors that require grad leaves a `Node`: which op it was, what it kept, and which nodes its inputs
came from. `walk` follows those nodes from an output back to the leaves, once each, and multiplies by one op's
derivative at a time: the chain rule. It is a generator, so a person can stop after any op:

    for step in loss.backward_steps():
        print(step)

`grad` and `Tensor.backward` run the same generator to its end.

This file does not know what a Tensor can do. It needs the four fields (array, node, grad, version), the sum of two
gradients `+`, and the class itself, which `minidl.tensors` hands over with `set_tensor_class`.

Ref: Griewank and Walther 2008, "Evaluating Derivatives"; Baydin et al. 2018, arXiv:1502.05767
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ContextDecorator
from inspect import Parameter, signature
from types import CodeType
from typing import TYPE_CHECKING, Any, ClassVar

from minidl import dtypes, kernels
from minidl.backend import Array, as_number, backend_of, quiet, xp_of
from minidl.dtypes import Dtype
from minidl.errors import DeviceError, DtypeError, GraphError, ShapeError

if TYPE_CHECKING:                       # for the type checker only: imports run one way, and Tensor stands above
    from minidl.tensors import Tensor

_tensor_class: Any = None


def set_tensor_class(cls: type) -> None:
    """Tell the engine which class carries arrays through the graph. Called once, by `minidl.tensors`."""
    global _tensor_class
    _tensor_class = cls


def new_tensor(array: Array, node: Node | None = None, version: Version | None = None) -> Tensor:
    """The one way in which ops and the engine make tensors."""
    return _tensor_class._of(array, node, version)  # type: ignore[no-any-return]


# -- recording or not ------------------------------------------------------------------------------------------------

class _ThreadState(threading.local):
    def __init__(self) -> None:
        self.recording = True
        self.modules: list[Any] = []        # the modules whose forward is running, outermost first


_state = _ThreadState()


def is_grad_enabled() -> bool:
    """Whether ops called in this thread are recorded."""
    return _state.recording


class _Recording(ContextDecorator):
    """Recording switched to `mode` for a block or a decorated function; may be nested and entered again."""

    def __init__(self, mode: bool) -> None:
        self._mode = mode
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(_state.recording)
        _state.recording = self._mode

    def __exit__(self, *error: object) -> None:
        _state.recording = self._before.pop()

    def _recreate_cm(self) -> _Recording:
        return _Recording(self._mode)       # each call of a decorated function enters a block of its own


class no_grad(_Recording):  # noqa: N801 (PyTorch's name)
    """Ops in this block, or in the decorated function, leave no nodes: nothing is kept and no gradient flows."""

    def __init__(self) -> None:
        super().__init__(False)

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        """`@no_grad` without parentheses works too."""
        return super().__new__(cls) if function is None else _Recording(False)(function)


class enable_grad(_Recording):  # noqa: N801
    """Record in this block, or in the decorated function, although `no_grad` surrounds it."""

    def __init__(self) -> None:
        super().__init__(True)

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        """`@enable_grad` without parentheses works too."""
        return super().__new__(cls) if function is None else _Recording(True)(function)


class set_grad_enabled(_Recording):  # noqa: N801
    """Switch recording on or off: from now on, or for a `with` block or a decorated function."""

    def __init__(self, mode: bool) -> None:
        super().__init__(bool(mode))
        self._at_first = _state.recording
        _state.recording = self._mode

    def __enter__(self) -> None:
        self._before.append(self._at_first)
        _state.recording = self._mode

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """As a decorator it did not mean "from now on"."""
        _state.recording = self._at_first
        return super().__call__(function)


# -- who is watching ---------------------------------------------------------------------------------------------------

class Observer:
    """Something that watches the engine: tracing, drawing, timing. Everything in `minidl.debug` is one of these."""

    def op_called(self, op: Op, inputs: Sequence[Any], output: Tensor) -> None:
        """`op` has run forward. `inputs` are Tensors, Python numbers or None."""

    def op_went_back(self, step: BackwardStep) -> None:
        """`step.op` has run backward."""


observers: list[Observer] = []


def module_stack() -> list[Any]:
    """The modules whose forward is running in this thread, outermost first. `Module.__call__` keeps it."""
    return _state.modules


_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def users_line() -> tuple[CodeType, int] | None:
    """The nearest line on the call stack that is not minidl's own, as (code object, line number).

    A frame would keep all its variables alive; the code object keeps nothing.
    """
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_PACKAGE):
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return frame.f_code, frame.f_lineno


# -- versions: noticing that a kept value was overwritten ---------------------------------------------------------------

class Version:
    """Counts the writes to one piece of memory; all tensors that are views of that memory share it."""

    __slots__ = ("count", "sharers")

    def __init__(self) -> None:
        self.count = 0
        self.sharers: weakref.WeakSet[Tensor] | None = None

    def shared_by(self, *tensors: Tensor) -> None:
        """Note that these tensors see the same memory."""
        if self.sharers is None:
            self.sharers = weakref.WeakSet()
        self.sharers.update(tensors)

    def is_shared(self) -> bool:
        """Whether more than one living tensor sees this memory."""
        return self.sharers is not None and len(self.sharers) > 1


# -- ops -----------------------------------------------------------------------------------------------------------------

class Contract:
    """What an op class promises with its signatures; read once, when the class is made."""

    def __init__(self, op: type[Op]) -> None:
        parameters = list(signature(op.forward).parameters.values())[1:]                # without self
        self.inputs = tuple(p.name for p in parameters if p.kind is not Parameter.VAR_POSITIONAL)
        self.variadic = next((p.name for p in parameters if p.kind is Parameter.VAR_POSITIONAL), None)
        all_inputs = (*self.inputs, self.variadic) if self.variadic else self.inputs
        if {"y", "g"} & set(all_inputs):
            raise TypeError(f"{op.__name__}.forward calls an input 'y' or 'g'; in backward, y is the output "
                            f"and g its gradient, so choose another name")

        # input name -> what its gradient asks for; the key None stands for a backward() that gives all at once
        self.asks: dict[str | None, tuple[str, ...]] = {}
        for name in (None, *all_inputs):
            method = getattr(op, "backward" if name is None else f"backward_{name}", None)
            if method is not None:
                asked = list(signature(method).parameters)[1:]                          # without self
                if not asked or asked[0] != "g":
                    raise TypeError(f"{op.__name__}.{method.__name__} must take g, the gradient of the output, first")
                self.asks[name] = tuple(asked[1:])
        self._refuse_unknown_names(op, all_inputs)
        self.kept_names = sorted({name for asked in self.asks.values() for name in asked})

    def _refuse_unknown_names(self, op: type[Op], inputs: tuple[str, ...]) -> None:
        # names given to self.keep(...) stand among the constants of forward's code
        constants = op.forward.__code__.co_consts
        put_away = {name for c in constants if isinstance(c, tuple) for name in c if isinstance(name, str)}
        for method in vars(op):
            if method.startswith("backward_") and method.removeprefix("backward_") not in inputs:
                raise TypeError(f"{op.__name__}.{method}: forward has no input {method.removeprefix('backward_')!r}, "
                                f"only {', '.join(inputs)}")
        for name in {name for asked in self.asks.values() for name in asked}:
            if name != "y" and name not in inputs and name not in put_away:
                raise TypeError(f"{op.__name__}.backward asks for {name!r}, which is no input of forward "
                                f"({', '.join(inputs)}), not the output y, and not put away with self.keep({name}=...)")

    def wants_gradient(self, position: int) -> bool:
        """Whether the op has a gradient for its input at this position."""
        return None in self.asks or self.name_of(position) in self.asks

    def name_of(self, position: int) -> str:
        """The name of the input at this position of a call."""
        if position < len(self.inputs):
            return self.inputs[position]
        assert self.variadic is not None
        return self.variadic


class Op:
    """One differentiable operation. A new object is made for each call; its settings go to `__init__`.

    class Mul(Op):
        broadcasts = True
        def forward(self, a, b):     return a * b          # arrays in, array out
        def backward_a(self, g, b):  return g * b          # Tensors in, Tensor out:  dL/da = dL/dy · b
        def backward_b(self, g, a):  return g * a

    The signature of a backward method is the list of what is kept for it. After `g`, the gradient of the output, it
    may ask by name for inputs of `forward`, for `y` (the output), or for what `forward` put away with
    `self.keep(name=value)`. `backward_NAME` gives the gradient of one input and runs only if someone needs it; a
    single `backward` gives all of them, as a tuple in the order of the inputs. An input without a gradient (labels,
    indices) has no `backward_NAME`; an op without any backward is not differentiable.

    Backward is written in Tensor operations, so it is differentiable itself: `grad(..., create_graph=True)` records it
    and second derivatives come for nothing. An op whose backward needs kept intermediates that depend on the inputs
    (more than masks, indices and sizes, which are constants) sets `once_differentiable`.
    """

    broadcasts: ClassVar[bool] = False              # inputs are broadcast; the engine sums the gradients back
    once_differentiable: ClassVar[bool] = False
    dtype_rule: ClassVar[str] = "any"               # "any", "same", "promote" or "float": see _to_common_dtype

    contract: ClassVar[Contract]
    registry: ClassVar[list[type[Op]]] = []         # every op class, for the tests

    forward: Callable[..., Any]
    _kept: dict[str, Any] | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if hasattr(cls, "forward"):
            cls.contract = Contract(cls)
            Op.registry.append(cls)

    def __call__(self, *inputs: Any) -> Tensor:
        """Run forward on the arrays of `inputs` and record the call if any of them requires grad."""
        inputs = self._prepare(inputs)
        arrays = [x.array if isinstance(x, _tensor_class) else x for x in inputs]
        with quiet():
            result = self.forward(*arrays)
        first = next(x for x in inputs if isinstance(x, _tensor_class))
        if type(result) is not type(first.array):                           # a reduction gave a scalar
            result = xp_of(first.array).asarray(result)
        y = new_tensor(result, None, Version())
        _share_version_of_views(y, inputs)
        if _state.recording:
            parents = self._parents(inputs, y)
            if parents is not None:
                y.node = Node(self, inputs, parents, y)
        for observer in observers:
            observer.op_called(self, inputs, y)
        return y

    def keep(self, **values: Any) -> None:
        """Put intermediates of forward away for backward, which asks for them by name. Called inside `forward`."""
        self._kept = {**(self._kept or {}), **values}

    def __repr__(self) -> str:
        return type(self).__name__

    # -- what __call__ does before and after forward --

    def _prepare(self, inputs: Sequence[Any]) -> list[Any]:
        """Everything a Tensor, a Python number or None; all on one device; of the dtypes that the op computes in."""
        prepared: list[Any] = []
        for x in inputs:
            if isinstance(x, _tensor_class) or x is None:
                prepared.append(x)
            else:
                number = as_number(x)
                prepared.append(_tensor_class(x) if number is None else number)
        tensors = [x for x in prepared if isinstance(x, _tensor_class)]
        kinds = {type(x.array) for x in tensors}
        if len(kinds) > 1:
            raise self._mixed_devices(prepared)
        if self.dtype_rule != "any":
            prepared = self._to_common_dtype(prepared, tensors)
        return prepared

    def _to_common_dtype(self, inputs: list[Any], tensors: list[Tensor]) -> list[Any]:
        """Apply `dtype_rule`: cast to PyTorch's common type ("promote"; "float": and integers become floats), or
        refuse mixed types ("same").
        """
        if len({x.array.dtype for x in tensors}) == 1 and len(tensors) == len(inputs) and self.dtype_rule != "float":
            return inputs
        if self.dtype_rule == "same":
            if len({x.array.dtype for x in tensors}) > 1:
                raise self._mixed_dtypes(inputs)
            return inputs
        target = dtypes.result_type(((x.array.dtype, x.array.ndim) for x in tensors),
                                    (x for x in inputs if isinstance(x, int | float)))
        if self.dtype_rule == "float" and not dtypes.is_floating(target):
            target = dtypes.get_default_dtype()
        return [Cast(target)(x) if isinstance(x, _tensor_class) and x.array.dtype != target else x for x in inputs]

    def _parents(self, inputs: Sequence[Any], y: Tensor) -> tuple[Node | None, ...] | None:
        """The node that each input came from; None where no gradient is needed, and as a whole if nowhere."""
        if not self.contract.asks or not dtypes.is_floating(y.array.dtype):
            return None
        parents = tuple(x.node if isinstance(x, _tensor_class) and self.contract.wants_gradient(i) else None
                        for i, x in enumerate(inputs))
        return parents if any(parents) else None

    def _mixed_devices(self, inputs: Sequence[Any]) -> DeviceError:
        places = [f"{self.contract.name_of(i)} on {backend_of(x.array).name!r}"
                  for i, x in enumerate(inputs) if isinstance(x, _tensor_class)]
        return DeviceError(f"got {' and '.join(places)}, expected all on one device; move one with .to(device)",
                           where=_name_for_people(self))

    def _mixed_dtypes(self, inputs: Sequence[Any]) -> DtypeError:
        named = [(self.contract.name_of(i), x.array.dtype) for i, x in enumerate(inputs) if isinstance(x, _tensor_class)]
        name, odd = next(((n, d) for n, d in named if d == dtypes.uint8), named[0])
        wanted = next(d for _, d in named if d != odd)
        cast = f"{name}.to(minidl.{wanted})" + (" / 255 for images" if odd == dtypes.uint8 else "")
        got = " and ".join(f"{dtype} for {name}" for name, dtype in named)
        return DtypeError(f"got {got}, expected one dtype; cast with {cast}", where=_name_for_people(self))


def _name_for_people(op: Op) -> str:
    return type(op).__name__.lower()


def _share_version_of_views(y: Tensor, inputs: Sequence[Any]) -> None:
    """If y is a view of an input's memory, let both count writes together."""
    owner = y.array if y.array.base is None else y.array.base
    for x in inputs:
        if isinstance(x, _tensor_class) and (x.array is owner or (x.array.base is owner)):
            y.version = x.version
            y.version.shared_by(x, y)


# -- nodes: what a call leaves behind ----------------------------------------------------------------------------------

class Kept:
    """A value kept for backward: its array, the node it came from, and the version it had."""

    __slots__ = ("array", "at", "node", "version")

    def __init__(self, tensor: Tensor, node: Node | None) -> None:
        self.array = tensor.array
        self.node = node
        self.version = tensor.version
        self.at = tensor.version.count


class Node:
    """One recorded call, or a leaf (`op` is None). Edges point from a result to what it was computed from.

    An edge keeps no array alive: arrays are held by `kept` alone, which `release` empties once backward went through.
    """

    __slots__ = ("__weakref__", "_kernels", "_line", "_modules", "dtype", "hooks", "kept", "op", "parents", "released",
                 "retains_grad", "shape", "tensor")

    def __init__(self, op: Op | None, inputs: Sequence[Any], parents: tuple[Node | None, ...], y: Tensor) -> None:
        self.op: Any = op
        self.parents = parents              # aligned with the inputs; None where no gradient is needed
        self.shape: tuple[int, ...] = y.array.shape
        self.dtype: Dtype = y.array.dtype
        self.hooks: dict[int, Callable[[Tensor], Tensor | None]] = {}
        self.retains_grad = False
        self.tensor: weakref.ref[Tensor] | None = None      # who gets `.grad`: a leaf, or after retain_grad()
        self.kept: dict[str, Any] = {}
        self.released = False
        self._kernels = kernels.chosen()
        self._line = users_line()
        self._modules = (_state.modules[0], _state.modules[-1]) if _state.modules else None
        if op is not None:
            self._keep(op, inputs, y)

    def _keep(self, op: Op, inputs: Sequence[Any], y: Tensor) -> None:
        """Keep what the needed gradients ask for, and nothing else."""
        contract, put_away = op.contract, op._kept or {}
        op._kept = None
        needed = {contract.name_of(i) for i, parent in enumerate(self.parents) if parent is not None}
        for key, names in contract.asks.items():
            if key is not None and key not in needed:
                continue
            for name in names:
                if name == "y":
                    self.kept[name] = Kept(y, None)         # its node is this one: held here it would be a cycle
                elif name == contract.variadic:
                    self.kept[name] = [_kept(x) for x in inputs[len(contract.inputs):]]
                elif name in contract.inputs:
                    self.kept[name] = _kept(inputs[contract.inputs.index(name)])
                elif name in put_away:
                    self.kept[name] = put_away[name]
                else:
                    raise TypeError(f"{op}.backward asks for {name!r}, but forward did not self.keep({name}=...)")

    def gradients(self, g: Tensor) -> list[tuple[str, Node, Tensor]]:
        """Given `g`, the gradient of the output: (name, node, gradient) of each input that needs one.

        This is where an op's backward is called.
        """
        op, contract = self.op, self.op.contract
        if None in contract.asks:
            all_at_once = op.backward(g, *self._arguments(None))
            results = list(all_at_once) if isinstance(all_at_once, tuple | list) else [all_at_once]
            results = [r if parent is not None else None for r, parent in zip(results, self.parents, strict=True)]
        else:
            results = [None] * len(self.parents)
            for i, parent in enumerate(self.parents):
                if parent is not None:
                    name = contract.name_of(i)
                    results[i] = getattr(op, f"backward_{name}")(g, *self._arguments(name))
        return [(self._input_name(i), parent, self._checked(i, result, parent))
                for i, (result, parent) in enumerate(zip(results, self.parents, strict=True))
                if result is not None and parent is not None]

    def _arguments(self, key: str | None) -> list[Any]:
        """The kept values that a backward method asks for, as Tensors connected to where they came from."""
        arguments = []
        for name in self.op.contract.asks[key]:
            value = self.kept[name]
            if name == self.op.contract.variadic:
                arguments += [self._unpacked(name, v) for v in value]
            else:
                arguments.append(self._unpacked(name, value))
        return arguments

    def _unpacked(self, name: str, value: Any) -> Any:
        if isinstance(value, Kept):
            if value.version.count != value.at:
                what = "its output" if name == "y" else f"its input '{name}'"
                raise GraphError(f"{self.op} kept {what} for the backward pass, but it was changed in place afterwards; "
                                 f"write x = x + 1 instead of x += 1, or change a clone()", where=self.where)
            return new_tensor(value.array, self if name == "y" else value.node, value.version)
        if hasattr(value, "dtype"):                         # a mask or indices, put away with self.keep
            return new_tensor(value)
        return value

    def _checked(self, i: int, gradient: Tensor, parent: Node) -> Tensor:
        """The gradient of input i in the shape of that input: broadcasting is undone here, for all ops."""
        if gradient.array.shape != parent.shape and self.op.broadcasts:
            gradient = SumTo(parent.shape)(gradient)
        if gradient.array.shape != parent.shape or gradient.array.dtype != parent.dtype:
            raise GraphError(f"{self.op}.backward returned a gradient of shape {gradient.array.shape} and dtype "
                             f"{gradient.array.dtype} for its input '{self._input_name(i)}', which is {parent.shape} "
                             f"and {parent.dtype}; a gradient looks like its input", where=self.where)
        return gradient

    def _input_name(self, i: int) -> str:
        fixed = len(self.op.contract.inputs)
        return self.op.contract.name_of(i) + (f"[{i - fixed}]" if i >= fixed else "")

    def release(self) -> None:
        """Let go of the kept values."""
        if self.kept:
            self.kept = {}
            self.released = True

    @property
    def where(self) -> str:
        """The user's line that made the call, "train.py:12"; empty if there is none."""
        if self._line is None:
            return ""
        code, line = self._line
        return f"{os.path.basename(code.co_filename)}:{line}"

    @property
    def module(self) -> str:
        """The path of the module that made the call, "features.0"; empty outside of modules."""
        return "" if self._modules is None else module_path(*self._modules)

    def __repr__(self) -> str:
        name = "Leaf" if self.op is None else str(self.op)
        return f"<{name} at {self.where}>" if self.where else f"<{name}>"


def _kept(value: Any) -> Any:
    return Kept(value, value.node) if isinstance(value, _tensor_class) else value


def leaf(tensor: Tensor) -> Node:
    """A node for a tensor that gradients are to be collected for."""
    node = Node(None, (), (), tensor)
    node.tensor = weakref.ref(tensor)
    return node


def module_path(root: Any, module: Any) -> str:
    """What `root` calls one of its submodules: "features.0"."""
    return next((name for name, candidate in root.named_modules() if candidate is module), "")


class HookHandle:
    """What registering a hook returns; `remove()` takes the hook away again."""

    _last = 0

    def __init__(self, hooks: dict[int, Any], function: Callable[..., Any]) -> None:
        HookHandle._last += 1
        self._id, self._hooks = HookHandle._last, hooks
        hooks[self._id] = function

    def remove(self) -> None:
        """Take the hook away; doing it twice does no harm."""
        self._hooks.pop(self._id, None)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


# -- the walk back -------------------------------------------------------------------------------------------------------

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


class Found:
    """A complete gradient, and whether its array is nobody else's (then a leaf may take it without a copy)."""

    __slots__ = ("gradient", "is_ours")

    def __init__(self, gradient: Tensor, is_ours: bool) -> None:
        self.gradient = gradient
        self.is_ours = is_ours


def walk(roots: Sequence[tuple[Node, Tensor]], found: dict[Node, Found], wanted: set[Node] | None,
         retain_graph: bool, create_graph: bool) -> Iterator[BackwardStep]:
    """Walk the graph back from `roots`, each node after all that use it, and yield after every op.

    roots: nodes and the gradients of their tensors, to start from.
    found: is filled with the complete gradient of each node in `wanted`; where `wanted` is None, of each leaf and
        of tensors after `retain_grad()`.
    """
    order = topological_order([node for node, _ in roots])
    useful = _leading_to(wanted, order)
    gradient_of: dict[Node, Found] = {}
    for node, g in roots:
        _accumulate(gradient_of, node, g, is_ours=False)

    for node in order:
        if node not in gradient_of:
            continue
        here = gradient_of.pop(node)
        for hook in list(node.hooks.values()):              # once, on the complete gradient
            replacement = hook(here.gradient)
            here = Found(here.gradient if replacement is None else replacement, is_ours=False)
        if node in wanted if wanted is not None else (node.op is None or node.retains_grad):
            found[node] = here
        if not any(parent in useful for parent in node.parents):
            continue
        if node.released:
            raise GraphError(f"backward went through {node.op} before and freed what it had kept; "
                             f"call backward(retain_graph=True) the first time", where=node.where)

        g = here.gradient
        with _Recording(create_graph), kernels.use_kernels(node._kernels):
            sent = node.gradients(g) if not node.op.once_differentiable else _gradients_once(node, g)
            for _, parent, gradient in sent:
                if parent in useful:
                    _accumulate(gradient_of, parent, gradient, _is_ours(gradient, g, node, sent))
        if not retain_graph:
            node.release()
        step = BackwardStep(node, g, {name: gradient for name, _, gradient in sent})
        for observer in observers:
            observer.op_went_back(step)
        yield step


def topological_order(roots: Sequence[Node]) -> list[Node]:
    """Every node that the roots were computed from, each after all the nodes that use it."""
    uses = dict.fromkeys(roots, 0)
    to_visit = list(uses)
    while to_visit:
        for parent in to_visit.pop().parents:
            if parent is not None:
                if parent not in uses:
                    uses[parent] = 0
                    to_visit.append(parent)
                uses[parent] += 1
    ready = [node for node in dict.fromkeys(roots) if uses[node] == 0]
    order = []
    while ready:
        node = ready.pop()
        order.append(node)
        for parent in node.parents:
            if parent is not None:
                uses[parent] -= 1
                if uses[parent] == 0:
                    ready.append(parent)
    return order


def _leading_to(wanted: set[Node] | None, order: list[Node]) -> set[Node]:
    """The nodes on a path to one in `wanted` (all, if None): the others need no gradient."""
    if wanted is None:
        return set(order)
    useful: set[Node] = set()
    for node in reversed(order):
        if node in wanted or any(parent in useful for parent in node.parents):
            useful.add(node)
    return useful


def _accumulate(gradient_of: dict[Node, Found], node: Node, gradient: Tensor, is_ours: bool) -> None:
    """A tensor used several times gets the sum of the gradients of its uses."""
    if node in gradient_of:
        gradient_of[node] = Found(gradient_of[node].gradient + gradient, is_ours=True)
    else:
        gradient_of[node] = Found(gradient, is_ours)


def _is_ours(gradient: Tensor, g: Tensor, node: Node, sent: list[tuple[str, Node, Tensor]]) -> bool:
    """Whether backward made a new array for this gradient: not g's, not a kept one, not another input's gradient."""
    others = [g.array, *(other.array for _, _, other in sent if other is not gradient)]
    for value in node.kept.values():
        others += [v.array for v in (value if isinstance(value, list) else [value]) if isinstance(v, Kept)]
    array = gradient.array
    is_one_of_several = sum(other is gradient for _, _, other in sent) > 1
    return array.base is None and not is_one_of_several and all(
        array is not other and array is not other.base for other in others)


def _gradients_once(node: Node, g: Tensor) -> list[tuple[str, Node, Tensor]]:
    """The gradients of an op that cannot be differentiated twice: asking for more is an error, never a wrong number."""
    recording = _state.recording
    with _Recording(False):
        sent = node.gradients(g)
    if recording:
        for _, _, gradient in sent:
            op = _NoSecondDerivative(node)
            gradient.node = Node(op, (), (g.node, *node.parents), gradient)
    return sent


def backward_steps(output: Tensor, gradient: Tensor | None = None, retain_graph: bool | None = None,
                   create_graph: bool = False, take_arrays: bool = False) -> Iterator[BackwardStep]:
    """Run backward from `output`, one op a step; after the last step the gradients are added to `.grad`.

    An abandoned generator has written no `.grad`. `take_arrays`: nobody looks at the steps, so a leaf may take a
    gradient's array without a copy.
    """
    found: dict[Node, Found] = {}
    roots = _roots([output], [gradient], "backward")
    yield from walk(roots, found, None, create_graph if retain_graph is None else retain_graph, create_graph)
    for node, result in found.items():
        tensor = None if node.tensor is None else node.tensor()
        if tensor is not None:                              # else nobody can ask for its .grad any more
            _add_to_grad(tensor, result, take_arrays)


def grad(outputs: Tensor | Sequence[Tensor], inputs: Tensor | Sequence[Tensor],
         grad_outputs: Tensor | None | Sequence[Tensor | None] = None, retain_graph: bool | None = None,
         create_graph: bool = False, allow_unused: bool = False) -> tuple[Any, ...]:
    """The gradients of `outputs` with respect to `inputs`, as a tuple of Tensors; no `.grad` is touched.

    grad_outputs: the gradient of each output, of its shape; None where an output is a single number (it means 1).
    create_graph: record the computation of the gradients, so that they can be differentiated again.
    allow_unused: None for an input that the outputs do not depend on, instead of an error.

    Raises `GraphError` for an output without a graph, an unused input, or a graph that was freed.
    """
    outputs = [outputs] if isinstance(outputs, _tensor_class) else list(outputs)  # type: ignore[arg-type]
    inputs = [inputs] if isinstance(inputs, _tensor_class) else list(inputs)  # type: ignore[arg-type]
    if grad_outputs is None or isinstance(grad_outputs, _tensor_class):
        grad_outputs = [grad_outputs] * len(outputs)  # type: ignore[list-item]
    for i, x in enumerate(inputs):
        if x.node is None:
            raise GraphError(f"input {i} does not require grad; call x.requires_grad_() on it before using it",
                             where="grad")
    found: dict[Node, Found] = {}
    wanted = {x.node for x in inputs if x.node is not None}
    roots = _roots(outputs, grad_outputs, "grad")  # type: ignore[arg-type]
    for _ in walk(roots, found, wanted, create_graph if retain_graph is None else retain_graph, create_graph):
        pass
    for i, x in enumerate(inputs):
        if x.node not in found and not allow_unused:
            raise GraphError(f"the outputs do not depend on input {i}; pass allow_unused=True to get None for it",
                             where="grad")
    return tuple(found[x.node].gradient if x.node in found else None for x in inputs)


def _roots(outputs: Sequence[Tensor], gradients: Sequence[Tensor | None], where: str) -> list[tuple[Node, Tensor]]:
    """Where a walk starts: each output's node with the gradient that comes from above (1 for a single number)."""
    roots = []
    for output, gradient in zip(outputs, gradients, strict=True):
        array = output.array
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
        elif gradient.array.dtype != array.dtype:
            gradient = Cast(array.dtype)(gradient)
        roots.append((output.node, gradient))
    return roots


def _add_to_grad(tensor: Tensor, found: Found, take_array: bool) -> None:
    """tensor.grad += gradient, where the first gradient becomes an array of the tensor's own, in its layout."""
    gradient, before = found.gradient, tensor.grad
    if gradient.node is not None or (before is not None and before.node is not None):   # with create_graph
        tensor.grad = gradient if before is None else before + gradient
    elif before is not None:
        before.array += gradient.array
        before.version.count += 1
    elif take_array and found.is_ours and gradient.array.strides == tensor.array.strides:
        tensor.grad = new_tensor(gradient.array)
    else:
        own = xp_of(tensor.array).empty_like(tensor.array)
        own[...] = gradient.array
        tensor.grad = new_tensor(own)


# -- the ops that the engine itself calls -----------------------------------------------------------------------------------

class Cast(Op):
    """The same numbers in another dtype; the gradient goes back in the dtype of the input."""

    def __init__(self, dtype: Dtype) -> None:
        self.dtype = dtype

    def forward(self, x: Array) -> Array:
        self.dtype_of_x = x.dtype
        return x.astype(self.dtype)

    def backward(self, g: Tensor) -> Tensor:
        return Cast(self.dtype_of_x)(g)


class SumTo(Op):
    """The transpose of broadcasting: add up everything that came from the same number.

    y[j] = sum over all i that broadcast to the same j of  x[i];   dL/dx[i] = g[j]
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def forward(self, x: Array) -> Array:
        self.shape_of_x = x.shape
        added = x.ndim - len(self.shape)                    # axes that broadcasting put in front
        stretched = tuple(i + added for i, n in enumerate(self.shape) if n == 1 and x.shape[i + added] != 1)
        return backend_of(x).sum(x, (*range(added), *stretched), True).reshape(self.shape)

    def backward(self, g: Tensor) -> Tensor:
        return BroadcastTo(self.shape_of_x)(g)


class BroadcastTo(Op):
    """Repeat a smaller array to a larger shape, as a view:  y[i] = x[j];   dL/dx[j] = sum over its i of  g[i]."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def forward(self, x: Array) -> Array:
        self.shape_of_x = x.shape
        return xp_of(x).broadcast_to(x, self.shape)

    def backward(self, g: Tensor) -> Tensor:
        return SumTo(self.shape_of_x)(g)


class _NoSecondDerivative(Op):
    """Stands where the derivative of a once-differentiable op's backward would be."""

    def __init__(self, node: Node) -> None:
        self.node_name, self.line = str(node.op), node.where

    def forward(self, *xs: Array) -> Array:
        raise NotImplementedError("never called forward")

    def backward(self, g: Tensor) -> Tensor:
        raise GraphError(f"{self.node_name} can be differentiated only once, because its backward uses intermediates "
                         f"that are not part of the graph; use the unfused layers for second derivatives",
                         where=self.line)
