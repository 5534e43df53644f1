"""What the stages share: where they run, what is random, how much time is left, and the report."""

from __future__ import annotations

import importlib
import json
import platform
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from minidl import cuda
from minidl._version import __version__
from minidl.backend import backend_for
from minidl.gpucheck.table import render
from minidl.writing import make_folder, replace_whole

ROOT = Path(__file__).parents[2]                # of the checkout, if there is one
REHEARSAL = ("THIS IS A REHEARSAL without a GPU: kernels ran in Numba's simulator on the device \"fake\", on tiny "
             "sizes, and the times mean nothing.")


class Session:
    """One run: its device, its random numbers and its report, which is written again after every stage.

    rehearsal: without a GPU. seed: of the random inputs. budget: seconds for all stages. out: the folder of the report.
    """

    def __init__(self, out: str | Path, *, rehearsal: bool = False, seed: int = 0, budget: float = 540) -> None:
        self.rehearsal, self.seed, self.budget, self.out = rehearsal, seed, budget, Path(out)
        self.device = "fake" if rehearsal else "cuda"
        self.backend, self.rng = backend_for(self.device), np.random.default_rng(seed)
        self.torch: Any = None                  # the module, if it is there and has a GPU
        self.torch_device = "cuda"
        self.mismatches: list[dict[str, str]] = []
        self.report: dict[str, Any] = {
            "rehearsal": rehearsal, "note": REHEARSAL * rehearsal, "seed": seed, "budget": budget, "stages": {},
            "date": datetime.now().astimezone().isoformat(timespec="seconds"), "mismatches": self.mismatches}
        self._began = time.perf_counter()
        make_folder(self.out, "gpucheck")

    def left(self) -> float:
        """How many seconds of the budget are left."""
        return self.budget - (time.perf_counter() - self._began)

    def say(self, line: str) -> None:
        """Print a line."""
        print(line, flush=True)  # noqa: T201

    def wrong(self, name: str, error: str | Exception) -> None:
        """Note that something is wrong, and go on; the first time for a name, say so."""
        text = f"{type(error).__name__}: {error}"[:600] if isinstance(error, Exception) else error
        if all(noted["name"] != name for noted in self.mismatches):
            self.say(f"  WRONG {name}: {text}")
        self.mismatches.append({"name": name, "error": text})

    def save(self) -> None:
        """Write gpucheck.json and table.md as far as they are known. Raises `MinidlError` where that cannot be."""
        text = json.dumps(self.report, indent=1, ensure_ascii=False)
        replace_whole(self.out / "gpucheck.json", text.encode(), "gpucheck")
        replace_whole(self.out / "table.md", render(self.report).encode(), "gpucheck")


def from_checkout(module: str) -> Any:
    """A module of the checkout that is not installed with minidl ("tests.cases"); None if there is no checkout."""
    if not (ROOT / Path(*module.split("."))).with_suffix(".py").is_file():
        return None
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(module)


def versions(session: Session, entry: dict[str, Any]) -> str:
    """The first stage: what is here. Finds PyTorch too."""
    installed = {found.metadata["Name"]: found.version for found in metadata.distributions()}
    entry |= {"minidl": __version__, "python": platform.python_version(), "system": platform.platform()}
    entry |= {name: version for name, version in installed.items()
              if name in ("numpy", "numba", "numba-cuda") or str(name).startswith("cupy")}
    if session.rehearsal:
        return "done"
    runtime, card = session.backend.xp.cuda.runtime, cuda.get_device_properties()
    entry |= {"card": card.name, "capability": f"{card.major}.{card.minor}", "processors": card.multi_processor_count,
              "memory": card.total_memory, "cuda": runtime.runtimeGetVersion(), "driver": runtime.driverGetVersion()}
    with suppress(OSError, subprocess.SubprocessError):         # nvidia-smi knows the driver's own number
        found = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], text=True,
                               capture_output=True, timeout=30, check=True)
        entry["driver"] = found.stdout.partition("\n")[0].strip()
    try:
        torch = importlib.import_module("torch")
        entry["PyTorch"] = f"{torch.__version__}, cuDNN {torch.backends.cudnn.version()}"
        session.torch = torch if torch.cuda.is_available() else None
        entry["PyTorch"] += "" if session.torch else ", which sees no GPU"
    except Exception as error:                  # not installed, or without one of its libraries
        entry["PyTorch"] = f"none ({error})"
    session.say(f"  {card.name}, driver {entry['driver']}; PyTorch: {entry['PyTorch']}")
    return "done"
