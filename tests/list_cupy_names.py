"""Write down which names and keyword arguments CuPy has, for the strict fake device.

    pip install cupy-cuda13x            # no GPU is needed to import it
    python tests/list_cupy_names.py > minidl/fake_cupy_names.json
"""

import inspect
import json
import re
import sys
import types

import cupy


def parameters(function):
    """The names of a function's parameters; compiled methods tell theirs in the first line of their docstring."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        head = re.match(r"[\w.]+\((.*?)\)(?: ->|\s|$)", (function.__doc__ or "").split("\n")[0])
        if head is None:
            return None
        names = [re.split(r"[=:]", part)[0].split()[-1].strip() for part in head.group(1).split(",") if part.strip()]
        return [name for name in names if name != "self"]


# keyword arguments that a function takes out of its **kwargs, from its own documentation
IN_KWARGS = {"einsum": ["operands", "dtype", "optimize"]}


def main():
    functions, ufuncs, others = {}, [], []
    for name in sorted(set(dir(cupy))):
        value = getattr(cupy, name, None)
        if name.startswith("_") or isinstance(value, types.ModuleType):
            continue
        if isinstance(value, cupy.ufunc):
            ufuncs.append(name)
        elif isinstance(value, types.FunctionType | types.BuiltinFunctionType) or type(value).__name__.endswith(
                ("fusion", "cython_function_or_method")):
            functions[name] = IN_KWARGS.get(name) or parameters(value)
        else:
            others.append(name)
    methods, attributes = {}, []
    for name in sorted(set(dir(cupy.ndarray))):
        if not name.startswith("_"):
            value = getattr(cupy.ndarray, name)
            if callable(value):
                methods[name] = parameters(value)
            else:
                attributes.append(name)
    table = {"cupy": cupy.__version__, "functions": functions, "ufuncs": ufuncs, "others": others,
             "methods": methods, "attributes": attributes}
    json.dump(table, sys.stdout, indent=None, separators=(",", ":"))
    sys.stdout.write("\n")


main()
