"""The workloads of labs.speed, and the process that runs one of them with one engine.

The lab starts `python -m labs._speed_worker ENGINE WORKLOAD SEED THREADS` for each engine, tells it over a pipe what to
do next, and reads the answer, both a line of JSON; so only one of these processes works at a time. minidl has PyTorch's
names, so the same lines below run with either; they are imported by name, because a process must not hold both.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
ENGINES = {"minidl": "minidl", "minidl_fused": "minidl, fused", "torch": "PyTorch", "torch_best": "PyTorch at its best"}
CHECKED = 20            # after so many steps the losses must agree
BATCHES = 4             # different ones, in turn

# glibc gives large arrays back to the system when they are freed, and the next step pays for fresh pages. PyTorch at
# its best keeps them.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "10000000000", "MALLOC_TRIM_THRESHOLD_": "10000000000"}
# Names alone leave AVX-512 on: Numba takes the features from the machine unless they are given too, here as none more.
AVX2 = {"minidl": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "", "OPENBLAS_CORETYPE": "Haswell"},
        "torch": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}}
# minidl sets the first two when it is imported, as the lab has done by now; PyTorch must not inherit them.
NOT_INHERITED = {"OMP_WAIT_POLICY", "OPENBLAS_CORETYPE", *KEEP_MEMORY}


# -- the workloads: `nn` is minidl's or PyTorch's ----------------------------------------------------------------------

def cnn(nn: Any, size: int = 28, channels: int = 32, hidden: int = 256) -> Any:
    """The network of labs.cnn."""
    return nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
                         nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
                         nn.Flatten(), nn.Linear(2 * channels * (size // 4)**2, hidden), nn.ReLU(),
                         nn.Linear(hidden, 10))


def dense_autoencoder(nn: Any, pixels: int = 784, hidden: int = 256) -> Any:
    """784 pixels through 128 numbers."""
    return nn.Sequential(nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, hidden // 2), nn.ReLU(),
                         nn.Linear(hidden // 2, hidden), nn.ReLU(), nn.Linear(hidden, pixels))


def conv_autoencoder(nn: Any) -> Any:
    """28×28 pixels through 4 maps of 7×7; or others, a quarter as high and wide."""
    return nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.AvgPool2d(2), nn.ReLU(),
                         nn.Conv2d(16, 8, 3, padding=1), nn.AvgPool2d(2), nn.ReLU(),
                         nn.Conv2d(8, 4, 3, padding=1), nn.ReLU(),
                         nn.Conv2d(4, 8, 3, padding=1), nn.Upsample(scale_factor=2), nn.ReLU(),
                         nn.Conv2d(8, 16, 3, padding=1), nn.Upsample(scale_factor=2), nn.ReLU(),
                         nn.Conv2d(16, 1, 3, padding=1))


def colour_cnn(nn: Any, size: int = 48, channels: int = 32, hidden: int = 512) -> Any:
    """Three convolutions over colour images, and a wide dense layer."""
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(),
                         nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Conv2d(2 * channels, 4 * channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Linear(4 * channels * (size // 4)**2, hidden), nn.ReLU(),
                         nn.Linear(hidden, 10))


@dataclass(frozen=True)
class Workload:
    """A model, its batches of random numbers, and what a step does with them.

    optimizer: its name and settings, or None: a step is then the forward pass alone, in evaluation mode.
    fuses: whether minidl.fuse finds something to fuse. steps: how many are timed in a turn.
    seconds: about how long a step takes, all engines together.
    """

    about: str
    model: Callable[..., Any]
    tiny: tuple[int, ...]                   # sizes with which the same model needs next to no memory
    shape: tuple[int, ...]                  # of an image, or of what stands for it
    batch: int
    loss: str
    optimizer: tuple[str, Mapping[str, float]] | None
    fuses: bool
    steps: int
    seconds: float


SGD = ("SGD", {"lr": 0.1, "momentum": 0.9})
ADAM = ("Adam", {"lr": 1e-3})
WORKLOADS = {
    "W1": Workload("the CNN of labs.cnn, 28×28, batch 64, Adam", cnn, (8, 32, 64), (1, 28, 28), 64, "cross_entropy",
                   ADAM, True, 20, 0.08),
    "W2": Workload("dense autoencoder 784-256-128-256-784, batch 1,024, SGD with momentum", dense_autoencoder,
                   (256, 128), (784,), 1024, "mse_loss", SGD, False, 20, 0.06),
    "W3": Workload("convolutional autoencoder, 28×28, batch 1,024, SGD with momentum", conv_autoencoder, (),
                   (1, 28, 28), 1024, "mse_loss", SGD, True, 3, 1.0),
    # A rate of 1e-3 is too high here: the first steps overshoot, which makes rounding errors grow, and PyTorch's own
    # loss after 20 of them is up to 3 % off the one it gets in float64.
    "W4": Workload("three convolutions over 48×48 in colour, batch 64, Adam with weight decay", colour_cnn, (8, 32, 64),
                   (3, 48, 48), 64, "cross_entropy", ("Adam", {"lr": 1e-4, "weight_decay": 1e-4}), True, 3, 1.0),
    "W1_inference": Workload("the CNN of W1, forward alone, batch 256", cnn, (8, 32, 64), (1, 28, 28), 256,
                             "cross_entropy", None, True, 20, 0.1),
}


def batches_of(workload: Workload, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(images, labels), as many as BATCHES: each class has a pattern in black and white, and each image its noise."""
    rng = np.random.default_rng(seed)
    patterns = rng.integers(0, 2, (10, *workload.shape))
    labels = rng.integers(0, 10, (BATCHES, workload.batch))
    batches = []
    for y in labels:
        x = rng.normal(patterns[y], 0.5).astype(np.float32)                 # (batch, *shape)
        batches.append((x, y))
    return batches


def weights_of(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Uniform within ±1/√(inputs of a unit), the biases too; drawn by NumPy, so the same for every engine."""
    rng, weights, inputs = np.random.default_rng([seed, 1]), {}, 1
    for name, shape in shapes.items():
        inputs = math.prod(shape[1:]) if len(shape) > 1 else inputs         # a bias has those of the weight before it
        weights[name] = rng.random(shape, np.float32)
        weights[name] -= 0.5                                                # in place: no memory for what is between
        weights[name] *= 2 / math.sqrt(inputs)
    return weights


# -- in the process of an engine ---------------------------------------------------------------------------------------

class Run:
    """A model with its first weights, its batches and its optimizer; `steps` goes on from where it is.

    device: where they are, if not on the CPU.
    """

    def __init__(self, engine: str, workload: Workload, seed: int, *sizes: int, device: str | None = None) -> None:
        package = engine.partition("_")[0]
        self.library, self.workload, self.count = importlib.import_module(package), workload, 0
        nn, optim = (importlib.import_module(f"{package}.{name}") for name in ("nn", "optim"))
        self.loss_of = getattr(nn.functional, workload.loss)
        array = self.library.from_numpy
        model = workload.model(nn, *sizes)
        shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        model.load_state_dict({name: array(value) for name, value in weights_of(shapes, seed).items()})
        self.batches = [(array(x), array(y) if workload.loss == "cross_entropy" else array(x))
                        for x, y in batches_of(workload, seed)]
        if device is not None:
            model = model.to(device)
            self.batches = [(x.to(device), y.to(device)) for x, y in self.batches]
        if engine == "torch_best" and len(workload.shape) == 3:
            form = {"memory_format": self.library.channels_last}
            model = model.to(**form)
            self.batches = [(x.to(**form), y.to(**form) if y.ndim == 4 else y) for x, y in self.batches]
        if engine == "minidl_fused":
            model = self.library.fuse(model)
        self.model = model
        if workload.optimizer is None:
            model.eval()
        else:
            name, settings = workload.optimizer
            # The fastest of PyTorch's three: for W1 0.5 ms a step, with foreach=True and with neither 1.0.
            settings = {**settings, **({"fused": True} if package == "torch" else {})}
            self.optimizer = getattr(optim, name)(model.parameters(), **settings)

    def train(self, x: Any, y: Any) -> float:
        """One step of training, with its loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss_of(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return float(loss.item())

    def infer(self, x: Any) -> Any:
        """The scores alone."""
        with self.library.no_grad():
            return self.model(x)

    def steps(self, count: int) -> dict[str, Any]:
        """The milliseconds and the loss of each of the next steps, and the seconds that all threads have worked."""
        times, losses, cpu = [], [], time.process_time()
        for _ in range(count):
            x, y = self.batches[self.count % BATCHES]
            start = time.perf_counter()
            result = self.train(x, y) if self.workload.optimizer else self.infer(x)
            times.append(1000 * (time.perf_counter() - start))
            losses.append(result if self.workload.optimizer else self.loss_of(result, y).item())
            self.count += 1
        return {"ms": times, "losses": losses, "cpu_seconds": time.process_time() - cpu}


def tiny_step(engine: str, workload: Workload, seed: int) -> None:
    """A step of the same kind with a tiny model: it loads, or compiles, all that has to be in memory anyway.

    Not so tiny that an engine would do it in another way: minidl leaves arrays of few numbers to NumPy.
    """
    shape = (256,) if len(workload.shape) == 1 else (workload.shape[0], 8, 8)
    Run(engine, replace(workload, shape=shape, batch=128), seed, *workload.tiny).steps(1)


def peak_memory(engine: str, workload: Workload, seed: int) -> dict[str, Any]:
    """How many MB two steps need at most, beyond what the process has after a step of a tiny model.

    Two, because the first one makes the gradients and the optimizer's averages, and the second has them from its start.
    `exact`: whether the system could forget the peak of what was before (Linux can); else it is a lower bound.
    """
    tiny_step(engine, workload, seed)
    exact = forget_peak()
    before = memory_in_use("VmRSS") if exact else highest_ever()
    run = Run(engine, workload, seed)
    if exact:
        forget_peak()                                           # that of NumPy, while it drew the weights
    run.steps(2)
    after = memory_in_use("VmHWM") if exact else highest_ever()
    return {"mb": after - before, "exact": exact}


def forget_peak() -> bool:
    """Give back what is not in use, and let the peak be what is; whether the system can do that."""
    gc.collect()
    if not sys.platform.startswith("linux"):
        return False
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):       # glibc keeps what was freed, which would count
        libc.malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:                                             # some sandboxes
        return False
    return True


def memory_in_use(field: str) -> float:
    """A line of Linux's /proc/self/status, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


def highest_ever() -> float:
    """The most memory this process ever had, in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def serve(engine: str, workload: str, seed: int, threads: int) -> None:
    """Do what the lab asks for, until it closes the pipe; then end at once, also in the middle of a step."""
    with suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)            # Ctrl-C is the lab's; it ends this process
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)                                               # what an engine prints is no answer
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def listen() -> None:
        with open(0, "rb", buffering=0) as lines:               # a buffer has a lock, which Python needs to end
            for line in lines:
                requests.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    library, run = importlib.import_module(engine.partition("_")[0]), None
    library.set_num_threads(threads)
    answer: dict[str, Any] = {"version": library.__version__, "threads": library.get_num_threads()}
    while True:
        print(json.dumps(answer), file=answers, flush=True)
        request = requests.get()
        if request["do"] == "memory":
            answer = peak_memory(engine, WORKLOADS[workload], seed)
        elif request["do"] == "tiny step":
            tiny_step(engine, WORKLOADS[workload], seed)
            answer = {}
        else:
            run = run or Run(engine, WORKLOADS[workload], seed)
            answer = run.steps(request["count"])


# -- in the lab --------------------------------------------------------------------------------------------------------

def busy_seconds() -> float | None:
    """How long the cores of this machine have worked, all together, for whatever program; None where nobody counts."""
    try:
        fields = Path("/proc/stat").read_text().split("\n")[0].split()[1:]      # user nice system idle iowait irq …
    except OSError:
        return None
    return sum(int(field) for i, field in enumerate(fields[:8]) if i not in (3, 4)) / os.sysconf("SC_CLK_TCK")


class Worker:
    """Such a process. Use it in a `with`: however that is left, the process ends with it."""

    def __init__(self, engine: str, workload: str, *, seed: int = 0, threads: int = 2, avx2: bool = False) -> None:
        self.name = f"{ENGINES[engine]}, {workload}"
        package = engine.partition("_")[0]
        environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
        environment |= AVX2[package] if avx2 else {}
        environment |= KEEP_MEMORY if engine == "torch_best" else {}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process; nobody would read a pipe)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "labs._speed_worker", engine, workload, str(seed), str(threads)], env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, encoding="utf-8")
        try:
            self.facts = self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        with suppress(BrokenPipeError):                         # it has died, and has no answer either
            print(json.dumps({"do": do, **what}), file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if line.endswith("\n"):
            return dict(json.loads(line))
        from minidl.errors import MinidlError  # here, because PyTorch's process reads this file too

        code = self.process.wait()
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip().splitlines()[-3:]
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        raise MinidlError(f"the process ended with {how}; its last lines: {' | '.join(last) or 'none'}",
                          where=self.name)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
