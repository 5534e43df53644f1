"""The report as a short table: Markdown, with its columns in line, for a terminal and for a page."""

from __future__ import annotations

from collections import Counter
from typing import Any

Table = tuple[list[str], list[list[str]]]               # headers, rows
MOST_LINES = 20                                         # of what is wrong; all of it is in the JSON


def render(report: dict[str, Any]) -> str:
    """Which card, versions and date; what was done; what was measured, unless it was a rehearsal; what is wrong."""
    facts = report["stages"].get("versions", {})
    names = [name for name in facts if name in ("minidl", "numpy", "numba", "numba-cuda", "PyTorch") or "cupy" in name]
    card = f"{facts['card']}, compute {facts['capability']}, driver {facts['driver']}; " if "card" in facts else ""
    versions = ", ".join(f"{name} {facts[name]}" for name in names)
    lines = [f"{card}{versions}; {report['date'][:10]}, seed {report['seed']}"]
    if report["note"]:
        lines += ["", report["note"]]
    for headers, rows in tables(report):
        widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
        lines.append("")
        for row in (headers, ["-" * width for width in widths], *rows):
            lines.append(f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |")
    counts = Counter(noted["name"] for noted in report["mismatches"])
    first = {noted["name"]: noted["error"] for noted in reversed(report["mismatches"])}
    wrong = [f"- WRONG {name}: {first[name]}" + f" (and {count - 1} more)" * (count > 1)
             for name, count in counts.items()]
    rest = [f"- and {len(wrong) - MOST_LINES} more: see gpucheck.json"] * (len(wrong) > MOST_LINES)
    return "\n".join([*lines, "", *wrong[:MOST_LINES], *rest]).rstrip() + "\n"


def tables(report: dict[str, Any]) -> list[Table]:
    """The stages; then, unless it was a rehearsal, what they measured."""
    stages = report["stages"]
    found = [(["stage", "state", "result"], [[name, e["state"], e.get("result", "")] for name, e in stages.items()])]
    if report["rehearsal"]:
        return found
    if "host_us" in (overhead := stages.get("overhead", {})):
        found.append((["one call, host time", "µs"], [[name, f"{us:.1f}"] for name, us in overhead["host_us"].items()]))
    columns = [(engine, kind) for engine in ("minidl", "torch") for kind in ("ms", "device_ms", "host_ms")]
    for mode, rows in stages.get("timing", {}).get("modes", {}).items():
        headers = [mode, *(f"{engine} {kind}" for engine, kind in columns), "launches", "minidl / torch"]
        found.append((headers, [[name, *(_number(row.get(engine, {}).get(kind)) for engine, kind in columns),
                                 str(row["minidl"]["launches"]),
                                 _number(row["minidl"]["ms"] / row["torch"]["ms"] if "torch" in row else None)]
                                for name, row in rows.items()]))
    return found


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"
