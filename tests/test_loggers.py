"""CSVLogger and TensorBoardLogger: what is in their files, after runs that end, that crash, and that go on."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl.errors import DtypeError, MinidlError, NotWrittenError, SettingError, ShapeError
from minidl.train.loggers import CSVLogger, Logger, TensorBoardLogger
from tests.test_tensorboard import files_no_larger_than, found, run_python, scalars


def lines(logger) -> list[str]:
    return (Path(logger.log_dir) / "metrics.csv").read_text(encoding="utf-8").splitlines()


def rows(logger) -> list[dict]:
    with open(Path(logger.log_dir) / "metrics.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# -- a logger of one's own --

def test_a_logger_of_ones_own_needs_only_log_metrics():
    class Mine(Logger):
        @property
        def name(self):
            return "mine"

    mine = Mine()
    assert (mine.name, mine.version, mine.save_dir, mine.log_dir, mine.experiment) == ("mine", None, None, None, None)
    mine.log_hyperparams({"a": 1}, {"b": 2})
    mine.resume_at(3)
    mine.finalize("success")
    with pytest.raises(NotWrittenError, match=r"Mine has no log_metrics\(self, metrics, step\)"):
        mine.log_metrics({}, 1)


# -- CSV --

def test_rows_and_columns(tmp_path):
    logger = CSVLogger(tmp_path, "lesson")
    for step in range(3):
        logger.log_metrics({"train_loss": 1 / (step + 1), "epoch": 0}, step)
    logger.log_metrics({"val_loss": 0.5, "epoch": 0}, 2)
    logger.save()
    assert lines(logger) == ["epoch,step,train_loss,val_loss", "0,0,1.0,", "0,1,0.5,", f"0,2,{1 / 3},", "0,2,,0.5"]
    logger.log_metrics({"acc": 1.0, "val_loss": 0.25}, 5)
    logger.finalize("success")
    assert lines(logger) == ["acc,epoch,step,train_loss,val_loss", ",0,0,1.0,", ",0,1,0.5,", f",0,2,{1 / 3},", ",0,2,,0.5", "1.0,,5,,0.25"]
    assert (logger.name, logger.version, logger.save_dir) == ("lesson", 0, str(tmp_path))
    assert logger.log_dir == str(tmp_path / "lesson" / "version_0")


AS_LIGHTNING = """
import json, sys
from lightning.pytorch.loggers import CSVLogger
for number, (flush, rows) in enumerate(json.loads(sys.argv[1])):
    logger = CSVLogger(sys.argv[2], str(number), prefix="p" * (number % 2), flush_logs_every_n_steps=flush)
    for metrics, step in rows:
        logger.log_metrics(metrics, step)
    logger.finalize("success")
"""


@pytest.mark.torch
def test_the_file_is_lightnings(tmp_path, rng):
    if importlib.util.find_spec("lightning") is None:
        pytest.skip("Lightning is not installed; pip install lightning==2.6.6")
    runs = []
    for flush in (1, 3, 10, 100) * 5:
        names = [list(rng.choice(["loss", "acc", "epoch", "a,b", "Z"], size, replace=False)) for size in rng.integers(1, 4, 30)]
        runs.append((flush, [({name: float(rng.choice([rng.normal(), math.nan, math.inf, 3])) for name in row}, step) for step, row in enumerate(names)]))
    subprocess.run([sys.executable, "-W", "ignore", "-c", AS_LIGHTNING, json.dumps(runs), str(tmp_path / "theirs")], check=True, capture_output=True)
    for number, (flush, run) in enumerate(runs):
        logger = CSVLogger(tmp_path / "ours", str(number), prefix="p" * (number % 2), flush_logs_every_n_steps=flush)
        for metrics, step in run:
            logger.log_metrics(metrics, step)
        logger.finalize("success")
        file = Path(str(number)) / "version_0" / "metrics.csv"
        assert (tmp_path / "ours" / file).read_bytes() == (tmp_path / "theirs" / file).read_bytes()


def test_values_of_all_kinds(tmp_path):
    logger = CSVLogger(tmp_path)
    values = {"float": 0.1, "int": 3, "bool": True, "tensor": minidl.tensor(0.5, requires_grad=True), "one": minidl.ones(1, device="fake"),
              "float32": np.float32(0.25), "int64": np.int64(7), "array": np.array([2.0]), "nan": math.nan, "inf": -math.inf, "tiny": 1e-300}
    logger.log_metrics(values, minidl.tensor(4))
    logger.save()
    (row,) = rows(logger)
    assert row == {"float": "0.1", "int": "3", "bool": "True", "tensor": "0.5", "one": "1.0", "float32": "0.25", "int64": "7", "array": "2.0",
                   "nan": "nan", "inf": "-inf", "tiny": "1e-300", "step": "4"}


def test_names_with_commas_quotes_and_prefixes(tmp_path):
    logger = CSVLogger(tmp_path, prefix="run")
    logger.log_metrics({'a,"b"': 1, "größe": 2})
    logger.save()
    assert rows(logger) == [{'run-a,"b"': "1", "run-größe": "2", "step": "0"}]


def test_rows_without_a_step_are_counted(tmp_path):
    for _ in range(2):
        logger = CSVLogger(tmp_path, version=0)
        for x in range(3):
            logger.log_metrics({"x": x})
        logger.save()
    assert [row["step"] for row in rows(logger)] == ["0", "1", "2", "3", "4", "5"]


def test_the_next_free_version(tmp_path):
    names = ["version_0", "version_10", "version_x", "version_7_old", "other"]
    for name in names:
        (tmp_path / "lightning_logs" / name).mkdir(parents=True)
    logger = CSVLogger(tmp_path)
    assert logger.version == 11
    logger.log_metrics({"a": 1})
    assert CSVLogger(tmp_path).version == 12
    assert logger.version == 11
    assert CSVLogger(tmp_path, version=3).log_dir == str(tmp_path / "lightning_logs" / "version_3")
    assert CSVLogger(tmp_path, version="first").log_dir == str(tmp_path / "lightning_logs" / "first")
    assert CSVLogger(tmp_path, name=None, version=3).log_dir == str(tmp_path / "version_3")
    assert CSVLogger("~/runs", version=0).save_dir == os.path.expanduser("~/runs")


def test_nothing_is_made_before_the_first_numbers(tmp_path):
    logger = CSVLogger(tmp_path / "logs")
    assert logger.version == 0
    logger.log_hyperparams({"lr": 0.1})
    logger.resume_at(10)
    logger.save()
    logger.finalize("success")
    assert list(tmp_path.iterdir()) == []
    logger.log_metrics({"a": 1})
    assert [path.name for path in Path(logger.log_dir).iterdir()] == ["hparams.json"]


def test_settings_are_in_json(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"a": 1})
    logger.log_hyperparams(argparse.Namespace(lr=0.1, sizes=(3, 4), name="größer", none=None))
    logger.log_hyperparams({"lr": np.float32(0.5), "weights": minidl.tensor([1.0, 2.0]), "inner": {1: argparse.Namespace(x=True)}, "loss": len})
    assert json.loads((Path(logger.log_dir) / "hparams.json").read_text(encoding="utf-8")) == {
        "lr": 0.5, "sizes": [3, 4], "name": "größer", "none": None, "weights": [1.0, 2.0], "inner": {"1": {"x": True}}, "loss": str(len)}


def test_rows_wait_for_the_step_that_is_due(tmp_path):
    logger, written = CSVLogger(tmp_path, flush_logs_every_n_steps=4), []
    for step in range(9):
        logger.log_metrics({"a": step}, step)
        path = Path(logger.log_dir) / "metrics.csv"
        written.append(len(rows(logger)) if path.exists() else 0)
    assert written == [0, 0, 0, 4, 4, 4, 4, 8, 8]


def test_a_version_that_exists_goes_on(tmp_path):
    for first in (0, 3):
        logger = CSVLogger(tmp_path, version=7)
        for step in range(first, first + 3):
            logger.log_metrics({"a": step}, step)
        logger.log_metrics({f"end{first}": 1}, first + 2)
        logger.finalize("success")
    assert lines(logger) == ["a,end0,end3,step", "0,,,0", "1,,,1", "2,,,2", ",1,,2", "3,,,3", "4,,,4", "5,,,5", ",,1,5"]


def log(logger, start, end):
    """What a run logs: the loss at every third step, and at the end of every tenth, which becomes a column late."""
    for step in range(start, end):
        if step % 3 == 0:
            logger.log_metrics({"loss": 1 / (step + 1), "epoch": step // 10}, step)
        if step % 10 == 9:
            logger.log_metrics({"val_loss": step / 7}, step)


@pytest.mark.parametrize("flush", [1, 7, 1000])
@pytest.mark.parametrize("checkpoint", [0, 5, 9, 10, 20, 23, 30])
@pytest.mark.parametrize("further", [0, 1, 12, 30])
def test_a_run_that_was_interrupted_and_resumed_leaves_the_same_file(flush, checkpoint, further, tmp_path):
    whole = CSVLogger(tmp_path, "whole", flush_logs_every_n_steps=flush)
    log(whole, 0, 40)
    whole.finalize("success")
    killed = CSVLogger(tmp_path, "resumed", version=0, flush_logs_every_n_steps=flush)
    log(killed, 0, checkpoint)
    killed.save()                                                   # as before every checkpoint
    log(killed, checkpoint, checkpoint + further)                   # and then: no finalize
    resumed = CSVLogger(tmp_path, "resumed", version=0, flush_logs_every_n_steps=flush)
    resumed.resume_at(checkpoint)
    log(resumed, checkpoint, 40)
    resumed.finalize("success")
    assert (Path(resumed.log_dir) / "metrics.csv").read_bytes() == (Path(whole.log_dir) / "metrics.csv").read_bytes()
    assert [path.name for path in Path(resumed.log_dir).iterdir()] == ["metrics.csv"]


def test_the_same_logger_can_go_back(tmp_path):
    logger = CSVLogger(tmp_path)
    log(logger, 0, 20)
    logger.save()
    log(logger, 20, 30)
    logger.resume_at(15)
    assert logger.experiment.count == len(rows(logger))
    log(logger, 15, 40)
    logger.finalize("success")
    whole = CSVLogger(tmp_path, "whole")
    log(whole, 0, 40)
    whole.finalize("success")
    assert lines(logger) == lines(whole)


def test_what_is_forgotten_leaves_no_column_and_no_file(tmp_path):
    logger = CSVLogger(tmp_path)
    log(logger, 0, 20)
    logger.save()
    logger.resume_at(4)
    assert lines(logger) == ["epoch,loss,step", "0,1.0,0", "0,0.25,3"]
    logger.resume_at(0)
    assert list(Path(logger.log_dir).iterdir()) == []
    assert logger.experiment.count == 0


@pytest.mark.parametrize("cut", [1, 2, 3, 8])
def test_a_line_that_a_crash_cut_off_is_left_out(cut, tmp_path):
    logger = CSVLogger(tmp_path)
    for step in range(3):
        logger.log_metrics({"a": 0.125, "b": 0.25}, step)
    logger.save()
    path = Path(logger.log_dir) / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-cut])
    again = CSVLogger(tmp_path, version=0)
    again.log_metrics({"a": 7}, 2)
    again.save()
    assert lines(again) == ["a,b,step", "0.125,0.25,0", "0.125,0.25,1", "7,,2"]


def test_a_new_column_replaces_the_file_at_one_stroke(tmp_path, monkeypatch):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"a": 1}, 0)
    logger.save()
    before = lines(logger)

    def crash(*paths):
        raise KeyboardInterrupt

    logger.log_metrics({"b": 2}, 1)
    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        logger.save()
    assert lines(logger) == before
    monkeypatch.undo()
    logger.save()
    assert lines(logger) == ["a,b,step", "1,,0", ",2,1"]


def test_appending_does_not_read_what_is_there(tmp_path, monkeypatch):
    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=1)
    logger.log_metrics({"a": 1, "b": 2}, 0)
    monkeypatch.setattr(type(logger.experiment), "rows", lambda self: pytest.fail("the whole file was read"))
    monkeypatch.setattr(type(logger.experiment), "_write", lambda self, rows: pytest.fail("the whole file was written"))
    logger.log_metrics({"b": 1}, 1)
    assert len(rows(logger)) == 2


def test_a_full_disk_leaves_the_file_whole_and_nothing_is_lost(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"a": 1}, 0)
    logger.save()
    size = os.path.getsize(Path(logger.log_dir) / "metrics.csv")
    before = lines(logger)
    for new_column in ({}, {"b": 2}):                               # appended, written anew
        for step in range(1, 50):
            logger.log_metrics({"a": 0.1, **new_column}, step)
        with files_no_larger_than(size + 30):
            for _ in range(2):
                with pytest.raises(MinidlError, match=r"CSVLogger: got .*metrics.csv, which cannot be written \(File too large\); choose another"):
                    logger.save()
        assert lines(logger) == before
        assert [path.name for path in Path(logger.log_dir).iterdir()] == ["metrics.csv"]
    logger.save()
    assert [row["step"] for row in rows(logger)] == ["0", *map(str, range(1, 50)), *map(str, range(1, 50))]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for make in (CSVLogger, TensorBoardLogger):
        logger = make(tmp_path / "file")
        with pytest.raises(MinidlError, match=r"got .*file.lightning_logs.version_0, which cannot be written \(Not a directory\)") as caught:
            logger.log_metrics({"a": 1}, 0)
        assert "\n" not in str(caught.value)
        logger.finalize("failed")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user whom the system denies something")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(MinidlError, match="Permission denied"):
            CSVLogger(tmp_path).log_metrics({"a": 1})
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("content", [b"a,b\r\n1,2\r\n", b"step,a\r\nfirst,2\r\n", b"step,a\r\n1,2,3\r\n", b"\xff\xfe\r\n\x00\xff\r\n"])
def test_a_file_that_is_none_of_ours_is_left_alone(content, tmp_path):
    folder = tmp_path / "lightning_logs" / "version_0"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_bytes(content)
    with pytest.raises(MinidlError, match=r"metrics.csv, which has rows without a step, expected .*; choose another version"):
        CSVLogger(tmp_path, version=0).log_metrics({"a": 1}, 1)
    assert (folder / "metrics.csv").read_bytes() == content


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda path: CSVLogger(None), SettingError, "save_dir=None"),
    (lambda path: CSVLogger(path, flush_logs_every_n_steps=0), SettingError, "flush_logs_every_n_steps=0"),
    (lambda path: CSVLogger(path).log_metrics({"a": "0.5"}, 1), DtypeError, "CSVLogger, 'a': got '0.5', a str"),
    (lambda path: CSVLogger(path).log_metrics({"a": minidl.ones(2)}, 1), ShapeError, r"got shape \(2,\), expected a single number"),
    (lambda path: CSVLogger(path).log_metrics({"a": {"b": 1}}, 1), DtypeError, "a dict"),
    (lambda path: CSVLogger(path).log_metrics({3: 1}, 1), DtypeError, "metric called 3"),
    (lambda path: CSVLogger(path).log_metrics({"a": 1}, "first"), DtypeError, "CSVLogger, step"),
    (lambda path: CSVLogger(path).log_hyperparams([1, 2]), DtypeError, "type list"),
    (lambda path: TensorBoardLogger(3), SettingError, "save_dir=3"),
    (lambda path: TensorBoardLogger(path, log_graph=True), SettingError, "minidl.summary"),
    (lambda path: TensorBoardLogger(path).log_metrics({"a": 1, "b": {"c": "2"}}, 1), DtypeError, "TensorBoardLogger, 'b': got '2', a str"),
    (lambda path: TensorBoardLogger(path).log_hyperparams("lr"), DtypeError, "type str"),
])
def test_bad_input_gets_one_sentence_and_nothing_is_written(call, error, words, tmp_path):
    with pytest.raises(error, match=words) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# -- TensorBoard --

def test_tensorboard_numbers(tmp_path):
    logger = TensorBoardLogger(tmp_path, "lesson", prefix="p", flush_secs=1000)
    assert list(tmp_path.iterdir()) == []
    for step in range(3):
        logger.log_metrics({"loss": minidl.tensor(step / 2), "parts": {"a": step, "b": np.float32(1)}}, step)
    logger.save()
    assert scalars(logger.log_dir, "p-loss") == [(0, 0), (1, 0.5), (2, 1)]
    logger.experiment.add_text("note", "hello")
    logger.finalize("success")
    runs = found(logger.log_dir)
    assert runs["p-parts_a"]["scalar", "p-parts"] == [(0, "0.0"), (1, "1.0"), (2, "2.0")]
    assert ("tensor", "note/text_summary") in runs["."]
    assert logger.log_dir == str(tmp_path / "lesson" / "version_0")
    assert TensorBoardLogger(tmp_path, "lesson").version == 1
    assert TensorBoardLogger(tmp_path, "lesson", 4, sub_dir="inner").log_dir == str(tmp_path / "lesson" / "version_4" / "inner")


def test_tensorboard_settings(tmp_path):
    settings = argparse.Namespace(lr=0.1, optimizer={"name": "adam", "betas": (0.9, 0.99)}, bias=True, none=None)
    logger = TensorBoardLogger(tmp_path)
    logger.log_hyperparams(settings)
    logger.log_hyperparams({"lr": 0.1}, {"acc": 0.75})
    logger.finalize("success")
    run = found(logger.log_dir)["."]
    assert run["scalar", "hp_metric"] == [(0, "-1.0")]
    assert run["scalar", "acc"] == [(0, "0.75")]
    for words in ("lr", "0.1", "optimizer/name", '"adam"', "optimizer/betas", '"[0.9, 0.99]"', "bool_value: true", '"None"'):
        assert words in run["hparams", "_hparams_/session_start_info"], words
    assert 'tag: "hp_metric"' in run["hparams", "_hparams_/experiment"]
    quiet = TensorBoardLogger(tmp_path, default_hp_metric=False)
    quiet.log_hyperparams(settings)
    assert not Path(quiet.log_dir).exists()


def test_tensorboard_shows_a_resumed_run_as_one(tmp_path):
    killed = TensorBoardLogger(tmp_path, version=0, max_queue=1)
    log(killed, 0, 35)
    resumed = TensorBoardLogger(tmp_path, version=0)
    resumed.resume_at(20)
    log(resumed, 20, 40)
    resumed.resume_at(30)                                           # the same logger goes back too
    log(resumed, 30, 40)
    resumed.finalize("success")
    whole = TensorBoardLogger(tmp_path, "whole")
    log(whole, 0, 40)
    whole.finalize("success")
    assert found(resumed.log_dir) == found(whole.log_dir)


def test_tensorboard_goes_on_after_finalize(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    for step in range(2):
        logger.log_metrics({"a": step}, step)
        logger.finalize("success")
    assert scalars(logger.log_dir, "a") == [(0, 0), (1, 1)]


def test_nothing_is_imported_before_it_is_used(tmp_path):
    done = run_python("import sys; from minidl.train.loggers import CSVLogger, TensorBoardLogger\n"
                      f"TensorBoardLogger({str(tmp_path)!r}).log_dir; CSVLogger({str(tmp_path)!r}).log_metrics({{'a': 1}})\n"
                      "print({'tensorboard', 'google', 'PIL', 'matplotlib', 'torch'} & {name.split('.')[0] for name in sys.modules})")
    assert done.stdout.strip() == "set()", done.stderr
