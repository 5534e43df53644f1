"""What keeps the house in order: imports run one way, importing is light, names do not collide, sources stay clean."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import minidl
from minidl import environment

ROOT = Path(minidl.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# lowest first; a file may import from its own layer and from those before it
LAYERS = ["_version", "environment", "errors", "writing", "backend", "dtypes", "rng", "kernels", "recording", "uploads", "graph", "custom", "autograd", "ops",
          "inplace", "printing", "tensors", "creation", "functions", "linalg", "nn", "optim", "distributions", "io", "data", "transforms",
          "datasets", "models", "utils", "attacks", "visualize", "debug", "cuda", "accelerator",
          "doctor", "backends", "train", "minidl", "gpucheck", "__main__"]
BESIDE = {"fake": "backend", "cupy_backend": "backend", "numba_cuda": "backend"}       # backends in files of their own, loaded by name at first use


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def layer_of(module: str) -> int:
    top = module.split(".")[0] or "minidl"
    return LAYERS.index(BESIDE.get(top, top))


def imports_of(tree: ast.AST) -> set[str]:
    """The minidl modules that a file imports when it runs; imports for the type checker do not run.

    `from minidl import Tensor` and `import minidl` reach for the finished package: they count as "minidl", the top.
    """
    found = set()
    skipped = {id(n) for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
               for n in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide which way they run"
            names = [f"minidl.{alias.name}" for alias in node.names] if node.module == "minidl" else [node.module]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "minidl":
                top = name.split(".")[1] if "." in name else "minidl"
                found.add(top if top in LAYERS or top in BESIDE else "minidl")
    return found


def upward_imports(path: Path, source: str) -> list[str]:
    own = layer_of(module_of(path))
    return sorted(name for name in imports_of(ast.parse(source)) if layer_of(name) > own)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_run_one_way(path):
    assert not upward_imports(path, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("line", "found"), [
    ("from minidl.tensors import Tensor", "tensors"), ("from minidl import nn", "nn"), ("import minidl.nn", "nn"),
    ("def f():\n    from minidl import Tensor", "minidl"), ("import minidl", "minidl"),
    ("from minidl.nn.functional import relu", "nn"), ("from minidl import backend", None),
    ("if TYPE_CHECKING:\n    from minidl.tensors import Tensor", None),
])
def test_an_upward_import_would_be_noticed(line, found):
    path = ROOT / "ops" / "conv.py"
    assert upward_imports(path, f"{path.read_text(encoding='utf-8')}\n{line}\n") == ([found] if found else [])


def test_every_module_has_a_layer():
    for path in FILES:
        layer_of(module_of(path))


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "ops"], ids=module_of)
def test_ops_do_not_name_numpy(path):
    assert not any(name.split(".")[0] in ("numpy", "cupy", "scipy", "numba", "torch")
                   for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                   for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else
                                [node.module] if isinstance(node, ast.ImportFrom) else []))


def test_no_module_is_named_like_a_public_function_or_class():
    modules = {module_of(path) for path in FILES if path.parent == ROOT}
    for name in minidl.__all__:
        value = getattr(minidl, name)
        if name in modules and not isinstance(value, type(sys)):
            pytest.fail(f"minidl.{name} is a {type(value).__name__} and minidl/{name}.py exists")


def test_all_public_names_are_there_and_described():
    for name in minidl.__all__:
        assert hasattr(minidl, name), name
    for name in minidl.__all__:
        value = getattr(minidl, name)
        if callable(value) and value.__module__.startswith("minidl"):
            assert value.__doc__, name


def run_python(code: str, **environment: str) -> str:
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True,
                          cwd=ROOT.parent, env={**variables, **environment}).stdout


def test_importing_loads_nothing_heavy():
    loaded = json.loads(run_python("import json, sys, minidl; print(json.dumps(sorted(sys.modules)))"))
    heavy = {"numba", "cupy", "matplotlib", "sklearn", "scipy", "rich", "PIL", "torch", "safetensors", "llvmlite"}
    assert not heavy & {name.split(".")[0] for name in loaded}
    assert "minidl.fake" not in loaded
    assert "minidl.debug" not in loaded


def test_importing_costs_less_than_twice_numpy(tmp_path):
    """import minidl < 2 × import numpy, both from compiled files, in alternating fresh processes, by the medians."""
    def seconds(module):
        code = f"import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
        return float(run_python(code, PYTHONPYCACHEPREFIX=str(tmp_path)))

    seconds("minidl")                                           # compiles
    pairs = [(seconds("minidl"), seconds("numpy")) for _ in range(9)]
    ratio = sorted(ours / numpys for ours, numpys in pairs)[4]
    assert ratio < 2, f"import minidl takes {ratio:.2f} times as long as import numpy"


def test_openmp_workers_are_told_not_to_spin():
    assert run_python("import os; os.environ.pop('OMP_WAIT_POLICY', None); import minidl; "
                      "print(os.environ['OMP_WAIT_POLICY'])").strip() == "passive"
    assert run_python("import os; os.environ['OMP_WAIT_POLICY'] = 'active'; import minidl; "
                      "print(os.environ['OMP_WAIT_POLICY'])").strip() == "active"


ZEN4 = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nflags\t\t: fpu sse avx avx2 avx512f avx512vl\n"


@pytest.mark.parametrize(("cpuinfo", "expected"), [
    (ZEN4, True), (ZEN4 * 3, True), ("", False), (ZEN4.replace(" avx512f", ""), False),         # that is a Zen 3
    (ZEN4.replace("25", "26"), False), (ZEN4.replace("AuthenticAMD", "GenuineIntel"), False),
    (ZEN4.replace("25", "6") + ZEN4, False), ("Processor : ARMv8\n", False)])
def test_a_processor_is_known_by_its_description(cpuinfo, expected):
    assert environment.is_zen4(cpuinfo) == expected


def test_openblas_gets_its_kernels_before_it_is_loaded_and_nobody_is_overruled():
    ours = "Haswell" if environment.is_zen4(environment.processor()) else "None"
    show = "import os; print(os.environ.get('OPENBLAS_CORETYPE'))"
    without = "import os; os.environ.pop('OPENBLAS_CORETYPE', None); "
    assert run_python(f"{without}import minidl; {show}").strip() == ours
    assert run_python(f"{without}import labs; {show}").strip() == ours
    assert run_python(f"{without}import numpy, minidl; {show}").strip() == "None"
    assert run_python(f"import minidl; {show}", OPENBLAS_CORETYPE="Prescott").strip() == "Prescott"
