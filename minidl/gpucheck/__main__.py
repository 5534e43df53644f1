"""`python -m minidl.gpucheck [--budget SECONDS] [--out DIR] [--seed N]`: check and time everything on a new card.

It needs NumPy, Numba, numba-cuda and CuPy, and no installation: a checkout will do. What is left out for lack of time
is said. The exit code is 0 if all that was checked is right, 1 if anything is wrong, 2 without a GPU.

    NUMBA_ENABLE_CUDASIM=1 python -m minidl.gpucheck --rehearse         # the same without a GPU, on tiny sizes
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from minidl.backend import why_no_cuda
from minidl.errors import SettingError
from minidl.gpucheck.session import Session, versions
from minidl.gpucheck.table import render
from minidl.kernels import use_kernels

Stage = Callable[[Session, dict[str, Any]], str]


def stages() -> list[tuple[str, Stage, float]]:
    """Name, function and the least seconds that it makes sense with; the most important first."""
    from minidl.gpucheck import kernels, ops, timing

    return [("versions", versions, -math.inf), ("kernels", kernels.run, 10), ("ops", ops.first_order, 10),
            ("overhead", timing.overhead, 5), ("timing", timing.timing, 10),
            ("ops, second order", ops.second_order, 10)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all stages that there is time for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m minidl.gpucheck", description="check and time everything on a GPU")
    parser.add_argument("--budget", type=float, default=540, metavar="SECONDS", help="for all of it (default 540)")
    parser.add_argument("--out", default="runs/gpucheck", metavar="DIR", help="for the report (default runs/gpucheck)")
    parser.add_argument("--seed", type=int, metavar="N", help="of the random inputs (default: another every time)")
    parser.add_argument("--rehearse", action="store_true",
                        help="without a GPU, in Numba's simulator (NUMBA_ENABLE_CUDASIM=1), on tiny sizes")
    args = parser.parse_args(arguments)
    if args.rehearse:
        from minidl.debug import simulator

        try:
            simulator.install()
        except SettingError as error:
            parser.error(str(error))
    elif os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        parser.error("got NUMBA_ENABLE_CUDASIM=1, with which no kernel runs on the GPU; unset it, or use --rehearse")
    elif (reason := why_no_cuda()) is not None:
        print(f"There is no GPU to check: {reason}", flush=True)  # noqa: T201
        return 2
    session = Session(args.out, rehearsal=args.rehearse, budget=args.budget,
                      seed=time.time_ns() % 2**32 if args.seed is None else args.seed)
    session.say(f"seed {session.seed}; the report is written to {session.out}")
    with use_kernels("cuda") if args.rehearse else nullcontext():
        for name, stage, least in stages():
            run(session, name, stage, least)
    session.report["exit_code"] = int(bool(session.mismatches))
    session.save()
    session.say(f"\n{render(session.report)}")
    return int(session.report["exit_code"])


def run(session: Session, name: str, stage: Stage, least: float) -> None:
    """One stage, into the report. However it ends, the report is written."""
    entry: dict[str, Any] = {"state": "not done (budget)"}
    session.report["stages"][name], began = entry, time.perf_counter()
    try:
        if session.left() >= least:
            session.say(f"{name} …")
            entry["state"] = "broke off"
            entry["state"] = stage(session, entry)
    except Exception as error:
        session.wrong(f"stage {name}", error)
        entry["traceback"] = traceback.format_exc()
    finally:
        entry["seconds"] = round(time.perf_counter() - began, 1)
        session.save()
    session.say(f"{name}: {entry['state']}" + (f"; {entry['result']}" if "result" in entry else ""))


if __name__ == "__main__":
    sys.exit(main())
