"""PyTorch's way to write an op: a Function with two static methods and a context between them.

    class Square(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 2 * x * g

    y = Square.apply(x)

minidl's own way is `Op`, in which the signature of backward says what is kept. A Function is one `Op` underneath, so it
stands in the graph, in `backward_steps()` and in gradcheck like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.backend import Array
from minidl.errors import GraphError
from minidl.graph import Op, is_tensor, new_tensor
from minidl.recording import no_grad

_FOREIGN = {"mark_non_differentiable": "return None as that gradient",
            "mark_dirty": "forward must not change its inputs",
            "set_materialize_grads": "gradients always come as tensors"}


class Context:
    """What `forward` leaves for `backward`: saved tensors, and any attribute."""

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self.saved_tensors: tuple[Any, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep tensors for backward, which finds them in `saved_tensors`."""
        self.saved_tensors = tensors

    def __getattr__(self, name: str) -> Any:
        if name in _FOREIGN:
            raise AttributeError(f"the context has no {name!r}; {_FOREIGN[name]}")
        raise AttributeError(f"the context has no {name!r}; what backward needs, forward must put there: "
                             f"ctx.{name} = …")


class Function:
    """The base of ops in PyTorch's style; see the top of this file."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    setup_context: Callable[..., Any] | None = None         # if given, forward takes no ctx: PyTorch's newer style

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Call the op on tensors and other things."""
        tensors = [x for x in args if is_tensor(x)]
        return FunctionCall(cls, args)(*tensors)


class FunctionCall(Op):
    """One call of a Function. The gradients are what its `backward` returns."""

    def __init__(self, function: type[Function], args: tuple[Any, ...]) -> None:
        self.function = function
        self.is_tensor = [is_tensor(x) for x in args]
        self.constants = [None if is_tensor(x) else x for x in args]
        self.context = Context(tuple(bool(getattr(x, "requires_grad", False)) for x in args))

    def forward(self, *xs: Array) -> Array:
        """Call the Function's forward, without recording what it does inside."""
        remaining = iter(xs)
        args = [new_tensor(next(remaining)) if is_a_tensor else constant
                for is_a_tensor, constant in zip(self.is_tensor, self.constants, strict=True)]
        with no_grad():
            if self.function.setup_context is None:
                y = self.function.forward(self.context, *args)
            else:
                y = self.function.forward(*args)
                self.function.setup_context(self.context, tuple(args), y)
        if not is_tensor(y):
            raise GraphError(f"forward returned {type(y).__name__}, expected one tensor; write one Function for each "
                             f"output", where=self.function.__name__)
        # Which saved tensor is the output or which input: backward gets it connected to the graph. Anything else
        # depends on the inputs in a way that the graph does not know.
        known = {id(x.array): k for k, x in enumerate([y, *(x for x in args if is_tensor(x))])}
        saved = self.context.saved_tensors
        self.place_of_saved = [known.get(id(x.array)) if is_tensor(x) else None for x in saved]
        self.once_differentiable = any(place is None for place in self.place_of_saved)
        return y.array

    def backward(self, g: Any, y: Any, *xs: Any) -> tuple[Any, ...]:
        """Call the Function's backward, with the inputs and the output that it saved connected to the graph again."""
        connected = (y, *xs)
        self.context.saved_tensors = tuple(
            saved if place is None else connected[place]
            for saved, place in zip(self.context.saved_tensors, self.place_of_saved, strict=True))
        result = self.function.backward(self.context, g)
        gradients = result if isinstance(result, tuple) else (result,)
        beyond = gradients[len(self.is_tensor):]            # for arguments that have defaults and were not given
        if len(gradients) < len(self.is_tensor) or any(g is not None for g in beyond):
            raise GraphError(f"backward returned {len(gradients)} gradients, expected {len(self.is_tensor)}: one for "
                             f"each argument of forward, None for those without", where=self.function.__name__)
        return tuple(g for g, is_a_tensor in zip(gradients, self.is_tensor, strict=False) if is_a_tensor)

    def _explained(self, error: Exception, inputs: Any) -> Exception:
        return error                                        # the Function's author wrote what failed

    def __repr__(self) -> str:
        return self.function.__name__


def Variable(data: Any, requires_grad: bool = False) -> Any:
    """What tensors with a gradient were called before PyTorch 0.4: the tensor itself."""
    return data.requires_grad_() if requires_grad else data
