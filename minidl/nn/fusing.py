"""`minidl.fuse(model)`: the same model, with runs such as convolution → ReLU → pooling done by one op."""

from __future__ import annotations

import copy
import types
from typing import Any, TypeVar

from minidl import recording
from minidl.errors import DtypeError, ModuleError
from minidl.kernels.fused import Stages
from minidl.kernels.geometry import Conv2dGeometry, Pair, Pool2dGeometry
from minidl.nn.activations import ReLU
from minidl.nn.containers import Sequential
from minidl.nn.conv import Conv2d
from minidl.nn.functional.checks import check_bias, located
from minidl.nn.images import Upsample, UpsamplingNearest2d
from minidl.nn.module import Module, Parameter
from minidl.nn.pooling import AvgPool2d, MaxPool2d
from minidl.ops import fused as ops
from minidl.tensors import Tensor

M = TypeVar("M", bound=Module)


def fuse(model: M) -> M:
    """A copy of the model in which runs of layers inside an nn.Sequential are one op, with the same parameters.

    A run is an nn.Conv2d followed by an nn.ReLU, by a pooling (MaxPool2d, AvgPool2d) or nearest upsampling by a whole
    factor, or by both in either order: conv → relu → pool, conv → pool → relu, conv → upsample → relu, and so on. The
    result is the same to rounding; what is saved is memory, and the time to write and read it: the output of the
    convolution is never kept, only a mask of one byte a cell, or of one byte a window.

        model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1352, 10))
        fast = minidl.fuse(model)
        optimizer = optim.Adam(fast.parameters())           # trains `model` too: the parameters are the same objects
        ...
        minidl.save(fast.state_dict(), "weights.safetensors")
        model.load_state_dict(minidl.load("weights.safetensors"))              # the names are the same: "0.weight", …

    Only an nn.Sequential says in which order its layers run, so only there, at any depth, layers are fused. Modules
    with a forward of their own stay as they are, as do subclasses of the layers above and settings that the op does not
    know (a padding_mode, return_indices). A fused layer that is called by itself, taken out, replaced, or given a hook
    does its own work again; the layers of that run are then no longer one op.

    Fused layers can be differentiated once: what their backward starts from is a mask, not part of the graph. Second
    derivatives (create_graph=True) raise a `GraphError`; use the original model for them.

    The original is not changed. Parameters and buffers are shared; other attributes of the modules are the same
    objects, with lists, dicts and sets copied.

    Raises `ModuleError` for a model in which a module has hooks or parametrizations: the layers that they watch would
    not run.
    """
    if not isinstance(model, Module):
        raise DtypeError(f"got {type(model).__name__}, expected a module", where="fuse")
    model._refuse_hidden_modules()
    for path, module in model.named_modules():
        _refuse_watched(path, module)
    twins = _twins(model)
    for module, twin in twins.items():
        if _is_plain(module, Sequential):
            for run in _runs(module):
                _put_together(twin, run)
    return twins[model]  # type: ignore[return-value]


# -- the layers that take the place of others --------------------------------------------------------------------------

class Run:
    """Layers that one op can do: a convolution, which becomes a `FusedConv2d`, and those after it, now `Absorbed`."""

    def __init__(self, after: tuple[Module, ...]) -> None:
        self.after = after

    def is_whole(self, x: Any) -> bool:
        """Whether the Sequential that is running has all layers of this run, one behind the other and without hooks,
        and a batch of images comes in. All layers of the run ask, and get the same answer.
        """
        callers = recording.module_stack()
        if len(callers) < 2 or not _is_plain(callers[-2], Sequential) or not isinstance(x, Tensor) or x.ndim != 4:
            return False
        found = [(i, layer) for i, layer in enumerate(callers[-2]._all()) if isinstance(layer, _OF_RUNS)
                 and layer.run is self]
        in_order = all(layer.position == k and i == found[0][0] + k for k, (i, layer) in enumerate(found))
        return len(found) == 1 + len(self.after) and in_order and not any(_has_hooks(layer) for _, layer in found)

    def stages(self, shape: tuple[int, ...]) -> Stages:
        """What follows the convolution, whose output has this shape. Raises `ShapeError` for a pooling too large."""
        is_relu = [isinstance(layer, ReLU) for layer in self.after]
        relu, relu_last = any(is_relu), is_relu == [False, True]
        resize = next((layer for layer in self.after if not isinstance(layer, ReLU)), None)
        if isinstance(resize, MaxPool2d):
            window = located("max_pool2d", Pool2dGeometry.of, shape, resize.kernel_size, resize.stride, resize.padding,
                             resize.dilation, resize.ceil_mode)
            return Stages(relu, relu_last, "max", window)
        if isinstance(resize, AvgPool2d):
            window = located("avg_pool2d", Pool2dGeometry.of, shape, resize.kernel_size, resize.stride, resize.padding,
                             1, resize.ceil_mode, resize.count_include_pad)
            return Stages(relu, relu_last, "avg", window)
        return Stages(relu, relu_last, repeat=(resize and _factors(resize)) or (1, 1))


class FusedConv2d(Conv2d):
    """A convolution that does the layers after it too, in one op."""

    position = 0

    def __init__(self, conv: Conv2d, run: Run) -> None:
        vars(self).update(vars(conv))                       # the same parameters and settings
        self.run = run

    def forward(self, input: Tensor) -> Tensor:
        """x (N, C, H, W) -> the output of the last layer of the run; called by itself, that of the convolution."""
        if not self.run.is_whole(input):
            return super().forward(input)
        geometry = located("conv2d", Conv2dGeometry.of, tuple(input.shape), tuple(self.weight.shape), self.stride,
                           self.padding, self.dilation, self.groups)
        check_bias(self.bias, self.weight.shape[0], "conv2d")
        stages = self.run.stages((len(input), self.weight.shape[0], *geometry.output_size))
        return ops.FusedConv2d(geometry, stages)(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The settings of the convolution, then the layers that it does too."""
        return " → ".join([super().extra_repr(), *map(repr, self.run.after)])


class Absorbed(Module):
    """Stands where a layer was that the convolution before it does, and passes everything on."""

    def __init__(self, run: Run, position: int) -> None:
        super().__init__()
        self.run = run
        self.position = position
        self.training = run.after[position - 1].training

    def forward(self, input: Tensor) -> Any:
        """x -> x; called by itself, what the layer makes of it."""
        return input if self.run.is_whole(input) else self.run.after[self.position - 1].forward(input)

    def extra_repr(self) -> str:
        """The layer."""
        return repr(self.run.after[self.position - 1])


_OF_RUNS = (FusedConv2d, Absorbed)


# -- the copy ----------------------------------------------------------------------------------------------------------

def _has_hooks(module: Module) -> bool:
    return any(module._hooks.values())


def _refuse_watched(path: str, module: Module) -> None:
    what = "hooks" if _has_hooks(module) else "parametrizations" if "parametrizations" in vars(module) else ""
    if what:
        place = f"{path} {module.short_name()}" if path else f"the model itself, {module.short_name()}"
        raise ModuleError(f"got {what} on {place}, expected a model without: a layer that is fused would not run by "
                          f"itself; remove them before, or use the model as it is", where="fuse")


def _twins(model: Module) -> dict[Module, Module]:
    """Module -> its copy, for the model and all its parts; the copies hold one another and the same parameters."""
    twins = {module: copy.copy(module) for module in model.modules()}
    for twin in twins.values():
        for name, value in list(vars(twin).items()):
            vars(twin)[name] = _for_twin(value, twins)
        twin._hooks = {kind: {} for kind in twin._hooks}
    return twins


def _for_twin(value: Any, twins: dict[Module, Module]) -> Any:
    """An attribute of a module as its copy is to have it."""
    if isinstance(value, Module):
        return twins.get(value, value)
    if isinstance(value, types.MethodType) and isinstance(value.__self__, Module):
        return types.MethodType(value.__func__, twins.get(value.__self__, value.__self__))
    return copy.copy(value) if isinstance(value, list | dict | set) else value


# -- what can be fused -------------------------------------------------------------------------------------------------

def _runs(layers: Module) -> list[list[str]]:
    """The names of the layers of each run: a convolution and the one or two layers after it that fit."""
    runs, named, i = [], list(vars(layers).items()), 0
    named = [(name, layer) for name, layer in named if isinstance(layer, Module)]
    while i < len(named):
        run = [named[i][0]] if _is_plain_convolution(named[i][1]) else []
        kinds: list[str] = []
        for name, layer in named[i + 1:i + 3] if run else []:
            kind = _kind(layer)
            if not kind or kind in kinds:                   # one ReLU and one change of size
                break
            kinds.append(kind)
            run.append(name)
        if len(run) > 1:
            runs.append(run)
        i += max(len(run), 1)
    return runs


def _put_together(layers: Module, names: list[str]) -> None:
    """Let the first of these layers do the work of all."""
    first, *rest = names
    run = Run(tuple(vars(layers)[name] for name in rest))
    vars(layers)[first] = FusedConv2d(vars(layers)[first], run)
    for position, name in enumerate(rest, start=1):
        vars(layers)[name] = Absorbed(run, position)


def _is_plain(module: Module, *kinds: type) -> bool:
    """Whether it is exactly of one of these classes, so that its forward is known."""
    return type(module) in kinds and "forward" not in vars(module)


def _is_plain_convolution(layer: Module) -> bool:
    return (_is_plain(layer, Conv2d) and vars(layer)["padding_mode"] == "zeros"
            and isinstance(vars(layer).get("weight"), Parameter)
            and isinstance(vars(layer).get("bias"), Parameter | None))


def _kind(layer: Module) -> str:
    """"relu", "size", or "" for a layer that does not fit into a run."""
    if any(isinstance(value, Module | Tensor) for value in vars(layer).values()):
        return ""                                           # somebody gave it parameters
    if _is_plain(layer, ReLU):
        return "relu"
    is_pooling = _is_plain(layer, MaxPool2d, AvgPool2d) and not getattr(layer, "return_indices", False)
    return "size" if is_pooling or _factors(layer) else ""


def _factors(layer: Module) -> Pair | None:
    """How often an upsampling repeats each cell, (down, across); None unless that is all it does."""
    if not _is_plain(layer, Upsample, UpsamplingNearest2d) or layer.mode != "nearest" or layer.size is not None:
        return None
    given = layer.scale_factor
    both = given if isinstance(given, tuple) else (given, given)
    if len(both) != 2 or layer.recompute_scale_factor or not all(f is not None and f >= 1 and f % 1 == 0 for f in both):
        return None
    return int(both[0]), int(both[1])
