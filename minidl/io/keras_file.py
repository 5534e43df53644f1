"""Weights that Keras wrote, from HDF5 files. Reading them takes the package h5py (the extra `keras`).

There are two layouts. The legacy one, of `model.save("x.h5")` and of Keras 2's `save_weights`, keeps a group for each
layer, listed by the attribute `layer_names`, and lists its arrays by `weight_names`; all of it lies at the root of the
file or in the group `model_weights`. That of Keras 3's `save_weights("x.weights.h5")` numbers the arrays of a layer, in
`layers/*/vars`, where the layer's name is an attribute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from minidl.creation import from_numpy
from minidl.errors import MinidlError, SettingError, ShapeError, some
from minidl.nn import BatchNorm1d, BatchNorm2d, Conv2d, Linear, Module
from minidl.tensors import Tensor

V = TypeVar("V")
# Keras's name of an array -> its name here, in the order in which Keras numbers them, for each kind of layer
_OF_WEIGHTED = {"kernel": "weight", "bias": "bias"}
_OF_BATCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_KINDS: dict[type[Module], dict[str, str]] = {Conv2d: _OF_WEIGHTED, Linear: _OF_WEIGHTED, BatchNorm1d: _OF_BATCH_NORM,
                                              BatchNorm2d: _OF_BATCH_NORM}
_SHOWN = 4                                                      # names in an error


def load_keras_weights(model: Module, path: str | Path, renamed: Mapping[str, str] | None = None) -> None:
    """Put the weights that Keras saved into a model whose layers have Keras's names.

    renamed: a layer's name in the file -> its name in the model, where the file has another one.

    Conv2d takes Conv2D's kernel, (KH, KW, C, O) -> (O, C, KH, KW); Linear takes Dense's, (C, O) -> (O, C); BatchNorm
    takes gamma, beta, moving_mean and moving_variance. A layer's name is its path in the model; of "predictions.0" it
    is "predictions", as a Keras layer may have its activation built in. Layers without weights need not agree. Models
    inside of models are not read. What kind of layer the weights are of is not in the file, only names and shapes are.

    Raises `MinidlError` for a file that is none of Keras's or damaged, and `ShapeError` where the layers, their weights
    or shapes differ: all is compared before anything changes, and the model is as it was.
    """
    if not isinstance(model, Module) or not isinstance(path, str | Path):
        raise SettingError(f"got a {type(model).__name__} and a {type(path).__name__}, expected a model and the path "
                           f"of a file", where="load_keras_weights")
    path = Path(path).expanduser()
    layers = dict(_layers_with_weights(model))
    found = _once([((renamed or {}).get(name, name), weights) for name, weights in _read(path).items()], "layer", path)
    problems = _compared(layers, {layer: set(weights) for layer, weights in found.items()})
    if problems:
        raise ShapeError(f"got {path}, which does not fit a {type(model).__name__}, nothing was loaded "
                         f"({problems}); expected the weights of the same architecture",
                         where="load_keras_weights")
    state: dict[str, Tensor] = {}
    for keras_name, (own_path, layer) in layers.items():
        for keras_weight, own_weight in _KINDS[type(layer)].items():
            if keras_weight in found[keras_name]:
                array = _in_our_order(found[keras_name][keras_weight])
                state[f"{own_path}.{own_weight}"] = from_numpy(array)
    try:
        model.load_state_dict(state, strict=False)              # checks all shapes before it changes anything
    except ShapeError as error:
        raise ShapeError(f"got {path}: {error.message}", where="load_keras_weights") from None


def _in_our_order(array: np.ndarray) -> np.ndarray:
    """Keras keeps the input channels before the output channels, and both after the places."""
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(3, 2, 0, 1))                # (KH, KW, C, O) -> (O, C, KH, KW)
    return np.ascontiguousarray(array.T) if array.ndim == 2 else array          # (C, O) -> (O, C)


# -- what has to agree -------------------------------------------------------------------------------------------------

def _layers_with_weights(model: Module) -> Iterator[tuple[str, tuple[str, Module]]]:
    """(Keras's name, (path, layer)) of each layer that holds parameters of its own."""
    for path, layer in model.named_modules():
        if type(layer) in _KINDS:
            yield path.removesuffix(".0"), (path, layer)
        elif next(layer.named_parameters(recurse=False), None) is not None:
            known = ", ".join(kind.__name__ for kind in _KINDS)
            raise SettingError(f"got a {type(layer).__name__} at {path!r}, expected a model whose weights are all in "
                               f"{known}: the others have no counterpart in Keras that is known here",
                               where="load_keras_weights")


def _weights_of(layer: Module) -> set[str]:
    """What Keras calls the weights that the layer has."""
    return {theirs for theirs, ours in _KINDS[type(layer)].items() if getattr(layer, ours) is not None}


def _compared(layers: Mapping[str, tuple[str, Module]], found: Mapping[str, set[str]]) -> str:
    """How the names in a file differ from those of the model, in words; nothing if they do not."""
    missing = [name for name in layers if name not in found]
    unknown = [name for name in found if name not in layers]
    problems = []
    if missing:
        shown = some(missing, _SHOWN, others=unknown, cutoff=0.8)
        problems.append(f"it lacks the layer{'s' * (len(missing) > 1)} {shown}")
    if unknown:
        problems.append(f"it has the unknown layer{'s' * (len(unknown) > 1)} {some(unknown, _SHOWN)}")
    for name in layers:
        if name in found and (own := _weights_of(layers[name][1])) != found[name]:
            problems.append(f"{name} has {', '.join(sorted(found[name]))}, expected {', '.join(sorted(own))}")
    return some(problems, _SHOWN, "; ")


# -- the file ----------------------------------------------------------------------------------------------------------

def hdf5() -> Any:
    """The package h5py, or an error that says how to get it."""
    try:
        import h5py
    except ImportError:
        raise MinidlError("got no h5py, expected it to read Keras's files; install it with pip install h5py (it is the "
                          "extra keras)", where="load_keras_weights") from None
    return h5py


def _read(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """{layer: {weight: array}} of the layers that have weights, whole and finite, in the order of the file."""
    h5py = hdf5()
    if not path.is_file():
        raise MinidlError(f"got {path}, where there is no file, expected one that Keras saved",
                          where="load_keras_weights")
    try:
        with h5py.File(path, "r") as file:
            group = file.get("model_weights", file)
            if "layer_names0" in group.attrs or "layer_names" in group.attrs:
                layers = _read_legacy(group, path)
            elif "layers" in file:
                layers = _read_numbered(file["layers"], path)
            else:
                raise MinidlError(f"got {path}, an HDF5 file without layers, expected one that Keras saved",
                                  where="load_keras_weights")
    except MinidlError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = str(error.args[0] if error.args else type(error).__name__).partition("\n")[0]
        size = f"{path.stat().st_size:,} bytes"
        raise MinidlError(f'got {path} of {size}, which is no whole HDF5 file of Keras\'s ({reason}); save the model '
                          f'with model.save("x.h5"), or copy the file again', where="load_keras_weights") from None
    return {layer: {name: _checked(array, f"{layer}/{name}", path) for name, array in weights.items()}
            for layer, weights in layers.items() if weights}


def _read_legacy(group: Any, path: Path) -> dict[str, dict[str, np.ndarray]]:
    """The layout with lists of names: "conv1_conv/kernel:0", and without ":0" since Keras 3."""
    return _once([(layer, _once([(weight.rpartition("/")[2].partition(":")[0], _array(group[layer][weight]))
                                 for weight in _names(group[layer], "weight_names")], f"weight of {layer}", path))
                  for layer in _names(group, "layer_names")], "layer", path)


def _once(named: Sequence[tuple[str, V]], what: str, path: Path) -> dict[str, V]:
    """A dict of these, none of which may be named like another: one would take the other's place."""
    found = dict(named)
    if len(found) < len(named):
        names = [name for name, _ in named]
        twice = next(name for name in names if names.count(name) > 1)
        raise MinidlError(f"got {path} with more than one {what} named {twice!r}, expected a model whose names differ, "
                          f"without models inside of it", where="load_keras_weights")
    return found


def _array(dataset: Any) -> np.ndarray:
    """The numbers of a dataset, if the file can hold as many: Keras does not compress them."""
    if dataset.nbytes > dataset.file.id.get_filesize():
        raise ValueError(f"{dataset.name} promises {dataset.nbytes:,} bytes")
    return np.asarray(dataset[()])


def _names(group: Any, attribute: str) -> list[str]:
    """A list of names among a group's attributes; a long one is cut into attributes with numbers."""
    parts = (attribute, *(f"{attribute}{i}" for i in range(len(group.attrs))))
    return [_text(name) for part in parts if part in group.attrs for name in group.attrs[part]]


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _read_numbered(group: Any, path: Path) -> dict[str, dict[str, np.ndarray]]:
    """The layout of Keras 3's save_weights: how many arrays a layer has, and of how many axes, tells what they are."""
    layers: list[tuple[str, dict[str, np.ndarray]]] = []
    for part in group.values():
        for place in (place for place in _arrays_below(part) if not place.startswith(("vars/", "seed_generator/"))):
            raise MinidlError(f"got {path}, which has weights in {part.name}/{place}, expected a model without models "
                              f"inside of it", where="load_keras_weights")
        arrays = [_array(part["vars"][str(i)]) for i in range(len(part["vars"]))]
        if arrays and "name" not in part["vars"].attrs:
            raise MinidlError(f'got {path}, whose layers have no names (older versions of Keras 3 wrote none), '
                              f'expected some; save the model with model.save("x.h5")', where="load_keras_weights")
        if arrays:
            kind = _OF_BATCH_NORM if arrays[0].ndim == 1 else _OF_WEIGHTED
            names = [*kind, *(f"array {i}" for i in range(len(kind), len(arrays)))]
            layers.append((_text(part["vars"].attrs["name"]), dict(zip(names, arrays, strict=False))))
    return _once(layers, "layer", path)


def _arrays_below(group: Any) -> list[str]:
    """The paths of all datasets in a group, from there."""
    places: list[str] = []
    group.visititems(lambda name, item: places.append(name) if hasattr(item, "nbytes") else None)
    return places


def _checked(array: np.ndarray, name: str, path: Path) -> np.ndarray:
    """The array in float32, if it is one of floats that are finite there."""
    if array.dtype.kind != "f":
        raise MinidlError(f"got {path}, whose {name} is of {array.dtype}, expected finite floats",
                          where="load_keras_weights")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise MinidlError(f"got {path}, whose {name} is with nan or infinity, expected finite floats",
                          where="load_keras_weights")
    return array
