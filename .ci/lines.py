"""Print how long each part of the engine is, beside the length that a reader can be asked to read."""

import ast
import io
import tokenize
from pathlib import Path

ROOT = Path(__file__).parent.parent
LONGEST = 600       # lines that one file may have
GUIDE = {  # part of the engine: (its modules, how many lines it may have, comments included; a guide, not a limit)
    "graph + autograd + recording": (["graph", "autograd", "recording"], 850),
    "tensors + inplace": (["tensors", "inplace"], 2200),
    "functions + creation + printing + rng": (["functions", "linalg", "creation", "printing", "rng"], 1000),
    "backend + dtypes + errors + environment": (["backend", "cupy_backend", "dtypes", "errors", "environment"], 600),
    "fake (test device)": (["fake"], 300),
    "ops": (["ops"], 1600),
    "kernels: reference, im2col, geometry": (["kernels/geometry", "kernels/reference", "kernels/im2col"], 550),
    "kernels: loops, pooling": (["kernels/loops", "kernels/pooling"], 550),
    "kernels: simd, winograd, vectors": (["kernels/simd", "kernels/addresses", "kernels/winograd",
                                         "kernels/vectors"], 1200),
    "kernels: fused, dense, passes": (["kernels/fused", "kernels/fused_simd", "kernels/dense", "kernels/passes"], 600),
    "kernels: threads, compiling, the rest": (["kernels/__init__", "kernels/threads", "kernels/compiling",
                                              "kernels/layout", "kernels/memory", "kernels/warmup",
                                              "kernels/step_numbers"], 750),
    "kernels: cuda": (["kernels/cuda"], 700),
    "nn": (["nn"], 4000),
    "optim": (["optim"], 1000),
    "distributions": (["distributions"], 250),
    "io + writing": (["io", "writing"], 400),
    "data": (["data"], 800),
    "transforms": (["transforms"], 1200),
    "datasets": (["datasets"], 750),
    "train": (["train"], 2100),
    "models": (["models"], 650),
    "utils": (["utils"], 700),
    "attacks": (["attacks"], 400),
    "visualize": (["visualize"], 750),
    "debug": (["debug"], 1500),
    "doctor + gpucheck": (["doctor", "gpucheck"], 1200),
}


def count(path: Path) -> tuple[int, int]:
    """(all lines, lines that hold code: neither blank nor comment nor docstring)."""
    source = path.read_text(encoding="utf-8")
    code = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
                              tokenize.ENDMARKER):
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            code -= set(range(node.lineno, node.end_lineno + 1))
    return source.count("\n"), len(code)


def files(name: str) -> list[Path]:
    folder = ROOT / "minidl" / name
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


print(f"{'':38}{'lines':>7}{'code':>7}{'guide':>7}   longest file")
for part, (names, guide) in GUIDE.items():
    counts = {path: count(path) for name in names for path in files(name)}
    longest = max(counts, key=lambda path: counts[path][0])
    total, code = (sum(c[i] for c in counts.values()) for i in (0, 1))
    print(f"{part:38}{total:7}{code:7}{guide:7}   {longest.relative_to(ROOT)} {counts[longest][0]}")
for path in sorted((ROOT / "labs").glob("*.py")):
    print(f"labs/{path.name:33}{count(path)[0]:7}{count(path)[1]:7}{250:7}")
too_long = [path for path in sorted((ROOT / "minidl").rglob("*.py")) if count(path)[0] > LONGEST]
if too_long:
    raise SystemExit(f"longer than {LONGEST} lines: {', '.join(str(path.relative_to(ROOT)) for path in too_long)}")
