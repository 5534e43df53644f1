"""The lessons run with minidl, and with PyTorch when only their import lines are changed, and print the same.

Each lesson in tests/lessons is written as a PyTorch lesson would be. It runs as it is; then `minidl` is replaced by
`torch` on the lines that begin with import or from, and on no other, and it runs again. The text must be the same and so
must every number: integers exactly, others up to the digit that is printed and the precision of the lesson's number type.
"""

from __future__ import annotations

import ast
import importlib.util
import io
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "lessons"
LESSONS = sorted(FOLDER.glob("lesson_*.py"))
ROOT = FOLDER.parent.parent

# where PyTorch's modules have another name; every other minidl.x is torch.x
ELSEWHERE = {"minidl.data": "torch.utils.data", "minidl.train": "lightning.pytorch"}


# -- a lesson for PyTorch --

def for_pytorch(source: str) -> str:
    """The lesson with its import lines changed, those at the beginning of a line."""
    lines = source.split("\n")
    for i, line in enumerate(lines):
        if line.startswith(("import ", "from ")):
            for ours, theirs in ELSEWHERE.items():
                line = re.sub(rf"\b{re.escape(ours)}\b", theirs, line)
            lines[i] = re.sub(r"\bminidl\b", "torch", line)
    return "\n".join(lines)


def run(path: Path, folder: Path) -> str:
    """What the script prints; it runs in a process of its own, in `folder`, on one thread."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    result = subprocess.run([sys.executable, str(path)], cwd=folder, capture_output=True, encoding="utf-8", timeout=600,
                            check=False, env={**os.environ, **threads, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"})
    assert result.returncode == 0, f"{path.name} stopped:\n{result.stderr[-3000:]}"
    warned = [line for line in result.stderr.splitlines() if not line.startswith("minidl: compiling kernels (")]
    assert not warned, f"{path.name} warned:\n{result.stderr[-3000:]}"        # the first use compiles, and says so
    return result.stdout


# -- the comparison --

# 3   -0.5   2.   1e-05   but not the digits of names such as Conv2d, fc1 or float64
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?(?![\w])")


def normal(text: str) -> str:
    """Without what may differ: the package's name, how a shape is written, and the names of the engine's nodes.

    A node's name is part of what can be put on one line, so the line may break before it or not.
    """
    text = re.sub(r"\b(torch|minidl)\.", "", text)
    text = re.sub(r"Size\(\[(\d+)\]\)", r"(\1,)", text)
    text = re.sub(r"Size\(\[([\d, ]*)\]\)", r"(\1)", text)
    return re.sub(r",\s+(grad_fn=<|dtype=)[^>,)]*", r", \1", text)


def last_digit(number: str) -> float:
    """What one step of the last printed digit is worth: 0.01 for "3.14", 0.001 for "1.25e-01", 0 for "3."."""
    mantissa, _, exponent = number.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - decimals) if decimals else 0.0


def is_same_number(ours: str, theirs: str, relative: float) -> bool:
    """Integers are equal; others are as near as the number type, and the rounding to the printed digits, allow."""
    if "." not in ours + theirs and "e" not in (ours + theirs).lower():
        return int(ours) == int(theirs)
    if ("." in ours) != ("." in theirs):
        return False
    a, b = float(ours), float(theirs)
    return abs(a - b) <= relative * max(abs(a), abs(b)) + 1.001 * min(last_digit(ours), last_digit(theirs))


def differences(ours: str, theirs: str, relative: float) -> list[str]:
    """Where two outputs differ, one sentence each; empty for the same."""
    ours, theirs = normal(ours), normal(theirs)
    found = []
    if ours.count("\n") != theirs.count("\n"):
        found.append(f"{ours.count(chr(10))} lines and {theirs.count(chr(10))}")
    for i, (line, other) in enumerate(zip(ours.split("\n"), theirs.split("\n"), strict=False), start=1):
        numbers, others = NUMBER.findall(line), NUMBER.findall(other)
        if NUMBER.split(line) != NUMBER.split(other) or not all(map(is_same_number, numbers, others, [relative] * len(numbers))):
            found.append(f"line {i}: {line!r}\n    and {other!r}")
    return found


def precision(lesson: Path) -> float:
    """How near two right libraries come after some dozen training steps in the lesson's number type."""
    return 1e-10 if "set_default_dtype(torch.float64)" in lesson.read_text(encoding="utf-8") else 1e-4


# -- the lessons --

@pytest.fixture(scope="module", params=LESSONS, ids=lambda path: path.stem.removeprefix("lesson_"))
def lesson(request):
    return request.param


@pytest.fixture(scope="module")
def both(lesson, tmp_path_factory) -> Iterator[tuple[Future[str], Future[str] | None]]:
    """What the lesson prints with minidl and, where there is one, with PyTorch: both run at the same time."""
    source, folder = for_pytorch(lesson.read_text(encoding="utf-8")), tmp_path_factory.mktemp("pytorch")
    needed = {"torch", *({"lightning"} if "lightning" in source else ())}
    with ThreadPoolExecutor(2) as pool:
        ours, theirs = pool.submit(run, lesson, tmp_path_factory.mktemp("minidl")), None
        if all(importlib.util.find_spec(name) for name in needed):
            (folder / lesson.name).write_text(source, encoding="utf-8")
            theirs = pool.submit(run, folder / lesson.name, folder)
        yield ours, theirs


@pytest.fixture(scope="module")
def ours(both):
    """What the lesson prints with minidl."""
    return both[0].result()


def test_there_are_more_than_ten():
    assert len(LESSONS) > 10


def lines_of_code(source: str) -> int:
    """Lines that are no comment, no docstring and not empty."""
    tree = ast.parse(source)
    documented = [node for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
                  and ast.get_docstring(node)]
    without = {line for node in documented for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)}
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return len({token.start[0] for token in tokens if token.type not in skipped} - without)


def test_it_is_a_lesson_of_some_length(lesson):
    assert lines_of_code(lesson.read_text(encoding="utf-8")) >= 40
    assert lines_of_code('"""Text."""\n\n# comment\nx = [1,\n     2]   # and\n') == 2


def test_only_import_lines_change(lesson):
    source = lesson.read_text(encoding="utf-8")
    before, after = source.split("\n"), for_pytorch(source).split("\n")
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert changed
    assert all(line.startswith(("import ", "from ")) for pair in changed for line in pair)
    assert "minidl" not in "\n".join(after), "it speaks of minidl outside of its import lines"
    assert "import torch" not in source
    assert "from torch" not in source


def test_it_runs_and_prints_numbers(ours):
    assert len(NUMBER.findall(ours)) > 20
    assert differences(ours, ours, 0) == []


@pytest.mark.torch
def test_it_prints_the_same_with_pytorch(lesson, both, ours, torch):
    if both[1] is None:
        pytest.skip("Lightning is not installed; pip install lightning==2.6.6")
    found = differences(ours, both[1].result(), precision(lesson))
    assert not found, f"{len(found)} differences, minidl first:\n" + "\n".join(found[:20])


# -- the comparison notices --

def test_any_changed_number_is_noticed(lesson, ours):
    """Each integer one larger, and each other number larger by three steps of its last digit and 0.1 %."""
    text = normal(ours)
    matches = list(NUMBER.finditer(text))
    for match in matches[:: len(matches) // 40 + 1]:
        number = match[0]
        if "." in number or "e" in number.lower():
            value = float(number)
            changed = repr(value + 1e-3 * abs(value) + 3 * last_digit(number) + (value == 0))
        else:
            changed = str(int(number) + 1)
        assert differences(text[:match.start()] + changed + text[match.end():], text, precision(lesson)), number


@pytest.mark.parametrize(("line", "other"), [
    ("loss 0.5000", "loss 0.5003"), ("loss 1.2345e-03", "loss 1.2350e-03"), ("17/20 right", "18/20 right"),
    ("tensor([3., 4.])", "tensor([3., 5.])"), ("tensor([3, 4])", "tensor([3., 4.])"), ("shape (3,)", "shape (3)"),
    ("Linear(4, 3)", "Linear(4, 3, bias=True)"), ("Conv2d", "Conv3d"), ("-0.5", "0.5"), ("a 1.0", "a 1.0 2.0"), ("True", "False"),
    ("nan", "0.0"), ("one\n", "one\ntwo\n"), ("tensor(1., requires_grad=True)", "tensor(1.)"), ("1.00000000001", "1.00000100001"),
    ("tensor(1., grad_fn=<Mul>)", "tensor(1.)"), ("float32", "float64"), ("0.0", "-0.2"), ("1.", "1.001"), ("inf", "-inf"),
])
def test_a_difference_is_noticed(line, other):
    for a, b in ((line, other), (other, line)):
        assert len(differences(f"begin 1\n{a}\nend 2", f"begin 1\n{b}\nend 2", 1e-9)) >= 1


@pytest.mark.parametrize(("line", "other"), [
    ("(2, 3) (4,) ()", "torch.Size([2, 3]) torch.Size([4]) torch.Size([])"), ("loss 0.50001", "loss 0.50002"),
    ("float32 minidl.float64", "torch.float32 torch.float64"), ("loss 1.2345e-03", "loss 1.2346e-03"),
    ("tensor([1.], grad_fn=<Mul>)", "tensor([1.],\n       grad_fn=<MulBackward0>)"),
    ("tensor([1], dtype=int32)", "tensor([1],\n       dtype=torch.int32)"),
    ("0.7099999785423279", "0.7099999189376831"), ("12345.678", "12345.9"),
])
def test_what_may_differ_is_let_through(line, other):
    assert differences(line, other, 1e-4) == []
    assert differences(other, line, 1e-4) == []


def test_a_lesson_with_another_learning_rate_is_noticed(tmp_path):
    """End to end: one percent more, and the numbers that are printed are no longer the same."""
    lesson = FOLDER / "lesson_02_regression.py"
    source = lesson.read_text(encoding="utf-8")
    assert source.count("learning_rate = 0.1\n") == 1
    changed = tmp_path / lesson.name
    changed.write_text(source.replace("learning_rate = 0.1\n", "learning_rate = 0.101\n"), encoding="utf-8")
    assert differences(run(lesson, tmp_path), run(changed, tmp_path), precision(lesson))
