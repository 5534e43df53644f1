"""The graph: what an op is, and the nodes that calls of ops leave behind.

Calling an op on tensors that require grad leaves a `Node`: which op it was, what it kept for its derivative, and which
nodes its inputs came from. `minidl.autograd` walks these nodes back.

This file does not know what a Tensor can do. It needs the fields `array`, `node`, `grad` and `version`, and the class
itself, which `minidl.tensors` hands over with `set_tensor_class`.
"""

from __future__ import annotations

import itertools
import math
import os
import weakref
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, ClassVar

from minidl import dtypes, kernels
from minidl.backend import Array, as_array, as_number, backend_of, memory_of, out_of_memory, quiet, xp_of
from minidl.dtypes import Dtype
from minidl.errors import DeviceError, DtypeError, GraphError, MinidlError, OutOfRangeError, ShapeError
from minidl.recording import Version, module_path, state, users_line

if TYPE_CHECKING:                       # for the type checker only: imports run one way, and these stand above
    from minidl.autograd import BackwardStep
    from minidl.tensors import Tensor

_tensor_class: Any = None


def set_tensor_class(cls: type) -> None:
    """Tell the engine which class carries arrays through the graph. Called once, by `minidl.tensors`."""
    global _tensor_class
    _tensor_class = cls


def new_tensor(array: Array, node: Node | None = None, version: Version | None = None) -> Tensor:
    """The one way in which ops and the engine make tensors."""
    return _tensor_class._of(array, node, version)  # type: ignore[no-any-return]


def is_tensor(value: Any) -> bool:
    """Whether this is a Tensor."""
    return isinstance(value, _tensor_class)


# -- who is watching -----------------------------------------------------------------------------------------------

class Observer:
    """Something that watches the engine: tracing, drawing, timing. Everything in `minidl.debug` is one of these."""

    def op_called(self, op: Op, inputs: Sequence[Any], output: Tensor) -> None:
        """`op` has run forward. `inputs` are Tensors, Python numbers or None."""

    def op_went_back(self, step: BackwardStep) -> None:
        """`step.op` has run backward."""


observers: list[Observer] = []


# -- ops -----------------------------------------------------------------------------------------------------------

class Contract:
    """What an op class promises with its signatures; read once, when the class is made."""

    def __init__(self, op: type[Op]) -> None:
        self.inputs, self.variadic = _parameters_of(op.forward)
        all_inputs = (*self.inputs, self.variadic) if self.variadic else self.inputs
        if {"y", "g"} & set(all_inputs):
            raise TypeError(f"{op.__name__}.forward calls an input 'y' or 'g'; in backward, y is the output "
                            f"and g its gradient, so choose another name")

        # input name -> what its gradient asks for; the key None stands for a backward() that gives all at once
        self.asks: dict[str | None, tuple[str, ...]] = {}
        for name in (None, *all_inputs):
            method = getattr(op, "backward" if name is None else f"backward_{name}", None)
            if method is not None:
                asked, asked_variadic = _parameters_of(method)
                if asked[:1] != ("g",):
                    raise TypeError(f"{op.__name__}.{method.__name__} must take g, the gradient of the output, first")
                self.asks[name] = (*asked[1:], asked_variadic) if asked_variadic else asked[1:]
        self._refuse_unknown_names(op, all_inputs)

    def _refuse_unknown_names(self, op: type[Op], inputs: tuple[str, ...]) -> None:
        # Calls such as self.keep(mask=m) leave the keyword names among the constants of the compiled method, as tuples
        # of strings; a name that is in none of the class's methods cannot have been put away.
        methods = [_undecorated(m) for cls in op.__mro__ for m in vars(cls).values() if callable(m)]
        constants = [c for m in methods for c in getattr(getattr(m, "__code__", None), "co_consts", ())]
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


def _undecorated(method: Any) -> Any:
    """The function under decorators that used functools.wraps."""
    while hasattr(method, "__wrapped__"):
        method = method.__wrapped__
    return method


def _parameters_of(method: Callable[..., Any]) -> tuple[tuple[str, ...], str | None]:
    """The names that a method takes after self, and the name of its *arguments if it has some."""
    code = _undecorated(method).__code__
    takes_more = code.co_flags & 0x04                       # the flag CO_VARARGS
    variadic = code.co_varnames[code.co_argcount + code.co_kwonlyargcount] if takes_more else None
    return code.co_varnames[1:code.co_argcount], variadic


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
    and second derivatives come for nothing.
    """

    broadcasts: ClassVar[bool] = False              # inputs are broadcast; the engine sums the gradients back
    once_differentiable: bool = False
    dtype_rule: ClassVar[str] = "any"               # "any", "same", "promote" or "float": see _to_common_dtype

    contract: ClassVar[Contract]
    registry: ClassVar[list[type[Op]]] = []         # every op class, for the tests

    forward: Callable[..., Any]
    _kept: dict[str, Any] | None = None
    _recorded = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if hasattr(cls, "forward"):
            cls.contract = Contract(cls)
            Op.registry.append(cls)

    def __call__(self, *call_inputs: Any) -> Tensor:
        """Run forward on the arrays of the inputs and record the call if any of them requires grad."""
        if self._recorded:
            raise GraphError("this op object has been called before; make a new one for each call", where=str(self))
        inputs = self._prepare(call_inputs)
        arrays = [x.array if isinstance(x, _tensor_class) else x for x in inputs]
        compute = self._forward_in_float32 if self._is_half(inputs) else self.forward
        with quiet():
            try:
                y = new_tensor(as_array(compute(*arrays)))
            except MinidlError:
                raise
            except (ValueError, TypeError, IndexError) as error:
                raise self._explained(error, inputs) from error
            except MemoryError as error:
                backend = next(backend_of(x) for x in arrays if hasattr(x, "dtype"))
                raise out_of_memory(error, backend, _name_for_people(self)) from error
        _share_version_of_views(y, inputs)
        if state.recording:
            parents = self._parents(inputs, y)
            if parents is not None:
                y.node = Node(self, inputs, parents, y)
                self._recorded = True
        for observer in observers:
            observer.op_called(self, inputs, y)
        return y

    def keep(self, **values: Any) -> None:
        """Put intermediates of forward away for backward, which asks for them by name. Called inside `forward`.

        Masks, indices and sizes are constants. Floats depend on the inputs in a way that the graph does not know, so
        with them the op can be differentiated only once.
        """
        self._kept = {**(self._kept or {}), **values}
        if any(hasattr(value, "dtype") and dtypes.is_floating(value.dtype) for value in values.values()):
            self.once_differentiable = True

    def __repr__(self) -> str:
        return type(self).__name__

    # -- what __call__ does before and after forward ----------------------------------------------------------------

    def _prepare(self, inputs: Sequence[Any]) -> list[Any]:
        """Everything a Tensor, a Python number or None; all on one device; of the dtypes that the op computes in."""
        prepared: list[Any] = []
        for x in inputs:
            if isinstance(x, _tensor_class) or x is None:
                prepared.append(x)
            else:
                number = as_number(x)
                prepared.append(_tensor_class._from(x) if number is None else number)
        tensors = [x for x in prepared if isinstance(x, _tensor_class)]
        if not tensors:
            raise DtypeError(f"got {' and '.join(map(repr, inputs))}, expected a tensor; use minidl.tensor(x)",
                             where=_name_for_people(self))
        if len({type(x.array) for x in tensors}) > 1:
            raise self._mixed_devices(prepared)
        return prepared if self.dtype_rule == "any" else self._to_common_dtype(prepared, tensors)

    def _to_common_dtype(self, inputs: list[Any], tensors: list[Tensor]) -> list[Any]:
        """Apply `dtype_rule`: cast to PyTorch's common type ("promote"; "float": and integers become floats), or
        refuse mixed types ("same").
        """
        present = {x.array.dtype for x in tensors}
        if self.dtype_rule == "same":
            if len(present) > 1:
                raise self._mixed_dtypes(inputs)
            return inputs
        if len(present) == 1 and dtypes.is_floating(tensors[0].array.dtype):
            return inputs                                   # the common case; a Python number cannot change it
        target = dtypes.result_type(((x.array.dtype, x.array.ndim) for x in tensors),
                                    (x for x in inputs if isinstance(x, int | float)))
        if self.dtype_rule == "float" and not dtypes.is_floating(target):
            target = dtypes.get_default_dtype()
        return [Cast(target)(x) if isinstance(x, _tensor_class) and x.array.dtype != target
                else dtypes.wrapped(x, target) for x in inputs]

    def _is_half(self, inputs: Sequence[Any]) -> bool:
        # with a dtype rule all tensors are of one dtype by now, so the first tells
        return self.dtype_rule != "any" and bool(next(
            x.array.dtype == dtypes.float16 for x in inputs if isinstance(x, _tensor_class)))

    def _forward_in_float32(self, *arrays: Any) -> Array:
        """float16 is for storing: it ends at 65,504, which a sum or a product leaves soon. So compute in float32."""
        wide = [x.astype(dtypes.float32) if getattr(x, "dtype", None) == dtypes.float16 else x for x in arrays]
        result = as_array(self.forward(*wide))
        return result.astype(dtypes.float16) if result.dtype == dtypes.float32 else result

    def _parents(self, inputs: Sequence[Any], y: Tensor) -> tuple[Node | None, ...] | None:
        """The node that each input came from; None where no gradient is needed, and as a whole if nowhere."""
        if not self.contract.asks or not dtypes.is_floating(y.array.dtype):
            return None
        parents = tuple(x.node if isinstance(x, _tensor_class) and self.contract.wants_gradient(i) else None
                        for i, x in enumerate(inputs))
        return parents if any(parents) else None

    def _explained(self, error: Exception, inputs: Sequence[Any]) -> Exception:
        """The array module's complaint, in words that name the shapes or types if they are what it is about."""
        shapes = [x.array.shape for x in inputs if isinstance(x, _tensor_class)]
        if isinstance(error, IndexError):
            return OutOfRangeError(f"got a tensor of shape {shapes[0]}: {error}", where=_name_for_people(self))
        if isinstance(error, TypeError):
            kinds = [f"a tensor of {x.array.dtype}" if isinstance(x, _tensor_class) else repr(x) for x in inputs]
            return DtypeError(f"got {' and '.join(kinds)}, expected numbers that this can be done with ({error})",
                              where=_name_for_people(self))
        if self.broadcasts and not _do_broadcast(shapes):
            return ShapeError(f"got shapes {' and '.join(map(str, shapes))}, which do not broadcast: from the last "
                              f"axis on, sizes must be equal or 1", where=_name_for_people(self))
        return ShapeError(f"got inputs of shapes {' and '.join(map(str, shapes))}: {error}",
                          where=_name_for_people(self))

    def _mixed_devices(self, inputs: Sequence[Any]) -> DeviceError:
        places = [f"{self.contract.name_of(i)} on {backend_of(x.array).name!r}"
                  for i, x in enumerate(inputs) if isinstance(x, _tensor_class)]
        return DeviceError(f"got {' and '.join(places)}, expected all on one device; move one with .to(device)",
                           where=_name_for_people(self))

    def _mixed_dtypes(self, inputs: Sequence[Any]) -> DtypeError:
        named = [(self.contract.name_of(i), x.array.dtype)
                 for i, x in enumerate(inputs) if isinstance(x, _tensor_class)]
        # cast what is not a float to the float; of two floats, the first to the other's type
        name, odd = next(((n, d) for n, d in named if not dtypes.is_floating(d)), named[0])
        wanted = next((d for _, d in named if d != odd and dtypes.is_floating(d)), dtypes.get_default_dtype())
        cast = f"{name}.to(minidl.{wanted})" + (" / 255 for images" if odd == dtypes.uint8 else "")
        got = " and ".join(f"{dtype} for {name}" for name, dtype in named)
        return DtypeError(f"got {got}, expected one dtype; cast with {cast}", where=_name_for_people(self))


def _do_broadcast(shapes: Sequence[tuple[int, ...]]) -> bool:
    axes = zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1)
    return all(len(set(sizes) - {1}) <= 1 for sizes in axes)


def _name_for_people(op: Op) -> str:
    return type(op).__name__.lower()


def _share_version_of_views(y: Tensor, inputs: Sequence[Any]) -> None:
    """If y is a view of an input's memory, let both count writes together."""
    if y.array.base is None:                                # y owns its memory: no view, but it may be the input itself
        shared = [x for x in inputs if isinstance(x, _tensor_class) and x.array is y.array]
    else:
        memory = memory_of(y.array)
        shared = [x for x in inputs if isinstance(x, _tensor_class) and memory_of(x.array) is memory]
    for x in shared:
        y.version = x.version
        y.version.shared_by(x, y)


# -- nodes: what a call leaves behind ------------------------------------------------------------------------------

class Kept:
    """A value kept for backward: its array, the node it came from, and the version it had."""

    __slots__ = ("array", "at", "node", "version")

    def __init__(self, tensor: Tensor, node: Node | None) -> None:
        self.array = tensor.array
        self.node = node
        self.version = tensor.version
        self.at = tensor.version.count

    def __repr__(self) -> str:
        return f"Kept({self.array!r})"


_node_numbers = itertools.count()


class Node:
    """One recorded call, or a leaf (`op` is None). Edges point from a result to what it was computed from.

    An edge keeps no array alive: arrays are held by `kept` alone, which `release` empties once backward went through.
    """

    __slots__ = ("__weakref__", "_line", "_modules", "dtype", "hooks", "kept", "kernels", "number", "op", "parents",
                 "released", "retains_grad", "shape", "tensor")

    def __init__(self, op: Op | None, inputs: Sequence[Any], parents: tuple[Node | None, ...], y: Tensor) -> None:
        self.op: Any = op
        self.number = next(_node_numbers)   # later ones are larger: the order in which the computation went
        self.parents = parents              # aligned with the inputs; None where no gradient is needed
        self.shape: tuple[int, ...] = y.array.shape
        self.dtype: Dtype = y.array.dtype
        self.hooks: dict[int, Callable[[Tensor], Tensor | None]] = {}
        self.retains_grad = False
        self.tensor: weakref.ref[Tensor] | None = None      # who gets `.grad`: a leaf, or after retain_grad()
        self.kept: dict[str, Any] = {}
        self.released = False
        self.kernels = kernels.chosen()     # backward runs with the kernels that forward ran with
        self._line = users_line()
        # weak: a graph keeps no model alive, and a model may keep an activation without making a cycle
        self._modules = (weakref.ref(state.modules[0]), weakref.ref(state.modules[-1])) if state.modules else None
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

    def gradients(self, g: Tensor, useful: set[Node]) -> list[tuple[str, Node, Tensor]]:
        """Given `g`, the gradient of the output: (name, node, gradient) of each input whose node is useful.

        This is where an op's backward is called.
        """
        op, contract = self.op, self.op.contract
        all_at_once: Sequence[Tensor | None] = ()
        if None in contract.asks:
            result = op.backward(g, *self._arguments(None))
            all_at_once = result if isinstance(result, tuple | list) else (result,)
        results = []
        for i, parent in enumerate(self.parents):
            if parent is not None and parent in useful:
                if None in contract.asks:
                    gradient = all_at_once[i]
                else:
                    name = contract.name_of(i)
                    gradient = getattr(op, f"backward_{name}")(g, *self._arguments(name))
                if gradient is not None:
                    results.append((self._input_name(i), parent, self._checked(i, gradient, parent)))
        return results

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
                raise GraphError(f"{self.op} kept {what} for the backward pass, but it was changed in place "
                                 f"afterwards; write x = x + 1 instead of x += 1, or change a clone()",
                                 where=self.where)
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
        name, fixed = self.op.contract.name_of(i), len(self.op.contract.inputs)
        return name if i < fixed else f"{name}[{i - fixed}]"

    @property
    def next_functions(self) -> tuple[tuple[Node, int], ...]:
        """The nodes of the inputs, as PyTorch lists them: (node, 0)."""
        return tuple((parent, 0) for parent in self.parents if parent is not None)

    def name(self) -> str:
        """The name of the op."""
        return "Leaf" if self.op is None else str(self.op)

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
        return f"{os.path.basename(str(code.co_filename))}:{line}"

    @property
    def module(self) -> str:
        """The path of the module that made the call, "features.0"; empty outside of modules."""
        root, module = (ref() for ref in self._modules) if self._modules is not None else (None, None)
        return "" if root is None or module is None else module_path(root, module)

    def __repr__(self) -> str:
        name = "Leaf" if self.op is None else str(self.op)
        return f"<{name} at {self.where}>" if self.where else f"<{name}>"


def _kept(value: Any) -> Any:
    return Kept(value, value.node) if isinstance(value, _tensor_class) else value


def leaf(tensor: Any) -> Node:
    """A node for a tensor that gradients are to be collected for."""
    node = Node(None, (), (), tensor)
    node.tensor = weakref.ref(tensor)
    return node


# -- the ops that the engine itself calls --------------------------------------------------------------------------

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
        if x.ndim < len(self.shape):                        # an assignment x[0] = v dropped leading axes of size 1
            x = x.reshape((1,) * (len(self.shape) - x.ndim) + x.shape)
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
        if x.size == math.prod(self.shape):
            return x.reshape(self.shape)                    # nothing is repeated, so the result may be written to
        return xp_of(x).broadcast_to(x, self.shape)

    def backward(self, g: Tensor) -> Tensor:
        return SumTo(self.shape_of_x)(g)
