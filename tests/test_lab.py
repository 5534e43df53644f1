"""What the labs share: settings, data, errors as sentences, and results that are whole or not there."""

from __future__ import annotations

import base64
import errno
import gzip
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType, SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

import minidl
from labs._lab import Lab
from minidl import cupy_backend, fake, transforms
from minidl.datasets import CIFAR10, MNIST, MNISTCSV, Digits, FashionMNIST
from minidl.errors import DeviceError, DtypeError, MinidlError, SettingError
from tests.figures import check_figure, run_here

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    """A lab that does not come to its end keeps the handling of errors."""
    monkeypatch.delenv("MINIDL_DATA", raising=False)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    yield
    plt.close("all")


@pytest.fixture
def make(tmp_path):
    """A lab that writes into tmp_path/out."""
    def lab(*argv, datasets=("digits",), **settings):
        return Lab("trial", "A trial.\n\nMore about it.", datasets=datasets,
                   argv=[f"--out={tmp_path / 'out'}", *map(str, argv)], **settings)

    return lab


def curve(values=(1, 2, 3)):
    figure, axes = plt.subplots()
    axes.plot(values)
    return figure


def environment(**variables):
    """That of this process, with minidl to be found, and with output that Python collects before it writes it."""
    return {**{name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}, "PYTHONPATH": str(ROOT), **variables}


def run_script(folder, code, *arguments, **options):
    """A lab in a file of its own, run by another Python; `lab` is there, with a few images of a small file."""
    script = folder / "trial.py"
    write_csv(folder, 12)
    script.write_text(f"""'A trial.'\nfrom labs._lab import Lab
lab = Lab("trial", __doc__, datasets=["mnist-csv"], per_dataset={{"mnist-csv": {{"data_dir": "{folder}"}}}}, epochs=1)
{code}""")
    return subprocess.run([sys.executable, script, f"--out={folder / 'out'}", *arguments], text=True, check=False,
                          **{"capture_output": True, "cwd": folder, **options},
                          env=environment())


def one_sentence(result):
    """The sentence on stderr of a run that ended as one that the user can mend."""
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr.strip()


# -- settings ----------------------------------------------------------------------------------------------------------

PRESETS = {"quick": {"train_size": 200, "epochs": 10, "rate": 0.5}, "full": {"train_size": 60_000, "epochs": 8}}
SOME = {"presets": PRESETS, "per_dataset": {"mnist-csv": {"epochs": 30}}, "batch_size": 64, "epochs": 1,
        "datasets": ("digits", "mnist-csv"), "extra_arguments": lambda parser: parser.add_argument("--rate", type=float, default=0.1)}


@pytest.mark.parametrize(("argv", "expected"), [
    ([], (10, 200, 64, 0.5)), (["--preset=full"], (8, 1347, 64, 0.1)), (["--epochs=3"], (3, 200, 64, 0.5)),
    (["--preset=full", "--train-size=300", "--batch-size=7", "--rate=2"], (8, 300, 7, 2.0)),
    (["--epochs=10", "--preset=full"], (10, 1347, 64, 0.1)), (["--dataset=mnist-csv"], (30, 5, 64, 0.5)),
    (["--dataset=mnist-csv", "--preset=full", "--epochs=2"], (2, 5, 64, 0.1)),
])
def test_the_command_line_beats_the_dataset_beats_the_preset_beats_the_default(make, tmp_path, argv, expected):
    write_csv(tmp_path / "data", 5)
    args = make(f"--data-dir={tmp_path / 'data'}", *argv, **SOME).args
    assert (args.epochs, args.train_size, args.batch_size, args.rate) == expected


def test_what_is_not_given(make, tmp_path, monkeypatch):
    lab = make()
    assert (lab.args.dataset, lab.args.preset, lab.args.seed, lab.args.epochs, lab.args.train_size) == ("digits", "quick", 0, None, 1347)
    assert (lab.device, lab.args.data_dir, lab.args.download, lab.args.debug) == ("cpu", Path("data"), False, False)
    assert (lab.out, lab.args.out) == (tmp_path / "out", tmp_path / "out")
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path))
    assert make().args.data_dir == tmp_path
    assert make("--data-dir=elsewhere").args.data_dir == Path("elsewhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["trial.py", "--epochs", "7"])
    lab = Lab("trial", "A trial.")
    assert (lab.out, lab.args.epochs) == (Path("runs/trial"), 7)
    assert (tmp_path / "runs/trial").is_dir()


@pytest.mark.parametrize(("argv", "sentence"), [
    (["--epochs=0"], "got '0', expected a whole number above 0"),
    (["--train-size=-5"], "got '-5', expected a whole number above 0"),
    (["--batch-size=1e3"], "got '1e3', expected a whole number above 0"),
    (["--seed=-1"], "got '-1', expected a whole number from 0 to 4,294,967,295"),
    (["--seed=4294967296"], "got '4294967296', expected a whole number from 0"),
    (["--dataset=mnst"], "got 'mnst', expected digits, mnist or fashion-mnist; the nearest is 'mnist'"),
    (["--dataset=cifar10"], "got 'cifar10', expected digits, mnist or fashion-mnist"),
    (["--preset=quik"], "got 'quik', expected quick or full; the nearest is 'quick'"),
    (["--device=gpu"], "got 'gpu', expected cpu, cuda, cuda:0 or auto"),
    (["--epoks=3"], "unrecognized arguments: --epoks=3; --help shows all"),
])
def test_a_bad_argument_is_one_sentence(make, tmp_path, capsys, argv, sentence):
    with pytest.raises(SystemExit) as end:
        make(*argv, datasets=("digits", "mnist", "fashion-mnist"))
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert sentence in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [9, 1348])
def test_a_train_size_that_the_dataset_does_not_have(make, tmp_path, size):
    with pytest.raises(SettingError, match=f"--train-size: got {size:,}, expected 10 .* to 1,347"):
        make(f"--train-size={size}")
    assert list(tmp_path.iterdir()) == []
    assert make("--train-size=10").args.train_size == 10


def test_an_unknown_setting_in_a_preset_is_noticed(make):
    with pytest.raises(SettingError, match=r"got the setting 'epoch', expected one of dataset, .*epochs"):
        make(presets={"quick": {}, "full": {"epoch": 3}})


def test_help_shows_the_values_and_loads_nothing_heavy(tmp_path):
    result = run_script(tmp_path, "", "--help")
    assert result.returncode == 0
    assert "passes over the training set (1)" in result.stdout
    code = ("import sys\nfrom labs._lab import Lab\ntry:\n    Lab('trial', 'A trial.', argv=['--help'])\nexcept SystemExit:\n"
            "    print({'matplotlib', 'sklearn', 'scipy', 'rich', 'PIL', 'threadpoolctl'} & set(sys.modules))")
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "set()"


@pytest.fixture
def no_gpu(monkeypatch):
    """As on a computer without one, whatever this one has."""
    reason = "there is no NVIDIA driver; install one"

    def not_there():
        raise DeviceError(f'got device "cuda", but {reason}', where="cuda")

    monkeypatch.setattr(cupy_backend, "problem", lambda: reason)
    monkeypatch.setattr(cupy_backend, "cupy_or_error", not_there)
    monkeypatch.setattr(minidl.cuda, "is_available", lambda: False)


@pytest.fixture
def a_gpu(monkeypatch):
    """As if there were one: tensors that go to it go to the fake device."""
    monkeypatch.setattr(cupy_backend, "problem", lambda: None)
    monkeypatch.setattr(cupy_backend, "backend_on", lambda index: fake.backend)
    monkeypatch.setattr(minidl.cuda, "is_available", lambda: True)
    monkeypatch.setattr(minidl.cuda, "get_device_name", lambda: "NVIDIA H100")


def test_a_device_that_is_not_there_is_an_error_and_auto_says_what_it_chose(make, no_gpu, tmp_path, monkeypatch, capsys):
    with pytest.raises(DeviceError, match='cuda: got device "cuda", but there is no NVIDIA driver; install one'):
        make("--device=cuda")
    monkeypatch.setattr(minidl.cuda, "is_available", lambda: True)          # it lies, and is not believed
    for device in ("cuda", "auto"):
        with pytest.raises(DeviceError, match="cuda"):
            make(f"--device={device}")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(minidl.cuda, "is_available", lambda: False)
    assert make("--device=auto").device == "cpu"
    assert "seed 0, device cpu (chosen by auto: there is no NVIDIA driver)\n" in capsys.readouterr().out
    assert make("--device=fake").device == "fake"
    assert "seed 0, device fake\n" in capsys.readouterr().out


def test_auto_is_the_gpu_where_there_is_one(make, a_gpu, capsys):
    lab = make("--device=auto", epochs=3, seconds=lambda args: 20)
    assert "device cuda (chosen by auto: NVIDIA H100): about 20 s on a CPU\n" in capsys.readouterr().out
    lab.finish()
    assert strict((lab.out / "metrics.json").read_text())["device"] == "cuda"
    assert strict((lab.out / "manifest.json").read_text())["gpu"] == "NVIDIA H100"
    assert "NVIDIA H100" in (lab.out / "report.html").read_text()
    make("--device=cuda")
    assert "seed 0, device cuda\n" in capsys.readouterr().out


@pytest.mark.skipif(minidl.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["digits", "cnn"])
def test_a_lab_that_is_to_use_a_gpu_never_takes_the_cpu_instead(tmp_path, name):
    result = subprocess.run([sys.executable, "-m", f"labs.{name}", "--device=cuda", f"--out={tmp_path / 'out'}"], cwd=ROOT,
                            capture_output=True, text=True, check=False)
    assert one_sentence(result) == f'error: cuda: got device "cuda", but {minidl.backend.why_no_cuda()}'
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["speed", "convolution"])
@pytest.mark.parametrize("gpu", ["no_gpu", "a_gpu"])
def test_a_lab_about_the_cpu_refuses_other_devices_and_auto_is_the_cpu(request, monkeypatch, tmp_path, capsys, name, gpu):
    request.getfixturevalue(gpu)
    for device in ("cuda", "cuda:1", "fake"):
        with pytest.raises(SettingError, match=f"--device: got {device}, expected cpu: this lab times .*CPU"):
            run_here(monkeypatch, name, f"--device={device}", f"--out={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()
    made = Lab("trial", "A trial.", datasets=(), argv=["--device=auto", f"--out={tmp_path / 'out'}"], only_on_cpu="it times the CPU")
    assert made.device == "cpu"
    assert "device cpu (chosen by auto: it times the CPU)\n" in capsys.readouterr().out


def test_it_says_what_it_will_do(make, tmp_path, capsys):
    make("--seed=3", "--train-size=100", epochs=4, batch_size=8, seconds=lambda args: args.epochs * 10)
    assert capsys.readouterr().out == (
        "A trial.\ndigits (real handwritten digits, which come with scikit-learn): 100 of 1,347 training and 450 test images\n"
        f"epochs 4, batch size 8, seed 3, device cpu: about 40 s\nresults go to {tmp_path / 'out'}\n")
    make(epochs=4, seconds=lambda args: args.epochs * 100)
    assert "about 7 minutes" in capsys.readouterr().out
    presets = {"quick": {"epochs": 4}, "full": {"epochs": 9}}
    make("--preset=full", presets=presets)
    assert "preset full, epochs 9, seed 0" in capsys.readouterr().out
    make("--preset=full", presets=presets, per_dataset={"digits": {"epochs": 5}})
    assert "\nepochs 5, seed 0" in capsys.readouterr().out, "a preset that changes nothing is not named"


def test_the_seed_is_that_of_minidl(make):
    make("--seed=5")
    drawn = minidl.randn(3).tolist()
    make("--seed=5")
    assert minidl.randn(3).tolist() == drawn
    make("--seed=6")
    assert minidl.randn(3).tolist() != drawn


def test_the_manifest_says_how_many_threads_kernels_use(make):
    before = minidl.get_num_threads()
    minidl.set_num_threads(3)
    lab = make()
    lab.finish()
    minidl.set_num_threads(before)
    assert json.loads((lab.out / "manifest.json").read_text())["threads"] == 3


# -- data --------------------------------------------------------------------------------------------------------------

def write_csv(folder, count):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for name in ("mnist_train_small.csv", "mnist_test.csv"):
        rows = np.concatenate([rng.integers(0, 10, (count, 1)), rng.integers(0, 256, (count, 784))], axis=1)
        np.savetxt(folder / name, rows, "%d", delimiter=",")


def write_mnist(folder, kind, monkeypatch, count=20):
    """Four small files of random bytes as MNIST or Fashion-MNIST, which the class is told to expect."""
    folder.mkdir(parents=True)
    rng, sums = np.random.default_rng(0), {}
    for name in kind.sha256:
        n = count if name.startswith("train") else 7
        array = rng.integers(0, 256, (n, 28, 28), np.uint8) if "images" in name else rng.integers(0, 10, n, np.uint8)
        content = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        sums[name] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(kind, "sha256", sums)


def write_cifar(folder):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("data_batch_1.bin", "test_batch.bin"):
        (folder / name).write_bytes(b"".join(bytes([i % 10]) + rng.bytes(3072) for i in range(15)))


@pytest.mark.parametrize(("name", "kind", "classes"), [
    ("digits", Digits, ["0", "1", "2"]), ("mnist", MNIST, ["0", "1", "2"]), ("mnist-csv", MNISTCSV, ["0", "1", "2"]),
    ("fashion-mnist", FashionMNIST, ["T-shirt/top", "Trouser", "Pullover"]), ("cifar10", CIFAR10, ["airplane", "automobile", "bird"])])
def test_images_are_those_of_the_dataset(make, tmp_path, monkeypatch, name, kind, classes):
    root = tmp_path / "data"
    write_csv(root, 12)
    write_mnist(root / "mnist", MNIST, monkeypatch)
    write_mnist(root / "fashion-mnist", FashionMNIST, monkeypatch)
    write_cifar(root / "cifar-10-batches-bin")
    lab = make(f"--dataset={name}", f"--data-dir={root}", "--train-size=11", datasets=("digits", "mnist", "fashion-mnist", "mnist-csv", "cifar10"))
    assert lab.classes[:3] == classes
    for train in (True, False):
        images, labels = lab.images(train=train)
        data = kind(root, train=train, transform=transforms.ToTensor())
        assert len(images) == len(labels) == (11 if train else len(data))
        assert (images.dtype, labels.dtype) == (minidl.float32, minidl.int64)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            np.testing.assert_array_equal(image.numpy(), data[i][0].numpy())
            assert label == data[i][1]
    lab.finish()
    manifest = json.loads((lab.out / "manifest.json").read_text())
    assert manifest["images"] == {f"{name} train": len(kind(root)), f"{name} test": len(kind(root, train=False))}
    files = {str(path): path.stat().st_size for path in (root / name).glob("*.gz")}
    assert manifest["data_files"] == files
    assert len(files) == (4 if "mnist" in name and "csv" not in name else 0)


def test_images_of_a_second_dataset(make, tmp_path):
    write_csv(tmp_path / "data", 12)
    lab = make(f"--data-dir={tmp_path / 'data'}", "--train-size=10")
    assert lab.images(train=True)[0].shape == (10, 1, 8, 8)
    assert lab.images(train=True, dataset="mnist-csv")[0].shape == (10, 1, 28, 28)
    assert lab.images(train=False, dataset="mnist-csv")[0].shape == (12, 1, 28, 28)


@pytest.mark.parametrize(("name", "fixes"), [
    ("mnist", ["--download", "--data-dir", "MINIDL_DATA"]), ("fashion-mnist", ["--download", "--data-dir", "MINIDL_DATA"]),
    ("mnist-csv", ["--data-dir", "MINIDL_DATA"]), ("cifar10", ["--download", "--data-dir", "MINIDL_DATA"])])
def test_a_missing_dataset_is_a_sentence_and_nothing_is_downloaded(make, tmp_path, monkeypatch, name, fixes):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("it went to the network"))
    with pytest.raises(MinidlError) as error:
        make(f"--dataset={name}", f"--data-dir={tmp_path}", datasets=(name, "digits"))
    assert str(tmp_path) in str(error.value)
    assert all(fix in str(error.value) for fix in fixes)
    assert not any(word in str(error.value) for word in ("download=True", "root,", "root or"))
    assert list(tmp_path.iterdir()) == []


def test_download_fetches_what_is_missing(make, tmp_path, monkeypatch):
    write_mnist(tmp_path / "mirror", MNIST, monkeypatch)
    monkeypatch.setattr(MNIST, "mirrors", [f"file://{tmp_path / 'mirror'}/"])
    with pytest.raises(MinidlError, match="--download"):
        make("--dataset=mnist", f"--data-dir={tmp_path / 'data'}", datasets=("mnist",))
    lab = make("--dataset=mnist", f"--data-dir={tmp_path / 'data'}", "--download", datasets=("mnist",))
    assert lab.images(train=True)[0].shape == (20, 1, 28, 28)
    write_csv(tmp_path / "data", 3)
    assert len(make("--download", f"--data-dir={tmp_path / 'data'}", datasets=("mnist-csv",)).images()[0]) == 3
    assert make("--download").args.dataset == "digits"


def test_a_damaged_dataset_is_a_sentence_in_the_words_of_the_command_line(make, tmp_path, monkeypatch):
    write_mnist(tmp_path / "mnist", MNIST, monkeypatch)
    monkeypatch.setattr(MNIST, "sha256", dict.fromkeys(MNIST.sha256, "0" * 64))
    with pytest.raises(MinidlError, match="another --data-dir"):
        make(f"--data-dir={tmp_path}", datasets=("mnist",))


# -- errors ------------------------------------------------------------------------------------------------------------

def test_errors_that_the_user_can_mend_are_sentences_and_bugs_are_tracebacks(tmp_path):
    mendable = "import minidl\nminidl.nn.Linear(3, 4)(minidl.ones(2, 5))"
    result = run_script(tmp_path, mendable)
    assert one_sentence(result).startswith("error: Linear")
    result = run_script(tmp_path, mendable, "--debug")
    assert result.returncode == 2
    assert "Traceback" in result.stderr
    assert "trial.py" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: Linear")
    result = run_script(tmp_path, "1 / 0")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert "Traceback" in result.stderr


@pytest.mark.parametrize(("error", "code", "sentence"), [
    (FileNotFoundError(2, "No such file", "/no/such"), 2, "error: /no/such: No such file\n"),
    (OSError("a reason\nin two lines"), 2, "error: a reason in two lines\n"),
    (MemoryError("7 PiB"), 2, "error: not enough memory (7 PiB); choose a smaller --train-size or --batch-size\n"),
    (SettingError("got lr=-1, expected more", where="SGD"), 2, "error: SGD: got lr=-1, expected more\n"),
    (KeyboardInterrupt(), 130, "stopped\n"), (KeyError("a bug"), None, "")])
def test_what_the_hook_makes_of_an_error(make, capsys, monkeypatch, error, code, sentence):
    """In this process, which is faster; the tests around it show that Python does call the hook."""
    before = []
    monkeypatch.setattr(sys, "excepthook", lambda *arguments: before.append(arguments))
    make()
    if code is None:
        sys.excepthook(type(error), error, None)
        assert before == [(type(error), error, None)]
    else:
        with pytest.raises(SystemExit) as end:
            sys.excepthook(type(error), error, None)
        assert (end.value.code, before) == (code, [])
    assert capsys.readouterr().err == sentence


def test_ctrl_c_stops_quietly(tmp_path):
    script = tmp_path / "trial.py"
    script.write_text("import time\nfrom labs._lab import Lab\nlab = Lab('trial', 'A trial.')\ntime.sleep(60)\n")
    with subprocess.Popen([sys.executable, script], cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=environment(),
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as process:    # not ignored, as in a background job
        while not process.stdout.readline().startswith("results go to"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == "stopped\n"


@pytest.mark.parametrize("out", ["file", "file/below", "/proc/minidl", "/dev/null"])
def test_an_unwritable_folder_is_noticed_before_any_work(make, tmp_path, monkeypatch, out):
    (tmp_path / "file").write_text("precious")
    monkeypatch.setattr(Digits, "__init__", lambda *_, **__: pytest.fail("it began to work"))
    with pytest.raises(MinidlError, match=r"--out: got .*, where nothing can be written .*; choose another folder"):
        make(f"--out={tmp_path / out}")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "precious"


def test_an_unwritable_folder_ends_the_program_as_it_should(tmp_path):
    (tmp_path / "out").write_text("precious")
    assert "--out: got" in one_sentence(run_script(tmp_path, "print('worked')"))


def test_checking_the_folder_leaves_nothing_there(make, tmp_path):
    (tmp_path / "out").mkdir()
    make()
    assert list((tmp_path / "out").iterdir()) == []


def limited(size):
    """Files of this process cannot be longer: the same error, in the same place, as a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_full_disk_is_a_sentence_and_leaves_no_half_file(tmp_path):
    result = subprocess.run([sys.executable, "-m", "labs.digits", "--epochs=1", "--train-size=100", f"--out={tmp_path}"], cwd=ROOT,
                            capture_output=True, text=True, check=False, preexec_fn=limited(20_000))
    assert "digits.png, which cannot be written (File too large)" in one_sentence(result)
    assert list(tmp_path.iterdir()) == []
    result = run_script(tmp_path, "lab.finish()", preexec_fn=limited(3_000))
    assert "report.html, which cannot be written (File too large)" in one_sentence(result)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", "metrics.json"]


@pytest.mark.parametrize("name", ["curve.png", "metrics.json", "manifest.json", "report.html"])
def test_a_disk_that_fills_up_keeps_the_old_file(make, monkeypatch, name):
    def run(lab):
        lab.figure(curve(), "curve", "A curve")
        lab.finish()

    lab = make()
    run(lab)
    before = {path.name: path.read_bytes() for path in lab.out.iterdir()}
    write = Path.write_bytes

    def fills_up(path, content):
        if name not in path.name:
            return write(path, content)
        write(path, content[:100])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", fills_up)
    with pytest.raises(MinidlError, match=rf"--out: got .*{name}, which cannot be written \(No space left on device\)"):
        run(make("--seed=1"))
    after = {path.name: path.read_bytes() for path in lab.out.iterdir()}
    assert after.keys() == before.keys()
    assert after[name] == before[name]


def test_output_that_cannot_be_written_is_a_sentence(tmp_path):
    with open("/dev/full", "w") as full:
        result = run_script(tmp_path, "lab.finish()", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert one_sentence(result) == "error: No space left on device"


# -- notebooks ---------------------------------------------------------------------------------------------------------

def shell(**more):
    """IPython's shell, as far as pyplot asks for it."""
    return SimpleNamespace(events=SimpleNamespace(register=lambda *_: None), enable_gui=lambda *_: None, **more)


@pytest.fixture
def notebook(monkeypatch):
    """As if the kernel of a notebook ran this; returns what it displays."""
    shown, kernel = [], ModuleType("IPython")
    kernel.version_info = (9, 0)
    kernel.get_ipython = lambda: shell(kernel=object())
    display = ModuleType("IPython.display")
    display.display = shown.append
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "/tmp/kernel.json"])
    return shown


def test_in_a_notebook(notebook, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(matplotlib, "use", lambda *_: pytest.fail("the notebook has its own way of showing figures"))
    hook = sys.excepthook
    lab = Lab("trial", "Automatically created module for IPython interactive environment", epochs=2)
    assert sys.excepthook is hook
    assert (lab.args.epochs, lab.args.seed, lab.about) == (2, 0, "trial")
    for _ in range(2):                                                          # a cell may run again
        figure = curve()
        lab.figure(figure, "curve", "A curve")
        assert notebook.pop() is figure
        assert not plt.fignum_exists(figure.number)
    assert notebook == []
    lab.finish()
    assert sys.excepthook is hook
    assert json.loads((lab.out / "manifest.json").read_text())["command"] == "a notebook"
    assert (lab.out / "curve.png").exists()
    assert Lab("trial", None, argv=["--epochs=9"]).args.epochs == 9


def test_in_a_shell_without_a_kernel_the_command_line_counts(notebook, monkeypatch, tmp_path):
    sys.modules["IPython"].get_ipython = shell
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["trial.py", "--epochs=5"])
    hook = sys.excepthook
    lab = Lab("trial", "A trial.")
    assert lab.args.epochs == 5
    assert sys.excepthook != hook
    lab.figure(curve(), "curve", "A curve")
    lab.finish()
    assert notebook == []
    assert sys.excepthook is hook


@pytest.mark.parametrize("first", [True, False])
def test_figures_need_no_screen(tmp_path, first):
    """Whether pyplot is imported before the lab is made or after, and whatever the environment says."""
    later = "import matplotlib.pyplot as plt\nlab.figure(plt.figure(), 'empty', 'Nothing')\nprint(plt.get_backend())"
    script = tmp_path / "one.py"
    script.write_text(("import matplotlib.pyplot as plt\n" if first else "")
                      + f"from labs._lab import Lab\nlab = Lab('one', 'One.')\n{later}")
    result = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False,
                            env=environment(MPLBACKEND="svg"))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].lower() == "agg"


# -- results -----------------------------------------------------------------------------------------------------------

def strict(text):
    """JSON as the standard has it, which knows no NaN."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_metrics_are_valid_json(make, capsys):
    lab = make("--seed=3", epochs=2, batch_size=8)
    lab.metrics |= {
        "plain": [1, 2.5, True, None, "text"], "scalar": np.float32(0.5), "whole": np.int64(7), "flag": np.bool_(True),
        "array": np.arange(4).reshape(2, 2), "tensor": minidl.tensor([1.5, 2.5]), "number": minidl.tensor(3.0),
        "grad": minidl.tensor([1.0], requires_grad=True), "deep": {"a": (np.float64(1), {"b": 2})},
        "losses": [0.5, float("nan"), -np.inf], "bad": minidl.tensor([1.0, float("inf")]), "worse": float("nan")}
    lab.finish()
    saved = strict((lab.out / "metrics.json").read_text())
    assert saved["plain"] == [1, 2.5, True, None, "text"]
    assert (saved["scalar"], saved["whole"], saved["flag"], saved["number"]) == (0.5, 7, True, 3.0)
    assert (saved["array"], saved["tensor"], saved["grad"]) == ([[0, 1], [2, 3]], [1.5, 2.5], [1.0])
    assert saved["deep"] == {"a": [1.0, {"b": 2}]}
    assert (saved["losses"], saved["bad"], saved["worse"]) == ([0.5, None, None], [1.0, None], None)
    assert saved["not_finite"] == {"losses[1]": "nan", "losses[2]": "-inf", "bad[1]": "inf", "worse": "nan"}
    assert "not finite, null in metrics.json: losses[1] = nan" in capsys.readouterr().out
    assert {key: saved[key] for key in ("lab", "dataset", "seed", "device", "preset", "epochs", "train_size", "batch_size")} == {
        "lab": "trial", "dataset": "digits", "seed": 3, "device": "cpu", "preset": "quick", "epochs": 2, "train_size": 1347, "batch_size": 8}
    assert 0 < saved["seconds"] < 60
    assert saved["versions"]["numpy"] == np.__version__
    assert saved["versions"]["minidl"] == minidl.__version__


@pytest.mark.parametrize(("metrics", "error", "sentence"), [
    ({"seen": {1, 2}}, DtypeError, "got a set as seen"), ({"z": [1, {"a": 1j}]}, DtypeError, r"got a complex as z\[1\].a"),
    ({"seed": 3}, SettingError, "got a metric named 'seed'"), ({"not_finite": 3}, SettingError, "'not_finite'")])
def test_metrics_that_cannot_be_saved(make, metrics, error, sentence):
    lab = make()
    lab.metrics |= metrics
    with pytest.raises(error, match=sentence):
        lab.finish()


def test_a_finite_run_names_no_holes(make):
    lab = make()
    lab.metrics["loss"] = 0.5
    lab.finish()
    assert "not_finite" not in strict((lab.out / "metrics.json").read_text())


def test_the_manifest_says_how_to_repeat_the_run(make, tmp_path):
    lab = make("--seed=4", "--device=auto", "--out", tmp_path / "two words")
    lab.figure(curve(), "curve", "A curve")
    (lab.out / "by-the-lab.txt").write_text("something")
    lab.finish()
    manifest = strict((lab.out / "manifest.json").read_text())
    assert manifest["command"].startswith("python -m labs.trial --out=")
    assert manifest["command"].endswith(f"--seed=4 --device=auto --out '{tmp_path}/two words'")
    assert manifest["arguments"]["seed"] == 4
    assert manifest["arguments"]["train_size"] == 1347
    assert manifest["versions"].keys() == {"python", "minidl", "numpy", "numba", "scipy", "scikit-learn", "matplotlib"}
    assert manifest["files"] == ["by-the-lab.txt", "curve.png", "manifest.json", "metrics.json", "report.html"]
    assert sorted(path.name for path in lab.out.iterdir()) == manifest["files"]
    assert manifest["cores"] == len(os.sched_getaffinity(0))
    assert all(manifest[key] for key in ("date", "platform", "processor", "seconds", "images", "threads"))
    again = make("--out", tmp_path / "two words")                               # what was there before is not its own
    again.finish()
    assert strict((lab.out / "manifest.json").read_text())["files"] == ["manifest.json", "metrics.json", "report.html"]


class Page(HTMLParser):
    """Reads a page strictly: every element is closed where it should be; keeps elements, attributes and texts."""

    def __init__(self, html):
        super().__init__()
        self.open, self.attributes, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((tuple(self.open), data))

    def inside(self, *tags):
        """The texts in elements of these names, from the outside in."""
        return [text.strip() for path, text in self.texts if path[-len(tags):] == tags and text.strip()]


def test_the_report_is_one_page_with_everything(make, capsys):
    lab = make("--epochs=3")
    lab.section("First <part>")
    lab.say("Less is <b>more</b> & `code <i>`, [green]not markup.\n\n    an indented\n      example")
    lab.say(long := "A paragraph that is longer than a line, and is not broken where nobody has a terminal. " * 3)
    lab.table([["a <b>", 0.123456, 1234567], ["[bold]b[/bold]" + 60 * "-", 2, -1]], ["name", "value", "count"], "Some [red]numbers")
    lab.figure(curve(), "curve", 'A "curve" <here>')
    lab.code(curve)
    lab.code(Page)
    lab.question("Why <so>?", "Because.\n\nAnd `so`.")
    lab.metrics["score"] = 0.75
    lab.finish()
    printed = capsys.readouterr().out
    html = (lab.out / "report.html").read_text(encoding="utf-8")
    page = Page(html)

    (source,) = [value for tag, name, value in page.attributes if name == "src"]
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == (lab.out / "curve.png").read_bytes()
    assert not {"href", "srcset", "background", "onload"} & {name for _, name, _ in page.attributes}
    assert not {"script", "link", "iframe"} & {tag for path, _ in page.texts for tag in path}
    (style,) = page.inside("style")
    assert not any(word in style for word in ("url(", "@import", "http"))
    assert "prefers-color-scheme: dark" in style
    assert "max-width" in style
    assert ("img", "alt", 'A "curve" <here>') in page.attributes

    assert page.inside("h1") == page.inside("title") == ["A trial."]
    assert "More about it." in page.inside("p")
    assert page.inside("h2") == ["First <part>", "Settings"]
    assert page.inside("p", "code") == ["code <i>", "so"]
    assert "an indented\n  example" in page.inside("pre")
    assert page.inside("figcaption") == ['A "curve" <here>']
    assert page.inside("caption") == ["Some [red]numbers"]
    cells = page.inside("td")
    assert cells[:6] == ["a <b>", "0.1235", "1,234,567", "[bold]b[/bold]" + 60 * "-", "2", "-1"]
    assert ("td", "class", "number") in page.attributes
    settings = dict(zip(cells[6::2], cells[7::2], strict=True))
    assert (settings["dataset"], settings["epochs"], settings["seed"]) == ("digits", "3", "0")
    assert settings["command"] == lab.command
    assert f"numpy: {np.__version__}" in settings["versions"]
    folded = page.inside("details", "summary")
    assert folded[0].startswith("curve (tests/test_lab.py:")
    assert folded[1].startswith("Page (tests/test_lab.py:")
    assert folded[2:] == ["Why <so>?", "The whole lab (test_lab.py)", "All numbers (metrics.json)"]
    code = page.inside("details", "pre")
    assert code[0].startswith("def curve(values=(1, 2, 3)):\n    figure")
    assert strict(code[-1])["score"] == 0.75
    assert page.inside("details", "p")[0] == "Because."

    for text in ("First <part>", "Less is <b>more</b> & `code <i>`, [green]not markup", long, "[bold]b[/bold]" + 60 * "-",
                 "1,234,567", "Some [red]numbers"):
        assert text in printed
    assert not any(text in printed for text in ("Why <so>?", "def curve"))
    assert f"in {lab.out}: curve.png, manifest.json, metrics.json, report.html" in printed


def test_code_without_a_source_does_not_stop_a_lab(make):
    lab = make()
    lab.code(len)
    exec("class Typed: pass", names := {"__name__": "nowhere"})
    lab.code(names["Typed"])
    lab.finish()
    assert (lab.out / "report.html").read_text().count("its source cannot be read here") >= 2


def test_a_row_of_another_length_is_an_error(make):
    with pytest.raises(SettingError, match="got a row of 1 cells, expected 2"):
        make().table([[1, 2], [3]], ["a", "b"])


def test_a_figure_is_saved_once_and_closed(make):
    lab, figure = make(), curve()
    lab.figure(figure, "curve", "A curve")
    assert not plt.fignum_exists(figure.number)
    with pytest.raises(SettingError, match="got 'curve' a second time"):
        lab.figure(curve(), "curve", "Another curve")
    assert [path.name for path in lab.out.iterdir()] == ["curve.png"]


def test_a_drawing_is_saved_and_stands_in_the_page(make, capsys):
    lab, x = make(), minidl.tensor(2.0, requires_grad=True)
    drawing = minidl.draw(x.exp(), {"x <here>": x})
    lab.drawing(drawing, "graph", "A <graph>")
    lab.drawing(drawing.svg.replace("here", "there"), "text", "The text of an SVG")
    with pytest.raises(SettingError, match=r"lab.drawing: got 'graph' a second time"):
        lab.drawing(drawing, "graph", "Another graph")
    with pytest.raises(SettingError, match=r"lab.drawing: got Figure, expected what minidl.draw returns, or a text"):
        lab.drawing(curve(), "curve", "A curve")
    lab.finish()
    assert (lab.out / "graph.svg").read_text(encoding="utf-8") == drawing.svg
    html = (lab.out / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert html.count(drawing.svg) == 1
    assert {"x <here>", "x <there>", "Exp"} <= set(page.inside("svg", "g", "text"))
    assert page.inside("figcaption") == ["A <graph>", "The text of an SVG"]
    assert f"in {lab.out}: graph.svg, manifest.json, metrics.json, report.html, text.svg" in capsys.readouterr().out


def test_a_notebook_shows_a_drawing(notebook, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules["IPython.display"], "SVG", lambda svg: ("an SVG", svg), raising=False)
    lab, drawing = Lab("trial", "A trial."), minidl.draw(minidl.ones(2))
    for _ in range(2):
        lab.drawing(drawing, "graph", "A graph")
        assert notebook.pop() == ("an SVG", drawing.svg)
    assert (lab.out / "graph.svg").exists()


def test_a_lab_runs_on_the_strict_device(monkeypatch, tmp_path):
    _, figures = run_here(monkeypatch, "digits", "--device=fake", "--epochs=1", "--train-size=64", f"--out={tmp_path}")
    assert list(figures) == ["digits"]
    assert strict((tmp_path / "metrics.json").read_text())["device"] == "fake"


# -- the check of figures ----------------------------------------------------------------------------------------------

PICTURE = np.arange(12.0).reshape(3, 4)


def draw(*panels):
    figure, grid = plt.subplots(1, len(panels), squeeze=False)
    for axes, panel in zip(grid[0], panels, strict=True):
        panel(axes)
    return figure


def with_hole(values):
    values = np.array(values, float)
    values.flat[1] = np.nan
    return values


@pytest.mark.parametrize(("panel", "problem"), [
    (lambda axes: None, "empty"), (lambda axes: axes.plot([], []), "empty"), (lambda axes: axes.axhline(1), "empty"),
    (lambda axes: axes.bar([1, 2], [0, 0]), "empty"), (lambda axes: axes.scatter([], []), "empty"),
    (lambda axes: axes.axvspan(1, 2), "empty"),
    (lambda axes: axes.plot(with_hole([1, 2, 3])), "nan"), (lambda axes: axes.plot([1, np.inf]), "nan"),
    (lambda axes: axes.imshow(with_hole(PICTURE)), "nan"), (lambda axes: axes.scatter([1, 2], with_hole([1, 2])), "nan"),
    (lambda axes: axes.bar([1, 2], with_hole([1, 2])), "nan"), (lambda axes: axes.pcolormesh(with_hole(PICTURE)), "nan"),
    (lambda axes: axes.semilogy([1, 0.5, 0]), "log"), (lambda axes: axes.imshow(np.ones((3, 3))), "one colour"),
    (lambda axes: axes.imshow(PICTURE + 5, vmin=0, vmax=1), "one colour"), (lambda axes: axes.pcolormesh(np.ones((3, 3))), "one colour"),
    (lambda axes: axes.imshow(np.full((3, 3, 3), 0.5)), "one colour"),
    (lambda axes: axes.imshow(PICTURE, cmap="magma"), "the same"),
    (lambda axes: axes.inset_axes([0, 0, 1, 1]), "empty"),
])
def test_a_bad_panel_is_found(panel, problem):
    figure = draw(lambda axes: axes.imshow(PICTURE), panel)
    if problem == "the same":
        assert check_figure(figure, equal_panels=True) == 2
    with pytest.raises(AssertionError, match=f"panel [12] .*{problem}"):
        check_figure(figure)


@pytest.mark.filterwarnings("ignore:.*log-scaled")
def test_good_panels_are_let_through():
    rng = np.random.default_rng(0)
    figure = draw(lambda axes: axes.imshow(PICTURE), lambda axes: axes.imshow(rng.random((4, 4, 3))), lambda axes: axes.plot([1, 2]),
                  lambda axes: axes.bar([1, 2], [3, 0]), lambda axes: axes.hist(rng.random(9)), lambda axes: axes.scatter([1], [2]),
                  lambda axes: axes.fill_between([1, 2], [3, 4]), lambda axes: axes.semilogy([1, 0.1]), lambda axes: axes.pcolormesh(PICTURE.T),
                  lambda axes: axes.text(0, 0, "a label"), lambda axes: axes.set_visible(False), lambda axes: axes.pie([1, 2]))
    assert check_figure(figure) == 10
    figure.colorbar(figure.axes[0].images[0])
    assert check_figure(figure) == 10
    with pytest.raises(AssertionError, match="no data"):
        check_figure(draw(lambda axes: axes.text(0, 0, "nothing but words")))
    whole = plt.figure()
    for part in whole.subfigures(1, 2):
        part.subplots().plot([1, 2])
    with pytest.raises(AssertionError, match="the same"):
        check_figure(whole)
