"""`python -m minidl doctor`: what is installed, whether it works, and where things are.

Nothing is believed because it is installed. Kernels are run, on the CPU and on the GPU if there is one, and what they
answer is compared with the definition. What is not there is no fault; what is there and does not work is.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from minidl import cuda, cupy_backend, environment
from minidl._version import __version__
from minidl.backend import Backend, backend_for, cpu, why_no_cuda
from minidl.datasets import CIFAR10, MNIST, MNISTCSV, FashionMNIST
from minidl.datasets.files import data_root, find_together, read_payload
from minidl.errors import MinidlError
from minidl.kernels import dense, reference, threads
from minidl.kernels.geometry import Pool2dGeometry

WIDTH = 115                                     # of the lines, if no path in them is longer
NEEDED = ("numpy", "numba", "scipy", "matplotlib", "scikit-learn", "rich", "safetensors", "pillow", "threadpoolctl")
FOR_A_GPU = "for a GPU; pip install 'minidl[cuda13]', or 'minidl[cuda12]' with a driver older than 580"
OPTIONAL = {                                    # what is good to have -> what for, and the command
    "numba-cuda": FOR_A_GPU,
    "greenlet": "to step through kernels for a GPU; pip install 'minidl[simulate]'",
    "tensorboard": "for SummaryWriter and TensorBoardLogger; pip install 'minidl[tensorboard]'",
    "torch": "what labs.speed and the tests compare with; pip install 'minidl[compare]'",
}
VARIABLES = {                                   # read by minidl, or by a library under it -> what they do
    "MINIDL_DATA": "the folder of the datasets",
    "MINIDL_KEEP_MEMORY": "0: freed memory goes back to the system at once",
    "OMP_NUM_THREADS": "how many threads kernels use",
    "OMP_WAIT_POLICY": "what idle threads of OpenMP do; passive where nothing is set",
    "OPENBLAS_CORETYPE": "for which processor OpenBLAS computes; Haswell on a Zen 4 where nothing is set",
    "NUMBA_DISABLE_JIT": "1: kernels are plain Python, slow, to be stepped through",
    "NUMBA_CACHE_DIR": "the folder of compiled kernels",
    "NUMBA_ENABLE_CUDASIM": "1: kernels for a GPU run on the CPU, in a simulator",
    "CUDA_VISIBLE_DEVICES": "which GPUs are seen",
}
# how `why_no_cuda` begins where something is not there; else something is there and does not work
NOT_THERE = ("CuPy is not installed", "there is no NVIDIA driver", "there is an NVIDIA driver but no card",
             "numba-cuda, which compiles the kernels, is not installed")

Row = tuple[str, str]                           # what, and what there is to say about it
Problems = list[str]                            # what does not work


def examine(say: Callable[[str], object]) -> Problems:
    """Print everything, a line at a time; returns what does not work."""
    problems: Problems = []
    sections: dict[str, Callable[[Problems], Iterator[Row]]] = {
        "Machine": _machine, "Installed": _packages, "Does it work?": _checks, "Threads": _threads, "Folders": _folders,
        "Environment": _variables}
    for title, rows in sections.items():
        say(title)
        for name, text in rows(problems):
            for i, line in enumerate(textwrap.wrap(text, WIDTH - 24, break_long_words=False, break_on_hyphens=False)):
                say(f"  {'' if i else name:<21} {line}")
    say(f"Does not work: {', '.join(problems)}" if problems else "All that is installed works.")
    return problems


# -- the machine, and what is installed --------------------------------------------------------------------------------

def _machine(problems: Problems) -> Iterator[Row]:
    yield "minidl", f"{__version__}, in {Path(__file__).parent}"
    yield "Python", f"{platform.python_version()}, {sys.executable}"
    yield "system", platform.platform()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "processor", f"{environment.processor_name()}, {cores} cores"


def _packages(problems: Problems) -> Iterator[Row]:
    for name in NEEDED:
        version = _version(name)
        if version is None:
            problems.append(f"{name}, which is needed and not installed")
        yield name, version or f"not installed, and needed; pip install '{_requirement(name)}'"
    wheels = cupy_backend.wheels()
    yield "CuPy", " and ".join(f"{_version(wheel)} ({wheel})" for wheel in wheels) or f"not installed ({FOR_A_GPU})"
    for name, what_for in OPTIONAL.items():
        yield name, _version(name) or f"not installed ({what_for})"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requirement(name: str) -> str:
    """What minidl asks for, such as "scipy>=1.14"."""
    asked = metadata.requires("minidl") if _version("minidl") else None
    return next((one for one in asked or [] if re.match(rf"{re.escape(name)}\b[^;]*$", one)), name)


# -- does it work? -----------------------------------------------------------------------------------------------------

def _checks(problems: Problems) -> Iterator[Row]:
    yield from _answers("CPU", {
        "max pooling (Numba)": lambda: _pooling("minidl.kernels.pooling", cpu),
        "a product of matrices (BLAS)": lambda: _product(dense.matmul, cpu)}, problems)
    if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        yield "GPU", "not used: NUMBA_ENABLE_CUDASIM=1 has Numba simulate one"
        if _version("numba-cuda"):
            yield from _answers("simulated GPU", {
                "max pooling (numba-cuda)": lambda: _pooling("minidl.kernels.cuda", cpu)}, problems)
        return
    reason = why_no_cuda()
    if reason is None:
        yield "GPU", _card()
        yield from _answers("GPU", {
            "sums of products (CuPy)": lambda: _product(lambda a, b: (a[:, :, None] * b).sum(axis=1), _gpu()),
            "a product of matrices (cuBLAS)": lambda: _product(lambda a, b: a @ b, _gpu()),
            "max pooling (numba-cuda)": lambda: _pooling("minidl.kernels.cuda", _gpu())}, problems)
        return
    is_fault = not reason.startswith(NOT_THERE)
    if is_fault:
        problems.append("the GPU")
    yield "GPU", f"{'DOES NOT WORK' if is_fault else 'not used'}: {reason}"
    for card, driver in _cards()[:1]:
        extra = _extra_for(driver)
        yield "", f"nvidia-smi finds {card}, driver {driver}" + (f": pip install 'minidl[{extra}]'" if extra else "")


def _answers(where: str, checks: dict[str, Callable[[], float]], problems: Problems) -> Iterator[Row]:
    """Run the checks, each of which returns how far an answer is from the right one."""
    began, right = time.perf_counter(), []
    for name, check in checks.items():
        try:
            off = check()
            problem = "" if off < 1e-5 else f"a wrong answer, off by {off:.1e}"
        except Exception as error:                      # a library that is broken may raise anything
            problem = _in_short(error)
        if problem:
            problems.append(f"{name} on the {where}")
            yield where, f"DOES NOT WORK: {name}: {problem}"
        else:
            right.append(name)
    if right:
        yield where, f"right answers: {', '.join(right)}; {time.perf_counter() - began:.1f} s with compiling or loading"


def _in_short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _pooling(module: str, backend: Backend) -> float:
    """How far a module's largest values of windows, and their places, are from those of the definition."""
    kernels: Any = importlib.import_module(module)      # here, so that a doctor without Numba still says so
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 7), np.float32)
    geometry = Pool2dGeometry.of(x.shape, 3, 2, 1)
    y, places = (backend.to_host(array) for array in kernels.max_pool2d(backend.from_host(x), geometry))
    right, right_places = reference.max_pool2d(x, geometry)
    return _distance(y, right) + _distance(places, right_places)


def _product(product: Callable[[Any, Any], Any], backend: Backend) -> float:
    """How far a product of matrices is from the one in float64, as a share of the largest number in it."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((37, 29), np.float32), rng.standard_normal((29, 23), np.float32)
    c = backend.to_host(product(backend.from_host(a), backend.from_host(b)))
    right = a.astype(np.float64) @ b
    return _distance(c, right) / float(abs(right).max())


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference; infinite if the shapes are others, or if a has a number that is not finite."""
    if a.shape != b.shape or not np.isfinite(a).all():
        return float("inf")
    return float(abs(a.astype(np.float64) - b).max())


def _gpu() -> Backend:
    return backend_for("cuda")


def _card() -> str:
    """The GPU in use: its name, memory and driver."""
    try:
        card, memory = cuda.get_device_properties(), _gpu().free_memory()
        known = _gpu().xp.cuda.runtime.driverGetVersion()
    except Exception as error:                          # the checks will say more
        return _in_short(error)
    free = f"{memory[0] / 2**30:.1f} of {memory[1] / 2**30:.1f} GiB free" if memory else "memory unknown"
    driver = next((driver for _, driver in _cards()), "unknown")
    return (f"{card.name} (sm_{card.major}{card.minor}), {free}, driver {driver}, which knows CUDA "
            f"{cupy_backend.version_text(known)}")


def _cards() -> list[tuple[str, str]]:
    """(name, driver) of each card that NVIDIA's own tool finds; none without it."""
    try:
        told = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
                              capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [(name.strip(), driver.strip()) for name, comma, driver in (
        line.rpartition(",") for line in told.splitlines()) if comma]


def _extra_for(driver: str) -> str | None:
    """The extra of minidl with the newest CuPy that a driver can run: "cuda13" for 580.65.06."""
    major = driver.partition(".")[0]
    fitting = [int(version) for version, oldest in cupy_backend.WHEELS.values()
               if major.isdigit() and int(major) >= int(oldest)]
    return f"cuda{max(fitting)}" if fitting else None


# -- threads, folders, the environment ---------------------------------------------------------------------------------

def _threads(problems: Problems) -> Iterator[Row]:
    yield "kernels", f"{threads.get_num_threads()}, in minidl's own pool; minidl.set_num_threads changes it"
    layer = _layer_of_numba()
    warning = ", where two that run at the same time end the process" if layer == "workqueue" else ""
    yield "Numba's layer", (f"{layer}; no kernel of minidl uses it, only functions of your own with parallel=True"
                            f"{warning}")
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return
    libraries = [f"{library['internal_api']} {library['version'] or ''} ({library['num_threads']})"
                 for library in threadpool_info() if library["user_api"] == "blas"]
    yield "matrix libraries", f"{', '.join(libraries)}; one thread each inside of minidl's products"


def _layer_of_numba() -> str:
    """What Numba's own parallel functions run on: tbb, omp or workqueue. Asking starts its threads."""
    try:
        numba: Any = importlib.import_module("numba")
        importlib.import_module("numba.np.ufunc.parallel")._launch_threads()
        return str(numba.threading_layer())
    except Exception as error:                          # such as for a layer that the environment wants in vain
        return f"none ({_in_short(error)})"


def _folders(problems: Problems) -> Iterator[Row]:
    try:
        compiling: Any = importlib.import_module("minidl.kernels.compiling")
        folder = compiling.folder()
    except ImportError:
        yield "compiled kernels", "unknown without Numba"
    else:
        yield "compiled kernels", (
            f"{folder}, {_can_write(folder)}; {_size(folder.parent)} with older versions" if folder else
            "none that can be written, so every process compiles; name one in NUMBA_CACHE_DIR")
    root = data_root()
    there = f"{_can_write(root)}; found: {', '.join(_datasets(root))}" if root.is_dir() else "which is not there"
    yield "datasets", f"{root.absolute()}, {there}"


def _can_write(folder: Path) -> str:
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    return "can be written"


def _size(folder: Path) -> str:
    count = 0
    for file in folder.rglob("*"):
        try:
            count += file.stat().st_size if file.is_file() else 0
        except OSError:                                 # another process has removed it meanwhile
            continue
    return f"{count / 1e6:,.1f} MB"


def _datasets(root: Path) -> Iterator[str]:
    """The datasets whose files are there, under the labs' names."""
    yield "digits (with scikit-learn)"
    for name, kind in (("mnist", MNIST), ("fashion-mnist", FashionMNIST)):
        files = find_together(root, kind.folders, list(kind.sha256))
        if files and _sha256(files[-1]) == list(kind.sha256.values())[-1]:      # the names of both are the same
            yield name
    if find_together(root, MNISTCSV.folders, ["mnist_train_small.csv", "mnist_test.csv"]):
        yield "mnist-csv"
    if CIFAR10._find(root, train=True) and CIFAR10._find(root, train=False):
        yield "cifar10"


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(read_payload(path, "doctor")).hexdigest()
    except MinidlError:
        return "none"


def _variables(problems: Problems) -> Iterator[Row]:
    for name, what in VARIABLES.items():
        if name in os.environ:
            yield name, f"{os.environ[name] or 'empty'}: {what}"
    yield "not set", ", ".join(name for name in VARIABLES if name not in os.environ) or "none"
