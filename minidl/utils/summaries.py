"""What TensorBoard keeps of a value: a number, the pixels of a picture, the bins of a histogram, a row of its table."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from minidl.backend import quiet
from minidl.creation import from_numpy
from minidl.errors import DtypeError, SettingError, ShapeError
from minidl.tensors import Tensor
from minidl.utils.grid import make_grid


def as_numbers(value: Any, where: str) -> np.ndarray:
    """A tensor, an array or a number as a NumPy array."""
    if isinstance(value, Tensor):
        return value.detach()._on_host()
    array = np.asarray(value) if isinstance(value, np.ndarray | np.generic | int | float) else None
    if array is None or array.dtype.kind not in "biuf":
        kind = type(value).__name__ if array is None else f"{type(value).__name__} of {array.dtype}"
        raise DtypeError(f"got {value!r:.60}, a {kind}, expected a tensor, an array or a number", where=where)
    return array


def as_scalar(value: Any, where: str) -> Any:
    """A number, or a tensor or an array with one element, as a Python number."""
    array = as_numbers(value, where)
    if array.size != 1:
        raise ShapeError(f"got shape {array.shape}, expected a single number; use x.mean()", where=where)
    return array.item()


def pixels(image: Any, dataformats: str) -> np.ndarray:
    """A picture, or many of them side by side, 8 in a row, as bytes (H, W, C) with 3 or 4 channels.

    dataformats: which axis of the image is which. Floats count from 0 to 1.
    """
    x, order = as_numbers(image, "add_image"), str(dataformats).upper()
    expected = {"HW": "HW", "CHW": "CHW", "CHNW": "NCHW"}.get("".join(sorted(order)))
    if expected is None:
        raise SettingError(f'got dataformats={dataformats!r}, expected the letters of "HW", "CHW" or "NCHW", in any '
                           f"order", where="add_image")
    channels = x.shape[order.index("C")] if x.ndim == len(order) and "C" in order else 1
    if x.ndim != len(order) or not x.size or channels not in (1, 3, 4):
        raise ShapeError(f"got shape {x.shape} and dataformats={dataformats!r}, expected {len(order)} axes, with 1, 3 "
                         f'or 4 channels at C; say which axis is which, such as dataformats="HWC"', where="add_image")
    if x.dtype.kind not in "fb" and x.dtype != np.uint8:
        raise DtypeError(f"got an image of {x.dtype}, expected uint8 (0…255) or floats (0…1); use x.to(minidl.uint8) "
                         f"or x / 255", where="add_image")
    if np.isnan(x).any():
        raise SettingError(f"got an image in which {np.count_nonzero(np.isnan(x)):,} of {x.size:,} numbers are nan, "
                           f"expected 0…1", where="add_image")
    if x.dtype != np.uint8:
        with quiet():
            x = (x.astype(np.float32) * 255).clip(0, 255).astype(np.uint8)
    in_order = x.transpose([order.index(axis) for axis in expected])                # (H, W), (C, H, W), (N, C, H, W)
    grid = make_grid(from_numpy(in_order), padding=0).numpy()                       # -> (C, H, W)
    return np.ascontiguousarray(grid.transpose(1, 2, 0))


def as_png(pixels: np.ndarray) -> bytes:
    """Bytes (H, W, C) as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


@functools.cache
def tensorboard_bins() -> np.ndarray:
    """Edges of bins that grow by a tenth, from 1e-12 to 1e20, and the same below 0."""
    edges = [1e-12]
    while edges[-1] * 1.1 < 1e20:
        edges.append(edges[-1] * 1.1)
    return np.array([-edge for edge in reversed(edges)] + [0.0] + edges)


def histogram(x: np.ndarray, bins: Any, max_bins: int | None) -> tuple[np.ndarray, np.ndarray]:
    """How many numbers lie in each bin, and the bin's upper edge: from the first bin that has any to the last.

    In front stands an empty bin, whose upper edge is the lower edge of the first.
    """
    if max_bins is not None and max_bins < 1:
        raise SettingError(f"got max_bins={max_bins}, expected 1 or more, or None", where="add_histogram")
    edges = tensorboard_bins() if isinstance(bins, str) and bins == "tensorflow" else bins
    try:
        counts, edges = np.histogram(x, edges)
    except (TypeError, ValueError) as error:
        raise SettingError(f'got bins={bins!r:.60} ({error}), expected "tensorflow", or what numpy.histogram takes',
                           where="add_histogram") from None
    if max_bins is not None and len(counts) > max_bins:
        together = len(counts) // max_bins
        counts = np.add.reduceat(counts, np.arange(0, len(counts), together))
        edges = np.append(edges[:-1:together], edges[-1])
    filled = np.flatnonzero(counts)
    if not filled.size:
        raise SettingError(f"got numbers from {x.min():g} to {x.max():g}, none of them in the bins, which go from "
                           f"{edges[0]:g} to {edges[-1]:g}", where="add_histogram")
    first, last = filled[0], filled[-1]
    return np.append(0, counts[first:last + 1]), edges[first:last + 2]


def descriptions(tb: SimpleNamespace, hparams: Mapping[str, Any], metrics: Mapping[str, Any],
                 domains: Mapping[str, Sequence[Any]]) -> list[tuple[str, Any]]:
    """What the table of runs asks for, as (tag, metadata): its columns, the run's values, and that the run has ended.

    domains: the values that a hyperparameter can have.
    """
    types = tb.api.DataType
    columns = tb.api.Experiment(
        metric_infos=[tb.api.MetricInfo(name=tb.api.MetricName(tag=tag)) for tag in metrics])
    values = tb.plugin_data.SessionStartInfo()
    for name, given in hparams.items():
        if given is None:
            continue
        value = given if isinstance(given, str) else as_scalar(given, f"add_hparams, {name!r}")
        column = columns.hparam_infos.add(name=name)
        if isinstance(value, bool):                         # first, because a bool is an int too
            column.type, values.hparams[name].bool_value = types.DATA_TYPE_BOOL, value
        elif isinstance(value, str):
            column.type, values.hparams[name].string_value = types.DATA_TYPE_STRING, value
        else:
            column.type, values.hparams[name].number_value = types.DATA_TYPE_FLOAT64, value
        if name in domains:
            column.domain_discrete.extend(domains[name])
    end = tb.plugin_data.SessionEndInfo(status=tb.api.STATUS_SUCCESS)
    contents = {tb.hparams.EXPERIMENT_TAG: {"experiment": columns},
                tb.hparams.SESSION_START_INFO_TAG: {"session_start_info": values},
                tb.hparams.SESSION_END_INFO_TAG: {"session_end_info": end}}
    return [(tag, tb.hparams.create_summary_metadata(tb.plugin_data.HParamsPluginData(**content)))
            for tag, content in contents.items()]
