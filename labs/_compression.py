"""Codes as bytes: how many there are, and what is left of the images."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import minidl
from labs import _classifier
from labs._autoencoders import as_pixels, in_words, psnr
from labs._components import Components
from minidl import Tensor
from minidl.models import Autoencoder


def as_bytes(codes: np.ndarray, kind: str, lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """Codes as they are stored: float32, float16, or uint8 from the lowest to the highest of each number."""
    if kind != "uint8":
        return codes.astype(kind)
    steps = (codes - lowest) / np.maximum(highest - lowest, 1e-12) * 255
    return np.rint(steps.clip(0, 255)).astype(np.uint8)


def from_bytes(stored: np.ndarray, lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """The float32 numbers that are left of stored codes."""
    if stored.dtype != np.uint8:
        return stored.astype(np.float32)
    return (lowest + stored.astype(np.float32) / 255 * (highest - lowest)).astype(np.float32)


def compressed(encode: Callable[[Tensor], np.ndarray], images: Tensor, training: Tensor, pixels: np.ndarray,
               decode: Callable[[np.ndarray], np.ndarray]) -> dict[str, dict[str, float]]:
    """For each way to store the codes of images: their bytes, the share of the pixels' bytes that is saved, the PSNR.

    training: images whose codes say what range uint8 has to cover. pixels: the images from 0 to 1, a byte each.
    encode: images -> codes (N, numbers). decode: codes -> pixels.
    """
    codes, of_training = encode(images), encode(training)
    lowest, highest = of_training.min(0), of_training.max(0)
    found = {}
    for kind in ("float32", "float16", "uint8"):
        stored = as_bytes(codes, kind, lowest, highest)
        found[kind] = {"bytes": stored.nbytes, "saved": 1 - stored.nbytes / pixels.size,
                       "psnr": psnr(pixels, decode(from_bytes(stored, lowest, highest)))}
    smaller = len(zlib.compress(stored.tobytes(), 9))                           # of the bytes
    found["uint8 by zlib"] = {**found["uint8"], "bytes": smaller, "saved": 1 - smaller / pixels.size}
    return found


def decoder_of(network: Autoencoder, code_shape: tuple[int, ...], mean: float, std: float,
               device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Codes (N, numbers) -> pixels (N, C, H, W)."""
    def decode(codes: np.ndarray) -> np.ndarray:
        code = minidl.from_numpy(codes).reshape(len(codes), *code_shape)        # (N, numbers) -> (N, 4, H/4, W/4)
        return as_pixels(_classifier.outputs(network.decoder, code, device), mean, std)

    return decode


def decoder_of_pca(components: Components, shape: tuple[int, ...], mean: float,
                   std: float) -> Callable[[np.ndarray], np.ndarray]:
    """Codes (N, components) -> pixels (N, C, H, W)."""
    return lambda codes: as_pixels(components.decoded(codes, shape), mean, std)


def lossless(pixels: np.ndarray) -> int:
    """How many bytes zlib makes of the pixels' bytes, from which it makes every pixel again."""
    return len(zlib.compress(np.rint(pixels * 255).astype(np.uint8).tobytes(), 9))


def draw_compression(compression: Mapping[str, Mapping[str, Any]]) -> Figure:
    """PSNR against bytes: a line for each code, a point for each way to store it."""
    figure, axes = plt.subplots(figsize=(8.5, 4.4), layout="constrained")
    codes = {name: kinds for name, kinds in compression.items() if "float32" in kinds}
    for number, (name, kinds) in enumerate(codes.items()):
        axes.plot([of_kind["bytes"] for of_kind in kinds.values()], [of_kind["psnr"] for of_kind in kinds.values()],
                  f"C{number}--" if name.startswith("pca") else f"C{number}-", label=in_words(name))
        for of_kind, marker in zip(kinds.values(), "os^v", strict=True):
            axes.plot(of_kind["bytes"], of_kind["psnr"], marker, color=f"C{number}")
    for kind, marker in zip(next(iter(codes.values())), "os^v", strict=True):
        axes.plot([], [], marker, color="black", label=kind)
    for name, line in (("zlib", ":"), ("pixels", "-.")):
        axes.axvline(compression[name]["bytes"], color="black", linestyle=line, linewidth=1, label=f"{name}, exact")
    axes.set(xscale="log", xlabel="bytes of all test images (log scale)", ylabel="PSNR in dB")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.grid(alpha=0.3, which="both")
    return figure
