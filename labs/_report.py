"""What a lab leaves: a page of HTML that holds everything, the figures too, and loads nothing; numbers; the machine."""

from __future__ import annotations

import base64
import importlib.metadata
import inspect
import math
import platform
import re
from collections.abc import Mapping, Sequence
from html import escape
from textwrap import dedent
from typing import Any

import numpy as np

import minidl
from minidl.errors import DtypeError

STYLE = """
:root { color-scheme: light dark; --ink: #1d1f23; --paper: #ffffff; --soft: #f3f4f6; --line: #d4d8dd; --faint: #5b626b }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6e9; --paper: #17191c; --soft: #22262a; --line: #3b4147; --faint: #9aa2ab } }
body { max-width: 56rem; margin: 2rem auto 5rem; padding: 0 1.2rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.6 system-ui, sans-serif }
h1 { font-size: 1.6rem; line-height: 1.3 }
h2 { font-size: 1.25rem; margin-top: 2.6rem; border-bottom: 1px solid var(--line) }
figure { margin: 1.5rem 0 } img { max-width: 100%; background: white; border: 1px solid var(--line) }
figcaption, caption, .summary { color: var(--faint); text-align: left } caption { margin-bottom: .4rem }
.wide { overflow-x: auto; margin: 1.5rem 0 } table { border-collapse: collapse; font-size: .92rem }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
.number { text-align: right; font-variant-numeric: tabular-nums }
code, pre { font: .88rem/1.5 ui-monospace, monospace; background: var(--soft) } code { padding: .1rem .25rem }
pre { padding: .8rem 1rem; overflow: auto; max-height: 36rem }
details { margin: .8rem 0; border-left: 3px solid var(--line); padding-left: 1rem } summary { cursor: pointer }
"""


class Report:
    """What a lab has shown so far, in its order; `html` makes a page of it."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def section(self, title: str) -> None:
        """A heading."""
        self.parts.append(f"<h2>{escape(title)}</h2>")

    def text(self, text: str) -> None:
        """Paragraphs; see `prose`."""
        self.parts.append(prose(text))

    def figure(self, png: bytes, caption: str) -> None:
        """A picture, written into the page itself; the caption is read to who cannot see it."""
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        self.parts.append(f'<figure><img alt="{escape(caption)}" src="{source}">'
                          f"<figcaption>{escape(caption)}</figcaption></figure>")

    def drawing(self, svg: str, caption: str) -> None:
        """A drawing, written into the page as it is; one that is wider than the page can be moved."""
        self.parts.append(f'<figure><div class="wide">{svg}</div><figcaption>{escape(caption)}</figcaption></figure>')

    def table(self, rows: Sequence[Sequence[str]], columns: Sequence[str], title: str = "") -> None:
        """A table of texts; columns of numbers stand to the right."""
        kinds = [' class="number"' if right else "" for right in right_aligned(rows, columns)]
        head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, columns, strict=True))
        body = "".join("<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
                       + "</tr>\n" for row in rows)
        caption = f"<caption>{escape(title)}</caption>" if title else ""
        self.parts.append(f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>'
                          f"</table></div>")

    def folded(self, summary: str, inside: str) -> None:
        """A line that opens when it is clicked; `inside` is HTML."""
        self.parts.append(f"<details><summary>{escape(summary)}</summary>\n{inside}</details>")

    def html(self, about: str, summary: str, settings: Mapping[str, Any], numbers: str) -> str:
        """The page: what the lab is about (a docstring), what it showed, its settings, and all numbers as JSON."""
        title, _, rest = inspect.cleandoc(about).partition("\n")
        end = Report()
        end.section("Settings")
        end.table([(name, as_text(value)) for name, value in settings.items()], ["setting", "value"])
        end.folded("All numbers (metrics.json)", code(numbers))
        body = "\n".join([f"<h1>{escape(title)}</h1>", f'<p class="summary">{escape(summary)}</p>', prose(rest),
                          *self.parts, *end.parts])
        return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
                f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
                f"<body>\n{body}\n</body></html>\n")


def prose(text: str) -> str:
    """Text as HTML: blank lines part paragraphs, an indented paragraph is code, and so is what `stands in these`."""
    parts = []
    for part in re.split(r"\n\s*\n", text.strip("\n")):
        if part.startswith("    "):
            parts.append(code(part))
        elif part:
            marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(part))
            parts.append(f"<p>{marked}</p>")
    return "\n".join(parts)


def code(text: str) -> str:
    """Lines as they stand, less what all are indented by."""
    return f"<pre>{escape(dedent(text))}</pre>"


def as_text(value: object) -> str:
    """What a cell of a table shows: a float with four digits, a large integer with commas, a dict as `key: value`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {as_text(item)}" for key, item in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def right_aligned(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> list[bool]:
    """For each column, whether all its cells look like numbers, or are a dash for one that is not there."""
    number = re.compile(r"[-+−]?[.\d]|nan|inf|–$")
    return [bool(rows) and all(number.match(row[i]) for row in rows) for i in range(len(columns))]


def plain(value: Any, name: str, holes: dict[str, str]) -> Any:
    """A metric as JSON can hold it. A number that is not finite becomes None, and goes into `holes` by its name."""
    if isinstance(value, minidl.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        holes[name] = str(value)
        return None
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{name}.{key}", holes) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{name}[{i}]", holes) for i, item in enumerate(value)]
    raise DtypeError(f"got a {type(value).__name__} as {name}, expected numbers, texts, arrays, tensors, and lists and "
                     f"dicts of them", where="lab.metrics")


def versions() -> dict[str, str]:
    """Of Python, of minidl, and of what it stands on."""
    packages = ("numpy", "numba", "scipy", "scikit-learn", "matplotlib")
    return {"python": platform.python_version(), "minidl": minidl.__version__,
            **{package: importlib.metadata.version(package) for package in packages}}
