"""Kernels for a GPU without a GPU: in the simulator, and through the compiler for three kinds of card."""

from __future__ import annotations

import ctypes
import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minidl
from minidl.debug import simulator
from minidl.errors import DeviceError, SettingError
from tests.helpers import changed_module

ROOT = Path(minidl.__file__).parent.parent
ORDERS = ("forward", "reverse", "7")                    # in which the threads of a block run
INSTALL = "pip install -e '.[simulate]'"


def is_there(*modules: str) -> bool:
    if os.environ.get("MINIDL_REQUIRE_SIMULATOR") == "1":
        return True                                     # then a module that is not there is a failure
    try:
        return all(importlib.util.find_spec(module) is not None for module in modules)
    except ModuleNotFoundError:
        return False


needs_simulator = pytest.mark.skipif(not is_there("numba_cuda", "greenlet"), reason=f"needs numba-cuda and greenlet: {INSTALL}")
needs_compiler = pytest.mark.skipif(not is_there("numba_cuda", "cuda.core", "nvidia.cu13"),
                                    reason=f"needs numba-cuda, cuda-core and CUDA's compiler: {INSTALL}")


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT,
                          env={**variables, **environment}, timeout=600, check=False)


def simulate(order: str, *change: str) -> dict:
    done = python("-m", "tests.simulated", order, *change)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# -- in the simulator --------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def simulated() -> dict[str, dict]:
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(ORDERS, pool.map(simulate, ORDERS), strict=True))


@needs_simulator
@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_every_kernel_equals_reference(simulated, order):
    results = simulated[order]["results"]
    wrong = {case: result for case, result in results.items() if isinstance(result, str) or result[0] > 1}
    assert not wrong
    assert len(results) == 272, "cases in tests/simulated.py were added or lost: count them again"


@needs_simulator
@pytest.mark.slow
def test_the_order_of_threads_changes_no_bit(simulated):
    bits = [{case: result[1] for case, result in simulated[order]["results"].items()} for order in ORDERS]
    assert bits[0] == bits[1] == bits[2]


@needs_simulator
@pytest.mark.slow
def test_all_kernels_were_run(simulated):
    ran, launches = simulated["forward"]["ran"], simulated["forward"]["launches"]
    functions = [name for name, value in vars(kernels_of("reference")).items()
                 if not name.startswith("_") and getattr(value, "__module__", "").endswith("reference")]
    assert {f"cuda.{name}" for name in (*functions, "adam", "sgd")} <= set(ran)
    assert set(launches) == set(COMPILED)


@needs_simulator
@needs_compiler
@pytest.mark.slow
def test_kernels_were_compiled_for_the_arguments_that_they_are_launched_with(simulated):
    """Each kernel with each tile, in float32 and float64; a Python number among float32 arrays would show here."""
    from numba import float32, float64

    launched = {tuple(one) for one in simulated["forward"]["signatures"]}
    compiled_for = {(name, way, str(number), ", ".join(map(str, kernel_and_arguments(name, way, number)[1])))
                    for name, ways in COMPILED.items() for way in ways for number in (float32, float64)}
    # the kernels with tiles of other sizes than the chosen ones run in float32 only, because the simulator is slow
    assert {one for one in compiled_for if one[2] == "float32"} <= launched
    assert launched <= compiled_for


def kernels_of(name: str):
    return importlib.import_module(f"minidl.kernels.{name}")


WRONG = {       # kernel file, what is there, what is put in its place
    "a missing barrier after fetching": (
        "tiled.py", "                a[t % DEPTH, o] = value\n                o += THREADS // DEPTH\n            cuda.syncthreads()\n",
        "                a[t % DEPTH, o] = value\n                o += THREADS // DEPTH\n"),
    "a missing barrier before fetching again": (
        "tiled.py", "b[k, lane + c * LANES]\n            cuda.syncthreads()\n", "b[k, lane + c * LANES]\n"),
    "a missing barrier in the gradient of weights": (
        "tiled.py", "                    b[t % DEPTH, k] = value\n                cuda.syncthreads()\n", "                    b[t % DEPTH, k] = value\n"),
    "another one": (
        "tiled.py", "b[k, lane + c * LANES]\n                cuda.syncthreads()\n", "b[k, lane + c * LANES]\n"),
    "a barrier that some threads skip": (
        "tiled.py", "        for k0 in range(0, depth, DEPTH):\n", "        for k0 in range(0, depth if q < pixels else 0, DEPTH):\n"),
    "one cell too many at the top": ("tiled.py", "if 0 <= h < height", "if -1 <= h < height"),
    "one cell too few at the bottom": ("tiled.py", "if 0 <= h < height", "if 0 <= h < height - 1"),
    "a swapped stride": ("tiled.py", "j * stride[1] - corner[1]", "j * stride[0] - corner[1]"),
    "a swapped stride, naive": ("naive.py", "row = i * stride[0]", "row = i * stride[1]"),
    "a padding that is forgotten, naive": ("naive.py", "down = h + corner[0] - taps", "down = h - taps"),
    "the wrong group": ("tiled.py", "group * channels + taps[k0 + k, 0]", "taps[k0 + k, 0]"),
    "a part that is added twice": ("tiled.py", "for p in range(1, len(parts))", "for p in range(0, len(parts))"),
    "images that nobody takes": ("tiled.py", "range(part // slices, len(x), ", "range(part // slices, len(x) - 1, "),
    "pixels that nobody takes": ("tiled.py", "end = min(pixels, first_pixel + share)", "end = min(pixels, first_pixel + share - 1)"),
    "lines that nobody takes": ("naive.py", "range(part, len(x) * g.shape[2], ", "range(part, len(x) * g.shape[2] - 1, "),
    "a result that nobody writes": ("pooling.py", "if thread >= y.size:", "if thread >= y.size - 1:"),
    "the last of equal cells": ("pooling.py", "value > best", "value >= best"),
    "windows that do not begin there": ("pooling.py", "if i * s == down and 0 <= i", "if 0 <= i"),
    "a step without its root": ("optimizers.py", "math.sqrt(square) * root", "math.sqrt(square)"),
}


@pytest.fixture(scope="module")
def with_a_mistake(request) -> dict[str, Future[dict]]:
    """The runs with those mistakes that are asked for, two at a time."""
    asked = [item.callspec.params["wrong"] for item in request.session.items
             if getattr(item, "originalname", "") == "test_a_broken_kernel_is_noticed"]
    with ThreadPoolExecutor(2) as pool:
        yield {wrong: pool.submit(simulate, "forward", *WRONG[wrong]) for wrong in asked}


@needs_simulator
@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG)
def test_a_broken_kernel_is_noticed(wrong, with_a_mistake):
    results = with_a_mistake[wrong].result()["results"]
    assert any(isinstance(result, str) or result[0] > 1 for result in results.values())


SCRIPT = """
import numpy as np, minidl
from minidl.debug import simulator
from minidl.kernels import cuda
from minidl.kernels.geometry import Conv2dGeometry
simulator.install()
"""


@needs_simulator
def test_a_debugger_stops_inside_a_kernel_as_the_page_says(tmp_path):
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    script = re.search(r"```python\n(.*?)```", page, re.S)[1]
    command, *session, listing = re.search(r"```\n(NUMBA_ENABLE_CUDASIM=1 python -m pdb step.py)\n(.*?)```\n\n```\n(.*?)```", page, re.S).groups()
    commands = [line.removeprefix("(Pdb) ") for line in session[0].splitlines()]
    (tmp_path / "step.py").write_text(script)
    done = subprocess.run([sys.executable, *command.split()[2:-1], str(tmp_path / "step.py")], input="\n".join([*commands, "q", "q"]),
                          capture_output=True, text=True, cwd=ROOT, check=False,
                          env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(ROOT)})
    for line in listing.splitlines():
        assert line in done.stdout


@needs_simulator
@pytest.mark.parametrize(("kernel", "sentence"), [
    ("if cuda.threadIdx.x < 3:\n        cuda.syncthreads()", "k: 5 of 8 threads of a block have ended and the others wait at line"),
    ("if cuda.threadIdx.x < 3:\n        cuda.syncthreads()\n    else:\n        cuda.syncthreads()", "k: 0 of 8 threads of a block have ended"),
    ("s = cuda.shared.array((128, 128), float32)", "k: got 65,536 bytes of shared memory in a block, expected at most 49,152"),
])
def test_what_a_gpu_would_hang_on_is_an_error(tmp_path, kernel, sentence):
    (tmp_path / "script.py").write_text(f"{SCRIPT}from numba import cuda, float32\n@cuda.jit\ndef k(x):\n    {kernel}\n"
                                        f"from minidl.kernels.cuda.launching import launch\nlaunch(k, 1, 8, np.zeros(1))\n")
    done = python(str(tmp_path / "script.py"), NUMBA_ENABLE_CUDASIM="1", PYTHONPATH=str(ROOT))
    assert f"SimulatorError: {sentence}" in done.stderr


@needs_simulator
def test_the_simulator_has_to_be_on():
    with pytest.raises(SettingError, match="set NUMBA_ENABLE_CUDASIM=1 in the environment before Python starts"):
        simulator.install()
    for order in ("sideways", 1.5, True):
        with pytest.raises(SettingError, match=r'expected "forward", "reverse" or a seed'):
            simulator.install(order)


@needs_simulator
def test_kernels_refuse_arrays_that_are_not_on_the_gpu():
    cuda = kernels_of("cuda")
    geometry = kernels_of("geometry").Conv2dGeometry.of((1, 1, 4, 4), (1, 1, 3, 3))
    with pytest.raises(DeviceError, match=r'conv2d: got an array of shape \(1, 1, 4, 4\) on "cpu", expected one on the GPU'):
        cuda.conv2d(np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3)), geometry)
    with minidl.use_kernels("cuda"), pytest.raises(DeviceError, match='the "cuda" kernels run on a GPU, the array is on "cpu"'):
        minidl.nn.functional.conv2d(minidl.ones(1, 1, 4, 4), minidl.ones(1, 1, 3, 3))


@needs_simulator
def test_kernels_refuse_another_order_of_memory():
    script = SCRIPT + """
from minidl.kernels.cuda import launching, pooling
launching.launch(pooling.repeat2d, 1, 8, np.zeros((2, 3, 4)).transpose(0, 2, 1), (1, 1), np.zeros((2, 4, 3)))
"""
    done = python("-c", script, NUMBA_ENABLE_CUDASIM="1")
    assert "DeviceError: repeat2d: got an array of shape (2, 4, 3) and strides (96, 8, 32), expected one in C order" in done.stderr


# -- starting a kernel, up to the card ----------------------------------------------------------------------------------

class OnCard:
    """What `launch` asks an array of CuPy for."""

    def __init__(self, array: np.ndarray) -> None:
        self.inner, self.data = array, SimpleNamespace(ptr=array.ctypes.data)

    def __getattr__(self, name: str):
        assert name in ("dtype", "ndim", "size", "itemsize", "shape", "strides", "flags")
        return getattr(self.inner, name)


@pytest.fixture
def card(monkeypatch):
    """A device whose arrays are `OnCard`, and a card that notes what it is to start: (stream, config, kernel, words)."""
    from minidl import backend, cupy_backend
    from minidl.kernels.cuda import launching

    started, streams = [], [0]
    monkeypatch.setitem(backend._by_array_type, OnCard, dataclasses.replace(
        backend.cpu, name="cuda:0", kernels="cuda", for_kernel=cupy_backend._for_numba, stream=lambda: streams[0]))
    monkeypatch.setattr(launching, "core", SimpleNamespace(
        launch=lambda *what: started.append((*what[:3], what[3:])), LaunchConfig=launching.core.LaunchConfig,
        Stream=SimpleNamespace(from_handle=lambda pointer: f"stream {pointer}")))
    monkeypatch.setattr(launching, "_compiled", {})
    for kept in (launching.core_stream, launching.launch_config):
        kept.cache_clear()
    yield SimpleNamespace(started=started, streams=streams, launching=launching)
    launching.core_stream.cache_clear()


ARGUMENTS = [np.zeros((2, 3, 4), np.float32), np.zeros((3, 1)), np.zeros((5, 3), np.int32), np.zeros(1, np.int64), np.zeros(()), 3, (1, 2),
             (1, 2, 0, 0, 1, 1), np.float32(2.5), np.float64(1.25), 0.1, np.int64(-4), -1, np.int32(7)]


@needs_compiler
def test_a_kernel_is_given_what_numba_would_give_it(card, monkeypatch):
    """Word for word and byte for byte, as cuda.core copies them."""
    from cuda.core._kernel_arg_handler import ParamHolder
    from numba.cuda import dispatcher, types
    from numba.cuda.typing.typeof import typeof

    def numbas_view(array):
        layout = SimpleNamespace(strides_in_bytes=None, is_contiguous_c=True, is_contiguous_f=False)
        view = SimpleNamespace(size=array.size, dtype=array.dtype, ptr=array.ctypes.data, shape=array.shape, _layout=layout)
        return SimpleNamespace(to_device=lambda retr, stream: view)

    def copied(words, sizes):
        words = tuple(words)                            # ParamHolder points into them
        holder = ParamHolder(words)
        return [ctypes.string_at(pointer, size) for pointer, size in zip((ctypes.c_void_p * len(words)).from_address(holder.ptr), sizes, strict=True)]

    monkeypatch.setattr(dispatcher, "wrap_arg", numbas_view)
    kernel, numbas = object.__new__(dispatcher._Kernel), []
    kernel.extensions = []
    for argument in ARGUMENTS:
        kernel._prepare_args(typeof(argument), argument, 0, [], numbas)
    _, words = card.launching.kinds_and_words(tuple(OnCard(a) if isinstance(a, np.ndarray) else a for a in ARGUMENTS))
    sizes = [ctypes.sizeof(word) if hasattr(word, "value") else 8 for word in numbas]
    assert len(words) == len(numbas) == 56
    assert copied(words, sizes) == copied(numbas, sizes)
    assert {4, 8} == set(sizes)

    for n in (1, 3, 4):                                 # an array of the same type as Numba sees in it
        assert typeof(np.empty((0,) * n, np.float32)) == types.Array(types.float32, n, "C")


@needs_compiler
def test_a_kernel_is_compiled_once_for_each_combination_of_types(card, monkeypatch):
    """By Numba's compiler, to the end; only the card is not there."""
    from numba import cuda, int64, types
    from numba.cuda import codegen, dispatcher

    device = SimpleNamespace(compute_capability=(9, 0), id=0)
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: device)
    monkeypatch.setattr(codegen.devices, "get_context", lambda: SimpleNamespace(device=device))
    monkeypatch.setattr(dispatcher._Kernel, "bind", lambda kernel: None)
    monkeypatch.setattr(codegen.CUDACodeLibrary, "get_cufunc", lambda library: SimpleNamespace(kernel=id(library)))
    kernel = cuda.jit(kernels_of("cuda.pooling").repeat2d.py_func)

    def start(dtype, ndim=3, pair=(1, 1), blocks=2):
        card.launching.launch(kernel, blocks, 256, OnCard(np.zeros((2,) * ndim, dtype)), pair, OnCard(np.zeros((2,) * ndim, dtype)))
        return card.started[-1]

    single, double = start(np.float32), start(np.float64)
    assert single[2] != double[2]
    assert list(kernel.overloads) == [(array := types.Array(number, 3, "C"), types.UniTuple(int64, 2), array)
                                      for number in (types.float32, types.float64)]
    assert start(np.float32)[2] == single[2]
    assert start(np.float32, pair=(2, 3))[2] == single[2]
    assert start(np.float64)[2] == double[2]
    assert len(kernel.overloads) == 2
    start(np.float32, pair=(np.int32(1), np.int32(1)))  # another type of an element is another kernel
    assert len(kernel.overloads) == 3
    assert len({one[2] for one in card.started}) == 3
    assert card.launching.launches["repeat2d"] == 6


@needs_compiler
def test_where_and_how_a_kernel_is_started(card, monkeypatch):
    launching, x = card.launching, OnCard(np.zeros(3))
    launching._compiled[kernel := type("Kernel", (), {"__name__": "k"})(), (x.dtype, 1)] = "compiled"
    before = launching.launches["k"]
    launching.launch(kernel, 7, 256, x)
    card.streams[0] = 139_000
    launching.launch(kernel, (7, 2, 3), 128, x)
    launching.launch(kernel, 0, 256, x)                 # results without a number
    launching.launch(kernel, (7, 0, 3), 256, x)
    assert [(stream, config.grid, config.block, function) for stream, config, function, _ in card.started] == [
        ("stream 0", (7, 1, 1), (256, 1, 1), "compiled"), ("stream 139000", (7, 2, 3), (128, 1, 1), "compiled")]
    assert card.started[0][3] == (0, 0, 3, 8, x.data.ptr, 3, 8)
    assert launching.launches["k"] == before + 2
    with pytest.raises(DeviceError, match=r"k: got an array of shape \(2, 3\) and strides \(8, 16\), expected one in C order"):
        launching.launch(kernel, 1, 256, x, OnCard(np.zeros((3, 2)).T))
    with pytest.raises(DeviceError, match=r'k: got an array of shape \(3,\) on "cpu", expected one on the GPU'):
        launching.launch(kernel, 1, 256, x, np.zeros(3))
    assert len(card.started) == 2


# -- through the compiler ----------------------------------------------------------------------------------------------

CARDS = {"sm_75": (7, 5), "sm_80": (8, 0), "sm_90": (9, 0)}
SHARED = 48 * 1024                      # bytes that a block has without asking for more
# kernel: registers that a thread may take in float32 and in float64, and bytes of shared memory that a block takes in
# each. A block of 256 threads fits twice into the 65,536 registers of a processor if a thread takes no more than 128.
COMPILED = {
    "conv2d": {"naive": ((64, 64), (0, 0)), "16 × 256": ((128, 160), (8832, 17664)), "32 × 128": ((128, 160), (5248, 10496)),
               "64 × 64": ((128, 160), (4224, 8448))},
    "conv2d_input_grad": {"naive": ((64, 64), (0, 0))}, "conv2d_weight_grad": {"naive": ((64, 64), (0, 0))},
    "weight_grad": {"16 × 256": ((128, 152), (8960, 17920)), "32 × 128": ((128, 152), (5376, 10752)), "64 × 64": ((128, 152), (4352, 8704))},
    "add_parts": {"": ((32, 40), (0, 0))},
    "max_pool2d": {"": ((64, 64), (0, 0))}, "max_pool2d_input_grad": {"": ((64, 64), (0, 0))},
    "avg_pool2d": {"": ((56, 56), (0, 0))}, "avg_pool2d_input_grad": {"": ((56, 64), (0, 0))},
    "repeat2d": {"": ((32, 32), (0, 0))}, "repeat2d_input_grad": {"": ((56, 56), (0, 0))},
    "adam": {"": ((24, 32), (0, 0))}, "sgd": {"": ((16, 24), (0, 0))},
}
EACH = [(name, way, card) for name, ways in COMPILED.items() for way in ways for card in CARDS]


def kernel_and_arguments(name: str, way: str, number, change: tuple[str, ...] = ()):
    """The Python function of a kernel, its types of arguments for this type of numbers, and its launch bounds."""
    from numba import int32, int64, types
    from numba.np.numpy_support import as_dtype

    def array(n, of=number):
        return types.Array(of, n, "C")

    pair, six, taps = types.UniTuple(int64, 2), types.UniTuple(int64, 6), array(2, int32)
    place = taps, int64, pair, pair
    images, maps, row = array(4), array(3), array(1)
    arguments = {
        "conv2d": (images, array(2), row, *place, images), "conv2d_input_grad": (images, array(2), *place, images),
        "conv2d_weight_grad": (images, images, *place, maps), "weight_grad": (images, images, *place, int64, maps),
        "add_parts": (array(2), row), "max_pool2d": (maps, pair, six, maps, array(3, int64)),
        "max_pool2d_input_grad": (maps, array(3, int64), pair, six, maps), "avg_pool2d": (maps, pair, six, row, row, maps),
        "avg_pool2d_input_grad": (maps, pair, six, row, row, maps), "repeat2d": (maps, pair, maps),
        "repeat2d_input_grad": (maps, pair, maps), "adam": (row,) * 4 + (number,) * 9, "sgd": (row,) * 3 + (number,) * 7,
    }[name]
    if "×" in way:
        tiled = changed_module("kernels/cuda/tiled.py", *change) if change else kernels_of("cuda").tiled
        made = tiled.kernels(np.dtype(as_dtype(number)), *(int(n) for n in way.split(" × ")))
        kernel = getattr(made, name)
    else:
        kernel = next(getattr(module, name) for module in (kernels_of("cuda.naive"), kernels_of("cuda.tiled"), kernels_of("cuda.pooling"),
                                                          kernels_of("cuda.optimizers")) if hasattr(module, name))
    return kernel.py_func, arguments, kernel.targetoptions.get("launch_bounds")


def compiled(name: str, way: str, number, card: str, change: tuple[str, ...] = ()) -> dict[str, int]:
    """What the compiler makes of a kernel for a card: nothing of this needs one."""
    from cuda.core import Linker, LinkerOptions, ObjectCode
    from numba import cuda

    function, arguments, bounds = kernel_and_arguments(name, way, number, change)
    ptx, code = (cuda.compile(function, arguments, cc=CARDS[card], device=False, abi="numba", output=output, launch_bounds=bounds)[0]
                 for output in ("ptx", "ltoir"))
    options = LinkerOptions(arch=card, link_time_optimization=True, ptxas_options=["-v"])       # as Numba does on a card
    linker = Linker(ObjectCode.from_ltoir(code), options=options)
    linker.link("cubin")
    log = linker.get_info_log()
    shared = re.findall(r"\.shared .*?\[(\d+)\]", ptx)
    return {"registers": int(re.search(r"Used (\d+) registers", log)[1]), "spilled": int(re.search(r"(\d+) bytes spill stores", log)[1]),
            "stack": int(re.search(r"(\d+) bytes stack frame", log)[1]), "shared": sum(map(int, shared)),
            "float64": len(re.findall(r"\.f64", ptx)), "atomics": len(re.findall(r"\b(?:atom|red)\.", ptx))}


@needs_compiler
@pytest.mark.parametrize(("name", "way", "card"), EACH, ids=[" ".join(one) for one in EACH])
def test_kernels_compile_within_their_budget(name, way, card):
    from numba import float32, float64

    budget, shared = COMPILED[name][way]
    for number, most, bytes_of_block in zip((float32, float64), budget, shared, strict=True):
        made = compiled(name, way, number, card)
        assert made["spilled"] == made["stack"] == made["atomics"] == 0, (number, made)
        assert most - 32 < made["registers"] <= most, (number, made)              # a table that is far off says nothing
        assert made["shared"] == bytes_of_block <= SHARED, (number, made)
        if number is float32:
            assert made["float64"] == 0, made


@needs_compiler
def test_a_double_constant_is_noticed():
    from numba import float32

    assert compiled("conv2d", "64 × 64", float32, "sm_90", ("zero = dtype.type(0)", "zero = 0.0"))["float64"] > 0


@needs_compiler
def test_too_many_registers_are_noticed():
    """More results a thread than there are registers for: the compiler puts them into memory."""
    from numba import float32

    made = compiled("conv2d", "64 × 64", float32, "sm_90", ("(THREADS, 2 if dtype", "(THREADS, 4 if dtype"))
    assert made["spilled"] > 0


@needs_compiler
def test_every_kernel_is_in_the_table():
    import numba.cuda.dispatcher

    names = set()
    for module in ("naive", "tiled", "pooling", "optimizers"):
        names |= {name for name, value in vars(kernels_of(f"cuda.{module}")).items()
                  if isinstance(value, numba.cuda.dispatcher.CUDADispatcher)}
    assert names | set(kernels_of("cuda").tiled.Kernels._fields) == set(COMPILED)


@needs_compiler
def test_numba_cuda_loads_where_numpy_has_no_row_stack():
    """NumPy 2.5 has none, and numba-cuda 0.30.4 asks for it."""
    done = python("-W", "error", "-c", (
        "import numpy as np\n"
        "if hasattr(np, 'row_stack'):\n"
        "    del np.row_stack\n"
        "    np.__all__.remove('row_stack')\n"
        "from minidl.numba_cuda import cuda\n"
        "from numba import float32\n"
        "assert not hasattr(np, 'row_stack')\n"
        "print(cuda.compile_ptx(lambda x: None, (float32[::1],), cc=(9, 0))[0])\n"))
    assert done.returncode == 0, done.stderr
    assert ".target sm_90" in done.stdout
