"""The speed lab: who is timed, with what, what the numbers mean, and that no process outlives it."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import minidl
from labs import _speed_worker
from labs._speed_worker import ENGINES, KEEP_MEMORY, WORKLOADS, Run, Worker, batches_of, weights_of
from minidl import nn
from minidl.errors import MinidlError
from minidl.models import small_cnn
from tests.figures import run_here

ROOT = Path(__file__).parent.parent
KEYS = {"minidl_ms", "minidl_fused_ms", "torch_ms", "torch_best_ms", "ratio", "ratio_fused", "ratio_best", "minidl_mb", "torch_mb"}
MS = {"minidl": 20.0, "minidl_fused": 10.0, "torch": 30.0, "torch_best": 25.0}
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, which only Linux has")


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def with_torch(monkeypatch, is_there):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: is_there or None if name == "torch" else find(name, *more))


# -- the lab, with processes that only say how long they took ----------------------------------------------------------

class Pretender:
    """Stands in for a Worker; the first step of each turn takes long, and so does the first round; step 20 has a loss."""

    log, loss = [], dict.fromkeys(ENGINES, 0.5)

    def __init__(self, engine, workload, *, seed, threads, avx2):
        self.engine, self.workload, self.turn, self.steps = engine, workload, 0, 0
        self.facts = {"version": "1.2", "threads": threads}

    def __enter__(self):
        self.log.append(("start", self.engine, self.workload))
        return self

    def __exit__(self, *error):
        self.log.append(("end", self.engine, self.workload))

    def ask(self, do, count=0):
        self.log.append((do, self.engine, count))
        if do == "memory":
            return {"mb": 10 * MS[self.engine], "exact": True}
        self.turn += 1
        ms = [9000.0, *([MS[self.engine] * (2 if self.turn == 2 else 1)] * (count - 1))][:count]
        numbers = range(self.steps + 1, self.steps + 1 + count)
        self.steps += count
        return {"ms": ms, "losses": [self.loss[self.engine] if number == 20 else 9.0 for number in numbers], "cpu_seconds": 0.0}


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """Runs the lab with such processes: its metrics, figures, and what it told them. The figures have been checked."""
    def run(*arguments, torch=True, loss=None, fails=False):
        with_torch(monkeypatch, torch)
        monkeypatch.setattr(Pretender, "log", log := [])
        monkeypatch.setattr(Pretender, "loss", {**Pretender.loss, **(loss or {})})
        monkeypatch.setattr(_speed_worker, "Worker", Pretender)
        figures = {}
        if fails:
            with pytest.raises(SystemExit) as stop:
                run_here(monkeypatch, "speed", "--out", tmp_path, *arguments)
            return json.loads((tmp_path / "metrics.json").read_text()), stop.value.code, log
        _, figures = run_here(monkeypatch, "speed", "--out", tmp_path, *arguments, equal_panels={"steps"})   # all take as long
        return json.loads((tmp_path / "metrics.json").read_text()), figures, log

    return run


def test_the_numbers_that_it_saves(pretend, tmp_path, capsys):
    metrics, figures, _ = pretend()
    assert list(figures) == ["steps", "memory"]
    assert metrics["workloads"] == ["W1", "W2", "W3", "W4", "W1_inference"]
    assert (metrics["lab"], metrics["dataset"], metrics["threads"], metrics["avx2"]) == ("speed", None, 2, False)
    assert metrics["losses_agree"] is True
    for name in WORKLOADS:
        result = metrics[name]
        assert result.keys() >= KEYS
        # the median leaves out the first round, which took twice as long, and what each turn warms up with
        assert (result["minidl_ms"], result["torch_ms"], result["torch_best_ms"]) == (20, 30, 25)
        assert (result["minidl_mb"], result["torch_mb"]) == (200, 300)
        assert result["rounds_ms"]["minidl"] == [40, 20, 20, 20, 20]
        assert result["first_step_seconds"]["torch"] == 9
        assert result["loss_after_20"]["minidl"] == 0.5
        assert result["ratio"] == 1.5
    assert (metrics["W1"]["minidl_fused_ms"], metrics["W1"]["ratio_fused"], metrics["W1"]["ratio_best"]) == (10, 3, 2.5)
    assert (metrics["W2"]["minidl_fused_ms"], metrics["W2"]["ratio_fused"], metrics["W2"]["ratio_best"]) == (None, None, 1.25)
    texts = [text.get_text() for text in figures["steps"].axes[0].texts]
    assert texts == ["20.0", "10.0", "30.0", "25.0"]
    assert len(figures["steps"].axes) == 5
    assert [bar.get_height() for bar in figures["memory"].axes[0].containers[2]] == [300] * 5
    report = (tmp_path / "report.html").read_text()
    assert "W3: 30.0 → 25.0 ms" in report
    assert "was between 20.0 and 40.0 ms" in report
    assert "1.50" in capsys.readouterr().out


def test_the_step_that_warms_up_does_not_count(pretend):
    result = pretend("--workloads", "W1", "--steps", "1", "--rounds", "3")[0]["W1"]
    assert (result["minidl_ms"], result["rounds_ms"]["minidl"]) == (20, [40, 20, 20])


def test_the_engines_take_turns_and_one_process_of_each_runs_at_a_time(pretend):
    _, _, log = pretend("--workloads", "W3", "--rounds", "4", "--steps", "2")
    asked = [(engine, count) for do, engine, count in log if do == "steps"]
    engines = list(ENGINES)
    assert asked[:4] == [(engine, 1) for engine in engines]
    rounds = [asked[4 + 4 * i:8 + 4 * i] for i in range(4)]
    assert [turn[0][0] for turn in rounds] == engines                           # each is first once
    for turn in rounds:
        assert sorted(engine for engine, _ in turn) == sorted(engines)
        assert {count for _, count in turn} == {3}                              # one to warm up, two that are timed
    assert [engine for do, engine, _ in log if do == "tiny step"] == engines
    assert asked[20:] == [(engine, 20 - 1 - 4 * 3) for engine in engines]       # to the step after which losses are compared
    assert [entry for entry in log if entry[0] == "start"][4:] == [("start", engine, "W3") for engine in engines[:3]]
    assert [do for do, *_ in log].count("start") == [do for do, *_ in log].count("end") == 7
    first_end = log.index(("end", "torch_best", "W3"))
    assert log.index(("memory", "minidl", 0)) > first_end                       # when nothing else is there


def test_without_torch_minidl_runs_alone(pretend, capsys):
    metrics, figures, log = pretend("--workloads", "W1", "W2", torch=False)
    assert "pip install torch==2.13.0" in capsys.readouterr().out
    assert not [engine for _, engine, _ in log if "torch" in engine]
    for name in ("W1", "W2"):
        missing = {key for key in KEYS if metrics[name][key] is None}
        assert missing >= {"torch_ms", "torch_best_ms", "ratio", "ratio_fused", "ratio_best", "torch_mb"}
        assert metrics[name]["minidl_ms"] == 20
    assert metrics["W1"]["minidl_fused_ms"] == 10
    assert metrics["torch_version"] is None
    assert len(figures["steps"].axes) == 2


@pytest.mark.parametrize(("loss", "wrong"), [({"minidl": 0.5006}, "minidl"), ({"minidl_fused": 0.4994}, "minidl, fused"),
                                             ({"minidl": float("nan")}, "minidl"), ({"torch_best": 0.51}, "PyTorch at its best")])
def test_losses_that_differ_end_it_with_an_error(pretend, loss, wrong, capsys):
    metrics, code, _ = pretend("--workloads", "W1", loss=loss, fails=True)
    assert code.startswith(f"error: W1: the loss of {wrong} is ")               # sys.exit prints it and returns 1
    assert metrics["losses_agree"] is False
    assert metrics["W1"]["ratio"] == 1.5                                        # all is saved, to be looked at
    assert "expected 0.5, to a thousandth" in capsys.readouterr().out


def test_losses_that_nearly_agree_are_let_through(pretend):
    assert pretend("--workloads", "W1", loss={"minidl": 0.5004, "minidl_fused": 0.4996})[0]["losses_agree"] is True


def test_it_says_when_other_programs_spoil_it(pretend, monkeypatch, capsys):
    clock = itertools.count(0, 1000)
    monkeypatch.setattr(_speed_worker, "busy_seconds", lambda: 1.0 + next(clock))
    metrics, _, _ = pretend("--workloads", "W1")
    assert metrics["W1"]["other_programs_cores"] > 100
    printed = capsys.readouterr().out
    assert "* Do not believe these times" in printed
    assert "│ W1 * │" in printed
    monkeypatch.setattr(_speed_worker, "busy_seconds", lambda: None)
    assert pretend("--workloads", "W1")[0]["W1"]["other_programs_cores"] is None
    assert "Do not believe" not in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--rounds=0"], "argument --rounds: got '0', expected a whole number above 0"),
    (["--steps=1.5"], "argument --steps: got '1.5', expected a whole number above 0"),
    (["--threads=none"], "argument --threads: got 'none', expected a whole number above 0"),
    (["--dataset=digits"], "unrecognized arguments: --dataset=digits")])
def test_bad_arguments(monkeypatch, tmp_path, capsys, arguments, sentence):
    with pytest.raises(SystemExit) as stop:
        run_here(monkeypatch, "speed", "--out", tmp_path / "out", *arguments)
    assert stop.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {sentence}")
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


# -- the workloads -----------------------------------------------------------------------------------------------------

def test_the_cnn_is_that_of_the_lab():
    assert str(WORKLOADS["W1"].model(nn)) == str(small_cnn())
    assert WORKLOADS["W1_inference"].model is WORKLOADS["W1"].model


def test_weights_and_batches_are_the_same_each_time_and_others_with_another_seed():
    for work in WORKLOADS.values():
        for (x, y), (again, labels), (other, _) in zip(batches_of(work, 3), batches_of(work, 3), batches_of(work, 4), strict=True):
            assert (x.shape, x.dtype, y.shape) == ((work.batch, *work.shape), np.float32, (work.batch,))
            np.testing.assert_array_equal(x, again)
            np.testing.assert_array_equal(y, labels)
            assert not np.array_equal(x, other)
            assert set(y) == set(range(10))
        assert not np.array_equal(x, batches_of(work, 3)[0][0])
    shapes = {"0.weight": (8, 4, 3, 3), "0.bias": (8,)}
    weights = weights_of(shapes, 3)
    for name, shape in shapes.items():
        assert weights[name].shape == shape
        np.testing.assert_array_equal(weights[name], weights_of(shapes, 3)[name])
        assert 0.1 < abs(weights[name]).max() <= 1 / 6                          # 36 inputs


def test_a_step_is_a_step_of_training():
    run = Run("minidl", WORKLOADS["W2"], 0)
    state = run.model.state_dict()
    expected = weights_of({name: tuple(value.shape) for name, value in state.items()}, 0)
    for name, value in state.items():
        np.testing.assert_array_equal(value.numpy(), expected[name])
    answer = run.steps(5)
    assert len(answer["ms"]) == len(answer["losses"]) == 5
    assert min(answer["ms"]) > 0
    assert answer["losses"][4] < answer["losses"][0]                            # the fifth has the batch of the first
    assert answer["cpu_seconds"] > 0
    more = run.steps(15)["losses"]
    assert more[-1] < 0.95 * answer["losses"][0]
    assert Run("minidl", WORKLOADS["W2"], 0).steps(20)["losses"] == answer["losses"] + more


def test_inference_records_nothing_and_changes_nothing():
    run = Run("minidl", WORKLOADS["W1_inference"], 0)
    assert not run.model.training
    assert not run.infer(run.batches[0][0]).requires_grad
    losses = run.steps(5)["losses"]
    assert losses == pytest.approx([np.log(10)] * 5, rel=0.05)
    assert losses[0] == losses[4]                                               # four batches in turn
    assert len(set(losses)) == 4


# -- the processes -----------------------------------------------------------------------------------------------------

def test_a_process_answers_and_ends():
    with Worker("minidl", "W2", seed=5) as worker:
        assert worker.facts == {"version": minidl.__version__, "threads": minidl.get_num_threads()}
        answers = [worker.ask("steps", count=count) for count in (1, 2, 0)]
    assert [len(answer["losses"]) for answer in answers] == [1, 2, 0]
    assert answers[0]["losses"] + answers[1]["losses"] == Run("minidl", WORKLOADS["W2"], 5).steps(3)["losses"]
    assert worker.process.returncode == -signal.SIGKILL


@linux
def test_the_peak_of_a_step_is_not_hidden_by_an_earlier_one():
    code = """import sys, numpy as np
from labs._speed_worker import WORKLOADS, peak_memory
np.ones(int(sys.argv[1]) * 2**17).sum()
print(peak_memory("minidl", WORKLOADS["W2"], 0)["mb"])"""
    alone, after_more = (float(subprocess.run([sys.executable, "-c", code, size], cwd=ROOT, capture_output=True, text=True, check=True,
                                              env=environment()).stdout) for size in ("1", "600"))
    weights = sum(p.numel() for p in WORKLOADS["W2"].model(nn).parameters())
    least = (3 * weights + 1024 * (256 + 128 + 256 + 784)) * 4 / 2**20          # with gradients and momentum; outputs of layers
    assert least < alone < 10 * least
    assert abs(after_more - alone) < 0.2 * alone


def test_a_process_that_dies_gives_one_sentence_with_its_last_words():
    with Worker("minidl", "W2") as worker, pytest.raises(MinidlError) as error:
        worker.ask("steps", count="many")
    assert str(error.value).startswith("minidl, W2: the process ended with exit code 1; its last lines: ")
    assert "'str' object cannot be interpreted as an integer" in str(error.value)
    with Worker("minidl", "W2") as worker:
        worker.process.kill()
        worker.process.wait()
        with pytest.raises(MinidlError, match=r"ended with signal SIGKILL; its last lines: none"):
            worker.ask("steps", count=1)


def test_what_an_engine_prints_is_no_answer():
    code = """from labs import _speed_worker
steps = _speed_worker.Run.steps
_speed_worker.Run.steps = lambda run, count: print("compiling") or steps(run, count)
_speed_worker.serve("minidl", "W2", 0, 1)"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, env=environment()) as process:
        assert json.loads(process.stdout.readline())["threads"] == 1
        print('{"do": "steps", "count": 2}', file=process.stdin, flush=True)
        assert len(json.loads(process.stdout.readline())["ms"]) == 2
        assert process.communicate() == ("", "compiling\n")
    assert process.returncode == 0                                              # it ended when nobody was left to ask


@linux
def test_the_work_of_all_programs_is_counted(monkeypatch):
    before = _speed_worker.busy_seconds()
    sum(range(10**7))
    assert 0 < _speed_worker.busy_seconds() - before < 60
    monkeypatch.setattr(Path, "read_text", lambda path: "cpu  100 1 10 5000 77 2 3 4 9 9\ncpu0 1 1 1\n")
    assert _speed_worker.busy_seconds() == 120 / os.sysconf("SC_CLK_TCK")       # not the 5000 idle and 77 waiting for a disk
    monkeypatch.setattr(Path, "read_text", lambda path: Path("/nowhere/at/all").read_bytes())
    assert _speed_worker.busy_seconds() is None


@linux
def test_no_process_outlives_a_lab_that_is_killed():
    code = """from labs._speed_worker import Worker
worker = Worker("minidl", "W3")
print(worker.process.pid, flush=True)
worker.ask("steps", count=1000)"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment()) as lab:
        pid = int(lab.stdout.readline())
        time.sleep(0.5)                                                         # it is in the middle of its steps
        status = Path(f"/proc/{pid}/status")
        assert "python" in Path(f"/proc/{pid}/cmdline").read_text()
        lab.kill()
    for _ in range(100):
        if not status.exists() or "\nState:\tZ" in status.read_text():
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the process went on without its lab")


@linux
@pytest.mark.torch
def test_each_engine_has_its_own_environment(torch, monkeypatch):
    assert os.environ["OMP_WAIT_POLICY"] == "passive"                           # minidl's; PyTorch has its own way of waiting
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "5")

    def environment_of(engine, **settings):
        with Worker(engine, "W2", **settings) as worker:
            assert worker.facts["version"] == (torch.__version__ if "torch" in engine else minidl.__version__)
            lines = Path(f"/proc/{worker.process.pid}/environ").read_text().split("\0")
            maps = Path(f"/proc/{worker.process.pid}/maps").read_text()
            assert ("libtorch" in maps) == ("torch" in engine)
        return dict(line.partition("=")[::2] for line in lines if line)

    plain, best = environment_of("torch"), environment_of("torch_best", threads=1, avx2=True)
    assert not {"OMP_WAIT_POLICY", "OPENBLAS_CORETYPE", "ATEN_CPU_CAPABILITY", *KEEP_MEMORY} & plain.keys()
    assert plain["OMP_NUM_THREADS"] == "2"
    assert best.items() >= {**KEEP_MEMORY, "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}.items()
    ours = environment_of("minidl", avx2=True)
    assert ours.items() >= {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""}.items()
    assert "MALLOC_TRIM_THRESHOLD_" not in ours


@pytest.mark.parametrize(("engine", "held"), [("torch", ""), ("torch_best", ""), ("minidl", "minidl"), ("minidl_fused", "minidl")])
def test_the_file_of_the_processes_imports_no_engine_but_the_one_that_runs(engine, held):
    code = "import sys, labs._speed_worker; print(*{'minidl', 'torch', 'numba', 'matplotlib'} & sys.modules.keys())"
    command = [sys.executable, "-c", code, "labs._speed_worker", engine, "W1", "0", "2"]
    assert subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True,
                          env=environment()).stdout.strip() == held


# -- all together ------------------------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.torch
def test_a_short_run_beside_pytorch(torch, monkeypatch, tmp_path):
    _, figures = run_here(monkeypatch, "speed", "--workloads", "W1", "--rounds=1", "--steps=1", "--out", tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    result = metrics["W1"]
    assert result.keys() >= KEYS
    assert all(result[key] > 0 for key in KEYS)
    assert result["ratio"] == result["torch_ms"] / result["minidl_ms"]
    assert result["ratio_fused"] == result["torch_ms"] / result["minidl_fused_ms"]
    assert result["ratio_best"] == result["torch_best_ms"] / result["minidl_fused_ms"]
    assert metrics["losses_agree"] is True
    assert metrics["torch_version"] == torch.__version__
    assert list(figures) == ["steps", "memory"]
    losses = Run("minidl", WORKLOADS["W1"], 0).steps(1)["losses"]
    assert list(result["first_loss"].values()) == pytest.approx(4 * losses, rel=1e-5)
    assert result["loss_after_20"]["torch"] < 0.7 * losses[0]
    weights = sum(p.numel() for p in small_cnn().parameters())
    assert min(result["minidl_mb"], result["torch_mb"]) > 4 * 4 * weights / 2**20       # gradients and Adam's averages too


def test_a_run_of_minidl_alone(monkeypatch, tmp_path, capsys):
    with_torch(monkeypatch, False)
    run_here(monkeypatch, "speed", "--workloads", "W2", "--rounds=2", "--steps=1", "--out", tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert len(metrics["W2"]["rounds_ms"]["minidl"]) == 2
    assert metrics["W2"]["loss_after_20"]["minidl"] < 0.95 * metrics["W2"]["first_loss"]["minidl"]
    assert {path.name for path in tmp_path.iterdir()} == {"steps.png", "memory.png", "metrics.json", "manifest.json", "report.html"}
    assert "pip install torch==2.13.0" in capsys.readouterr().out


@pytest.mark.parametrize(("argument", "sentence"), [
    ("--workloads=W5", "error: argument --workloads: got 'W5', expected W1, W2, W3, W4 or W1_inference"),
    ("--batch-size=3", "error: --batch-size: got a number, expected none: each workload has its own"),
    ("--device=fake", "error: --device: got fake, expected cpu: this lab times the CPU alone")])
def test_what_the_user_can_mend_is_a_sentence_and_exit_code_2(tmp_path, argument, sentence):
    result = subprocess.run([sys.executable, "-m", "labs.speed", argument, "--out", tmp_path / "out"], cwd=ROOT,
                            capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1
