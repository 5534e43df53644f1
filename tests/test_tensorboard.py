"""SummaryWriter: what TensorBoard's own reader finds in the files; and that PyTorch's writer leaves the same there."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util.tensor_util import make_ndarray

import minidl
from minidl.errors import DtypeError, MinidlError, SettingError, ShapeError
from minidl.utils.summaries import histogram, tensorboard_bins
from minidl.utils.tensorboard import SummaryWriter

EVERYTHING = dict.fromkeys(("scalars", "images", "histograms", "compressedHistograms", "tensors", "audio"), 0)


def read(folder) -> EventAccumulator:
    events = EventAccumulator(str(folder), EVERYTHING)
    events.Reload()
    return events


def pixels_of(event) -> tuple:
    image = Image.open(io.BytesIO(event.encoded_image_string))
    assert image.size == (event.width, event.height)
    return image.mode, np.asarray(image).tolist()


def found(folder) -> dict:
    """Everything that a reader sees below a folder, but for times: {run: {(kind, tag): [(step, value), …]}}."""
    runs = {}
    for path in sorted({file.parent for file in Path(folder).rglob("events.out.tfevents.*")}):
        events, run = read(path), {}
        tags = events.Tags()
        for tag in tags["scalars"]:
            run["scalar", tag] = [(event.step, repr(event.value)) for event in events.Scalars(tag)]
        for tag in tags["images"]:
            run["image", tag] = [(event.step, *pixels_of(event)) for event in events.Images(tag)]
        for tag in tags["histograms"]:
            run["histogram", tag] = [(event.step, dataclasses.astuple(event.histogram_value)) for event in events.Histograms(tag)]
        for tag in tags["tensors"]:
            run["tensor", tag] = [(event.step, make_ndarray(event.tensor_proto).dtype.str, make_ndarray(event.tensor_proto).tolist())
                                  for event in events.Tensors(tag)]
            run["plugin", tag] = events.SummaryMetadata(tag).plugin_data.plugin_name
        if "hparams" in events._plugin_to_tag_to_content:
            for tag, content in events.PluginTagToContent("hparams").items():
                run["hparams", tag] = str(HParamsPluginData.FromString(content))
        runs[str(path.relative_to(folder))] = run
    return runs


def scalars(folder, tag) -> list:
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


@contextmanager
def files_no_larger_than(size):
    """What a full disk is to a program: writing fails halfway."""
    resource = pytest.importorskip("resource", reason="only Unix can limit the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# -- against PyTorch --

RNG = np.random.default_rng(3)
BYTES = RNG.integers(0, 256, (3, 5, 7), dtype=np.uint8)
FLOATS = RNG.uniform(-0.2, 1.2, (3, 5, 7))
NORMAL = RNG.normal(size=(4, 50))


def figures(count=1, **size):
    from matplotlib import pyplot

    made = []
    for i in range(count):
        figure, axes = pyplot.subplots(figsize=(2, 1.5), **size)
        axes.plot([0, i + 1, 2])
        made.append(figure)
    return made if count > 1 else made[0]


# each is called as call(writer, tensor), where tensor(array) makes a tensor of the writer's library
CALLS = {
    "scalar": lambda w, t: [w.add_scalar("loss/train", x, step) for step, x in enumerate((0.5, 2, True, np.float32(0.1), np.int64(7)))],
    "scalars of tensors": lambda w, t: [w.add_scalar("a", t(x), 3) for x in (np.array(1.5), np.array([[2.5]]), np.array(3))],
    "scalars of arrays": lambda w, t: [w.add_scalar("a", x, 3) for x in (np.array(1.5), np.array([[2.5]]), np.array(3))],
    "strange scalars": lambda w, t: [w.add_scalar("a", x, 5) for x in (math.nan, math.inf, -math.inf, 1e300, 1e-300)],
    "no step": lambda w, t: w.add_scalar("a", 1),
    "odd steps": lambda w, t: [w.add_scalar("a", 1, step) for step in (2.9, t(np.array(7)), np.int32(9), 2**40, -3)],
    "new style": lambda w, t: w.add_scalar("a", 0.1, 1, new_style=True),
    "double precision": lambda w, t: w.add_scalar("a", 0.1, 1, new_style=True, double_precision=True),
    "positional": lambda w, t: w.add_scalar("a", 0.1, 1, 123.0, True, True),
    "several": lambda w, t: [w.add_scalars("run/x", {"sin": math.sin(i), "cos/of": t(np.array(math.cos(i)))}, i) for i in range(4)],
    "image": lambda w, t: w.add_image("i", t(BYTES), 2),
    "image of floats": lambda w, t: w.add_image("i", t(FLOATS), 2),
    "image of float32": lambda w, t: w.add_image("i", FLOATS.astype(np.float32), 2),
    "image of float16": lambda w, t: w.add_image("i", FLOATS.astype(np.float16), 2),
    "mask": lambda w, t: w.add_image("i", t(FLOATS[:1] > 0.5), 2),
    "infinite": lambda w, t: w.add_image("i", np.array([[[math.inf, -math.inf]]]), 2),
    "grey image": lambda w, t: w.add_image("i", t(BYTES[:1]), 2),
    "image with alpha": lambda w, t: w.add_image("i", np.concatenate([BYTES, BYTES[:1]]), 2),
    "HWC": lambda w, t: w.add_image("i", BYTES.transpose(1, 2, 0), 2, dataformats="HWC"),
    "WHC": lambda w, t: w.add_image("i", t(BYTES.transpose(2, 1, 0)), 2, dataformats="whc"),
    "HW": lambda w, t: w.add_image("i", t(FLOATS[0]), dataformats="HW"),
    "WH": lambda w, t: w.add_image("i", t(FLOATS[0]), dataformats="WH"),
    "images": lambda w, t: w.add_images("i", t(np.stack([BYTES + k for k in range(11)]).astype(np.uint8)), 4),
    "few images": lambda w, t: w.add_images("i", t(np.stack([FLOATS, FLOATS / 2])), 4),
    "grey images": lambda w, t: w.add_images("i", t(NORMAL.reshape(10, 1, 4, 5)), 4),
    "NHWC": lambda w, t: w.add_images("i", t(np.stack([BYTES.transpose(1, 2, 0)] * 9)), 4, dataformats="NHWC"),
    "figure": lambda w, t: w.add_figure("f", figures(), 1),
    "figures": lambda w, t: w.add_figure("f", figures(3), 1, close=True),
    "histogram": lambda w, t: [w.add_histogram("h", t(NORMAL * scale), i) for i, scale in enumerate((1, 1e-15, 1e15, 0))],
    "histogram of integers": lambda w, t: w.add_histogram("h", t(np.arange(-3, 9)), 1),
    "histogram of booleans": lambda w, t: w.add_histogram("h", t(NORMAL > 0), 1),
    "histogram of a number": lambda w, t: w.add_histogram("h", 2.5, 1),
    "other bins": lambda w, t: [w.add_histogram("h", NORMAL, i, bins=bins) for i, bins in enumerate(("auto", "fd", 7, [-9, -0.5, 0.1, 3]))],
    "fewer bins": lambda w, t: [w.add_histogram("h", NORMAL, m, max_bins=m) for m in (1, 5, 100, 999, 10_000)],
    "fewer bins with a rest": lambda w, t: w.add_histogram("h", np.array([0.5, 6.5]), bins=list(range(8)), max_bins=3),
    "text": lambda w, t: [w.add_text("t/x", text, i) for i, text in enumerate(("*hello*", "", "größer | als\n"))],
    "hyperparameters": lambda w, t: w.add_hparams({"lr": 0.1, "layers": 3, "name": "adam", "none": None}, {"hparam/acc": 0.9, "loss": t(np.array(2.0))},
                                                  run_name="first", global_step=3),
    "domains": lambda w, t: w.add_hparams({"lr": 0.1, "name": "adam"}, {}, {"lr": [0.1, 0.2], "name": ["adam", "sgd"]}, "second"),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", CALLS)
def test_the_files_say_what_pytorchs_say(name, torch, tmp_path):
    from torch.utils.tensorboard import SummaryWriter as TorchWriter

    with SummaryWriter(str(tmp_path / "ours")) as writer:
        CALLS[name](writer, minidl.tensor)
    with np.errstate(invalid="ignore", over="ignore"), TorchWriter(str(tmp_path / "theirs")) as writer:
        CALLS[name](writer, torch.tensor)
    ours, theirs = found(tmp_path / "ours"), found(tmp_path / "theirs")
    assert ours == theirs
    assert any(ours.values()), "nothing was compared"


@pytest.mark.torch
def test_the_names_and_settings_are_pytorchs(torch):
    import inspect

    from torch.utils.tensorboard import SummaryWriter as TorchWriter

    for name in ("__init__", "add_scalar", "add_scalars", "add_image", "add_images", "add_histogram", "add_figure", "add_text", "add_hparams",
                 "flush", "close", "get_logdir"):
        ours, theirs = (inspect.signature(getattr(Writer, name)).parameters for Writer in (SummaryWriter, TorchWriter))
        assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()], name


@pytest.mark.torch
def test_purged_steps_are_those_of_pytorch(torch, tmp_path):
    from torch.utils.tensorboard import SummaryWriter as TorchWriter

    for Writer, folder in ((SummaryWriter, "ours"), (TorchWriter, "theirs")):
        for first, last, purge in ((0, 6, None), (4, 8, 4)):
            with Writer(tmp_path / folder, purge_step=purge, filename_suffix=f".{first}") as writer:
                for step in range(first, last):
                    writer.add_scalar("a", step + 100 * first, step)
    assert found(tmp_path / "ours") == found(tmp_path / "theirs")
    assert scalars(tmp_path / "ours", "a") == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 404), (5, 405), (6, 406), (7, 407)]


# -- without PyTorch --

def test_numbers_come_back(tmp_path):
    with SummaryWriter(tmp_path / "run") as writer:
        for step, value in enumerate((1, 0.25, minidl.tensor(3.5, requires_grad=True), minidl.ones(1, 1, device="fake"), np.array([2])), start=10):
            writer.add_scalar("a/b", value, step)
        writer.add_scalar("nan", math.nan, 1, walltime=1234.5)
        assert writer.get_logdir() == writer.log_dir == tmp_path / "run"
    assert scalars(tmp_path / "run", "a/b") == [(10, 1), (11, 0.25), (12, 3.5), (13, 1), (14, 2)]
    (event,) = read(tmp_path / "run").Scalars("nan")
    assert math.isnan(event.value)
    assert event.wall_time == 1234.5


def test_events_have_the_time(tmp_path):
    before = time.time()
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalar("a", 1)
    assert before <= read(tmp_path).Scalars("a")[0].wall_time <= time.time()


def test_images_come_back(tmp_path):
    grey = np.array([[[0, 0.5], [0.999, 1.0]]])
    batch = np.zeros((9, 3, 1, 2), np.uint8)
    batch[8, 1] = 7
    with SummaryWriter(tmp_path) as writer:
        writer.add_image("grey", grey)
        writer.add_images("batch", minidl.tensor(batch))
    run = found(tmp_path)["."]
    assert run["image", "grey"] == [(0, "RGB", [[[0] * 3, [127] * 3], [[254] * 3, [255] * 3]])]
    (_, mode, grid), = run["image", "batch"]
    assert (mode, np.shape(grid)) == ("RGB", (2, 16, 3)), "8 in a row"
    assert np.argwhere(grid).tolist() == [[1, 0, 1], [1, 1, 1]]


def test_a_histogram_by_hand(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_histogram("h", minidl.tensor([[1.0, 2.0], [2.5, 7.0]]), 3, bins=[0, 1, 2, 3, 4, 5, 6, 7, 8])
    (step, value), = found(tmp_path)["."]["histogram", "h"]
    assert (step, *value) == (3, 1, 7, 4, 12.5, 1 + 4 + 6.25 + 49, [1, 2, 3, 4, 5, 6, 7, 8], [0, 1, 2, 0, 0, 0, 0, 1])


def test_neighbouring_bins_are_put_together():
    counts, upper = histogram(np.array([0.5, 1.5, 6.5]), list(range(8)), 3)
    assert (counts.tolist(), upper.tolist()) == ([0, 2, 0, 0, 1], [0, 2, 4, 6, 7])


def test_the_bins_grow_by_a_tenth():
    edges = tensorboard_bins()
    assert (edges == -edges[::-1]).all()
    positive = edges[edges > 0]
    np.testing.assert_allclose(positive[1:] / positive[:-1], 1.1, rtol=1e-12)
    assert positive[0] == 1e-12
    assert positive[-1] < 1e20 < positive[-1] * 1.1
    x = np.random.default_rng(0).normal(size=1000)
    counts, upper = histogram(x, "tensorflow", None)
    assert [np.count_nonzero((x >= low) & (x < high)) for low, high in itertools.pairwise(upper)] == counts[1:].tolist()
    assert counts.sum() == 1000


def test_figures_are_closed_unless_told_otherwise(tmp_path):
    from matplotlib import pyplot

    open_before = pyplot.get_fignums()
    with SummaryWriter(tmp_path) as writer:
        writer.add_figure("closed", figures())
        assert pyplot.get_fignums() == open_before
        kept = figures()
        writer.add_figure("kept", kept, close=False)
        assert pyplot.fignum_exists(kept.number)
        pyplot.close(kept)
    (_, mode, picture), = found(tmp_path)["."]["image", "kept"]
    assert (mode, np.shape(picture)) == ("RGB", (150, 200, 3))
    assert len(np.unique(picture)) > 10, "an empty picture"


def test_booleans_stay_booleans_in_the_table_of_runs(tmp_path):
    """PyTorch writes 1.0; TensorBoard asks for booleans."""
    with SummaryWriter(tmp_path) as writer:
        writer.add_hparams({"bias": True, "sizes": str([1, 2]), "p": minidl.tensor(0.5), "n": np.int64(3)}, {"acc": 0.5}, run_name="r")
    run = found(tmp_path)["r"]
    values = run["hparams", "_hparams_/session_start_info"]
    assert "bool_value: true" in values
    assert "number_value: 0.5" in values
    assert "number_value: 3" in values
    assert 'string_value: "[1, 2]"' in values
    assert "DATA_TYPE_BOOL" in run["hparams", "_hparams_/experiment"]
    assert "STATUS_SUCCESS" in run["hparams", "_hparams_/session_end_info"]
    assert run["scalar", "acc"] == [(0, "0.5")]


def test_a_run_without_a_name_gets_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with SummaryWriter(comment="_lr0.1") as writer:
        assert writer.log_dir.startswith("runs/")
        assert writer.log_dir.endswith("_lr0.1")
        writer.add_hparams({"a": 1}, {"b": 2})
    assert len(list(Path("runs").glob("*_lr0.1/events.out.tfevents.*"))) == 1
    assert len(list(Path("runs").glob("*_lr0.1/*/events.out.tfevents.*"))) == 1


def test_records_are_written_when_there_are_enough_or_when_it_is_time(tmp_path, monkeypatch):
    writer, sizes = SummaryWriter(tmp_path, max_queue=3, flush_secs=100), []
    for count in range(7):
        writer.add_scalar("a", count, count)
        sizes.append(len(read(tmp_path).Scalars("a")) if count > 1 else 0)
    assert sizes == [0, 0, 3, 3, 3, 6, 6]
    writer.flush()
    assert len(scalars(tmp_path, "a")) == 7
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 99)
    writer.add_scalar("a", 7, 7)
    assert len(scalars(tmp_path, "a")) == 7
    monkeypatch.setattr(time, "monotonic", lambda: now + 101)
    writer.add_scalar("a", 8, 8)
    assert len(scalars(tmp_path, "a")) == 9


def test_writing_goes_on_after_close_in_a_new_file(tmp_path):
    writer = SummaryWriter(tmp_path)
    writer.add_scalar("a", 1, 1)
    writer.close()
    writer.close()
    writer.add_scalar("a", 2, 2)
    writer.close()
    assert scalars(tmp_path, "a") == [(1, 1), (2, 2)]
    assert len(list(tmp_path.iterdir())) == 2


def run_python(code, **kwargs):
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=Path(minidl.__file__).parents[1], **kwargs)


def test_a_program_that_forgets_to_close_loses_nothing(tmp_path):
    done = run_python("import sys; from minidl.utils.tensorboard import SummaryWriter\n"
                      f"writer = SummaryWriter({str(tmp_path)!r}); writer.add_scalar('a', 1, 1); writer.add_scalars('b', {{'c': 2}}, 1)\n"
                      "assert not {'torch', 'tensorflow', 'PIL', 'matplotlib'} & set(sys.modules)")
    assert (done.returncode, done.stderr) == (0, "")
    assert scalars(tmp_path, "a") == [(1, 1)]
    assert scalars(tmp_path / "b_c", "b") == [(1, 2)]


def test_importing_is_light():
    done = run_python("import sys; import minidl.utils.tensorboard\n"
                      "print({'tensorboard', 'google', 'PIL', 'matplotlib', 'torch'} & {name.split('.')[0] for name in sys.modules})")
    assert done.stdout.strip() == "set()", done.stderr


def test_without_the_package_the_sentence_says_what_to_install(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MinidlError, match=r'SummaryWriter: got no package tensorboard \(.*\), expected .*; pip install "minidl\[tensorboard\]"$'):
        SummaryWriter(tmp_path / "x")
    assert not (tmp_path / "x").exists()


# -- what cannot be written --

@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda w: w.add_scalar("a", [1.0]), DtypeError, r"add_scalar: got \[1.0\], a list, expected a tensor, an array or a number"),
    (lambda w: w.add_scalar("a", "1.0"), DtypeError, "a str"),
    (lambda w: w.add_scalar("a", None), DtypeError, "a NoneType"),
    (lambda w: w.add_scalar("a", 1j), DtypeError, "a complex"),
    (lambda w: w.add_scalar("a", np.array(["x"])), DtypeError, "a ndarray of <U1"),
    (lambda w: w.add_scalar("a", 10**400), DtypeError, "a int of object"),
    (lambda w: w.add_scalar("a", minidl.ones(3)), ShapeError, r"got shape \(3,\), expected a single number; use x.mean\(\)"),
    (lambda w: w.add_scalar("a", np.ones(0)), ShapeError, r"\(0,\)"),
    (lambda w: w.add_scalar(3, 1.0), DtypeError, "got the tag 3, expected a string"),
    (lambda w: w.add_scalar("a", 1.0, "first"), SettingError, "global_step='first'"),
    (lambda w: w.add_scalar("a", 1.0, minidl.ones(2)), SettingError, "global_step="),
    (lambda w: w.add_scalar("a", 1.0, 2**70), SettingError, "global_step="),
    (lambda w: w.add_scalar("a", 1.0, 1, walltime="now"), SettingError, "walltime='now'"),
    (lambda w: w.add_scalars("a", {"x": 1.0, "y": "2"}), DtypeError, "add_scalars"),
    (lambda w: w.add_image("i", minidl.ones(5, 7)), ShapeError, r"got shape \(5, 7\) and dataformats='CHW', expected 3 axes"),
    (lambda w: w.add_image("i", minidl.ones(5, 7, 3)), ShapeError, 'dataformats="HWC"'),
    (lambda w: w.add_image("i", minidl.ones(2, 3, 4, 4)), ShapeError, "expected 3 axes"),
    (lambda w: w.add_image("i", minidl.ones(3, 0, 4)), ShapeError, r"\(3, 0, 4\)"),
    (lambda w: w.add_images("i", minidl.ones(2, 5, 4, 3)), ShapeError, "at C"),
    (lambda w: w.add_images("i", minidl.ones(0, 3, 4, 4)), ShapeError, r"\(0, 3, 4, 4\)"),
    (lambda w: w.add_image("i", minidl.ones(3, 4, 4), dataformats="CWX"), SettingError, "dataformats='CWX'"),
    (lambda w: w.add_image("i", minidl.ones(3, 4, 4), dataformats="CHH"), SettingError, "dataformats='CHH'"),
    (lambda w: w.add_image("i", minidl.ones(3, 4, 4).long()), DtypeError, "got an image of int64"),
    (lambda w: w.add_image("i", np.full((1, 2, 2), math.nan)), SettingError, "4 of 4 numbers are nan"),
    (lambda w: w.add_image("i", "cat.png"), DtypeError, "'cat.png', a str"),
    (lambda w: w.add_figure("f", minidl.ones(3)), DtypeError, "plt.subplots"),
    (lambda w: w.add_figure("f", []), ShapeError, r"sizes \[\]"),
    (lambda w: w.add_histogram("h", minidl.ones(0)), SettingError, "got 0 values"),
    (lambda w: w.add_histogram("h", np.array([1, math.nan, math.inf])), SettingError, "3 values, 2 of them nan or infinite"),
    (lambda w: w.add_histogram("h", minidl.ones(3), bins="many"), SettingError, "bins='many'"),
    (lambda w: w.add_histogram("h", minidl.ones(3), bins=[2, 3]), SettingError, "from 1 to 1, none of them in the bins, which go from 2 to 3"),
    (lambda w: w.add_histogram("h", minidl.ones(3), max_bins=0), SettingError, "max_bins=0"),
    (lambda w: w.add_text("t", 3), DtypeError, "expected a string"),
    (lambda w: w.add_hparams({"layers": [1, 2]}, {"a": 1}), DtypeError, r"add_hparams, 'layers': got \[1, 2\], a list"),
    (lambda w: w.add_hparams({"lr": 1}, {"a": "good"}), DtypeError, "add_hparams"),
    (lambda w: w.add_graph(None), AttributeError, r"SummaryWriter has no 'add_graph'; use minidl.summary"),
    (lambda w: w.add_embedding(None), AttributeError, "add_figure"),
    (lambda w: w.add_mesh(None), AttributeError, "add_figure"),
    (lambda w: w.add_skalar("a", 1), AttributeError, "the nearest is 'add_scalar"),
])
def test_bad_input_gets_one_sentence_and_nothing_is_written(call, error, words, tmp_path):
    with SummaryWriter(tmp_path) as writer:
        with pytest.raises(error, match=words) as caught:
            call(writer)
        assert "\n" not in str(caught.value)
    assert found(tmp_path) == {".": {}}


def test_figures_of_different_sizes(tmp_path):
    from matplotlib import pyplot

    pair = [figures(), figures(dpi=30)]
    with SummaryWriter(tmp_path) as writer, pytest.raises(ShapeError, match=r"\[\(45, 60\), \(150, 200\)\]"):
        writer.add_figure("f", pair)
    for figure in pair:
        assert pyplot.fignum_exists(figure.number), "nothing is closed where nothing was written"
        pyplot.close(figure)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MinidlError, match=r"SummaryWriter: got .*file.run, which cannot be written \(Not a directory\)"):
        SummaryWriter(tmp_path / "file" / "run")


def test_a_full_disk_is_noticed_at_once_and_forgiven_later(tmp_path):
    writer = SummaryWriter(tmp_path, max_queue=1)
    writer.add_scalar("a", 0, 0)
    (path,) = tmp_path.iterdir()
    size = os.path.getsize(path)
    with files_no_larger_than(size + 10), pytest.raises(MinidlError, match=r"got .*events.out.*, which cannot be written \(File too large\)"):
        writer.add_text("t", "long " * 100, 1)
    assert os.path.getsize(path) == size, "half a record would make all that follow unreadable"
    writer.add_scalar("a", 2, 2)
    writer.close()
    run = found(tmp_path)["."]
    assert run["scalar", "a"] == [(0, "0.0"), (2, "2.0")]
    assert len(run["tensor", "t/text_summary"]) == 1, "what had to wait was written when there was room again"
