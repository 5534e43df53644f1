"""Tensor: an array that remembers how it was computed. Each method is a line or two onto an op.

The fields are `array` (NumPy's, or another device's), `node` (None, a leaf, or the call that made it), `grad`, and
`version` (counts writes into the memory). Everything else is PyTorch's names for what the ops do.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar

import numpy as np

from minidl import autograd, dtypes, graph, ops
from minidl.autograd import BackwardStep
from minidl.backend import Array, as_number, backend_for, backend_of, device_of
from minidl.backend import device as Device
from minidl.dtypes import Dtype
from minidl.errors import DeviceError, DtypeError, GraphError, SettingError, ShapeError
from minidl.graph import Node
from minidl.inplace import assign, become
from minidl.ops.index import check_gather, split_key
from minidl.ops.linalg import matmul
from minidl.ops.reduce import axes_of, axis_of
from minidl.ops.shape import full_shape
from minidl.printing import format_array
from minidl.recording import HookHandle, Version, no_grad

# Tensor has methods called int, float and bool and a property called device; inside the class these are the types
Axis: TypeAlias = int
Real: TypeAlias = float
Flag: TypeAlias = bool
Dim: TypeAlias = int | Sequence[int] | None


class ValuesAndIndices(NamedTuple):
    """What `max(dim)` returns: the largest values, and where along `dim` they stand."""

    values: Tensor
    indices: Tensor


Method = TypeVar("Method", bound=Callable[..., Any])


def _numpy_names(method: Method) -> Method:
    """Let a method that takes dim and keepdim take NumPy's names for them, axis and keepdims, too."""
    @functools.wraps(method)
    def with_either_name(*args: Any, **kwargs: Any) -> Any:
        if "axis" in kwargs:
            if "dim" in kwargs:
                raise SettingError("got both dim and axis, which mean the same; give one", where=method.__name__)
            kwargs["dim"] = kwargs.pop("axis")
        if "keepdims" in kwargs:
            kwargs["keepdim"] = kwargs.pop("keepdims")
        if "out" in kwargs and kwargs["out"] is None:           # np.mean(tensor) passes it on
            del kwargs["out"]
        return method(*args, **kwargs)
    return with_either_name  # type: ignore[return-value]


class Tensor:
    """A multi-dimensional array with a gradient. Make one with `minidl.tensor(data)`.

    Called directly it is PyTorch's `torch.Tensor`: `Tensor(3, 4)` is an uninitialised (3, 4) tensor and
    `Tensor([1, 2])` holds the data, both in the default float type.
    """

    __slots__ = ("__weakref__", "_grad", "array", "node", "version")

    __array_priority__: ClassVar[Real] = 1000.0        # so that `numpy_array * tensor` asks the tensor

    array: Array
    node: Node | None
    version: Version
    _grad: Tensor | None

    def __init__(self, *data: Any) -> None:
        if len(data) == 1 and not isinstance(data[0], int):
            self.array = host_array(data[0], dtypes.get_default_dtype())
        else:
            self.array = np.empty(data or 0, dtypes.get_default_dtype())
        self.node, self._grad, self.version = None, None, Version()

    @classmethod
    def _of(cls, array: Array, node: Node | None = None, version: Version | None = None) -> Tensor:
        """Wrap an array, without looking at it."""
        tensor = Tensor.__new__(Tensor)
        tensor.array, tensor.node, tensor._grad = array, node, None
        tensor.version = Version() if version is None else version
        return tensor

    @classmethod
    def _from(cls, data: Any) -> Tensor:
        """Anything that an expression may hold beside a tensor: an array, a list."""
        return data if isinstance(data, Tensor) else cls._of(host_array(data))

    # -- what it is --

    @property
    def shape(self) -> tuple[Axis, ...]:
        """The size along each axis."""
        return self.array.shape  # type: ignore[no-any-return]

    @property
    def ndim(self) -> Axis:
        """The number of axes."""
        return self.array.ndim  # type: ignore[no-any-return]

    @property
    def dtype(self) -> Dtype:
        """The number type, such as `minidl.float32`."""
        return self.array.dtype  # type: ignore[no-any-return]

    @property
    def device(self) -> Device:
        """Where the numbers are."""
        return device_of(self.array)

    def size(self, dim: Axis | None = None) -> Any:
        """The shape, or its entry `dim`."""
        return self.shape if dim is None else self.shape[axis_of(dim, self.ndim)]

    def dim(self) -> Axis:
        """The number of axes."""
        return self.ndim

    def numel(self) -> Axis:
        """The number of elements."""
        return self.array.size  # type: ignore[no-any-return]

    nelement = numel

    def element_size(self) -> Axis:
        """Bytes per element."""
        return self.array.itemsize  # type: ignore[no-any-return]

    def is_floating_point(self) -> Flag:
        """Whether the numbers are floats; only those can have a gradient."""
        return dtypes.is_floating(self.dtype)

    def is_contiguous(self) -> Flag:
        """Whether the memory is in C order."""
        return self.array.flags.c_contiguous  # type: ignore[no-any-return]

    # -- gradients --

    @property
    def requires_grad(self) -> Flag:
        """Whether operations on this tensor are recorded. May be set on a leaf."""
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, value: Flag) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: Flag = True) -> Tensor:
        """Start (or stop) recording what is computed from this leaf. Returns the tensor."""
        if not self.is_leaf:
            if not requires_grad:
                raise GraphError("got a tensor that was computed from others, expected a leaf; use detach()",
                                 where="requires_grad_")
        elif not requires_grad:
            self.node = None
        elif not self.is_floating_point():
            raise DtypeError(f"got a tensor of {self.dtype}, expected floats: only they have a gradient; "
                             f"use x.float().requires_grad_()", where="requires_grad_")
        elif self.node is None:
            self.node = graph.leaf(self)
        return self

    @property
    def grad(self) -> Tensor | None:
        """dL/d(this tensor), added up over all backward passes since it was None. Written on leaves."""
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and (not isinstance(value, Tensor) or value.shape != self.shape
                                  or value.dtype != self.dtype or value.device != self.device):
            got = type(value).__name__
            if isinstance(value, Tensor):
                got = f"{value.dtype} {value.shape} on {value.device}"
            raise ShapeError(f"got {got} as gradient, expected None or a tensor like this one: {self.dtype} "
                             f"{self.shape} on {self.device}", where="grad")
        self._grad = value

    @property
    def is_leaf(self) -> Flag:
        """True for a tensor that was not computed by a recorded op."""
        return self.node is None or self.node.op is None

    @property
    def grad_fn(self) -> Node | None:
        """The node of the call that made this tensor; None for a leaf."""
        return None if self.is_leaf else self.node

    def backward(self, gradient: Tensor | None = None, retain_graph: Flag | None = None,
                 create_graph: Flag = False) -> None:
        """Add dL/dx to the `.grad` of every leaf x that this tensor L was computed from.

        gradient: dL/d(this tensor), needed unless it is a single number. retain_graph: keep the graph for another
        backward. create_graph: record this backward, so that the gradients can be differentiated.
        """
        for _ in self.backward_steps(gradient, retain_graph, create_graph):
            pass

    def backward_steps(self, gradient: Tensor | None = None, retain_graph: Flag | None = None,
                       create_graph: Flag = False) -> Iterator[BackwardStep]:
        """Backward, one op at a time: each step has op, incoming, outgoing, module and where.

        `.grad` is written after the last step; a generator that is not run to its end writes nothing.
        """
        return autograd.backward_steps(self, gradient, retain_graph, create_graph)

    def retain_grad(self) -> None:
        """Let backward write `.grad` on this tensor although it is not a leaf."""
        if self.node is None:
            raise GraphError("got a tensor that does not require grad, so it will have no gradient",
                             where="retain_grad")
        if not self.is_leaf:
            self.node.retains_grad = True
            self.node.tensor = weakref.ref(self)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> HookHandle:
        """Call `hook(gradient)` when the complete gradient of this tensor is known; it may return another one."""
        if self.node is None:
            raise GraphError("got a tensor that does not require grad, so no gradient will reach the hook",
                             where="register_hook")
        return HookHandle(self.node.hooks, hook)

    def detach(self) -> Tensor:
        """The same memory, without the graph."""
        alias = Tensor._of(self.array, None, self.version)
        self.version.shared_by(self, alias)
        return alias

    @property
    def data(self) -> Tensor:
        """The same memory without the graph; assigning to it gives this tensor other numbers."""
        return self.detach()

    @data.setter
    def data(self, other: Tensor) -> None:
        if not isinstance(other, Tensor) or (self.node is not None and not other.is_floating_point()):
            got = other.dtype if isinstance(other, Tensor) else type(other).__name__
            raise DtypeError(f"got {got}, expected a tensor{' of floats' if self.node is not None else ''}; use "
                             f"minidl.tensor(x)", where="data")
        self.array, self.version = other.array, other.version
        if self.node is not None and self.is_leaf:
            self.node.shape, self.node.dtype = other.shape, other.dtype

    # -- to and from other things --

    def item(self) -> Any:
        """The number in a tensor of one element, as a Python number."""
        if self.numel() != 1:
            raise ShapeError(f"got a tensor of shape {self.shape}, expected one element; use tolist()", where="item")
        return self._on_host().item()

    def tolist(self) -> Any:
        """The numbers as nested lists."""
        return self._on_host().tolist()

    def _on_host(self) -> np.ndarray:
        return backend_of(self.array).to_host(self.array)

    def numpy(self) -> np.ndarray:
        """The NumPy array itself, sharing memory. For tensors without gradient, on the CPU."""
        if self.node is not None:
            raise GraphError("got a tensor that requires grad, expected one without; use x.detach().numpy()",
                             where="numpy")
        if not backend_of(self.array).is_host:
            raise DeviceError(f'got a tensor on "{self.device}", expected the CPU; use x.cpu().numpy()', where="numpy")
        return self.array  # type: ignore[no-any-return]

    def __array__(self, dtype: Any = None, copy: Flag | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype, copy=copy)

    def to(self, *args: Any, dtype: Any = None, device: Any = None, non_blocking: Flag = False) -> Tensor:
        """The tensor in another dtype, on another device, or like another tensor; itself if nothing changes.

        `non_blocking` is accepted and changes nothing.
        """
        for arg in args:
            if isinstance(arg, Tensor):
                dtype, device = arg.dtype, arg.device
            elif isinstance(arg, str | Device):
                device = arg
            elif not isinstance(arg, bool):                 # a third argument is non_blocking
                dtype = arg
        here, there = backend_of(self.array), backend_of(self.array) if device is None else backend_for(device)
        moved = self if here is there else ops.ToDevice(there)(self)
        if dtype is None or moved.dtype == np.dtype(dtype):
            return moved
        return ops.Cast(np.dtype(dtype))(moved)

    def cpu(self) -> Tensor:
        """On the CPU."""
        return self.to(device="cpu")

    def cuda(self, index: Axis | None = None) -> Tensor:
        """On the GPU."""
        return self.to(device=Device("cuda", index))

    def type(self, dtype: Any) -> Tensor:
        """The same numbers as another dtype."""
        return self.to(dtype)

    def float(self) -> Tensor:
        """As float32."""
        return self.to(dtypes.float32)

    def double(self) -> Tensor:
        """As float64."""
        return self.to(dtypes.float64)

    def half(self) -> Tensor:
        """As float16."""
        return self.to(dtypes.float16)

    def long(self) -> Tensor:
        """As int64."""
        return self.to(dtypes.int64)

    def int(self) -> Tensor:
        """As int32."""
        return self.to(dtypes.int32)

    def bool(self) -> Tensor:
        """As booleans: False where the number is 0."""
        return self.to(dtypes.bool_)

    def clone(self) -> Tensor:
        """A copy in memory of its own; gradients flow through."""
        return ops.Clone()(self)

    def contiguous(self) -> Tensor:
        """Itself if its memory is in C order, else a copy that is."""
        # clone() keeps the memory order, so flatten first, which puts the elements into C order
        return self if self.is_contiguous() else self.flatten().clone().reshape(self.shape)

    def __deepcopy__(self, memo: dict[Axis, Any]) -> Tensor:
        if not self.is_leaf:
            raise GraphError("got a tensor that was computed from others, expected a leaf; use detach() first",
                             where="deepcopy")
        with no_grad():
            copy = self.clone()
        copy.grad = None if self.grad is None else self.grad.__deepcopy__(memo)
        memo[id(self)] = copy
        return copy.requires_grad_(self.requires_grad)

    # -- as Python sees it --

    def __len__(self) -> Axis:
        if self.ndim == 0:
            raise TypeError("len() of a tensor without dimensions")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if self.ndim == 0:
            raise TypeError("iteration over a tensor without dimensions")
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> Flag:
        if self.numel() != 1:
            raise ShapeError(f"got a tensor of shape {self.shape} where a single truth value is needed; "
                             f"use x.numpy().any() or .all()", where="bool")
        return bool(self.item())

    def __int__(self) -> Axis:
        return int(self.item())

    def __float__(self) -> Real:
        return float(self.item())

    def __index__(self) -> Axis:
        if self.dtype.kind not in "iub":
            raise TypeError(f"a tensor of {self.dtype} cannot be an index; use .long()")
        return int(self.item())

    def __contains__(self, value: Any) -> Flag:
        return bool((self == value)._on_host().any())

    def __hash__(self) -> Axis:
        return id(self)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self.ndim == 0 else repr(self)

    def __repr__(self) -> str:
        notes = ""
        if self.dtype not in (dtypes.get_default_dtype(), dtypes.int64, dtypes.bool_):
            notes += f", dtype={self.dtype}"
        if not backend_of(self.array).is_host:
            notes += f", device='{self.device}'"
        if self.node is not None:
            notes += ", requires_grad=True" if self.is_leaf else f", grad_fn=<{self.node.op}>"
        return f"tensor({format_array(self._on_host(), 'tensor(')}{notes})"

    # -- arithmetic --

    def __add__(self, other: Any) -> Tensor:
        return ops.Add()(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return ops.Add()(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return ops.Sub()(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.Sub()(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return ops.Mul()(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return ops.Mul()(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return ops.Div()(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.Div()(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return ops.Pow()(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return ops.Pow()(other, self)

    def __neg__(self) -> Tensor:
        return ops.Neg()(self)

    def __matmul__(self, other: Any) -> Tensor:
        return matmul(self, Tensor._from(other))

    def __rmatmul__(self, other: Any) -> Tensor:
        return matmul(Tensor._from(other), self)

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        if not _is_numeric(other):
            return NotImplemented                           # x == None is False, as for any object
        return ops.Equal()(self, other)

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        if not _is_numeric(other):
            return NotImplemented
        return ops.NotEqual()(self, other)

    def __gt__(self, other: Any) -> Tensor:
        return ops.Greater()(self, other)

    def __ge__(self, other: Any) -> Tensor:
        return ops.GreaterEqual()(self, other)

    def __lt__(self, other: Any) -> Tensor:
        return ops.Greater()(other, self)

    def __le__(self, other: Any) -> Tensor:
        return ops.GreaterEqual()(other, self)

    add, sub, mul, div, pow, neg = __add__, __sub__, __mul__, __truediv__, __pow__, __neg__
    eq, ne, gt, ge, lt, le = __eq__, __ne__, __gt__, __ge__, __lt__, __le__
    matmul = mm = __matmul__

    def exp(self) -> Tensor:
        """e to the power of each element."""
        return ops.Exp()(self)

    def log(self) -> Tensor:
        """The natural logarithm of each element."""
        return ops.Log()(self)

    def sqrt(self) -> Tensor:
        """The square root of each element."""
        return self ** 0.5

    def relu(self) -> Tensor:
        """max(x, 0)."""
        return ops.ReLU()(self)

    def tanh(self) -> Tensor:
        """The hyperbolic tangent."""
        return ops.Tanh()(self)

    def sigmoid(self) -> Tensor:
        """1 / (1 + e^-x)."""
        return ops.Sigmoid()(self)

    @_numpy_names
    def softmax(self, dim: Axis) -> Tensor:
        """e^x divided by its sum along `dim`: positive, adding up to 1."""
        return ops.Softmax(axis_of(dim, self.ndim))(self)

    @_numpy_names
    def log_softmax(self, dim: Axis) -> Tensor:
        """The logarithm of softmax, exact also where the softmax is too small for a float."""
        return ops.LogSoftmax(axis_of(dim, self.ndim))(self)

    # -- reductions --

    @_numpy_names
    def sum(self, dim: Dim = None, keepdim: Flag = False, dtype: Any = None) -> Tensor:
        """The sum over the axes `dim` (all, if None)."""
        return ops.Sum(axes_of(dim, self.ndim), keepdim)(self.to(dtype=dtype))

    @_numpy_names
    def mean(self, dim: Dim = None, keepdim: Flag = False, dtype: Any = None) -> Tensor:
        """The mean over the axes `dim` (all, if None); of floats only, as in PyTorch."""
        x = self.to(dtype=dtype)
        if not x.is_floating_point():
            raise DtypeError(f"got a tensor of {self.dtype}, expected floats; use x.float().mean()", where="mean")
        return ops.Mean(axes_of(dim, self.ndim), keepdim)(x)

    @_numpy_names
    def max(self, dim: Axis | None = None, keepdim: Flag = False) -> Any:
        """The largest element; with `dim`, (values, indices) along it. Of equal elements the first one counts."""
        return self._pick(self.argmax(dim, keepdim=True), dim, keepdim)

    @_numpy_names
    def min(self, dim: Axis | None = None, keepdim: Flag = False) -> Any:
        """The smallest element; with `dim`, (values, indices) along it. Of equal elements the first one counts."""
        return self._pick(self.argmin(dim, keepdim=True), dim, keepdim)

    def _pick(self, indices: Tensor, dim: Axis | None, keepdim: Flag) -> Any:
        """The elements at `indices`: they are all of the gradient that a maximum has."""
        if dim is None:
            return self.flatten()[indices.flatten()].reshape(())
        if self.ndim == 0:
            return ValuesAndIndices(self.reshape(()), indices.reshape(()))
        values = self.gather(dim, indices)
        if not keepdim:
            values, indices = values.squeeze(dim), indices.squeeze(dim)
        return ValuesAndIndices(values, indices)

    @_numpy_names
    def argmax(self, dim: Axis | None = None, keepdim: Flag = False) -> Tensor:
        """The index of the largest element along `dim` (in the flattened tensor, if None)."""
        self._check_not_empty(dim, "argmax")
        return ops.ArgMax(None if dim is None else axis_of(dim, self.ndim), keepdim)(self)

    @_numpy_names
    def argmin(self, dim: Axis | None = None, keepdim: Flag = False) -> Tensor:
        """The index of the smallest element along `dim` (in the flattened tensor, if None)."""
        self._check_not_empty(dim, "argmin")
        return ops.ArgMin(None if dim is None else axis_of(dim, self.ndim), keepdim)(self)

    def _check_not_empty(self, dim: Axis | None, where: str) -> None:
        if isinstance(dim, Tensor):
            raise DtypeError("got a tensor, expected the number of an axis", where=where)
        if (self.numel() if dim is None or self.ndim == 0 else self.size(dim)) == 0:
            raise ShapeError(f"got a tensor of shape {self.shape}, expected at least one element to choose from",
                             where=where)

    # -- shape --

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements, in order, in another shape; one size may be -1."""
        return ops.Reshape(full_shape(as_tuple(shape), self.numel()))(self)

    view = reshape                                      # copies where the memory does not allow a view

    def flatten(self, start_dim: Axis = 0, end_dim: Axis = -1) -> Tensor:
        """The axes from `start_dim` to `end_dim` as one."""
        first, last = axis_of(start_dim, self.ndim), axis_of(end_dim, self.ndim)
        if first > last:
            raise ShapeError(f"got start_dim={start_dim} behind end_dim={end_dim}", where="flatten")
        one = math.prod(self.shape[first:last + 1])         # (a, b, c, d) -> (a, b·c, d) for the axes 1 to 2
        return self.reshape(*self.shape[:first], one, *self.shape[last + 1:])

    def permute(self, *dims: Any) -> Tensor:
        """The axes in another order, as a view: axis k of the result is axis dims[k]."""
        axes = tuple(axis_of(d, self.ndim) for d in as_tuple(dims))
        if sorted(axes) != list(range(self.ndim)):
            raise ShapeError(f"got dims={as_tuple(dims)}, expected each axis of a tensor with {self.ndim} dimensions "
                             f"once", where="permute")
        return ops.Permute(axes)(self)

    def transpose(self, dim0: Axis, dim1: Axis) -> Tensor:
        """Two axes exchanged, as a view."""
        axes = list(range(self.ndim))
        first, second = axis_of(dim0, self.ndim), axis_of(dim1, self.ndim)
        if axes:
            axes[first], axes[second] = axes[second], axes[first]
        return ops.Permute(tuple(axes))(self)

    def t(self) -> Tensor:
        """The transpose of a matrix; a vector is its own."""
        if self.ndim > 2:
            raise ShapeError(f"got a tensor with {self.ndim} dimensions, expected a matrix; use transpose or mT",
                             where="t")
        return self.T

    @property
    def T(self) -> Tensor:
        """All axes in reverse order: the transpose of a matrix."""
        return ops.Permute(tuple(reversed(range(self.ndim))))(self)

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged: the transpose of each matrix in a batch."""
        return self.transpose(-2, -1)

    @_numpy_names
    def squeeze(self, dim: Dim = None) -> Tensor:
        """Without the axes of size 1 (of those named by `dim`)."""
        axes = axes_of(dim, self.ndim)
        return self.reshape(*(n for i, n in enumerate(self.shape) if not (n == 1 and i in axes)))

    @_numpy_names
    def unsqueeze(self, dim: Axis) -> Tensor:
        """With a new axis of size 1 at `dim`."""
        axis = axis_of(dim, self.ndim + 1)
        return self.reshape(*self.shape[:axis], 1, *self.shape[axis:])

    def expand(self, *sizes: Any) -> Tensor:
        """Axes of size 1 repeated without copying; -1 leaves an axis as it is."""
        shape = as_tuple(sizes)
        added = len(shape) - self.ndim
        own = (1,) * added + self.shape
        full = tuple(o if n == -1 else n for o, n in zip(own, shape, strict=False))
        if added < 0 or -1 in shape[:added] or any(o not in (1, n) for o, n in zip(own, full, strict=True)):
            raise ShapeError(f"got a tensor of shape {self.shape}, expected sizes that repeat to {shape}: each 1 or "
                             f"equal", where="expand")
        return ops.BroadcastTo(full)(self)

    # -- picking and changing elements --

    def __getitem__(self, key: Any) -> Tensor:
        keys, indices = split_key(key, self._index)
        picked = ops.Index(keys[0])(self, *indices) if len(keys) == 1 else ops.Index(keys[0])(self)
        return picked if len(keys) == 1 else ops.Index(keys[1])(picked, *indices)

    def _index(self, part: Any) -> Tensor:
        """A list, array or tensor between brackets, on this tensor's device."""
        part = np.zeros(0, np.int64) if isinstance(part, list) and not part else part
        return Tensor._from(part).to(self.device)

    @_numpy_names
    def gather(self, dim: Axis, index: Tensor) -> Tensor:
        """y[i, j] = x[i, index[i, j]] for dim=1, and so on."""
        axis = axis_of(dim, self.ndim)
        check_gather(self, axis, index)
        return ops.Gather(axis)(self, index)

    def __setitem__(self, key: Any, value: Any) -> None:
        keys, indices = split_key(key, self._index)
        if not _is_numeric(value):
            raise DtypeError(f"got {value!r}, expected a number, a tensor or an array", where="x[...] = value")
        if as_number(value) is None:
            value = Tensor._from(value).to(self.dtype)
        value = dtypes.wrapped(value, self.dtype)
        assign(self, keys, indices, value)

    def __iadd__(self, other: Any) -> Tensor:
        return become(self, self + other, "+=")

    def __isub__(self, other: Any) -> Tensor:
        return become(self, self - other, "-=")

    def __imul__(self, other: Any) -> Tensor:
        return become(self, self * other, "*=")

    def __itruediv__(self, other: Any) -> Tensor:
        return become(self, self / other, "/=")

    def __ipow__(self, other: Any) -> Tensor:
        return become(self, self ** other, "**=")

    add_, sub_, mul_, div_, pow_ = __iadd__, __isub__, __imul__, __itruediv__, __ipow__

    def fill_(self, value: Any) -> Tensor:
        """Every element becomes `value`."""
        self[...] = value
        return self

    def zero_(self) -> Tensor:
        """Every element becomes 0."""
        return self.fill_(0)

    def copy_(self, other: Tensor) -> Tensor:
        """Take over the numbers of another tensor, broadcast to this shape and cast to this dtype."""
        self[...] = other.to(self.device)
        return self


def _is_numeric(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray | list | tuple) or as_number(value) is not None


def forget_gradients(tensors: Iterable[Tensor], set_to_none: bool) -> None:
    """What `zero_grad` of a module and of an optimizer does: `.grad` becomes None, or zeros where it was there."""
    for x in tensors:
        if set_to_none:
            x.grad = None
        elif x.grad is not None:
            x.grad = x.grad.detach().zero_()


def as_tuple(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """`x.reshape(2, 3)` and `x.reshape((2, 3))` are the same."""
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes


def host_array(data: Any, dtype: Any = None) -> np.ndarray:
    """Numbers, nested lists, arrays or tensors as a NumPy array of a type that minidl has.

    Python floats become the default float type; arrays keep their type.
    """
    if isinstance(data, Tensor):
        data = data.detach()._on_host()
    try:
        array = np.asarray(data)
    except ValueError:
        raise ShapeError("got a nested list whose rows differ in length, expected a rectangular one",
                         where="tensor") from None
    if dtype is None and not isinstance(data, np.ndarray | np.generic) and array.dtype == np.float64:
        dtype = dtypes.get_default_dtype()
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise DtypeError(f"got data of type {array.dtype}, expected numbers (float16/32/64, integers or booleans)",
                         where="tensor")
    # in the byte order of this machine: a file's may be the other one
    return array.astype(np.dtype(dtype or array.dtype).newbyteorder("="), copy=False)


graph.set_tensor_class(Tensor)
