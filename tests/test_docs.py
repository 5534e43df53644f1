"""The documentation is true: its code runs, its excerpts are the code, its listings are what is printed."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import minidl
from minidl import ops
from minidl.models import imagenet
from tests.keras_files import weights_of, write_legacy

resnet50v2 = importlib.import_module("minidl.models.resnet50v2")        # minidl.models.resnet50v2 is the function
ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "docs/engine.md", "labs/README.md"]       # the code of docs/gpu.md runs in tests/test_cuda.py


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)


def is_excerpt(block: str) -> bool:
    return block.startswith(("class Conv2d(Op)", "class Mul(Op)"))


@pytest.mark.parametrize("page", PAGES)
def test_the_code_on_the_page_runs(page, tmp_path, monkeypatch):
    """Each block by itself, as a reader would paste it; names that the page introduced before are there."""
    monkeypatch.chdir(tmp_path)                                         # for what it writes
    if page == "README.md":
        put_what_the_readme_needs(tmp_path, monkeypatch)
    loss = minidl.nn.Conv2d(1, 1, 2)(minidl.randn(1, 1, 3, 3)).sum()
    for i, block in enumerate(block for block in python_blocks(page) if not is_excerpt(block)):
        names = {"loss": loss} if "loss =" not in block else {}
        if "import minidl" not in block:
            names["minidl"] = minidl
        exec(compile(block, f"{page}, block {i}", "exec"), names)


def put_what_the_readme_needs(folder, monkeypatch):
    """A photograph, and random weights and names in the place of those that Keras publishes."""
    from sklearn.datasets import load_sample_image

    Image.fromarray(load_sample_image("flower.jpg")).save(folder / "cat.jpg")
    contents = {resnet50v2.FILES[True][0]: None, "imagenet_class_index.json": json.dumps({
        str(o): [f"n{o:08}", f"name_{o}"] for o in range(1000)})}
    (folder / "data" / "keras").mkdir(parents=True)
    monkeypatch.delenv("MINIDL_DATA", raising=False)
    for name, content in contents.items():
        path = folder / "data" / "keras" / name
        if content is None:
            write_legacy(path, weights_of(resnet50v2.resnet50v2()))
        else:
            path.write_text(content)
        contents[name] = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(resnet50v2.FILES, True, next(iter(contents.items())))
    monkeypatch.setattr(imagenet, "MD5_OF_NAMES", contents["imagenet_class_index.json"])


def test_the_listing_in_the_readme_is_what_its_code_prints(tmp_path):
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    listing = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", page, re.S)
    (tmp_path / "example.py").write_text(listing[1])
    printed = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=True,
                             env={"PYTHONPATH": str(ROOT)}).stdout
    where = re.search(r"example.py:\d+", listing[2])[0]
    assert re.sub(r"example.py:\d+", where, printed) == listing[2]


def plain(function: ast.AST) -> str:
    """A function without types, docstring and comments."""
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
            if ast.get_docstring(node):
                node.body = node.body[1:]
    return ast.unparse(function)


@pytest.mark.parametrize("page", PAGES)
def test_excerpts_are_the_code(page):
    for block in filter(is_excerpt, python_blocks(page)):
        (shown,) = ast.parse(block).body
        (real,) = ast.parse(inspect.getsource(getattr(ops, shown.name))).body
        of_real = {node.name: plain(node) for node in real.body if isinstance(node, ast.FunctionDef)}
        of_shown = {node.name: plain(node) for node in shown.body if isinstance(node, ast.FunctionDef)}
        assert of_shown == of_real
        settings = [ast.unparse(node) for node in real.body if isinstance(node, ast.Assign)]
        assert [ast.unparse(node) for node in shown.body if isinstance(node, ast.Assign)] == settings


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target


LINKS_TO_LINES = [(page, *found) for page in ("README.md", "docs/engine.md", "labs/README.md")
                  for found in re.findall(r"\[`([^`]+)`\]\(([^)#]+)#L(\d+)\)", (ROOT / page).read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("page", "name", "target", "number"), LINKS_TO_LINES)
def test_a_link_to_a_line_leads_to_what_it_names(page, name, target, number):
    lines = ((ROOT / page).parent / target).read_text(encoding="utf-8").splitlines()
    there = [i for i, line in enumerate(lines, 1) if re.match(rf"\s*(class|def) {re.escape(name)}\b", line)]
    assert int(number) == there[0], f"{name} is at line {there}"


def test_the_course_names_every_lab_and_every_lab_is_in_the_readme():
    labs = {path.stem for path in (ROOT / "labs").glob("*.py") if not path.stem.startswith("_")}
    course = (ROOT / "labs/README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\| \[`(\w+)`\]\(\w+\.py\)", course)) == labs
    assert set(re.findall(r"\| \[`labs\.(\w+)`\]\(labs/\w+\.py\)", (ROOT / "README.md").read_text(encoding="utf-8"))) == labs
