"""python -m minidl.gpucheck, rehearsed: in the simulator, on the fake device; with kernels broken on purpose; without a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

import minidl
from minidl.backend import why_no_cuda
from minidl.gpucheck import __main__ as gpucheck
from minidl.gpucheck.session import Session
from minidl.gpucheck.table import render
from tests.cases import CASES

ROOT = Path(minidl.__file__).parent.parent
NOT_NEEDED = ("scipy", "matplotlib", "sklearn", "rich", "safetensors", "PIL", "threadpoolctl", "torch")
pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("numba_cuda", "greenlet")),
    reason="needs numba-cuda and greenlet: pip install -e '.[simulate]'")


def python(*arguments, **environment):
    variables = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", **environment}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=variables)


def call(function, *arguments):
    """A function of this file in a process with the simulator; the last line that it prints, read as JSON."""
    done = python("-c", f"from {__name__} import {function}; {function}(*{arguments!r})")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def report_in(folder):
    return json.loads((Path(folder) / "gpucheck.json").read_text(encoding="utf-8"))


# -- all of it ---------------------------------------------------------------------------------------------------------

def test_a_rehearsal_does_all_stages_and_finds_nothing_wrong(tmp_path):
    done = python("-m", "minidl.gpucheck", "--rehearse", "--seed", "5", "--out", str(tmp_path / "new" / "folder"))
    assert done.returncode == 0, done.stdout + done.stderr
    report = report_in(tmp_path / "new" / "folder")
    assert (report["rehearsal"], report["seed"], report["exit_code"], report["mismatches"]) == (True, 5, 0, [])
    stages = report["stages"]
    assert list(stages) == ["versions", "kernels", "ops", "overhead", "timing", "ops, second order"]
    assert {entry["state"] for entry in stages.values()} == {"done"}
    assert stages["versions"]["numpy"] == np.__version__

    worst = stages["kernels"]["worst"]
    assert stages["kernels"]["checks"] > 100
    assert len(worst) == 2 * (3 * 5 + 4 + 2 + 2)        # number types · (convolutions in all ways, pooling, repeating, steps)
    assert 0 < max(worst.values()) < 1
    rows = stages["ops"]["rows"]
    assert set(rows) == {case.name for case in CASES if case.on_fake}
    assert all(row["ok"] and row["worst"] < 1e-9 for row in rows.values())
    assert set(stages["overhead"]["host_us"]) == {"launch of a kernel", "x + x, arrays", "x + x, tensors"}
    (timed,) = stages["timing"]["modes"].values()
    assert [name for name in timed if "training step" in name] == [f"W{i}, training step" for i in (1, 2, 3, 4)]
    assert timed["W1, training step"]["minidl"]["launches"] == 19          # of them two for each gradient of weights: its parts, and their sum
    for name, row in timed.items():
        assert ("kernels" in row["minidl"]) == ("training step" in name)
    in_kernels = timed["W1, training step"]["minidl"]["kernels"]
    assert sum(kernel["launches"] for kernel in in_kernels.values()) == 19
    assert in_kernels["optimizers.adam"]["launches"] == 8
    assert [kernel["ms"] for kernel in in_kernels.values()] == sorted((kernel["ms"] for kernel in in_kernels.values()), reverse=True)
    assert all(set(row) == {"minidl"} and row["minidl"]["host_ms"] > 0 for row in timed.values())

    table = (tmp_path / "new" / "folder" / "table.md").read_text(encoding="utf-8")
    for text in (done.stdout, table, report["note"]):
        assert "REHEARSAL without a GPU" in text
        assert "times mean nothing" in text
    assert table in done.stdout
    assert "µs" not in table
    assert "_ms" not in table


def test_it_needs_no_more_than_it_says(tmp_path):
    """NumPy, Numba, numba-cuda (CuPy for a GPU): what else minidl uses is not there, and the run says what it left out."""
    report, loaded = call("_without", str(tmp_path))
    assert report["mismatches"] == []
    assert not set(loaded) & set(NOT_NEEDED)
    skipped = {name: row["error"] for name, row in report["stages"]["ops"]["rows"].items() if row["ok"] is None}
    assert set(skipped) == {"Erf", "GELU"}              # the fake device has erf from SciPy, a GPU from CuPy
    assert "scipy" in skipped["Erf"]
    assert {name: entry["state"] for name, entry in report["stages"].items()} == {
        "versions": "done", "ops": "partly done", "overhead": "done", "timing": "done"}


def _without(folder):
    class Nowhere:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.split(".")[0] in NOT_NEEDED:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Nowhere)
    from minidl.gpucheck import timing

    stages = [stage for stage in gpucheck.stages() if stage[0] in ("versions", "ops", "overhead", "timing")]
    few = {name: timing.WORKLOADS[name] for name in ("W1", "W2")}
    with mock.patch.object(gpucheck, "stages", return_value=stages), mock.patch.object(timing, "WORKLOADS", few):
        gpucheck.main(["--rehearse", "--out", folder])
    print(json.dumps([report_in(folder), sorted({name.split(".")[0] for name in sys.modules})]))


# -- what is broken is found -------------------------------------------------------------------------------------------

BROKEN = {                          # what is done to the average pooling -> what is said of it
    "nothing": None,
    "skips the last": "1 of 30 are wrong, 1 of them not written; at (1, 2, 0, 4)",
    "1 % too much": "of them not written; at (0, 0, 0, 0)",
    "does not start": "ZeroDivisionError",
    "writes beyond": "it wrote beyond its result",
    "writes into x": "it wrote into its inputs",
    "is never the same": "the same call twice gave different bits",
    "another shape": "got shape (2, 3, 5, 1), expected (2, 3, 1, 5)",
}


def test_a_broken_kernel_is_named_and_the_exit_code_is_1(tmp_path):
    found = call("_broken", str(tmp_path))
    assert set(found) == set(BROKEN)
    for name, (code, mismatches, printed) in found.items():
        if BROKEN[name] is None:
            assert (code, mismatches) == (0, [])
            continue
        assert code == 1, name
        assert {noted["name"] for noted in mismatches} == {f"avg_pool2d, as chosen, {t}" for t in ("float32", "float64")}
        assert BROKEN[name] in mismatches[0]["error"], mismatches[0]
        assert printed.count("WRONG avg_pool2d, as chosen, float32") == 2       # when it is found, and at the end
    assert found["skips the last"][1][0]["error"].startswith("[(2, 3, 3, 6)], Pool2dGeometry(input_size=(3, 6)")


def _broken(folder):
    import io
    from contextlib import redirect_stdout

    global numba_cuda                                   # the simulator looks for it among the globals of a kernel
    from numba import cuda as numba_cuda

    from minidl.gpucheck import kernels
    from minidl.kernels import cuda
    from minidl.kernels.cuda import pooling

    original, calls = cuda.avg_pool2d, []

    @numba_cuda.jit
    def skips_the_last(x, kernel, window, row_counts, column_counts, y):
        thread = numba_cuda.grid(1)
        if thread < y.size - 1:
            _, rows, columns = y.shape
            m, i, j = thread // (rows * columns), thread // columns % rows, thread % columns
            y[m, i, j] = x[m, i:i + 3, j:j + 2].mean()

    @numba_cuda.jit
    def too_much(x, kernel, window, row_counts, column_counts, y):
        thread = numba_cuda.grid(1)
        if thread < y.size:
            _, rows, columns = y.shape
            m, i, j = thread // (rows * columns), thread // columns % rows, thread % columns
            y[m, i, j] = x[m, i:i + 3, j:j + 2].mean() * y.dtype.type(1.01)

    @numba_cuda.jit
    def does_not_start(x, kernel, window, row_counts, column_counts, y):
        y[0, 0, 0] = 1 // 0

    def writes_beyond(x, geometry):
        y = original(x, geometry)
        y.inner.base[-1] = 0                            # the memory in which the result lies
        return y

    def writes_into_x(x, geometry):
        y = original(x, geometry)
        x[:1] = 0
        return y

    def never_the_same(x, geometry):
        calls.append(x)
        return original(x, geometry) * (1 + len(calls) % 2 * 2 * np.finfo(x.dtype).eps)

    places = {
        "nothing": (cuda, original), "skips the last": (pooling, skips_the_last), "1 % too much": (pooling, too_much),
        "does not start": (pooling, does_not_start), "writes beyond": (cuda, writes_beyond),
        "writes into x": (cuda, writes_into_x), "is never the same": (cuda, never_the_same),
        "another shape": (cuda, lambda x, geometry: original(x, geometry).transpose(0, 1, 3, 2))}
    geometry, found = kernels.Pool2dGeometry.of((2, 3, 3, 6), (3, 2), (1, 1)), {}
    cases = [case for case in kernels._pooling(np.random.default_rng(0), np.random.default_rng(1).normal(size=(2, 3, 3, 6)),
                                               geometry) if case.function == "avg_pool2d"]
    for name, (module, replacement) in places.items():
        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(module, "avg_pool2d", replacement))
            stack.enter_context(mock.patch.object(kernels, "cases", return_value=cases))
            stack.enter_context(mock.patch.object(kernels, "all_kernels", return_value={id(pooling.avg_pool2d): "it"}))
            stack.enter_context(mock.patch.object(gpucheck, "stages", return_value=[("kernels", kernels.run, 0)]))
            output = stack.enter_context(redirect_stdout(io.StringIO()))
            code = gpucheck.main(["--rehearse", "--out", folder])
        found[name] = code, report_in(folder)["mismatches"], output.getvalue()
    print(json.dumps(found))


def test_a_wrong_op_a_wrong_loss_and_a_kernel_that_nothing_launches_are_found(tmp_path):
    found = {noted["name"]: noted["error"] for noted in call("_wrong", str(tmp_path))}
    assert "the gradient of input 0 is off by" in found.pop("op Tanh")
    assert "backward says" in found.pop("op of the second order")
    assert found.pop("training of W2").endswith("is off by 0.01")
    assert found.pop("training of W1").endswith("is off by 0.001")           # no loss would tell: Adam divides by it
    assert "TF32 is off" in found.pop("matmul 4×8 by 8×3")
    assert found.pop("timing of mean pooling, 2×3×6×6 to 3") == "RuntimeError: no such kernel"
    assert "optimizers.adam" not in found
    assert found.pop("optimizers.forgotten") == "no case launched this kernel"
    assert {found.pop(name) for name in [name for name in found if "." in name]} == {"no case launched this kernel"}
    assert not found


def _wrong(folder):
    from numba import cuda as numba_cuda

    from minidl import ops as all_ops
    from minidl.debug import simulator
    from minidl.gpucheck import kernels, ops, timing
    from minidl.kernels import cuda
    from minidl.kernels.cuda import optimizers
    from minidl.tensors import Tensor
    from tests import cases

    simulator.install()
    session, backward = Session(folder, rehearsal=True), all_ops.Tanh.backward
    tanh = next(case for case in cases.CASES if case.name == "Tanh")

    def on_device(self, g, y):                          # right on the CPU: what differs is the device
        return backward(self, g, y) * (1.001 if g.device.type == "fake" else 1)

    def no_kernel(*arguments):
        raise RuntimeError("no such kernel")

    optimizers.forgotten = numba_cuda.jit(lambda x: None)
    adam = next(kernels.cases(session))
    with minidl.use_kernels("cuda"):
        with mock.patch.object(cases, "CASES", [tanh]), mock.patch.object(all_ops.Tanh, "backward", on_device):
            ops.first_order(session, {})
            with mock.patch.object(session, "wrong", lambda name, error: Session.wrong(session, "op of the second order", error)):
                ops.second_order(session, {})
        with mock.patch.object(kernels, "cases", return_value=[adam]):
            kernels.run(session, {})
        nearly = Tensor.__matmul__
        mean = cuda.avg_pool2d_input_grad
        with mock.patch.object(timing, "WORKLOADS", {name: timing.WORKLOADS[name] for name in ("W1", "W2")}), \
                mock.patch.object(cuda, "avg_pool2d_input_grad", lambda g, geometry: mean(g, geometry) * 1.0005), \
                mock.patch.object(timing, "LAYERS", {"mean pooling": (no_kernel, None)}), \
                mock.patch.object(Tensor, "__matmul__", lambda a, b: nearly(a, b) * 1.001), \
                mock.patch("minidl.nn.functional.mse_loss", _a_bit_more(minidl.nn.functional.mse_loss)):
            timing.timing(session, {})
    print(json.dumps(session.mismatches))


def _a_bit_more(loss):
    return lambda x, y: loss(x, y) * (1.01 if x.device.type == "fake" else 1)


# -- no GPU, no time ---------------------------------------------------------------------------------------------------

@pytest.mark.skipif(why_no_cuda() is None, reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path):
    done = python("-m", "minidl.gpucheck", "--out", str(tmp_path / "out"), NUMBA_ENABLE_CUDASIM="0")
    assert done.returncode == 2
    assert done.stdout == f"There is no GPU to check: {why_no_cuda()}\n"
    assert not (tmp_path / "out").exists()


def test_the_simulator_and_the_gpu_are_not_taken_for_one_another(tmp_path):
    done = python("-m", "minidl.gpucheck", "--rehearse", "--out", str(tmp_path), NUMBA_ENABLE_CUDASIM="0")
    assert done.returncode == 2
    assert "set NUMBA_ENABLE_CUDASIM=1" in done.stderr
    done = python("-m", "minidl.gpucheck", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "got NUMBA_ENABLE_CUDASIM=1, with which no kernel runs on the GPU" in done.stderr


def test_without_time_it_says_what_it_left_out(tmp_path):
    done = python("-m", "minidl.gpucheck", "--rehearse", "--budget", "0", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    states = {name: entry["state"] for name, entry in report_in(tmp_path)["stages"].items()}
    assert states.pop("versions") == "done"
    assert set(states.values()) == {"not done (budget)"}
    assert done.stdout.count("not done (budget)") == 2 * len(states)


def test_what_is_known_is_written_when_it_is_interrupted_or_fails(tmp_path):
    def interrupted(session, entry):
        entry["half"] = 1
        raise KeyboardInterrupt

    def fails(session, entry):
        raise ValueError("no such thing")

    session = Session(tmp_path, rehearsal=True)
    gpucheck.run(session, "first", lambda session, entry: "done", 0)
    gpucheck.run(session, "second", fails, 0)
    with pytest.raises(KeyboardInterrupt):
        gpucheck.run(session, "third", interrupted, 0)
    report = report_in(tmp_path)
    assert [entry["state"] for entry in report["stages"].values()] == ["done", "broke off", "broke off"]
    assert report["stages"]["third"]["half"] == 1
    assert report["mismatches"] == [{"name": "stage second", "error": "ValueError: no such thing"}]
    assert "in fails" in report["stages"]["second"]["traceback"]


def test_time_that_runs_out_within_a_stage_is_said(tmp_path):
    assert call("_out_of_time", str(tmp_path)) == ["partly done (budget)"] * 3


def _out_of_time(folder):
    from minidl.debug import simulator
    from minidl.gpucheck import kernels, ops, timing

    simulator.install()
    session = Session(folder, rehearsal=True, budget=0)
    print(json.dumps([stage(session, {}) for stage in (kernels.run, ops.first_order, timing.timing)]))


def test_without_a_checkout_it_says_what_it_cannot_do(tmp_path):
    found = call("_no_checkout", str(tmp_path))
    assert "not done" in found[0]
    assert "checkout" in found[0]
    assert found[1] == "partly done (training steps are in labs, not here)"
    assert found[2] == ["matmul 4×8 by 8×3"]


def _no_checkout(folder):
    from minidl.debug import simulator
    from minidl.gpucheck import ops, session, timing

    simulator.install()
    entry, run = {}, Session(folder, rehearsal=True)
    with mock.patch.object(session, "ROOT", Path(folder)), mock.patch.object(timing, "LAYERS", {}):
        states = [ops.first_order(run, {}), timing.timing(run, entry)]
    print(json.dumps([*states, list(entry["modes"]["TF32 off"])]))


# -- what only a GPU runs, with something else in its place ------------------------------------------------------------

@pytest.mark.torch
def test_pytorch_takes_turns_in_the_same_process(torch, tmp_path):
    rows, table = call("_beside_torch", str(tmp_path))
    assert set(rows) == {"W1, training step", "W2, training step", "matmul 4×8 by 8×3"} | {
        f"{kind}, 2×3×6×6 to 3" for kind in ("convolution", "convolution, dx", "convolution, dw", "max pooling",
                                              "max pooling, dx", "mean pooling", "mean pooling, dx")}
    for row in rows.values():
        assert set(row) == {"minidl", "torch"}
        assert set(row["torch"]) == {"launches", "ms", "device_ms", "host_ms"}
        assert row["torch"]["launches"] == 0
        assert row["torch"]["ms"] > 0
    assert "| minidl / torch |" in table
    assert table.count("training step") == 2


def _beside_torch(folder):
    import torch

    from minidl.debug import simulator
    from minidl.gpucheck import timing

    simulator.install()
    session = Session(folder, rehearsal=True)
    session.torch, session.torch_device = torch, "cpu"
    few = {name: timing.WORKLOADS[name] for name in ("W1", "W2")}
    layers, same, entry = dict(timing.LAYERS), [], {}
    for kind, (ours, theirs) in layers.items():         # both must have computed the same

        def theirs_and_ours(t, x, w, g, i, kind=kind, theirs=theirs):
            same.append((kind, _first(theirs(t, x, w, g, i))))
            return same[-1][1]

        def ours_and_theirs(*arguments, kind=kind, ours=ours):
            same.append((kind, _first(ours(*arguments))))

        timing.LAYERS[kind] = ours_and_theirs, theirs_and_ours
    with minidl.use_kernels("cuda"), mock.patch.object(timing, "WORKLOADS", few):
        entry["state"] = timing.timing(session, entry)
    session.report["stages"]["timing"] = entry
    for kind in layers:
        ours, theirs = (next(result for name, result in same if (name, isinstance(result, torch.Tensor)) == (kind, is_torch))
                        for is_torch in (False, True))
        np.testing.assert_allclose(ours.get(), theirs.numpy(), rtol=1e-4, atol=1e-5, err_msg=kind)
    assert torch.backends.cuda.matmul.allow_tf32 is False
    session.report["rehearsal"] = False
    assert session.mismatches == []
    print(json.dumps([entry["modes"]["TF32 off"], render(session.report)]))


def _first(results):
    return results[0] if isinstance(results, tuple) else results


def test_the_clock_of_a_gpu(tmp_path):
    """Events around the calls, and a spinning GPU before them where its own time is asked for."""
    ms, happened = call("_clock", str(tmp_path))
    assert ms == {"ms": 4.0, "device_ms": 4.0, "host_ms": ms["host_ms"]}
    once = ["synchronize", "record", "call", "call", "call", "record", "wait", "elapsed"]
    assert happened == ["compile", *once, "synchronize", "spin", *once[1:]]


def _clock(folder):
    from minidl.gpucheck import timing

    happened = []

    def event():
        return SimpleNamespace(record=lambda: happened.append("record"), synchronize=lambda: happened.append("wait"))

    def spin(blocks, threads, arguments):
        happened.append("spin")
        assert arguments[0] >= 1_000_000
        assert arguments[0].dtype == np.int64

    cupy = SimpleNamespace(
        RawKernel=lambda code, name: happened.append("compile") or spin,
        cuda=SimpleNamespace(Event=event, get_elapsed_time=lambda start, end: happened.append("elapsed") or 12.0,
                             runtime=SimpleNamespace(deviceSynchronize=lambda: happened.append("synchronize"))))
    session = SimpleNamespace(rehearsal=False, backend=SimpleNamespace(xp=cupy))
    print(json.dumps([timing.Clock(session).time(lambda: happened.append("call"), 3), happened]))


def test_the_time_in_each_kernel_of_a_step(tmp_path):
    """Two events around every launch, behind a spinning GPU."""
    found, happened = call("_in_each_kernel", str(tmp_path))
    assert found == [["naive.conv2d", {"ms": 24.0, "launches": 2}], ["tiled.add_parts", {"ms": 12.0, "launches": 1}]]
    around = lambda name: ["record", name, "record"]  # noqa: E731
    assert happened == ["compile", "spin", *around("add_parts"), *around("conv2d"), *around("conv2d"), "synchronize", *["elapsed"] * 3]


def _in_each_kernel(folder):
    from minidl.gpucheck import timing
    from minidl.kernels import cuda

    happened = []
    cupy = SimpleNamespace(
        RawKernel=lambda code, name: happened.append("compile") or (lambda *arguments: happened.append("spin")),
        cuda=SimpleNamespace(Event=lambda: SimpleNamespace(record=lambda: happened.append("record")),
                             get_elapsed_time=lambda start, end: happened.append("elapsed") or 12.0,
                             runtime=SimpleNamespace(deviceSynchronize=lambda: happened.append("synchronize"))))

    def step():
        for kernel in (cuda.tiled.add_parts, cuda.naive.conv2d, cuda.naive.conv2d):
            cuda.launch(kernel, 1, 32)

    with mock.patch.object(timing, "launch", lambda kernel, *arguments: happened.append(kernel.__name__)):
        clock = timing.Clock(SimpleNamespace(rehearsal=False, backend=SimpleNamespace(xp=cupy)))
        print(json.dumps([list(clock.kernels(step, 0.1).items()), happened]))


def test_tf32_is_switched_for_both_and_off_again(tmp_path):
    switched, states = call("_tf32", str(tmp_path))
    assert switched == [["float32", 1, False], ["float32", 7, True], ["float32", 1, False]]
    assert states == ["TF32 off", "TF32 on"]


def _tf32(folder):
    from minidl.gpucheck import timing

    switched, entry = [], {}
    flags = SimpleNamespace(cuda=SimpleNamespace(matmul=SimpleNamespace()), cudnn=SimpleNamespace())
    session = Session(folder, rehearsal=True)
    session.rehearsal, session.torch = False, SimpleNamespace(backends=flags)
    library = SimpleNamespace(COMPUTE_TYPE_TF32=7, COMPUTE_TYPE_DEFAULT=1, set_compute_type=lambda dtype, kind: switched.append(
        [str(dtype), kind]))
    nothing = {name: (lambda *a: iter(())) for name in ("_steps", "_products", "_layers")}
    real = timing.set_tf32

    def watched(session, on):
        real(session, on)
        switched[-1].append(flags.cuda.matmul.allow_tf32 and flags.cudnn.allow_tf32)

    with mock.patch.dict(sys.modules, {"cupy._core._routines_linalg": library}), \
            mock.patch.object(timing, "Clock"), mock.patch.multiple(timing, **nothing), \
            mock.patch.object(timing, "set_tf32", watched), \
            mock.patch.object(minidl.cuda, "get_device_capability", return_value=(9, 0)):
        timing.timing(session, entry)
    del switched[1]                                     # off after "off"
    print(json.dumps([switched, list(entry["modes"])]))


def test_the_card_and_the_measurements_stand_in_the_table():
    row = {"ms": 1.5, "device_ms": 0.25, "host_ms": 1.25, "launches": 18}
    report = {"rehearsal": False, "note": "", "seed": 1, "date": "2026-01-02T03:04:05+00:00", "stages": {
        "versions": {"state": "done", "minidl": "0.1", "cupy-cuda13x": "14.2", "card": "Card", "capability": "9.0",
                     "driver": "580.1", "PyTorch": "2.13"},
        "overhead": {"state": "done", "host_us": {"launch": 41.26}},
        "timing": {"state": "done", "modes": {"TF32 off": {"W1": {"minidl": row, "torch": {**row, "ms": 0.5}},
                                                           "W2": {"minidl": row}}}}},
        "mismatches": [{"name": f"kernel {i // 2}", "error": "off"} for i in range(44)]}
    lines = render(report).splitlines()
    assert lines[0] == "Card, compute 9.0, driver 580.1; minidl 0.1, cupy-cuda13x 14.2, PyTorch 2.13; 2026-01-02, seed 1"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert ["launch", "41.3"] in cells
    assert ["W1", "1.5", "0.25", "1.25", "0.5", "0.25", "1.25", "18", "3"] in cells
    assert ["W2", "1.5", "0.25", "1.25", "–", "–", "–", "18", "–"] in cells
    assert "- WRONG kernel 0: off (and 1 more)" in lines
    assert lines[-1] == "- and 2 more: see gpucheck.json"
    assert len({len(line) for line in lines if "| W" in line or "TF32" in line}) == 1


def test_what_a_gpu_says_of_itself_is_noted(tmp_path, monkeypatch):
    from minidl.gpucheck import session as sessions

    session = Session(tmp_path, rehearsal=True)
    runtime = SimpleNamespace(runtimeGetVersion=lambda: 13000, driverGetVersion=lambda: 13010)
    session.rehearsal, session.backend = False, SimpleNamespace(xp=SimpleNamespace(cuda=SimpleNamespace(runtime=runtime)))
    card = minidl.cuda.DeviceProperties("Card", 9, 0, 1 << 30, 132)
    monkeypatch.setattr(minidl.cuda, "get_device_properties", lambda: card)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(sessions.subprocess, "run", lambda *a, **k: SimpleNamespace(stdout="580.65\n"))
    entry = {}
    assert sessions.versions(session, entry) == "done"
    assert (entry["card"], entry["capability"], entry["driver"], entry["cuda"]) == ("Card", "9.0", "580.65", 13000)
    assert entry["PyTorch"].startswith("none (")
    assert session.torch is None
    json.dumps(entry)

    def no_such_program(*arguments, **settings):
        raise FileNotFoundError

    monkeypatch.setattr(sessions.subprocess, "run", no_such_program)
    sessions.versions(session, entry := {})
    assert entry["driver"] == 13010
