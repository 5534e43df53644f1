"""What a trained network sees: outputs inside it, the patches that excite a filter, pictures that excite it most."""

from typing import Any as _Any

from minidl.errors import no_such_name as _no_such_name
from minidl.visualize.ascent import Maximized, as_picture, maximize, resample, total_variation
from minidl.visualize.layers import FeatureExtractor, capture, feature_extractor, layer_named
from minidl.visualize.patches import Patches, ReceptiveField, receptive_field, strongest_patches

__all__ = ["FeatureExtractor", "Maximized", "Patches", "ReceptiveField", "as_picture", "capture", "feature_extractor",
           "layer_named", "maximize", "receptive_field", "resample", "strongest_patches", "total_variation"]


def __getattr__(name: str) -> _Any:
    raise _no_such_name("minidl.visualize", name, __all__)
