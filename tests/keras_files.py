"""Files of weights as Keras writes them, for tests: both layouts, from a model of minidl's with Keras's names."""

from __future__ import annotations

import numpy as np

from minidl import nn


def weights_of(model):
    """{Keras's name of the layer: {Keras's name of the weight: array}} of a model."""
    found = {}
    for path, layer in model.named_modules():
        state = {name: np.array(tensor.numpy()) for name, tensor in layer.state_dict().items()}
        name = path.removesuffix(".0")
        if isinstance(layer, nn.BatchNorm2d):
            found[name] = {"gamma": state["weight"], "beta": state["bias"], "moving_mean": state["running_mean"],
                           "moving_variance": state["running_var"]}
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            axes = (2, 3, 1, 0) if state["weight"].ndim == 4 else (1, 0)
            found[name] = {"kernel": state["weight"].transpose(axes)}           # (O, C, KH, KW) -> (KH, KW, C, O)
            if "bias" in state:
                found[name]["bias"] = state["bias"]
    return found


def write_legacy(path, weights, group=None, ending="", cut=None, layers=None):
    """The layout with lists of names. ending: ":0" in Keras 2. cut: so many names in an attribute, as in long lists.
    layers: all names, if the reader wants those without weights too."""
    import h5py

    def set_names(place, attribute, names):
        encoded = [name.encode() for name in names]
        if cut is None or not encoded:
            place.attrs[attribute] = encoded
        else:
            for i in range(0, len(encoded), cut):
                place.attrs[f"{attribute}{i // cut}"] = encoded[i:i + cut]

    with h5py.File(path, "w") as file:
        place = file if group is None else file.create_group(group)
        layers = layers or ["input_layer", *weights, "without_weights"]
        set_names(place, "layer_names", layers)
        for layer in layers:
            own = weights.get(layer, {})
            set_names(place.create_group(layer), "weight_names", [f"{layer}/{name}{ending}" for name in own])
            for name, array in own.items():
                place[layer][f"{layer}/{name}{ending}"] = array


def write_numbered(path, weights):
    """The layout of Keras 3's save_weights, in which groups are called after the kind of the layer."""
    import h5py

    with h5py.File(path, "w") as file:
        file.create_group("vars")
        for i, (layer, own) in enumerate([("input_layer", {}), *weights.items()]):
            place = file.create_group(f"layers/layer_{i}/vars")
            place.attrs["name"] = layer
            for k, array in enumerate(own.values()):
                place[str(k)] = array
