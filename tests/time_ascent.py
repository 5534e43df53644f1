"""How long a gradient ascent of 30 steps takes with ResNet50V2, beside PyTorch and Keras, and how much memory.

    python -m tests.time_ascent

One image of 180×180 climbs for one filter of a deep layer, then of a shallow one: the same random weights, the same
start, two threads. The engines take turns, and the median of the turns counts. PyTorch stops at the layer, as minidl
does from the second step on; in "channels_last" its images and weights lie as minidl's do. Keras computes with PyTorch.
Memory is what an ascent needs beyond the network, in a process of its own. Stop other programs first.
"""

import importlib.util
import json
import os
import subprocess
import sys
import time

os.environ.update(KERAS_BACKEND="torch", OMP_NUM_THREADS="2")

import minidl  # before NumPy, which it has settings for

# isort: split

import numpy as np

from labs._speed_worker import forget_peak, memory_in_use
from minidl.models import resnet50v2
from minidl.visualize import maximize

LAYERS, FILTER, SIDE, STEPS, LR, TURNS = ("conv5_block3_3_conv", "conv2_block1_1_conv"), 3, 180, 30, 10.0, 7
ENGINES = ("minidl", "torch", "torch channels_last", "keras")


def start_image():
    return ((np.random.default_rng(0).random((3, SIDE, SIDE)) - 0.5) * 0.25).astype(np.float32)


def prepare(engine):
    """A function of a layer that does one ascent and returns the scores of its steps."""
    minidl.manual_seed(0)
    minidl.set_num_threads(2)
    network = resnet50v2(include_top=False).eval().requires_grad_(False)
    if engine == "minidl":
        start = minidl.from_numpy(start_image())
        return lambda layer: maximize(network, layer, FILTER, start=start, steps=STEPS, lr=LR).scores[:-1]
    return in_pytorch(network, engine)


def in_pytorch(network, engine):
    """The same by PyTorch, or by Keras on PyTorch."""
    import torch

    from tests.resnet50v2_in_pytorch import activation, weights_for_pytorch

    torch.set_num_threads(2)
    w, form = weights_for_pytorch(network), torch.contiguous_format
    if engine.endswith("channels_last"):
        form = torch.channels_last
        w = {name: t.to(memory_format=form) if t.ndim == 4 else t for name, t in w.items()}
    models = keras_models(network) if engine == "keras" else {}

    def ascend(layer):
        x, scores = torch.from_numpy(start_image())[None].contiguous(memory_format=form), []
        if models:
            x = x.permute(0, 2, 3, 1).contiguous()                              # (1, 3, H, W) -> (1, H, W, 3)
        for _ in range(STEPS):
            x = x.detach().requires_grad_()
            y = models[layer](x, training=False)[..., FILTER] if models else activation(w, x, layer)[:, FILTER]
            score = y[:, 2:-2, 2:-2].mean()
            g, = torch.autograd.grad(score, x)
            scores.append(score.item())
            x = x + LR * g / g.norm()
        return scores

    return ascend


def keras_models(network):
    """{layer: the part of Keras's network that ends with it}, with the same weights, frozen."""
    import tempfile

    import keras

    from tests.keras_files import weights_of, write_legacy

    model = keras.applications.ResNet50V2(weights=None, include_top=False)
    with tempfile.TemporaryDirectory() as folder:
        write_legacy(f"{folder}/w.h5", weights_of(network), layers=[layer.name for layer in model.layers])
        model.load_weights(f"{folder}/w.h5")
    model.trainable = False
    return {layer: keras.Model(model.inputs, model.get_layer(layer).output) for layer in LAYERS}


def memory(engine):
    """MB that the ascents need at most, beyond what the process has with the network; the first one compiles."""
    ascend = prepare(engine)
    found = {}
    for layer in LAYERS[::-1]:
        ascend(layer)
        forget_peak()
        before = memory_in_use("VmRSS")
        ascend(layer)
        found[layer] = memory_in_use("VmHWM") - before
    return found | {"process": memory_in_use("VmHWM")}


def main():
    has = {name: importlib.util.find_spec(name) is not None for name in ("torch", "keras", "h5py")}
    engines = [engine for engine in ENGINES if engine == "minidl" or (has["torch"] and (engine != "keras" or (
        has["keras"] and has["h5py"])))]
    ascents = {engine: prepare(engine) for engine in engines}
    seconds, scores = {}, {}
    for layer in LAYERS:
        for turn in range(TURNS + 1):                           # the first one compiles
            for engine in np.roll(engines, -turn).tolist():
                before = time.perf_counter()
                scores[engine, layer] = ascents[engine](layer)
                if turn:
                    seconds.setdefault((engine, layer), []).append(time.perf_counter() - before)
    print(f"{'':22}{'':22}{'seconds':>9}{'ratio':>8}{'MB more':>9}{'last score':>12}")
    needed = {engine: json.loads(subprocess.run([sys.executable, "-m", "tests.time_ascent", engine], check=True,
                                                capture_output=True, text=True).stdout.splitlines()[-1])
              for engine in engines}
    for layer in LAYERS:
        for engine in engines:
            ratio = np.median(np.array(seconds[engine, layer]) / np.array(seconds["minidl", layer]))
            print(f"{layer:22}{engine:22}{np.median(seconds[engine, layer]):9.3f}{ratio:8.2f}"
                  f"{needed[engine][layer]:9.0f}{scores[engine, layer][-1]:12.4f}")
    print("processes at most, MB:", {engine: round(of_engine["process"]) for engine, of_engine in needed.items()})


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(memory(" ".join(sys.argv[1:]))))
    else:
        main()
