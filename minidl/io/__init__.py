"""Files of weights: minidl's own (`save`, `load`, which are safetensors), and those that Keras writes."""

from minidl.io.keras_file import load_keras_weights
from minidl.io.safetensors_file import load, save

__all__ = ["load", "load_keras_weights", "save"]
