"""`python -m minidl doctor`: it believes only what has answered rightly, and says what to do about the rest."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minidl
from minidl import cuda, cupy_backend, doctor, fake
from minidl.__main__ import main
from minidl.datasets import MNIST, FashionMNIST
from minidl.kernels import compiling, im2col, pooling
from tests.test_lab import write_cifar, write_csv, write_mnist

ROOT = Path(minidl.__file__).parent.parent
RIGHT = pooling.max_pool2d


def ask(*arguments, code=None, **environment):
    """The doctor in another process."""
    command = [sys.executable, *(("-c", code) if code else ("-m", "minidl", "doctor")), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def report(capsys):
    """The exit code, and what is said under each name; what is said twice stands on two lines."""
    code = main(["doctor"])
    said, name = {}, ""
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("  "):
            name = line[2:24].strip() or name
            said[name] = f"{said.get(name, '')}\n{line[24:].strip()}".strip()
        else:
            said[line] = ""
    return code, {name: text.replace("\n", " ") for name, text in said.items()}


def last(said):
    return list(said)[-1]


# -- as it is here -----------------------------------------------------------------------------------------------------

def test_it_fits_on_a_page_and_names_what_is_installed():
    result = ask()
    assert result.returncode == 0, result.stdout
    assert not result.stderr or "compiling kernels" in result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) <= 45
    assert lines[-1] == "All that is installed works."
    assert [line for line in lines if not line.startswith(" ")] == [
        "Machine", "Installed", "Does it work?", "Threads", "Folders", "Environment", lines[-1]]
    for package in ("numpy", "numba", "scipy", "matplotlib", "scikit-learn", "rich", "safetensors"):
        assert re.search(rf"^  {package} +{re.escape(metadata.version(package))}$", result.stdout, re.MULTILINE)
    assert f"{minidl.__version__}, in {ROOT / 'minidl'}" in result.stdout
    assert re.search(r"^  CPU +right answers: max pooling \(Numba\), a product of matrices \(BLAS\)", result.stdout, re.MULTILINE)
    assert all(len(line) <= doctor.WIDTH or "/" in line for line in lines)
    assert all(re.match(r"  (\S.{20} | {22})\S", line) for line in lines if line.startswith(" ")), "a column is not aligned"


def test_it_says_why_no_gpu_is_used(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_cards", list)
    monkeypatch.setattr(doctor, "why_no_cuda", lambda: "there is no NVIDIA driver; install one")
    code, said = report(capsys)
    assert (code, said["GPU"]) == (0, "not used: there is no NVIDIA driver; install one")
    assert last(said) == "All that is installed works."


def test_it_is_among_the_commands(capsys):
    assert main([]) == 0
    assert re.search(r"doctor +Say what is installed and whether it works", capsys.readouterr().out)


def test_heavy_packages_are_not_imported_for_their_versions():
    code = ("import sys\nfrom minidl.doctor import examine\nexamine(lambda line: None)\n"
            "print({'torch', 'matplotlib', 'sklearn', 'tensorboard', 'rich', 'safetensors', 'PIL'} & set(sys.modules))")
    assert ask(code=code).stdout.strip() == "set()"


# -- what does not work ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("change", "problem"), [
    (lambda y, places: (y + np.float32(1e-3), places), "a wrong answer, off by 1.0e-03"),
    (lambda y, places: (y, places + 1), "a wrong answer, off by 1.0e+00"),
    (lambda y, places: (np.where(y > 1, np.float32(np.nan), y), places), "a wrong answer, off by inf"),
    (lambda y, places: (y[:, :, 1:], places[:, :, 1:]), "a wrong answer, off by inf"),
    (lambda y, places: 1 / 0, "ZeroDivisionError: division by zero")])
def test_a_kernel_that_answers_wrongly_is_named(monkeypatch, capsys, change, problem):
    monkeypatch.setattr(pooling, "max_pool2d", lambda x, geometry: change(*RIGHT(x, geometry)))
    code, said = report(capsys)
    assert code == 1
    assert said["CPU"].startswith(f"DOES NOT WORK: max pooling (Numba): {problem} ")
    assert "right answers: a product of matrices (BLAS);" in said["CPU"]
    assert last(said) == "Does not work: max pooling (Numba) on the CPU"


def test_a_wrong_product_of_matrices_is_named(monkeypatch, capsys):
    monkeypatch.setattr(doctor.dense, "matmul", lambda a, b: (a @ b) * np.float32(1.0001))
    code, said = report(capsys)
    assert code == 1
    assert said["CPU"].startswith("DOES NOT WORK: a product of matrices (BLAS): a wrong answer, off by 1.0e-04")


def test_without_numba_it_says_so_and_goes_on():
    hide = ("import sys\nclass Hide:\n    def find_spec(self, name, path=None, target=None):\n"
            "        if name.partition('.')[0] in ('numba', 'llvmlite', 'threadpoolctl'):\n"
            "            raise ModuleNotFoundError(f'No module named {name!r}')\n"
            "sys.meta_path.insert(0, Hide())\nfrom minidl.__main__ import main\nsys.exit(main(['doctor']))")
    result = ask(code=hide)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert "DOES NOT WORK: max pooling (Numba): ModuleNotFoundError: No module named 'llvmlite'" in result.stdout
    assert "unknown without Numba" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("Does not work: max pooling (Numba) on the CPU")


def test_what_is_needed_and_missing_comes_with_the_command(monkeypatch, capsys):
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("scipy", "torch") else version(name))
    code, said = report(capsys)
    assert code == 1
    assert said["scipy"] == "not installed, and needed; pip install 'scipy>=1.14'"
    assert said["torch"] == "not installed (what labs.speed and the tests compare with; pip install 'minidl[compare]')"
    assert last(said) == "Does not work: scipy, which is needed and not installed"


def test_a_checkout_that_was_never_installed_still_names_the_package(monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert doctor._requirement("scipy") == "scipy"


# -- a GPU -------------------------------------------------------------------------------------------------------------

@pytest.fixture
def gpu(monkeypatch):
    """As if there were one: the fake device, with kernels that can run there."""
    pytest.importorskip("minidl.numba_cuda")
    kernels = importlib.import_module("minidl.kernels.cuda")

    class Module:
        cuda = SimpleNamespace(runtime=SimpleNamespace(driverGetVersion=lambda: 13020))

        def __getattr__(self, name):
            return getattr(fake.backend.xp, name)

    backend = dataclasses.replace(fake.backend, xp=Module(), free_memory=lambda: (60 * 2**30, 80 * 2**30))
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.setattr(doctor, "why_no_cuda", lambda: None)
    monkeypatch.setattr(doctor, "backend_for", lambda place: {"cuda": backend}[place])
    monkeypatch.setattr(doctor, "_cards", lambda: [("NVIDIA H100", "590.44.01")])
    monkeypatch.setattr(cuda, "get_device_properties", lambda: cuda.DeviceProperties("NVIDIA H100", 9, 0, 80 * 2**30, 132))
    monkeypatch.setattr(kernels, "max_pool2d", im2col.max_pool2d)
    return kernels


def test_a_gpu_that_works(gpu, capsys):
    code, said = report(capsys)
    assert code == 0
    assert said["GPU"].startswith("NVIDIA H100 (sm_90), 60.0 of 80.0 GiB free, driver 590.44.01, which knows CUDA 13.2 ")
    assert "right answers: sums of products (CuPy), a product of matrices (cuBLAS), max pooling (numba-cuda);" in said["GPU"]


@pytest.mark.parametrize("break_it", ["pooling", "pooling raises", "products"])
def test_a_gpu_that_answers_wrongly(gpu, monkeypatch, capsys, break_it):
    if break_it == "products":
        monkeypatch.setattr(fake.FakeArray, "__matmul__", lambda a, b: fake.FakeArray(a.inner @ b.inner * np.float32(1.001)))
        name, problem = "a product of matrices (cuBLAS)", "a wrong answer, off by 1.0e-03"
    elif break_it == "pooling":
        monkeypatch.setattr(gpu, "max_pool2d", lambda x, geometry: [part * 0 for part in im2col.max_pool2d(x, geometry)])
        name, problem = "max pooling (numba-cuda)", "a wrong answer"
    else:
        def no_compiler(x, geometry):
            raise OSError("libnvvm.so: cannot open shared object file\nsee the manual")

        monkeypatch.setattr(gpu, "max_pool2d", no_compiler)
        name, problem = "max pooling (numba-cuda)", "OSError: libnvvm.so: cannot open shared object file"
    code, said = report(capsys)
    assert code == 1
    assert f"DOES NOT WORK: {name}: {problem}" in said["GPU"]
    assert "see the manual" not in said["GPU"]
    assert last(said) == f"Does not work: {name} on the GPU"


def test_a_gpu_whose_name_cannot_be_asked(gpu, monkeypatch, capsys):
    monkeypatch.setattr(cuda, "get_device_properties", lambda: 1 / 0)
    code, said = report(capsys)
    assert code == 0
    assert said["GPU"].startswith("ZeroDivisionError: division by zero right answers: ")


def test_two_cupys_are_a_fault(monkeypatch, capsys):
    both = ["cupy-cuda12x", "cupy-cuda13x"]
    monkeypatch.setattr(cupy_backend, "wheels", lambda: both)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(doctor, "_cards", list)
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: "14.2" if name in both else version(name))
    code, said = report(capsys)
    assert code == 1
    assert said["CuPy"] == "14.2 (cupy-cuda12x) and 14.2 (cupy-cuda13x)"
    assert said["GPU"].startswith("DOES NOT WORK: got cupy-cuda12x and cupy-cuda13x, which write to one folder")
    assert "run pip uninstall cupy-cuda12x cupy-cuda13x, then pip install 'minidl[cuda13]'" in said["GPU"]
    assert last(said) == "Does not work: the GPU"


@pytest.mark.parametrize(("told", "advice"), [
    (None, ""), ("NVIDIA H100 80GB HBM3, 580.65.06\nNVIDIA H100 80GB HBM3, 580.65.06\n",
                 "nvidia-smi finds NVIDIA H100 80GB HBM3, driver 580.65.06: pip install 'minidl[cuda13]'"),
    ("Tesla T4, 535.183.01\n", "nvidia-smi finds Tesla T4, driver 535.183.01: pip install 'minidl[cuda12]'"),
    ("Tesla K80, 470.1\n", "nvidia-smi finds Tesla K80, driver 470.1"), ("No devices were found\n", ""),
    ("exit 9", "")])
def test_no_cupy_is_no_fault_and_the_driver_says_which_to_install(monkeypatch, capsys, tmp_path, told, advice):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cupy" else find_spec(name))
    monkeypatch.setattr(cupy_backend, "wheels", list)
    monkeypatch.setenv("PATH", str(tmp_path))
    if told is not None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{told}\n" if told.startswith("exit") else f"#!/bin/sh\nprintf '{told}'\n")
        tool.chmod(0o755)
    code, said = report(capsys)
    assert code == 0
    assert said["CuPy"].startswith("not installed (for a GPU; pip install 'minidl[cuda13]'")
    assert said["GPU"].startswith("not used: CuPy is not installed; pip install 'minidl[cuda13]'")
    assert said["GPU"].endswith(advice or "or newer)")


def cupy_that(driver=13000, count=1, error=None):
    """What `cupy_backend.problem` looks at of CuPy, made for CUDA 13."""
    class CUDARuntimeError(Exception):
        pass

    def get_device_count():
        if error:
            raise CUDARuntimeError(error)
        return count

    return SimpleNamespace(cuda=SimpleNamespace(runtime=SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError, driverGetVersion=lambda: driver, runtimeGetVersion=lambda: 13000,
        getDeviceCount=get_device_count)))


@pytest.mark.parametrize(("module", "is_fault"), [
    (cupy_that(driver=0), False), (cupy_that(count=0), False), (cupy_that(error="cudaErrorNoDevice: none"), False),
    (cupy_that(driver=12080), True), (cupy_that(error="cudaErrorUnknown"), True), (ImportError("libcudart.so.13"), True),
    (ModuleNotFoundError("No module named 'fastrlock'", name="fastrlock"), True), ("no numba-cuda", False)])
def test_what_is_missing_is_told_from_what_is_broken(monkeypatch, capsys, module, is_fault):
    """The sentences are `cupy_backend.problem`'s own: if one begins in another way, this fails."""
    import_module, version = importlib.import_module, metadata.version

    def load(name, *arguments):
        if name == "cupy_backends.cuda.libs.cublas":
            return types.ModuleType(name)
        if name != "cupy":
            return import_module(name, *arguments)
        if isinstance(module, Exception):
            raise module
        return cupy_that() if module == "no numba-cuda" else module

    def version_of(name):
        if name == "numba-cuda" and module == "no numba-cuda":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    find_spec = importlib.util.find_spec
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "cupy" else find_spec(name))
    monkeypatch.setattr(importlib, "import_module", load)
    monkeypatch.setattr(cupy_backend, "wheels", lambda: ["cupy-cuda13x"])
    monkeypatch.setattr(metadata, "version", lambda name: "14" if name == "cupy-cuda13x" else version_of(name))
    monkeypatch.setattr(doctor, "_cards", list)
    code, said = report(capsys)
    assert said["GPU"].startswith("DOES NOT WORK: " if is_fault else "not used: "), said["GPU"]
    assert code == is_fault, said


@pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed")
def test_with_the_simulator_its_kernels_are_asked():
    result = ask(NUMBA_ENABLE_CUDASIM="1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "not used: NUMBA_ENABLE_CUDASIM=1 has Numba simulate one" in result.stdout
    assert re.search(r"^  simulated GPU +right answers: max pooling \(numba-cuda\);", result.stdout, re.MULTILINE)
    assert re.search(r"^  NUMBA_ENABLE_CUDASIM +1: ", result.stdout, re.MULTILINE)


# -- threads, folders, the environment ---------------------------------------------------------------------------------

def test_no_kernel_uses_numbas_own_threads():
    """What the doctor says about them is true."""
    for path in (ROOT / "minidl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.keyword) and node.arg == "parallel"), path
            assert not (isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node).endswith("prange")), path


def test_threads_are_those_that_are_used(capsys, monkeypatch):
    before = minidl.get_num_threads()
    minidl.set_num_threads(7)
    monkeypatch.setattr(doctor, "_layer_of_numba", lambda: "workqueue")
    _, said = report(capsys)
    minidl.set_num_threads(before)
    assert said["kernels"].startswith("7, in minidl's own pool; ")
    assert said["Numba's layer"] == ("workqueue; no kernel of minidl uses it, only functions of your own with parallel=True, "
                                     "where two that run at the same time end the process")
    assert re.match(r"\S+ [\d.]+ \(\d+\).*; one thread each inside of minidl's products", said["matrix libraries"])


@pytest.mark.parametrize(("variable", "layer"), [("workqueue", "workqueue"), ("nonsense", r"none \(ValueError: .*\)")])
def test_the_layer_is_numbas_own_answer(variable, layer):
    result = ask(NUMBA_THREADING_LAYER=variable)
    assert result.returncode == 0
    assert re.search(rf"^  Numba's layer +{layer}; no kernel", result.stdout, re.MULTILINE), result.stdout


def test_the_folder_of_kernels(tmp_path):
    result = ask(NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    (folder,) = (tmp_path / "cache" / "minidl" / "kernels").iterdir()
    size = sum(file.stat().st_size for file in folder.rglob("*"))
    found = re.search(rf"{folder},\s+can\s+be\s+written;\s+([\d.]+)\s+MB", result.stdout)
    assert float(found[1]) == pytest.approx(size / 1e6, abs=0.3)
    assert "compiling kernels" in result.stderr


def test_no_folder_for_kernels(monkeypatch, capsys):
    monkeypatch.setattr(compiling, "folder", lambda: None)
    lines = []
    assert doctor.examine(lines.append) == []
    assert any("none that can be written, so every process compiles; name one in NUMBA_CACHE_DIR" in line for line in lines)


def test_the_datasets_that_are_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path / "data"))
    _, said = report(capsys)
    assert said["datasets"] == f"{tmp_path / 'data'}, which is not there"
    write_mnist(tmp_path / "data" / "mnist", MNIST, monkeypatch)
    write_csv(tmp_path / "data", 3)
    _, said = report(capsys)
    assert said["datasets"].startswith(f"{tmp_path / 'data'}, can be written; found: ")
    assert said["datasets"].endswith("found: digits (with scikit-learn), mnist, mnist-csv")
    write_mnist(tmp_path / "data" / "fashion-mnist", FashionMNIST, monkeypatch, count=30)
    write_cifar(tmp_path / "data" / "cifar-10-batches-bin")
    assert list(doctor._datasets(tmp_path / "data"))[1:] == ["mnist", "fashion-mnist", "mnist-csv", "cifar10"]
    for path in (tmp_path / "data" / "mnist").iterdir():
        path.rename(tmp_path / "data" / path.name)                          # where files of either may lie
    (tmp_path / "data" / "fashion-mnist" / "t10k-images-idx3-ubyte.gz").unlink()
    assert list(doctor._datasets(tmp_path / "data"))[1:] == ["mnist", "mnist-csv", "cifar10"]
    (tmp_path / "data" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8bdamaged")
    assert list(doctor._datasets(tmp_path / "data"))[1:] == ["mnist-csv", "cifar10"]


def test_the_environment(monkeypatch, capsys):
    for name in doctor.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    _, said = report(capsys)
    assert said["not set"].split(", ") == list(doctor.VARIABLES)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    _, said = report(capsys)
    assert said["CUDA_VISIBLE_DEVICES"] == "empty: which GPUs are seen"
    assert said["OMP_NUM_THREADS"] == "3: how many threads kernels use"
    assert not {"OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"} & set(said["not set"].split(", "))
