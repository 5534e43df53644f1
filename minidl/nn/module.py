"""Module: a function with parameters, made of smaller ones.

A module's parameters, buffers and submodules are ordinary attributes, set with `self.weight = nn.Parameter(...)`, and
found by looking at the attributes in the order in which they were set.
"""

from __future__ import annotations

import functools
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from minidl import dtypes, recording
from minidl.errors import (
    DtypeError,
    MinidlError,
    ModuleError,
    NotWrittenError,
    SettingError,
    ShapeError,
    no_such_name,
    some,
)
from minidl.recording import HookHandle, no_grad
from minidl.tensors import Tensor, forget_gradients

M = TypeVar("M", bound="Module")


class Parameter(Tensor):
    """A leaf tensor that an optimizer is to change: what a module's `parameters()` lists."""

    __slots__ = ()

    def __init__(self, data: Tensor, requires_grad: bool = True) -> None:
        if not isinstance(data, Tensor):
            raise ModuleError(f"got {type(data).__name__}, expected a tensor; use nn.Parameter(minidl.tensor(x))",
                              where="Parameter")
        self.array, self.version = data.array, data.version
        self.node, self._grad = None, None
        if requires_grad:
            self.requires_grad_()

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        copied = super().__deepcopy__(memo)
        twin = Parameter(copied.detach(), self.requires_grad)
        twin.grad = copied.grad
        memo[id(self)] = twin
        return twin

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


def positive(value: Any, name: str, where: str) -> int:
    """A size that was asked for, as an int of at least 1."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or operator.index(value) < 1:
        raise SettingError(f"got {name}={value!r}, expected a positive integer", where=where)
    return operator.index(value)


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` could not match."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class Module:
    """The base of all layers and models: write `__init__`, which makes the parts, and `forward`, which uses them.

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.hidden = nn.Linear(784, 100)
                self.out = nn.Linear(100, 10)

            def forward(self, x):
                return self.out(self.hidden(x).relu())

    `training` tells layers such as dropout which mode they are in; `train()` and `eval()` set it for all parts.
    """

    training: bool
    forward: Callable[..., Any]

    def __init__(self) -> None:
        self.training = True
        self._buffers: dict[str, bool] = {}                 # name -> whether it belongs into the state dict
        self._hooks: dict[str, dict[int, Callable[..., Any]]] = {"pre": {}, "post": {}, "back": {}}

    # -- calling --

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward`, with the hooks around it; errors inside name this module by its path."""
        self._check_initialised()
        stack = recording.module_stack()
        if not stack:
            self._refuse_hidden_modules()
        stack.append(self)
        try:
            for hook in list(self._hooks["pre"].values()):
                changed = hook(self, args)
                if changed is not None:
                    args = changed if isinstance(changed, tuple) else (changed,)
            result = self._forward_watched(args, kwargs) if self._hooks["back"] else self.forward(*args, **kwargs)
            for hook in list(self._hooks["post"].values()):
                changed = hook(self, args, result)
                result = result if changed is None else changed
            return result
        except MinidlError as error:
            if not error.located:                           # the innermost module knows best
                error.where, error.located = self._place(stack[0]), True
            raise
        except (AttributeError, TypeError) as error:
            wrong = next((x for x in args if not isinstance(x, Tensor)), None)
            if wrong is None or not type(self).__module__.startswith("minidl.nn."):
                raise
            refusal = DtypeError(f"got {type(wrong).__name__}, expected a tensor; use minidl.tensor(x)",
                                 where=self._place(stack[0]))
            refusal.located = True
            raise refusal from error
        finally:
            stack.pop()

    def _place(self, root: Module) -> str:
        """Where this module stands, for an error: "features.0 Conv2d(1→6)"."""
        return " ".join(part for part in (recording.module_path(root, self), self.short_name()) if part)

    def __getattr__(self, name: str) -> Any:
        # only reached when the attribute is not there
        if name == "forward":
            raise NotWrittenError("has no forward; define forward(self, x)", where=type(self).__name__)
        if name in ("_modules", "_parameters"):             # PyTorch's tables, which old code looks into
            return dict(self.named_children() if name == "_modules" else self.named_parameters(recurse=False))
        raise no_such_name(type(self).__name__, name, lambda: [*vars(self), *dir(type(self))])

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Module | Parameter):
            self._check_initialised()
        before = vars(self).get(name)
        if isinstance(before, Parameter) and value is not None and not isinstance(value, Parameter):
            raise ModuleError(f"got a {type(value).__name__} for the parameter {name!r}, expected an nn.Parameter or "
                              f"None; wrap it, nn.Parameter(x), or change the numbers with {name}.data = x",
                              where=type(self).__name__)
        if isinstance(before, Module) and value is not None and not isinstance(value, Module):
            raise ModuleError(f"got a {type(value).__name__} for the submodule {name!r}, expected a module or None",
                              where=type(self).__name__)
        # A list that replaces a list may be one that grows, `self.layers = self.layers + [layer]`. Like one that was
        # appended to, it is looked at when the module is used: a model that never asks for its parameters may do so.
        if not isinstance(before, list | tuple | dict) and _hides_modules(value):
            raise self._hidden_modules(name, value)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        self._buffers.pop(name, None)

    def _check_initialised(self) -> None:
        if "_buffers" not in vars(self):
            raise ModuleError("got no call of super().__init__(); make it the first line of __init__",
                              where=type(self).__name__)

    def _refuse_hidden_modules(self) -> None:
        # A list that grew after it was assigned can only be seen when the module is used. This looks at every attribute
        # in every call of a model, so it does no more than it must.
        seen, to_visit = {self}, [self]
        while to_visit:
            module = to_visit.pop()
            for name, value in vars(module).items():
                if isinstance(value, Module):
                    if value not in seen:
                        seen.add(value)
                        to_visit.append(value)
                elif (isinstance(value, _CONTAINERS) and value and name not in _TABLES_OF_ITS_OWN
                        and _hides_modules(value)):
                    raise module._hidden_modules(name, value)

    def _hidden_modules(self, name: str, value: Any) -> ModuleError:
        kind = "ModuleDict" if isinstance(value, dict) else "ModuleList"
        return ModuleError(f"got a plain {type(value).__name__} of modules as attribute {name!r}, whose parameters "
                           f"would never train; use self.{name} = nn.{kind}(...)", where=type(self).__name__)

    # -- what it is made of --

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the direct parts."""
        self._check_initialised()
        seen: set[Module] = set()
        for name, value in vars(self).items():
            if isinstance(value, Module) and value not in seen:
                seen.add(value)
                yield name, value

    def children(self) -> Iterator[Module]:
        """The direct parts."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(path, module) of this module (path "") and all parts of parts, each once."""
        seen: set[Module] = set()
        to_visit: list[tuple[str, Module]] = [(prefix, self)]
        while to_visit:
            path, module = to_visit.pop()
            if module not in seen:
                seen.add(module)
                yield path, module
                children = [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]
                to_visit += reversed(children)

    def modules(self) -> Iterator[Module]:
        """This module and all parts of parts, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter), each once, also where two parts share it."""
        if recurse:
            self._refuse_hidden_modules()
        seen: set[Parameter] = set()
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and value not in seen:
                    seen.add(value)
                    yield f"{path}.{name}" if path else name, value

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, each once: what an optimizer takes."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """(path, buffer): tensors that belong to the state but are not trained, such as running means."""
        seen: set[Tensor] = set()
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name in module._buffers:
                buffer = getattr(module, name)
                if buffer is not None and buffer not in seen:
                    seen.add(buffer)
                    yield f"{path}.{name}" if path else name, buffer

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Set a tensor as attribute `name` that moves with the module and, if `persistent`, is saved with it."""
        self._check_initialised()
        self._check_name(name)
        _check_kind(tensor, Tensor, name, type(self).__name__)
        setattr(self, name, tensor)
        self._buffers[name] = persistent

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Set a parameter, or None where a layer goes without it."""
        self._check_name(name)
        _check_kind(parameter, Parameter, name, type(self).__name__)
        setattr(self, name, parameter)

    def add_module(self, name: str, module: Module | None) -> None:
        """Set a submodule whose name is computed."""
        self._check_name(name)
        _check_kind(module, Module, name, type(self).__name__)
        setattr(self, name, module)

    register_module = add_module

    def _check_name(self, name: str) -> None:
        taken = hasattr(type(self), name) or name in ("forward", "training", "_buffers", "_hooks")
        if not name or "." in name or taken:
            raise ModuleError(f"got the name {name!r}, expected one without dots that is no attribute of every "
                              f"{type(self).__name__}", where=type(self).__name__)

    def get_submodule(self, path: str) -> Module:
        """The part at a path such as "features.0"."""
        for candidate, module in self.named_modules():
            if candidate == path:
                return module
        raise AttributeError(f"{type(self).__name__} has no submodule {path!r}")

    def get_parameter(self, path: str) -> Parameter:
        """The parameter at a path such as "features.0.weight"."""
        found = dict(self.named_parameters()).get(path)
        if found is None:
            raise AttributeError(f"{type(self).__name__} has no parameter {path!r}")
        return found

    def get_buffer(self, path: str) -> Tensor:
        """The buffer at a path such as "norm.running_mean"."""
        found = dict(self.named_buffers()).get(path)
        if found is None:
            raise AttributeError(f"{type(self).__name__} has no buffer {path!r}")
        return found

    # -- state --

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """path -> tensor of all parameters and saved buffers; they share memory with the module."""
        self._refuse_hidden_modules()
        return OrderedDict((path, tensor.detach()) for path, tensor in self._state(prefix))

    def _state(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield prefix + name, value
        for name, persistent in self._buffers.items():
            if persistent and getattr(self, name) is not None:
                yield prefix + name, getattr(self, name)
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield from value._state(f"{prefix}{name}.")

    def load_state_dict(self, state: Mapping[str, Tensor], strict: bool = True) -> IncompatibleKeys:
        """Copy the tensors of `state` into the parameters and buffers of the same names.

        All names and shapes are checked first; on an error nothing has changed. strict=False accepts missing and
        unexpected names.
        """
        own, state = dict(self._state()), {name: Tensor._from(value) for name, value in state.items()}
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        wrong = [f"{name} is {tuple(state[name].shape)}, expected {own[name].shape}" for name in own
                 if name in state and tuple(state[name].shape) != own[name].shape]
        problems = [f"wrong shapes: {some(wrong, _SHOWN, '; ')}"] if wrong else []
        if strict:
            problems += [f"missing: {some(missing, _SHOWN, others=unexpected)}"] if missing else []
            problems += [f"unexpected: {some(unexpected, _SHOWN)}"] if unexpected else []
        if problems:
            hint = _prefix_hint(list(own), list(state)) if strict else ""
            raise ShapeError(f"the state does not fit, nothing was loaded ({'; '.join(problems)}){hint}",
                             where=f"{type(self).__name__}.load_state_dict")
        with no_grad():
            for name, tensor in own.items():
                if name in state:
                    tensor.copy_(state[name])
        return IncompatibleKeys(missing, unexpected)

    def train(self: M, mode: bool = True) -> M:
        """Set training mode (or, with False, evaluation mode) for this module and all its parts."""
        self._check_initialised()
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """Evaluation mode: dropout passes everything, batch-norm uses its running statistics."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Let all parameters be trained, or freeze them."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters."""
        forget_gradients(self.parameters(), set_to_none)

    def apply(self: M, function: Callable[[Module], Any]) -> M:
        """Call `function` on every part, children first, and on this module."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def to(self: M, *args: Any, **kwargs: Any) -> M:
        """Move parameters and buffers to a device or a float type, in place. Integer buffers keep their type."""
        self._refuse_hidden_modules()
        probe = Tensor(1).to(*args, **kwargs)               # fails before anything has moved
        if not probe.is_floating_point():
            raise DtypeError(f"got {probe.dtype}, expected a floating type: parameters need gradients",
                             where=f"{type(self).__name__}.to")
        with no_grad():
            for module in self.modules():
                for name, value in vars(module).items():
                    if isinstance(value, Parameter) or (name in module._buffers and isinstance(value, Tensor)):
                        grad, value.grad = value.grad, None
                        moved = value.to(*args, **kwargs)
                        value.data = moved if value.is_floating_point() else moved.to(value.dtype)
                        value.grad = None if grad is None else grad.to(*args, **kwargs)
        return self

    def cpu(self: M) -> M:
        """Move to the CPU."""
        return self.to("cpu")

    def cuda(self: M, index: int | None = None) -> M:
        """Move to the GPU."""
        return self.to("cuda" if index is None else f"cuda:{index}")

    def half(self: M) -> M:
        """To float16."""
        return self.to(dtypes.float16)

    def type(self: M, dst_type: Any) -> M:
        """To a float type."""
        return self.to(dst_type)

    def double(self: M) -> M:
        """To float64."""
        return self.to(dtypes.float64)

    def float(self: M) -> M:
        """To float32."""
        return self.to(dtypes.float32)

    # -- hooks --

    def register_forward_pre_hook(self, hook: Callable[[Module, tuple[Any, ...]], Any]) -> HookHandle:
        """Call `hook(module, args)` before every forward; it may return other arguments."""
        return HookHandle(self._hooks["pre"], hook)

    def register_forward_hook(self, hook: Callable[[Module, tuple[Any, ...], Any], Any]) -> HookHandle:
        """Call `hook(module, args, output)` after every forward; it may return another output."""
        return HookHandle(self._hooks["post"], hook)

    def register_full_backward_hook(self, hook: Callable[[Module, Any, Any], Any]) -> HookHandle:
        """Call `hook(module, grad_input, grad_output)`, two tuples, when backward has come through this module.

        For a module with one input the hook may return another gradient for it.
        """
        return HookHandle(self._hooks["back"], hook)

    def _forward_watched(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Forward between two ops that change nothing, whose nodes see the gradients of the outputs and the inputs."""
        inputs = [x.view_as(x) if isinstance(x, Tensor) and x.requires_grad else x for x in args]
        result = self.forward(*inputs, **kwargs)
        several = isinstance(result, tuple | list)
        outputs = [y.view_as(y) if isinstance(y, Tensor) and y.requires_grad else y
                   for y in (result if several else [result])]
        of_inputs: dict[int, Tensor] = {}
        of_outputs: dict[int, Tensor] = {}
        waiting = {i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad}

        def call_hooks() -> Tensor | None:
            grad_input = tuple(of_inputs.get(i) for i in range(len(inputs)))
            grad_output = tuple(of_outputs.get(k) for k in range(len(outputs)))
            for hook in list(self._hooks["back"].values()):
                changed = hook(self, grad_input, grad_output)
                if changed is not None:
                    grad_input = changed if isinstance(changed, tuple) else (changed,)
            return grad_input[0] if len(grad_input) == 1 else None

        def output_came(k: int, g: Tensor) -> None:
            of_outputs[k] = g
            if not waiting and len(of_outputs) == len(outputs):
                call_hooks()                                # the images need no gradient: this is as far as it gets

        def input_came(i: int, g: Tensor) -> Tensor | None:
            of_inputs[i] = g
            return call_hooks() if of_inputs.keys() == waiting else None

        for k, y in enumerate(outputs):
            if isinstance(y, Tensor) and y.requires_grad:
                y.register_hook(functools.partial(output_came, k))
        for i in waiting:
            inputs[i].register_hook(functools.partial(input_came, i))
        return type(result)(outputs) if several else outputs[0]

    # -- how it prints --

    def extra_repr(self) -> str:
        """The settings that stand between the parentheses when the module is printed."""
        return ""

    def _get_name(self) -> str:
        return type(self).__name__

    def short_name(self) -> str:
        """The module in an error message, "Conv2d(1→6)"."""
        return type(self).__name__

    def __repr__(self) -> str:
        lines = [line for name, child in vars(self).items() if isinstance(child, Module)
                 for line in f"({name}): {child!r}".split("\n")]
        extra = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({extra})"
        return "\n".join([f"{type(self).__name__}({extra}", *("  " + line for line in lines), ")"])


_SHOWN = 8          # names in an error


def _prefix_hint(own: list[str], given: list[str]) -> str:
    """What to write where all names differ by the same beginning, as those of a wrapped model do."""
    if not own or not given:
        return ""
    if given[0].endswith("." + own[0]):
        prefix = given[0][:-len(own[0])]
        if [name.removeprefix(prefix) for name in given] == own:
            shorter = f"{{name.removeprefix({prefix!r}): t for name, t in state.items()}}"
            return f"; its names begin with {prefix!r}: {shorter}"
    if own[0].endswith("." + given[0]):
        prefix = own[0][:-len(given[0])]
        if [prefix + name for name in given] == own:
            return f"; its names lack {prefix!r}: call load_state_dict of its {prefix[:-1]!r}"
    return ""


def _check_kind(value: Any, kind: type, name: str, where: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise ModuleError(f"got {type(value).__name__} for {name!r}, expected a {kind.__name__} or None", where=where)


_CONTAINERS = (list, tuple, set, dict)
_TABLES_OF_ITS_OWN = ("_buffers", "_hooks")             # of every module; they hold no modules
_NUMBERS_AND_WORDS = (int, float, str, type(None))


def _hides_modules(value: Any) -> bool:
    """Whether a plain list, tuple, set or dict holds modules or parameters, which would then not be found."""
    if not isinstance(value, _CONTAINERS):
        return False
    if isinstance(value, dict):
        value = list(value.values())
    return any(isinstance(item, Module | Parameter) or _hides_modules(item) for item in value
               if not isinstance(item, _NUMBERS_AND_WORDS))
