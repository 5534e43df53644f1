"""The device "cuda" where there is none: which sentence says why, and all that stands above CuPy, on a stand-in for it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import backend, cupy_backend
from minidl.errors import DeviceError
from tests.stand_in_cupy import StandIn
from tests.test_cuda import needs_simulator

ROOT = Path(minidl.__file__).parent.parent
INSTALL = "pip install 'minidl[cuda13]'"


@pytest.fixture
def computer(monkeypatch):
    """What is installed: a CuPy (None for none), the distributions of it, and whether numba-cuda is there."""
    def make(cupy, wheels=("cupy-cuda13x",), numba_cuda=True):
        find, load, version = importlib.util.find_spec, importlib.import_module, cupy_backend.metadata.version

        def imported(name):
            if name == "minidl.numba_cuda":
                if isinstance(numba_cuda, Exception):
                    raise numba_cuda
                if not numba_cuda:
                    raise ImportError("no module")
                return types.ModuleType(name)
            if name == "cupy_backends.cuda.libs.cublas":
                return types.ModuleType(name)
            if name == "cupy" and isinstance(cupy, Exception):
                raise cupy
            return cupy if name == "cupy" else load(name)

        monkeypatch.setattr(cupy_backend.importlib.util, "find_spec",
                            lambda name: (cupy and importlib.machinery.ModuleSpec("cupy", None)) if name == "cupy" else find(name))
        monkeypatch.setattr(cupy_backend.importlib, "import_module", imported)
        monkeypatch.setattr(cupy_backend.metadata, "version", lambda name: "1" if name == "numba-cuda" else version(name))
        monkeypatch.setattr(cupy_backend, "wheels", lambda: list(wheels))
    return make


@pytest.mark.parametrize(("settings", "sentence"), [
    ({"cupy": None}, f"CuPy is not installed; {INSTALL} (driver 580 or newer; `nvidia-smi` prints the version) or 'minidl[cuda12]' (525 or newer)"),
    ({"cupy": StandIn(), "wheels": ("cupy-cuda12x", "cupy-cuda13x")},
     "got cupy-cuda12x and cupy-cuda13x, which write to one folder and spoil each other; run pip uninstall cupy-cuda12x cupy-cuda13x, then " + INSTALL),
    ({"cupy": ImportError("libcudart.so.13: cannot open shared object file\nand more")}, "CuPy cannot be loaded (libcudart.so.13: cannot open shared object file); run"),
    ({"cupy": ModuleNotFoundError("No module named 'fastrlock'", name="fastrlock")}, "CuPy needs fastrlock, which is not installed"),
    ({"cupy": StandIn(driver=0)}, "there is no NVIDIA driver; install one, or on a computer without an NVIDIA card use the CPU (--device cpu)"),
    ({"cupy": StandIn(driver=12080)}, "the NVIDIA driver knows CUDA 12.8, CuPy was made for 13.0; update the driver, or pip uninstall cupy-cuda13x and pip install 'minidl[cuda12]'"),
    ({"cupy": StandIn(cards=0)}, "there is an NVIDIA driver but no card that this process may use; see nvidia-smi, and whether CUDA_VISIBLE_DEVICES hides it"),
    ({"cupy": StandIn(), "numba_cuda": AttributeError("module 'numpy' has no attribute 'gone'")},
     f"numba-cuda 1 does not go together with NumPy {np.__version__} (module 'numpy' has no attribute 'gone'); pip install --upgrade numba-cuda"),
    ({"cupy": StandIn(), "numba_cuda": False}, "numba-cuda, which compiles the kernels, is not installed; " + INSTALL),
])
def test_why_there_is_no_gpu(computer, capsys, settings, sentence):
    computer(**settings)
    assert sentence in cupy_backend.problem()
    with pytest.raises(DeviceError) as caught:
        minidl.zeros(2).to("cuda")
    assert str(caught.value).startswith('cuda: got device "cuda", but ')
    assert sentence in str(caught.value)
    assert minidl.device("auto") == minidl.device("cpu")
    assert capsys.readouterr().err == f'minidl: device "auto" is "cpu", because {cupy_backend.problem()}\n'


def test_cuda_without_its_libraries(computer, monkeypatch):
    computer(StandIn())
    without = {"cupy_backends.cuda.libs.cublas": ImportError('Failure finding "libcublasLt.so.13": nowhere')}
    load = cupy_backend.importlib.import_module
    monkeypatch.setattr(cupy_backend.importlib, "import_module", lambda name: raised(without[name]) if name in without else load(name))
    assert cupy_backend.problem().startswith('CuPy does not find CUDA\'s libraries (Failure finding "libcublasLt.so.13": nowhere); ' + INSTALL)


def raised(error):
    raise error


def test_the_simulator_is_no_gpu(computer, monkeypatch):
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    computer(StandIn())
    assert cupy_backend.problem().startswith("NUMBA_ENABLE_CUDASIM=1 is set, with which kernels run in the simulator")


def test_a_newer_driver_and_another_minor_version_do(computer, capsys):
    for driver in (13000, 13010, 14000):
        computer(StandIn(driver=driver, runtime=13020))
        assert cupy_backend.problem() is None
    assert minidl.device("auto").type == "cuda"
    assert capsys.readouterr().err == 'minidl: device "auto" is "cuda"\n'


def test_cupy_here():
    """The real one, if it is installed: the sentence fits this computer."""
    sentence = backend.why_no_cuda()
    if importlib.util.find_spec("cupy") is None:
        assert sentence.startswith("CuPy is not installed")
    elif sentence is None:
        assert minidl.ones(2, device="cuda").sum().item() == 2
    else:
        assert any(part in sentence for part in ("driver", "card", "wheels", "spoil each other", "numba-cuda", "cannot be loaded"))
    assert minidl.cuda.is_available() == (sentence is None)


def run(script: str) -> str:
    head = "import numpy as np, minidl\nfrom minidl import nn, optim, fake\nfrom tests import stand_in_cupy\n"
    done = subprocess.run([sys.executable, "-c", head + script], capture_output=True, text=True, cwd=ROOT, check=False,
                          env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout


on_stand_in = needs_simulator


@on_stand_in
def test_tensors_on_the_gpu():
    out = run("""
card = stand_in_cupy.install()
x = minidl.randn(3, 4, generator=minidl.Generator().manual_seed(1)).to("cuda")
print(x.device, x.is_cuda, x.get_device(), x.to("cuda") is x, x.to("cuda:0") is x, card.used)
print(minidl.zeros(1, device="cuda"))
print((x.cpu() == minidl.randn(3, 4, generator=minidl.Generator().manual_seed(1))).all().item())
print(minidl.cuda.is_available(), minidl.cuda.device_count(), minidl.cuda.current_device(), minidl.cuda.get_device_name(),
      minidl.cuda.get_device_capability(), minidl.cuda.memory_allocated(), minidl.accelerator.current_accelerator())
minidl.cuda.synchronize(); minidl.cuda.empty_cache()
for wrong in (lambda: x + minidl.ones(3, 4), lambda: minidl.zeros(1, device="cuda:1"), lambda: minidl.cuda.set_device(2), lambda: minidl.cuda.Event):
    try: wrong()
    except Exception as error: print(type(error).__name__, error)
print(nn.functional.gelu(x).cpu().sub(nn.functional.gelu(x.cpu())).abs().max().item() < 1e-6)
""").splitlines()
    assert out == [
        "cuda:0 True 0 True True [0]", "tensor([0.], device='cuda:0')", "True", "True 1 0 Stand-in (9, 0) 7 cuda",
        "DeviceError add: got a on 'cuda:0' and b on 'cpu', expected all on one device; move one with .to(device)",
        'DeviceError cuda: got device "cuda:1", but there is only cuda:0', 'DeviceError cuda: got device "cuda:2", but there is only cuda:0',
        "NoSuchName minidl.cuda has no 'Event'; use CuPy's, cupy.cuda.Event", "True"]


@on_stand_in
def test_one_card_in_a_process():
    out = run("""
card = stand_in_cupy.install(cards=3)
print(minidl.ones(1, device="cuda:1").device, minidl.ones(1).to("cuda").device, card.used)
try: minidl.ones(1, device="cuda:2")
except minidl.errors.DeviceError as error: print(error)
""").splitlines()
    assert out == ["cuda:1 cuda:1 [1, 1, 1]", 'cuda: got device "cuda:2", but this process computes on cuda:1 already; use one card in a '
                                        "process, or choose it with CUDA_VISIBLE_DEVICES=2"]


@on_stand_in
def test_counting_cards_takes_none_into_use():
    out = run("""
card = stand_in_cupy.install(cards=3)
print(minidl.cuda.device_count(), card.used)
minidl.cuda.set_device(1)
print(minidl.cuda.current_device(), card.used)
""").splitlines()
    assert out == ["3 []", "1 [1]"]


@on_stand_in
def test_each_thread_is_connected_with_the_card_once():
    out = run("""
import threading
card = stand_in_cupy.install()
x = minidl.ones(2, device="cuda")
for _ in range(2):
    other = threading.Thread(target=lambda: (minidl.ones(1).to("cuda"), minidl.ones(1).to("cuda")))
    other.start()
    other.join()
    print(card.used)
""").splitlines()
    assert out == ["[0, 0]", "[0, 0, 0]"]


@pytest.mark.gpu
def test_launch_and_numbas_own_dispatcher_give_the_same_bits(gpu):
    from minidl.kernels.cuda import launching, naive, optimizers, pooling, tiled
    from minidl.numba_cuda import cuda

    xp, rng = minidl.backend.backend_for(gpu).xp, np.random.default_rng(0)

    def there(*shape, dtype=np.float32):
        return xp.asarray(rng.normal(size=shape).astype(dtype))

    taps = xp.asarray(np.array([[c, u, v] for c in range(3) for u in range(3) for v in range(3)], np.int32))
    convolution = there(2, 3, 9, 8), there(20, 27), there(20), taps, 1, (1, 1), (1, 1)
    nine = map(np.float64, (0.1, 0.2, 0.9, 0.01, 1.5, 1e-8, 0.1, 0.99, -1.0))
    for kernel, blocks, arguments in (
            (naive.conv2d, 12, (*convolution, there(2, 20, 9, 8))),
            (tiled.kernels(np.dtype("f4"), 32, 128).conv2d, (2, 1, 1), (*convolution, there(2, 20, 9, 8))),
            (tiled.kernels(np.dtype("f4"), 32, 128).weight_grad, (1, 1, 4), (there(2, 3, 9, 8), there(2, 20, 9, 8), taps, 1, (1, 1), (1, 1), 2,
                                                                             there(4, 20, 27))),
            (pooling.max_pool2d, 1, (there(6, 9, 8), (2, 3), (2, 1, 0, 1, 1, 1), there(6, 4, 8), xp.zeros((6, 4, 8), np.int64))),
            (optimizers.adam, 2, (*(abs(there(300, dtype=np.float64)) for _ in range(4)), *nine))):
        copies = [a.copy() if isinstance(a, xp.ndarray) else a for a in arguments]
        launching.launch(kernel, blocks, 256, *arguments)
        kernel[blocks, 256](*(cuda.as_cuda_array(a) if isinstance(a, xp.ndarray) else a for a in copies))
        cuda.synchronize()
        assert [a.get().tobytes() for a in arguments if isinstance(a, xp.ndarray)] == [
            a.get().tobytes() for a in copies if isinstance(a, xp.ndarray)], kernel.__name__


@pytest.mark.gpu
def test_a_kernel_is_started_in_a_new_thread_and_in_another_stream(gpu):
    xp, x = minidl.backend.backend_for(gpu).xp, minidl.randn(64, 8, 20, 20)
    on_card, found = x.to(gpu), []
    expected = minidl.nn.functional.max_pool2d(x, 2).numpy()

    def compute():
        found.append(minidl.nn.functional.max_pool2d(on_card, 2))

    compute()                                           # compiles
    minidl.cuda.synchronize()
    thread = threading.Thread(target=compute)           # the kernel is the first thing that it asks of the card
    thread.start()
    thread.join()
    with xp.cuda.Stream(non_blocking=True) as stream:
        compute()
        stream.synchronize()
    for y in found:
        np.testing.assert_array_equal(y.cpu().numpy(), expected)
    assert len(found) == 3


@on_stand_in
def test_memory_that_is_not_there():
    out = run("""
stand_in_cupy.install(memory=1000)
x, w = minidl.zeros(3, 1, 7, 7).to("cuda"), minidl.zeros(4, 1, 2, 2).to("cuda")
for wrong in (lambda: minidl.zeros(1000).to("cuda"), lambda: nn.functional.conv2d(x, w)):
    try: wrong()
    except minidl.errors.OutOfMemoryError as error: print(isinstance(error, MemoryError), error)
""").splitlines()
    assert out == [f"True {where}: got a need for {asked} bytes, and 1,005 of 2,000,000,000 bytes on the GPU are free; use a smaller batch size"
                   for where, asked in (("to", "4,000"), ("conv2d", "1,728"))]


@on_stand_in
def test_memory_that_is_not_there_for_an_optimizer_or_a_gradient():
    out = run("""
card = stand_in_cupy.install()
p = minidl.zeros(100).to("cuda").requires_grad_()
p.grad = minidl.ones(100).to("cuda")
def too_much(*_, **__): raise stand_in_cupy.OutOfMemoryError(400)
card.zeros_like = too_much
try: optim.Adam([p]).step()
except minidl.errors.OutOfMemoryError as error: print(error)
class Greedy(minidl.autograd.Op):
    def forward(self, x): return x
    def backward(self, g): too_much()
try: Greedy()(p).sum().backward()
except minidl.errors.OutOfMemoryError as error: print(str(error).partition(": ")[2])
""").splitlines()
    sentence = "got a need for 400 bytes, and 1,000,000,005 of 2,000,000,000 bytes on the GPU are free; use a smaller batch size"
    assert out == [f"Adam: {sentence}", sentence]


def test_memory_that_the_computer_does_not_have():
    with pytest.raises(minidl.errors.OutOfMemoryError, match=r"^add: got a need for [\d,]+ bytes, more than the system gives; use a smaller"):
        minidl.tensor([1.0]).expand(2**45) + 1


@on_stand_in
def test_two_steps_of_training_equal_the_cpus():
    out = run("""
from minidl.debug import simulator
from minidl.kernels import threads
from minidl.train import Trainer, LightningModule
from minidl.data import DataLoader, TensorDataset
simulator.install()
stand_in_cupy.install()
class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    def training_step(self, batch, _):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)
    def configure_optimizers(self):
        return optim.Adam(self.parameters(), 0.01)
def trained(accelerator):
    minidl.manual_seed(0)
    data = TensorDataset(minidl.randn(4, 1, 6, 6), minidl.tensor([0, 1, 2, 1]))
    model = Net()
    Trainer(max_epochs=1, accelerator=accelerator, logger=False, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False).fit(model, DataLoader(data, 2, shuffle=True))
    return model
a, b = trained("cpu"), trained("gpu")
print(a.device, b.device, sorted(name for name in threads.ran if name.startswith("cuda.")))
print(max((p.cpu() - q.cpu()).abs().max().item() for p, q in zip(a.parameters(), b.parameters())) < 1e-5)
""").splitlines()
    assert out == ["cpu cuda:0 ['cuda.adam', 'cuda.conv2d', 'cuda.conv2d_weight_grad', 'cuda.max_pool2d', 'cuda.max_pool2d_input_grad']", "True"]
