"""The labs: one flat script each, run as `python -m labs.NAME`."""

import sys

# minidl first, before NumPy: see minidl/environment.py. But a process of labs.speed that times PyTorch holds no minidl.
if not ("labs._speed_worker" in sys.orig_argv and {"torch", "torch_best"} & set(sys.orig_argv)):
    import minidl  # noqa: F401
