"""`save` and `load`, under PyTorch's names: tensors, and dicts, lists and numbers around them, in one file.

The file is a safetensors file (https://github.com/huggingface/safetensors): a header that says where which tensor lies,
and their numbers. Reading one runs no code, unlike a pickle. What stands around the tensors is JSON in the header. The
tensors of a state dict have their own names in the file, so that other programs read it too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from minidl.creation import from_numpy
from minidl.errors import DtypeError, MinidlError
from minidl.tensors import Tensor
from minidl.writing import replace_whole

__all__ = ["load", "save"]


def save(obj: Any, f: Any) -> None:
    """Write tensors, and dicts, lists, tuples, strings and numbers that hold them, to a path or an open file.

    A path is written beside itself first and then renamed, so that a crash leaves the old file or the new one, whole.
    """
    from safetensors.numpy import save as as_bytes  # here, because `import minidl` is to be light

    arrays: dict[str, np.ndarray] = {}
    plan = json.dumps(_planned(obj, "", arrays))
    content = as_bytes(arrays, {"minidl": plan})
    if hasattr(f, "write"):
        f.write(content)
        return
    replace_whole(f, content, "save")


def load(f: Any, map_location: Any = None, weights_only: bool = True) -> Any:
    """Read what `save` wrote, from a path or an open file; or any safetensors file, as a dict of tensors.

    map_location: the device for the tensors, the CPU unless given. weights_only is PyTorch's; nothing else is possible.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    if hasattr(f, "read"):
        name, content = "the file", f.read()
    else:
        name = str(f)
        try:
            content = Path(f).read_bytes()
        except OSError as error:
            raise MinidlError(f"got {name}, which cannot be read ({error.strerror})", where="load") from None
    try:
        arrays = from_bytes(content)
        header = json.loads(content[8:8 + int.from_bytes(content[:8], "little")])
        plan = header.get("__metadata__", {}).get("minidl")
    except (SafetensorError, ValueError) as error:
        raise MinidlError(f"got {name} of {len(content):,} bytes, which is no whole safetensors file ({error}); files "
                          f"that PyTorch wrote are pickles and are not read", where="load") from None
    tensors = {key: from_numpy(array).to(device=map_location) for key, array in arrays.items()}
    return tensors if plan is None else _rebuilt(json.loads(plan), tensors)


def _planned(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """The value as JSON, with the names of tensors in their places; the tensors' arrays are collected."""
    if isinstance(value, Tensor):
        key = name or "tensor"
        while key in arrays:                                # a key with dots in it may look like a path
            key += "_"
        # in C order: of a transposed array safetensors would write the memory as it lies
        arrays[key] = np.array(value.detach()._on_host(), order="C", copy=True)
        return {"tensor": key}
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str | int):
                raise DtypeError(f"got the key {key!r} in a dict, expected strings or integers", where="save")
        return {"dict": [[key, _planned(item, f"{name}.{key}" if name else str(key), arrays)]
                         for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [_planned(item, f"{name}.{i}" if name else str(i), arrays) for i, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise DtypeError(f"got a {type(value).__name__}, expected tensors, numbers, strings, and dicts and lists of them; "
                     f"save model.state_dict() instead of a model", where="save")


def _rebuilt(plan: Any, tensors: dict[str, Tensor]) -> Any:
    """The value that a plan describes."""
    if not isinstance(plan, dict):
        return plan
    ((kind, content),) = plan.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _rebuilt(item, tensors) for key, item in content}
    items = [_rebuilt(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items
