"""`python -m minidl COMMAND`: what is done once, outside of any script."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence


def warmup() -> int:
    """Compile all kernels now."""
    import numba

    from minidl.kernels import compiling
    from minidl.kernels.warmup import warmup as all_kernels

    began = time.perf_counter()
    if numba.config.DISABLE_JIT:
        say("nothing to compile: NUMBA_DISABLE_JIT is set, kernels run as plain Python")
        return 0
    for name, compiled, seconds in all_kernels():
        if compiled:
            say(f"{name:<12} {seconds:5.1f} s   {', '.join(dict.fromkeys(compiled))}")
    spent = time.perf_counter() - began
    if compiling.names():
        say(f"compiled {len(compiling.names())} functions in {spent:.1f} s")
    else:
        say(f"nothing to compile: all kernels were loaded in {spent:.1f} s, from {compiling.folder()}")
    return 0


def doctor() -> int:
    """Say what is installed and whether it works. The exit code is 1 if something that is installed does not."""
    from minidl.doctor import examine

    return 1 if examine(say) else 0


# every command: its name and what it does; a word of help is the first line of the function's docstring
COMMANDS: dict[str, Callable[[], int]] = {"doctor": doctor, "warmup": warmup}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the command line names; without one, show what there is. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m minidl", description="minidl on the command line")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, command in COMMANDS.items():
        about = (command.__doc__ or "").splitlines()[0]
        commands.add_parser(name, help=about, description=about).set_defaults(command=command)
    chosen = parser.parse_args(arguments)
    if not hasattr(chosen, "command"):
        parser.print_help()
        return 0
    return int(chosen.command())


def say(line: str) -> None:
    """Print a line."""
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
