"""What the layers inside a model answer, from one forward pass and without building the model anew."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from minidl.errors import SettingError, some
from minidl.nn.module import Module
from minidl.nn.utils.modes import evaluating
from minidl.tensors import Tensor

SHOWN = 12                                                      # layers in an error


def layer_named(model: Module, name: str, where: str = "layer_named") -> Module:
    """The part of a model at a path such as "0" or "stage2.0.conv1", as `model.named_modules()` lists it.

    Raises `SettingError` naming the nearest paths, or all if none is near.
    """
    layers = {path: layer for path, layer in model.named_modules() if path}
    if name in layers:
        return layers[name]
    near = difflib.get_close_matches(str(name), layers, n=3, cutoff=0.5)
    known = some([f"{path!r} {type(layers[path]).__name__}" for path in near or layers], SHOWN) or "none"
    words = "it has" if not near else "the nearest is" if len(near) == 1 else "the nearest are"
    raise SettingError(f"got the layer {name!r}, expected a part of the model; {words} {known}", where=where)


def capture(model: Module, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """The outputs of the layers with these names, {name: output}, from one forward pass in evaluation mode.

    model: images (N, C, H, W) -> anything. A convolution's output is (N, O, OH, OW). The outputs belong to the graph,
    so they can be differentiated with respect to `images`; under `no_grad` they are plain numbers. A layer that is used
    several times gives its last output. The model is left as it was. Meanwhile it belongs to the thread that asks: what
    another one runs through it would be captured too.

    Raises `SettingError` for a name that is not there (with the nearest), and for a layer that forward does not reach.
    """
    return _run(model, images, _found(model, layers, "capture"), {}, "capture")


def feature_extractor(model: Module, layer_names: Sequence[str]) -> FeatureExtractor:
    """A function of images that answers what `capture` does, and does no more of forward than these layers need.

    Raises `SettingError` for a name that is not there (with the nearest).
    """
    return FeatureExtractor(model, layer_names)


class FeatureExtractor:
    """Images (N, C, H, W) -> {name: output}; made by `feature_extractor`.

    The first call goes through all of forward and counts how often each layer is used. From then on forward ends once
    all of them have been used as often, so that a shallow layer costs little. A model that uses its layers now more and
    now less often is for `capture`. The layers are those that were there when the extractor was made.
    """

    def __init__(self, model: Module, layer_names: Sequence[str], where: str = "feature_extractor") -> None:
        self.model = model
        self.layers = _found(model, layer_names, where)
        self._where = where
        self._uses: dict[str, int] = {}                         # name -> how often forward calls the layer

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs, as `capture` returns them."""
        return _run(self.model, images, self.layers, self._uses, self._where)

    def __repr__(self) -> str:
        return f"FeatureExtractor({type(self.model).__name__}, {list(self.layers)})"


class _HaveAll(BaseException):
    """Ends a forward pass whose rest is not needed. No Exception, which a model's own forward might handle.

    Each run has its own: a forward may use an extractor itself.
    """


def _found(model: Module, names: Sequence[str], where: str) -> dict[str, Module]:
    """{name: layer}."""
    names = [names] if isinstance(names, str) else names
    names = list(names) if isinstance(names, Iterable) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SettingError(f"got the layers {names!r}, expected their names, such as ['0'] or ['conv1_conv']",
                           where=where)
    return {name: layer_named(model, name, where) for name in names}


def _run(model: Module, images: Tensor, layers: dict[str, Module], uses: dict[str, int],
         where: str) -> dict[str, Tensor]:
    """{name: output}. uses: how often each layer is called, if it is known; else that is found out and put there."""
    outputs: dict[str, Tensor] = {}
    calls = dict.fromkeys(layers, 0)
    enough = _HaveAll()

    def keep(name: str) -> Any:
        def hook(layer: Module, arguments: tuple[Any, ...], output: Any) -> None:
            if not isinstance(output, Tensor):
                raise SettingError(f"the layer {name!r} returns a {type(output).__name__}, expected one tensor; name a "
                                   f"layer inside it", where=where)
            outputs[name] = output.clone()                      # the next layer may change its input in place
            calls[name] += 1
            if calls == uses:
                raise enough

        return hook

    with contextlib.ExitStack() as stack:
        stack.enter_context(evaluating(model))
        for name, layer in layers.items():
            stack.enter_context(layer.register_forward_hook(keep(name)))
        try:
            model(images)
        except _HaveAll as end:
            if end is not enough:
                raise
    for name in layers:
        if name not in outputs:
            raise SettingError(f"the model's forward never calls the layer {name!r}, so it has no output; name another",
                               where=where)
    uses.update(calls)
    return {name: outputs[name] for name in layers}             # in the order that was asked for
