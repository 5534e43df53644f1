"""`minidl.summary(model, (1, 28, 28))`: what each layer puts out, how many numbers it learns, how much it computes.

The model runs once, on zeros, in evaluation mode and without recording; nothing of it changes. Multiply-adds are
counted where they happen, in the ops, so a convolution called as a function counts too.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from minidl import ops
from minidl.creation import zeros
from minidl.errors import MinidlError, SettingError, ShapeError
from minidl.graph import Observer, Op, observers
from minidl.nn.module import Module, Parameter
from minidl.nn.utils.modes import evaluating
from minidl.recording import no_grad
from minidl.tensors import Tensor


@dataclass
class Row:
    """One call of one layer."""

    name: str                               # "features.0"; "" is the model itself
    kind: str                               # "Conv2d"
    output_shape: tuple[int, ...] = ()
    kernel: tuple[int, ...] | None = None
    parameters: int = 0                     # its own; a parameter that two layers share counts where it comes first
    bytes: int = 0                          # of these parameters
    multiply_adds: int = 0                  # of one forward pass of this input
    is_container: bool = False


@dataclass
class Summary:
    """The rows, in the order of the calls, and their totals. `print` shows them as a table."""

    rows: list[Row]
    input_shapes: list[tuple[int, ...]]
    parameters: int
    trainable: int
    bytes: int
    multiply_adds: int
    output_bytes: int
    unused: list[str] = field(default_factory=list)         # parameters of layers that were not called

    def __repr__(self) -> str:
        return f"Summary({self.parameters:,} parameters, {self.multiply_adds:,} multiply-adds)"

    def __str__(self) -> str:
        from rich.console import Console  # here: only who prints a table pays for it
        from rich.table import Table

        shapes = " and ".join(str(shape) for shape in self.input_shapes)
        table = Table(title=f"input {shapes}", title_justify="left")
        for column in ("layer", "output shape", "kernel"):
            table.add_column(column)
        for column in ("parameters", "bytes", "multiply-adds"):
            table.add_column(column, justify="right")
        for row in self.rows:
            kernel = "" if row.kernel is None else "×".join(map(str, row.kernel))
            table.add_row(f"{row.name} {row.kind}".strip(), str(row.output_shape), kernel, f"{row.parameters:,}",
                          f"{row.bytes:,}", f"{row.multiply_adds:,}")
        table.add_section()
        table.add_row("total", "", "", f"{self.parameters:,}", f"{self.bytes:,}", f"{self.multiply_adds:,}")
        text = io.StringIO()
        console = Console(file=text, width=120, color_system=None, legacy_windows=False)
        console.print(table)
        frozen = self.parameters - self.trainable
        lines = [f"{self.trainable:,} parameters are trained" + (f", {frozen:,} are frozen" if frozen else ""),
                 f"the outputs of all layers together take {self.output_bytes:,} bytes"]
        lines += [f"not called: {', '.join(self.unused)}"] if self.unused else []
        return text.getvalue() + "\n".join(lines)


class _Counter(Observer):
    """Adds the multiply-adds of each op to the row of the layer that is running."""

    def __init__(self) -> None:
        self.running: list[Row] = []

    def op_called(self, op: Op, inputs: Sequence[Any], output: Tensor) -> None:
        if self.running:
            self.running[-1].multiply_adds += _multiply_adds(op, inputs, output)


def _multiply_adds(op: Op, inputs: Sequence[Any], output: Tensor) -> int:
    """The products that an op adds up; ops that do not multiply matrices count 0."""
    if isinstance(op, ops.Conv2d):
        return output.numel() * int(math.prod(inputs[1].shape[1:]))          # each output: C/groups · KH · KW
    if isinstance(op, ops.Conv2dInputGrad):
        return int(inputs[0].numel() * math.prod(inputs[1].shape[1:]))       # transposed: each input
    if isinstance(op, ops.Linear | ops.MatMul):
        return int(output.numel() * inputs[0].shape[-1])
    if isinstance(op, ops.Einsum):
        return int(math.prod(op.size.values())) if len(inputs) > 1 else 0
    return 0


def summary(model: Module, input_size: Any = None, batch_size: int = 1, *, input_data: Any = None, dtype: Any = None,
            verbose: bool = True) -> Summary:
    """Run the model once and print a table of its layers; also returned, with all numbers.

    input_size: the shape of one sample, (1, 28, 28); a list of shapes for a model with several inputs. A shape that
    has its batch already, (64, 1, 28, 28), is understood where the model takes no other. input_data: tensors to use
    instead, for a model that takes integers. batch_size: how many samples the numbers are for.
    """
    if not isinstance(model, Module):
        raise SettingError(f"got {type(model).__name__}, expected a module", where="summary")
    if (input_size is None) == (input_data is None):
        raise SettingError("expected either input_size or input_data", where="summary")
    if input_data is not None:
        inputs = list(input_data) if isinstance(input_data, tuple | list) else [input_data]
        result = _run(model, inputs)
    else:
        sizes = [input_size] if isinstance(input_size[0], int) else list(input_size)
        example = next(iter(model.parameters()), None)
        number_type = dtype or (None if example is None else example.dtype)
        place = None if example is None else example.device
        try:
            result = _run(model, [zeros(batch_size, *size, dtype=number_type, device=place) for size in sizes])
        except ShapeError as error:
            try:
                result = _run(model, [zeros(*size, dtype=number_type, device=place) for size in sizes])
            except MinidlError:
                raise error from None
    if verbose:
        sys.stdout.write(f"{result}\n")
    return result


def _run(model: Module, inputs: list[Tensor]) -> Summary:
    counter, rows, seen = _Counter(), [], set[Parameter]()
    paths = {module: path for path, module in model.named_modules()}
    output_bytes = 0

    def before(module: Module, args: tuple[Any, ...]) -> None:
        row = Row(paths[module], type(module).__name__, is_container=any(True for _ in module.children()))
        row.kernel = _kernel(module)
        for p in module.parameters(recurse=False):
            if p not in seen:
                seen.add(p)
                row.parameters += p.numel()
                row.bytes += p.nbytes
        rows.append(row)
        counter.running.append(row)

    def after(module: Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal output_bytes
        row = counter.running.pop()
        first = output[0] if isinstance(output, tuple | list) and output else output
        row.output_shape = tuple(first.shape) if isinstance(first, Tensor) else ()
        if isinstance(first, Tensor) and not row.is_container:
            output_bytes += first.nbytes

    handles = [module.register_forward_pre_hook(before) for module in paths]
    handles += [module.register_forward_hook(after) for module in paths]
    observers.append(counter)
    try:
        with no_grad(), evaluating(model):
            model(*inputs)
    finally:
        observers.remove(counter)
        for handle in handles:
            handle.remove()
    shown = [row for row in rows if not row.is_container or row.parameters or row.multiply_adds]
    parameters = dict(model.named_parameters())
    return Summary(
        rows=shown, input_shapes=[tuple(x.shape) for x in inputs],
        parameters=sum(p.numel() for p in parameters.values()),
        trainable=sum(p.numel() for p in parameters.values() if p.requires_grad),
        bytes=sum(p.nbytes for p in parameters.values()), multiply_adds=sum(row.multiply_adds for row in rows),
        output_bytes=output_bytes, unused=[name for name, p in parameters.items() if p not in seen],
    )


def _kernel(module: Module) -> tuple[int, ...] | None:
    kernel = getattr(module, "kernel_size", None)
    if isinstance(kernel, int):
        return (kernel, kernel) if type(module).__name__.endswith("2d") else (kernel,)
    return tuple(kernel) if isinstance(kernel, tuple) else None
