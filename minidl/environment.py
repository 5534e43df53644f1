"""What other libraries are told before they load, through the environment. What is set there already stays.

Importing this is telling them: OpenBLAS, the matrix library under NumPy, reads its settings when NumPy is loaded. So a
program that has loaded NumPy before minidl goes without the second one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def is_zen4(cpuinfo: str) -> bool:
    """Whether Linux's description of a processor, /proc/cpuinfo, is that of an AMD Zen 4: a family 25 with AVX-512."""
    facts: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())                       # of the first core
    return (facts.get("vendor_id") == "AuthenticAMD" and facts.get("cpu family") == "25"
            and "avx512f" in facts.get("flags", "").split())


def processor() -> str:
    """What Linux says about the first core; empty elsewhere."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            return file.read(8192)                                          # all cores would be long
    except OSError:
        return ""


def processor_name() -> str:
    """The name of the processor, as far as the system tells it."""
    for line in processor().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    import platform  # here, because `import minidl` is to be light

    return platform.processor() or platform.machine()


# Threads that wait for work must not spin: Numba's and the matrix library's take turns on the same cores, and spinning
# ones steal milliseconds from each other. OpenMP reads this once, before its first parallel region.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Zen 4 does AVX-512 in two halves. OpenBLAS takes its kernels for Intel's processors there, but those without AVX-512
# are 8 % faster (110 GFLOP/s instead of 102 on one core, products of 256 to 1,024 rows and columns; OpenBLAS 0.3.31).
if "numpy" not in sys.modules and is_zen4(processor()):
    os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
