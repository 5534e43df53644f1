"""Where nan and infinity come from, once the loss is one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minidl.nn.module import Module
from minidl.optim.optimizer import Optimizer
from minidl.recording import no_grad
from minidl.tensors import Tensor

ADVICE = "lower the rate, or set gradient_clip_val"


def is_finite(value: Any) -> bool:
    """Whether all numbers of a tensor are. Integers always are."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
        return True
    # the largest absolute value is nan if any is; one number is read from the device
    return math.isfinite(value.detach().abs().max().item())


def not_finite_weight(module: Module) -> str | None:
    """The first parameter or buffer with a number that is not finite."""
    return next((name for name, tensor in module.state_dict().items() if not is_finite(tensor)), None)


def not_finite_gradient(module: Module, optimizer: Optimizer) -> str | None:
    """The first parameter whose gradient is not finite, as after sqrt(0), though the loss is."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    with np.errstate(all="ignore"):                 # a sum is quicker, and it shows nan and infinity, if not only them
        if all(math.isfinite(p.grad.array.sum()) for p in parameters):
            return None
    return next((name for name, p in module.named_parameters() if p.grad is not None and not is_finite(p.grad)), None)


def places_of_buffers(module: Module) -> list[tuple[str, Module, str]]:
    """Path, part and name of each buffer, such as batch-norm's means, which forward changes."""
    return [(f"{path}.{name}".lstrip("."), part, name) for path, part in module.named_modules()
            for name, _ in part.named_buffers(recurse=False)]


def copied_buffers(places: Sequence[tuple[str, Module, str]]) -> dict[str, Tensor]:
    """The numbers of the buffers, by path."""
    return {path: getattr(part, name).clone() for path, part, name in places}


def first_not_finite(module: Module, batch: Any, step: Callable[[], Any], buffers: Mapping[str, Tensor]) -> str:
    """Which part of `step()`, a training step of `module`, is the first with a number that is not finite.

    In this order: the batch, the weights, the inputs and outputs of the layers as they are called, the loss. The step
    runs again for it, without recording. buffers: as they were before the step, which they become again.
    """
    put_back(module, buffers)
    if not all(map(is_finite, tensors_in(batch))):
        return "the batch itself holds numbers that are not finite; look at the dataset"
    name = not_finite_weight(module)
    if name is not None:
        return f"{name} is the first weight that is not finite, so an earlier step was too large; {ADVICE}"
    found: list[str] = []
    paths = {part: path for path, part in module.named_modules()}

    def look(part: Module, args: tuple[Any, ...], output: Any) -> None:
        layer = f"{paths[part]} {part.short_name()}".strip()
        if not found and not all(map(is_finite, tensors_in(args))):
            found.append(f"{layer} is the first layer with an input that is not finite, so it comes from what is done "
                         f"before it is called")
        if not found and not all(map(is_finite, tensors_in(output))):
            found.append(f"{layer} is the first layer with an output that is not finite")

    handles = [part.register_forward_hook(look) for part in paths]
    try:
        with no_grad():
            step()
    finally:
        for handle in handles:
            handle.remove()
        put_back(module, buffers)
    where = found[0] if found else "every layer's output is finite, so it comes from what the step does with them"
    return f"{where}; {ADVICE}"


def put_back(module: Module, buffers: Mapping[str, Tensor]) -> None:
    """Give the buffers their numbers again."""
    with no_grad():
        for name, buffer in module.named_buffers():
            if name in buffers:
                buffer.copy_(buffers[name])


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in a batch or an output, however they are nested."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [tensor for item in value for tensor in tensors_in(item)] if isinstance(value, list | tuple) else []
