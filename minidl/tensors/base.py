"""The ground of Tensor: its fields, its gradient, its ways in and out, and how Python sees it.

`Tensor` is put together in five files, each of which adds methods of one kind to the class of the one before:

    base         fields, gradients, conversion, printing
    arithmetic   operators and functions of single elements
    shaping      other shapes, other orders, picking elements
    reductions   sums, means, maxima, sorting
    changing     everything that ends in _: changes in place

so that no file is long and each method is found where its kind is. Each is a line or two onto an op.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import numpy as np

from minidl import autograd, dtypes, graph, ops, uploads
from minidl.autograd import BackwardStep
from minidl.backend import Array, backend_for, backend_of, device_of
from minidl.backend import device as Device
from minidl.dtypes import Dtype
from minidl.errors import DeviceError, DtypeError, GraphError, ShapeError, no_such_name
from minidl.graph import Node, is_tensor, new_tensor
from minidl.ops.reduce import axis_of
from minidl.printing import format_array, with_notes
from minidl.recording import HookHandle, Version, no_grad
from minidl.tensors.arguments import Axis, Flag, Real, Size, as_tuple, host_array

if TYPE_CHECKING:
    from minidl.tensors import Tensor

T = TypeVar("T", bound="TensorBase")

_OLDER_TYPES = {"FloatTensor": dtypes.float32, "DoubleTensor": dtypes.float64, "HalfTensor": dtypes.float16,
                "LongTensor": dtypes.int64, "IntTensor": dtypes.int32, "ShortTensor": dtypes.int16,
                "CharTensor": dtypes.int8, "ByteTensor": dtypes.uint8, "BoolTensor": dtypes.bool_}

# names that PyTorch's tensors have and these have not, with what to use instead
_HINTS = {
    "register_post_accumulate_grad_hook": "use register_hook, which sees the complete gradient",
    "storage": "x.array is the NumPy array itself", "untyped_storage": "x.array is the NumPy array itself",
    "data_ptr": "x.array.ctypes.data is the address on the CPU",
    "to_sparse": "there are no sparse tensors", "is_sparse": "there are no sparse tensors",
    "cfloat": "there are no complex numbers", "real": "there are no complex numbers",
    **{name: f"use minidl.linalg.{new}, which has no gradient" for name, new in (
        ("inverse", "inv"), ("det", "det"), ("svd", "svd"), ("cholesky", "cholesky"), ("qr", "qr"))},
    "bfloat16": "the float types are float16, float32 and float64",
}


class TensorBase:
    """An array that remembers how it was computed. The class to use is `Tensor`, which has all the methods.

    The fields are `array` (NumPy's, or another device's), `node` (None, a leaf, or the call that made it), `grad`, and
    `version` (counts writes into the memory).
    """

    __slots__ = ("__weakref__", "_grad", "_view_of", "array", "node", "version")

    __array_priority__: ClassVar[Real] = 1000.0        # so that `numpy_array * tensor` asks the tensor

    array: Array
    node: Node | None
    version: Version
    _grad: Tensor | None
    _view_of: tuple[Any, Any]           # set on views made with x[…] alone: (weak reference to x, key)

    def __init__(self, *data: Any) -> None:
        if len(data) == 1 and not isinstance(data[0], int | Size):          # Tensor(x.shape) is of that shape
            self.array = host_array(data[0], dtypes.get_default_dtype())
        else:
            shape = data[0] if data and isinstance(data[0], Size) else data or 0
            self.array = np.empty(shape, dtypes.get_default_dtype())
        self.node, self._grad, self.version = None, None, Version()

    # -- what it is --

    @property
    def shape(self) -> Size:
        """The size along each axis."""
        return Size(self.array.shape)

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

    @property
    def is_cuda(self) -> Flag:
        """Whether the numbers are on a GPU."""
        return self.device.type == "cuda"

    @property
    def nbytes(self) -> Axis:
        """Bytes of all elements."""
        return self.numel() * self.element_size()

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

    def requires_grad_(self: T, requires_grad: Flag = True) -> T:
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
        if value is not None and (not is_tensor(value) or value.shape != self.shape
                                  or value.dtype != self.dtype or value.device != self.device):
            got = type(value).__name__
            if is_tensor(value):
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
        for step in self.backward_steps(gradient, retain_graph, create_graph):
            del step                                        # who holds the last step makes its gradient be copied

    def backward_steps(self, gradient: Tensor | None = None, retain_graph: Flag | None = None,
                       create_graph: Flag = False) -> Iterator[BackwardStep]:
        """Backward, one op at a time: each step has op, incoming, outgoing, module and where.

        `.grad` is written after the last step; a generator that is not run to its end writes nothing.
        """
        return autograd.backward_steps(cast("Tensor", self), gradient, retain_graph, create_graph)

    def retain_grad(self) -> None:
        """Let backward write `.grad` on this tensor although it is not a leaf."""
        if self.node is None:
            raise GraphError("got a tensor that does not require grad, so it will have no gradient",
                             where="retain_grad")
        if not self.is_leaf:
            self.node.retains_grad = True
            self.node.tensor = weakref.ref(cast("Tensor", self))

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> HookHandle:
        """Call `hook(gradient)` when the complete gradient of this tensor is known; it may return another one."""
        if self.node is None:
            raise GraphError("got a tensor that does not require grad, so no gradient will reach the hook",
                             where="register_hook")
        return HookHandle(self.node.hooks, hook)

    def view_of(self) -> tuple[Tensor | None, Any]:
        """(the tensor that this one was picked out of with x[…], the key), if it is a view and that tensor lives."""
        base, key = getattr(self, "_view_of", (None, None))
        return (None, None) if base is None else (base(), key)

    def detach(self) -> Tensor:
        """The same memory, without the graph."""
        alias = new_tensor(self.array, None, self.version)
        self.version.shared_by(self, alias)
        return alias

    @property
    def data(self) -> Tensor:
        """The same memory without the graph; assigning to it gives this tensor other numbers."""
        return self.detach()

    @data.setter
    def data(self, other: Tensor) -> None:
        if not is_tensor(other) or (self.node is not None and not other.is_floating_point()):
            got = other.dtype if is_tensor(other) else type(other).__name__
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

    def numpy(self, *, force: Flag = False) -> np.ndarray:
        """The NumPy array itself, sharing memory. For tensors without gradient, on the CPU; force: for any."""
        if force:
            return self.detach().cpu().array  # type: ignore[no-any-return]
        if self.node is not None:
            raise GraphError("got a tensor that requires grad, expected one without; use x.detach().numpy()",
                             where="numpy")
        if not backend_of(self.array).is_host:
            raise DeviceError(f'got a tensor on "{self.device}", expected the CPU; use x.cpu().numpy()', where="numpy")
        return self.array  # type: ignore[no-any-return]

    def __array__(self, dtype: Any = None, copy: Flag | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype, copy=copy)

    def __array_wrap__(self, array: np.ndarray, context: Any = None, return_scalar: Flag = False) -> Tensor:
        return new_tensor(np.asarray(array))                # np.exp(tensor) is a tensor again

    def to(self, *args: Any, dtype: Any = None, device: Any = None, non_blocking: Flag = False,
           copy: Flag = False) -> Tensor:
        """The tensor in another dtype, on another device, or like another tensor; itself if nothing changes.

        `non_blocking` is accepted and changes nothing.
        """
        for arg in args:
            if is_tensor(arg):
                dtype, device = arg.dtype, arg.device
            elif isinstance(arg, str | Device):
                device = arg
            elif not isinstance(arg, bool):                 # a third argument is non_blocking
                dtype = arg
        here, there = backend_of(self.array), backend_of(self.array) if device is None else backend_for(device)
        moved = cast("Tensor", self) if here is there else ops.ToDevice(there)(self)
        if here.is_host and moved is not self:
            uploads.note(moved, self.array)
        wanted = moved.dtype if dtype is None else dtypes.known(dtype)
        if moved.dtype == wanted:
            return moved.clone() if copy and moved is self else moved
        return ops.Cast(wanted)(moved)

    def _unshared(self, result: Tensor) -> Tensor:
        """The result in memory of its own, where it came out as a view of this tensor."""
        return result.clone() if result.version is self.version else result

    def new_tensor(self, data: Any, dtype: Any = None, requires_grad: Flag = False) -> Tensor:
        """A tensor with this data, in this one's dtype and on its device."""
        return self._new(np.array(host_array(data, dtype or self.dtype)), requires_grad)

    def new_zeros(self, *size: Any, dtype: Any = None, requires_grad: Flag = False) -> Tensor:
        """Zeros in this tensor's dtype and on its device."""
        return self._new(np.zeros(as_tuple(size), dtype or self.dtype), requires_grad)

    def new_ones(self, *size: Any, dtype: Any = None, requires_grad: Flag = False) -> Tensor:
        """Ones in this tensor's dtype and on its device."""
        return self._new(np.ones(as_tuple(size), dtype or self.dtype), requires_grad)

    def new_empty(self, *size: Any, dtype: Any = None, requires_grad: Flag = False) -> Tensor:
        """Memory as it comes, in this tensor's dtype and on its device."""
        return self._new(np.empty(as_tuple(size), dtype or self.dtype), requires_grad)

    def new_full(self, size: Any, fill_value: Any, dtype: Any = None, requires_grad: Flag = False) -> Tensor:
        """One number everywhere, in this tensor's dtype and on its device."""
        return self._new(np.full(as_tuple((size,)), fill_value, dtype or self.dtype), requires_grad)

    def _new(self, array: np.ndarray, requires_grad: Flag) -> Tensor:
        made = new_tensor(backend_of(self.array).from_host(array))
        return made.requires_grad_() if requires_grad else made

    def stride(self, dim: Axis | None = None) -> Any:
        """How many elements lie between neighbours along each axis (along `dim`)."""
        steps = tuple(step // self.element_size() for step in self.array.strides)
        return steps if dim is None else steps[axis_of(dim, self.ndim)]

    def get_device(self) -> Axis:
        """The number of the GPU; -1 on the CPU."""
        return -1 if self.device.type == "cpu" else self.device.index or 0

    def cpu(self) -> Tensor:
        """On the CPU."""
        return self.to(device="cpu")

    def cuda(self, index: Axis | None = None) -> Tensor:
        """On the GPU."""
        return self.to(device=Device("cuda", index))

    def type(self, dtype: Any = None) -> Any:
        """The same numbers as another dtype; without one, the name of the type, "float32".

        PyTorch's older names, `x.type(torch.LongTensor)` or "torch.LongTensor", are understood.
        """
        older = str(getattr(dtype, "__name__", dtype)).rpartition(".")[2]
        return str(self.dtype) if dtype is None else self.to(_OLDER_TYPES.get(older, dtype))

    def type_as(self, other: Tensor) -> Tensor:
        """In the dtype and on the device of another tensor."""
        return self.to(other)

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

    def short(self) -> Tensor:
        """As int16."""
        return self.to(dtypes.int16)

    def byte(self) -> Tensor:
        """As uint8."""
        return self.to(dtypes.uint8)

    def bool(self) -> Tensor:
        """As booleans: False where the number is 0."""
        return self.to(dtypes.bool_)

    def clone(self) -> Tensor:
        """A copy in memory of its own; gradients flow through."""
        return ops.Clone()(self)

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

    def __bool__(self) -> Flag:
        if self.numel() != 1:
            raise ShapeError(f"got a tensor of shape {self.shape} where a single truth value is needed; "
                             f"use x.any() or x.all()", where="bool")
        return bool(self.item())

    def __int__(self) -> Axis:
        return int(self.item())

    def __float__(self) -> Real:
        return float(self.item())

    def __index__(self) -> Axis:
        if self.dtype.kind not in "iub":
            raise TypeError(f"a tensor of {self.dtype} cannot be an index; use .long()")
        return int(self.item())

    if not TYPE_CHECKING:                                   # a type checker is to know which names there are
        def __getattr__(self, name: str) -> Any:
            # only reached when the attribute is not there
            if name.startswith("_"):                        # NumPy asks for these, often
                raise AttributeError(name)
            raise no_such_name("Tensor", name, lambda: dir(type(self)), _HINTS)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.ndim == 0 else repr(self)

    def __repr__(self) -> str:
        notes = []
        if not backend_of(self.array).is_host:
            notes.append(f"device='{self.device}'")
        if self.dtype not in (dtypes.get_default_dtype(), dtypes.int64, dtypes.bool_):
            notes.append(f"dtype={self.dtype}")
        if self.node is not None:
            notes.append("requires_grad=True" if self.is_leaf else f"grad_fn=<{self.node.op}>")
        return with_notes(f"tensor({format_array(self._on_host(), 'tensor(')}", notes)
