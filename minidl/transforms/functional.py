"""What the transforms do, as functions: `import minidl.transforms.functional as TF`.

Each takes a PIL image, a tensor (…, C, H, W), or an array (H, W) or (H, W, C), and returns the same kind; those that
convert say what they take.
"""

from minidl.transforms.checks import InterpolationMode
from minidl.transforms.color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    rgb_to_grayscale,
    to_grayscale,
)
from minidl.transforms.geometry import center_crop, crop, hflip, pad, resize, rotate, vflip
from minidl.transforms.images import (
    convert_image_dtype,
    get_dimensions,
    normalize,
    pil_to_tensor,
    to_pil_image,
    to_tensor,
)

__all__ = [
    "InterpolationMode", "adjust_brightness", "adjust_contrast", "adjust_hue", "adjust_saturation", "center_crop",
    "convert_image_dtype", "crop", "get_dimensions", "hflip", "normalize", "pad", "pil_to_tensor", "resize",
    "rgb_to_grayscale", "rotate", "to_grayscale", "to_pil_image", "to_tensor", "vflip",
]
