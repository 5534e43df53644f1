"""ResNet50V2 here and in Keras, in a process of its own, as Keras chooses its backend when it is imported.

    python tests/against_keras.py FOLDER

Keras makes the network with random weights, saves it in FOLDER in both of its layouts, and minidl loads both. Prints,
as JSON, how far apart the activations of all layers are, and the gradients of filters with respect to the image.
tests/test_keras.py asserts that it is little. The backend is PyTorch's, unless KERAS_BACKEND says otherwise.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np

import minidl
from minidl.models import preprocess_input, resnet50v2
from minidl.visualize import feature_extractor

NOT_LAYERS_HERE = ("InputLayer", "ZeroPadding2D")               # but pool1_pad; a convolution pads by itself
FILTERS = {"conv2_block1_1_conv": 5, "conv3_block4_2_conv": 17, "conv5_block3_3_conv": 63}


def randomised(model, rng):
    """The numbers of batch-norm and the biases, which Keras begins with 0 and 1, drawn at random too."""
    for weight in model.weights:
        name = weight.path.rpartition("/")[2]
        if name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif name in ("beta", "moving_mean", "bias"):
            weight.assign(rng.normal(0.0, 0.1, weight.shape))
    return model


def in_our_order(y):
    """(N, H, W, C) -> (N, C, H, W)."""
    y = keras.ops.convert_to_numpy(y)
    return y.transpose(0, 3, 1, 2) if y.ndim == 4 else y


def distance(mine, theirs):
    """The largest difference as a share of the largest number; of other shapes it is infinite."""
    return float(np.abs(mine - theirs).max() / np.abs(theirs).max()) if mine.shape == theirs.shape else float("inf")


def our_names(model):
    """Keras's name -> the name here, for the layers that are here too; of pooling without a name it is the block's."""
    names, previous = {}, ""
    for layer in model.layers:
        if type(layer).__name__ not in NOT_LAYERS_HERE or layer.name == "pool1_pad":
            block = "_".join(previous.split("_")[:2])
            names[layer.name] = f"{block}_0_pool" if layer.name.startswith("max_pooling2d") else layer.name
            previous = layer.name
    return names


def activations(theirs, ours, images):
    """{name of a layer: distance}."""
    names = our_names(theirs)
    extractor = keras.Model(theirs.inputs, [theirs.get_layer(name).output for name in names])
    expected = extractor.predict_on_batch(images)
    with minidl.no_grad():
        found = feature_extractor(ours, list(names.values()))(as_tensor(images))
    return {own: distance(found[own].numpy(), in_our_order(y)) for own, y in zip(names.values(), expected, strict=True)}


def gradients(theirs, ours, images):
    """{name of a layer: distance} of the gradients of a filter's mean with respect to the image."""
    import torch

    far = {}
    for name, o in FILTERS.items():
        x = torch.from_numpy(images).requires_grad_()
        score = keras.Model(theirs.inputs, theirs.get_layer(name).output)(x, training=False)[..., o].mean()
        expected, = torch.autograd.grad(score.cpu(), x)
        own_x = as_tensor(images).requires_grad_()
        found, = minidl.autograd.grad(feature_extractor(ours, [name])(own_x)[name][:, o].mean(), own_x)
        far[name] = distance(found.numpy(), in_our_order(expected))
    return far


def as_tensor(images):
    """(N, H, W, C) -> (N, C, H, W)."""
    return minidl.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def main(folder):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    theirs = randomised(keras.applications.ResNet50V2(weights=None), rng)
    theirs.save(folder / "model.h5")
    theirs.save_weights(folder / "model.weights.h5")
    ours = resnet50v2(weights=folder / "model.h5").eval()
    twin = resnet50v2(weights=folder / "model.weights.h5")
    without_top = keras.applications.ResNet50V2(weights=None, include_top=False)
    without_top.set_weights(theirs.get_weights()[:-2])
    without_top.save(folder / "without_top.h5")
    ours_without_top = resnet50v2(include_top=False, weights=folder / "without_top.h5").eval()
    large, small = (rng.uniform(-1, 1, (1, side, side, 3)).astype(np.float32) for side in (224, 180))
    pixels = rng.integers(0, 256, (1, 8, 8, 3))
    found = {
        "version": keras.__version__, "backend": keras.backend.backend(), "parameters": theirs.count_params(),
        "both_files_say_the_same": all(bool(a.equal(b)) for a, b in zip(
            ours.state_dict().values(), twin.state_dict().values(), strict=True)),
        "eps": sorted({layer.epsilon for layer in theirs.layers if hasattr(layer, "epsilon")}),
        "momentum": sorted({layer.momentum for layer in theirs.layers if hasattr(layer, "epsilon")}),
        "224": activations(theirs, ours, large), "180": activations(without_top, ours_without_top, small),
        "preprocess_input": distance(preprocess_input(as_tensor(pixels)).numpy(), in_our_order(
            keras.applications.resnet_v2.preprocess_input(pixels.astype(np.float32)))),
    }
    if keras.backend.backend() == "torch":
        found["gradients"] = gradients(without_top, ours_without_top, small)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
