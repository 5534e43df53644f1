"""A computation graph of a few operations: drawn, walked back one op at a time, and every gradient checked three ways.

    python -m labs.autograd

Each function is written down once. Its gradients come from autograd, from the chain rule written out by hand, and from
finite differences, all in float64:

    df/dx ≈ (f(x + e) − f(x − e)) / 2e,   e = 10⁻⁶

All numbers are small enough to follow with a pencil. To stop inside a backward, set a breakpoint in
`minidl/ops/elementwise.py`, for example in `Mul.backward_a`.

Ref: Baydin et al. 2018, arXiv:1502.05767
"""
# %%
import numpy as np

import minidl
from labs._lab import Lab
from minidl import autograd, ops

STEP = 1e-6                                     # e: the formula errs by about e², rounding by about 10⁻¹⁶ / e
lab = Lab("autograd", __doc__, datasets=(), seconds=lambda args: 2)


def leaf(values, requires_grad=True):
    """A float64 tensor that nothing was computed for."""
    return minidl.tensor(values, dtype=minidl.float64, device=lab.device, requires_grad=requires_grad)


def array(x):
    """The numbers of a tensor, in NumPy."""
    return x.detach().cpu().numpy()


def finite_differences(function, inputs, name):
    """d(function)/d(each element of one input): the element is moved up and down, the function is computed twice."""
    start = array(inputs[name])
    result = np.empty_like(start)
    for index in np.ndindex(start.shape):
        values = []
        for step in (STEP, -STEP):
            moved = start.copy()
            moved[index] += step
            values.append(function(**{**inputs, name: leaf(moved, requires_grad=False)}).item())
        result[index] = (values[0] - values[1]) / (2 * STEP)
    return result


def three_ways(key, output, function, inputs, by_hand, **intermediates):
    """Compute the gradients by autograd and by finite differences too, and print all three beside each other."""
    names = list(by_hand)
    gradients = dict(zip(names, autograd.grad(function(**inputs), [inputs[name] for name in names]), strict=True))
    found, rows, largest = {}, [], 0.0
    for name in names:
        ways = {"autograd": array(gradients[name]), "by hand": np.asarray(by_hand[name]),
                "finite differences": finite_differences(function, inputs, name)}
        for index in np.ndindex(ways["autograd"].shape):
            numbers = [float(way[index]) for way in ways.values()]
            place = str(list(index)) if index else ""
            rows.append([f"d{output}/d{name}{place}", *numbers, max(numbers) - min(numbers)])
            largest = max(largest, max(numbers) - min(numbers))
        found[name] = ways
    passed = minidl.gradcheck(lambda *xs: function(**dict(zip(inputs, xs, strict=True))), list(inputs.values()))
    lab.table(rows, ["gradient", "autograd", "by hand", "finite differences", "largest difference"])
    lab.metrics[key] = {"value": function(**inputs).item(), "intermediates": intermediates, "gradients": found,
                        "largest_difference": largest, "gradcheck": passed}
    assert largest < 1e-6, f"the gradients of {key} differ by {largest:.1e}"


# %% f = (x + y)·z
def sum_times(x, y, z):
    """(x + y)·z."""
    return (x + y) * z


lab.section("A sum and a product: f = (x + y)·z")
inputs = {"x": leaf(-2.0), "y": leaf(5.0), "z": leaf(-4.0)}
x, y, z = inputs.values()
q = x + y
f = q * z
lab.say(f"With x = {x.item():g}, y = {y.item():g}, z = {z.item():g}: q = x + y = {q.item():g} and f = q·z = "
        f"{f.item():g}. The chain rule goes from f upwards, and multiplies by one derivative at each op:\n\n"
        f"    df/df = 1\n"
        f"    df/dq = z             = {z.item():g}      a product hands each factor the other one\n"
        f"    df/dz = q             = {q.item():g}\n"
        f"    df/dx = df/dq · dq/dx = {z.item():g} · 1  a sum hands its gradient on as it is\n"
        f"    df/dy = df/dq · dq/dy = {z.item():g} · 1")
lab.drawing(minidl.draw(f, {**inputs, "q": q, "f": f}, gradients=True), "sum_times",
            "Values in black go down, gradients in red come up. Add gives both inputs what it got; Mul gives each "
            "input what it got times the other input.")
three_ways("sum_times", "f", sum_times, inputs, {"x": array(z), "y": array(z), "z": array(x) + array(y)},
           q=q)


# %% s = tanh(x·y + z), walked back one op at a time
def through_tanh(x, y, z):
    """tanh(x·y + z)."""
    return (x * y + z).tanh()


lab.section("A nonlinearity, one op at a time: s = tanh(x·y + z)")
inputs = {"x": leaf(1.5), "y": leaf(-0.5), "z": leaf(1.0)}
x, y, z = inputs.values()
p = x * y
u = p + z
s = u.tanh()
slope = 1 - array(s) ** 2
lab.say(f"Here p = x·y = {p.item():g}, u = p + z = {u.item():g} and s = tanh(u) = {s.item():.4g}. The derivative of "
        f"tanh is 1 − tanh², which the op computes from its own output:\n\n"
        f"    ds/du = 1 − s²     = {slope:.4g}\n"
        f"    ds/dz = ds/du · 1  = {slope:.4g}\n"
        f"    ds/dp = ds/du · 1  = {slope:.4g}\n"
        f"    ds/dx = ds/dp · y  = {slope * array(y):.4g}\n"
        f"    ds/dy = ds/dp · x  = {slope * array(x):.4g}\n\n"
        f"`for step in s.backward_steps()` is the same walk with a stop after each op:")
steps = list(s.backward_steps(retain_graph=True))
walk = [{"op": str(step.op), "incoming": step.incoming.item(),
         "outgoing": {name: gradient.item() for name, gradient in step.outgoing.items()}} for step in steps]
lab.table([[number, step["op"], step["incoming"],
            ", ".join(f"to {name}: {value:.4g}" for name, value in step["outgoing"].items())]
           for number, step in enumerate(walk, start=1)],
          ["step", "op", "gradient of its output", "gradients of its inputs"],
          "The walk back; a and b are the first and the second input of an op")
lab.metrics["steps"] = walk
lab.drawing(minidl.draw(s, {**inputs, "p": p, "u": u, "s": s}, gradients=steps), "through_tanh",
            "The same three steps in the graph, from the bottom up.")
three_ways("through_tanh", "s", through_tanh, inputs,
           {"x": slope * array(y), "y": slope * array(x), "z": slope}, p=p, u=u, slope=slope)

# %% Who keeps a gradient?
lab.section("Leaves keep their gradient, intermediates do not")


def backward_through(retain):
    """The gradients of a leaf and of an intermediate after one backward: numbers, or None."""
    x, y, z = leaf(-2.0), leaf(5.0), leaf(-4.0)
    q = x + y
    if retain:
        q.retain_grad()
    (q * z).backward()
    return {"x.grad": x.grad.item(), "q.grad": None if q.grad is None else q.grad.item()}


kept = {"as it is": backward_through(False), "with q.retain_grad() before it": backward_through(True)}
lab.table([[how, *("None" if grad is None else f"{grad:g}" for grad in grads.values())] for how, grads in kept.items()],
          ["after f.backward()", "x.grad, of a leaf", "q.grad, of x + y"])
lab.say("The walk computes df/dq on its way in both cases. It lets go of it once the op before has used it: in a large "
        "network these gradients would take as much memory as all activations. `retain_grad()` asks to keep one.")
lab.metrics["retain_grad"] = kept


# %% One variable, two ways to the output
def fork(x, y):
    """x·y + x."""
    return x * y + x


lab.section("A fork: f = x·y + x uses x twice")
inputs = {"x": leaf(3.0), "y": leaf(-2.0)}
x, y = inputs.values()
p = x * y
f = p + x
parts = {}
for step in f.backward_steps(retain_graph=True):
    for parent, gradient in zip(step.node.parents, step.outgoing.values(), strict=True):
        if parent is x.node:
            parts[str(step.op)] = gradient.item()
first = x.grad.item()
f.backward(retain_graph=True)                                   # the graph stays for the drawing below
second = x.grad.item()
lab.say(f"If x moves by a little, f moves on both ways, and the changes add up:\n\n"
        f"    df/dx = d(x·y)/dx + dx/dx = y + 1 = {y.item():g} + 1 = {y.item() + 1:g}\n\n"
        f"The walk finds {' and '.join(f'{value:g} through {op}' for op, value in parts.items())}: x.grad = {first:g}."
        f"\n\n`.grad` also adds up over calls: after a second `backward()` x.grad = {second:g}. This is why training "
        f"calls `optimizer.zero_grad()` in every step.")
lab.drawing(minidl.draw(f, {**inputs, "p": p, "f": f}, gradients=True), "fork",
            "Two arrows leave x. Each brings its part of the gradient back, and the box of x has the sum.")
three_ways("fork", "f", fork, inputs, {"x": array(y) + 1, "y": array(x)}, p=p)
lab.metrics["fork_parts"], lab.metrics["fork_grad_after_calls"] = parts, [first, second]


# %% L = ½ Σ (AB)²
def half_square(A, B):
    """½ Σ (A B)²."""
    return ((A @ B) ** 2).sum() / 2


lab.section("A product of matrices: L = ½ Σ (AB)²")
inputs = {"A": leaf([[1.0, 2.0, 0.0], [-1.0, 1.0, 3.0]]), "B": leaf([[2.0, -1.0], [0.0, 1.0], [1.0, 2.0]])}
A, B = inputs.values()
C = A @ B
squares = C ** 2
total = squares.sum()
L = total / 2
lab.say("Element by element, C = AB is a sum of products, and A[i, k] is in all C[i, j] of its row:\n\n"
        "    C[i, j]     = Σₖ A[i, k] · B[k, j]\n"
        "    dL/dA[i, k] = Σⱼ G[i, j] · B[k, j]     with G = dL/dC:   dL/dA = G Bᵀ   (2, 2) (2, 3) -> (2, 3)\n"
        "    dL/dB[k, j] = Σᵢ A[i, k] · G[i, j]                       dL/dB = Aᵀ G   (3, 2) (2, 2) -> (3, 2)\n\n"
        "With L = ½ Σ C² the gradient of C is C itself: G = C.")
lab.drawing(minidl.draw(L, {**inputs, "C": C, "C²": squares, "Σ C²": total, "L": L}, gradients=True), "matmul",
            "Every gradient has the shape of its tensor. The gradient of C equals C, as ½ C² says.")
G = array(A) @ array(B)                                         # (2, 3) @ (3, 2) -> (2, 2)
three_ways("matmul", "L", half_square, inputs, {"A": G @ array(B).T, "B": array(A).T @ G}, C=C)


# %% a = σ(w·x + b)
def neuron(w, x, b):
    """σ(w·x + b)."""
    return ((w * x).sum() + b).sigmoid()


lab.section("A neuron: a = σ(w·x + b)")
inputs = {"w": leaf([0.5, -1.0, 2.0]), "x": leaf([1.0, 2.0, 0.5], requires_grad=False), "b": leaf(0.25)}
w, x, b = inputs.values()
products = w * x
total = products.sum()
u = total + b
a = u.sigmoid()
slope = array(a) * (1 - array(a))
lab.say(f"x is data: it needs no gradient, and none is computed. u = w·x + b = {u.item():g}, a = σ(u) = "
        f"{a.item():.4g}, and the derivative of σ is σ (1 − σ):\n\n"
        f"    da/du   = a (1 − a)      = {slope:.4g}\n"
        f"    da/db   = da/du · 1      = {slope:.4g}\n"
        f"    da/dwᵢ  = da/du · 1 · xᵢ = {slope:.4g} · xᵢ     the sum copies, the product swaps")
lab.drawing(minidl.draw(a, {**inputs, "w⊙x": products, "w·x": total, "u": u, "a": a}, gradients=True), "neuron",
            "Data in grey, without a gradient. Sum spreads its one gradient over all three products.")
three_ways("neuron", "a", neuron, inputs, {"w": slope * array(x), "b": slope}, u=u, slope=slope)

# %%
lab.section("All of them")
functions = ["sum_times", "through_tanh", "fork", "matmul", "neuron"]
lab.metrics["largest_difference"] = worst = max(lab.metrics[key]["largest_difference"] for key in functions)
lab.say(f"The three ways agree in every element; the largest difference is {worst:.1e}, and gradcheck passes for all.")
for thing in (ops.Add, ops.Mul, ops.Tanh, ops.MatMul, autograd.walk):
    lab.code(thing)
classic = {name: float(ways["autograd"]) for name, ways in lab.metrics["sum_times"]["gradients"].items()}
lab.question("Why does a sum copy its gradient, and why does a product swap its factors?",
             "The slope of a + b is 1 in both directions, so what comes in goes out, 1 times. The slope of a·b in the "
             "direction of a is b: the larger the other factor, the more a change of this one counts. In the first "
             f"graph x and y both get {classic['x']:g}, which is z, and z gets {classic['z']:g}, which is x + y.")
lab.question("Why are the gradients of a leaf added, and not averaged, or the last one taken?",
             f"A change of x reaches f on every way, and to first order changes add up: in the fork, "
             f"{' + '.join(f'({value:g})' for value in parts.values())} = {first:g}. The finite difference moves x in "
             f"both places at once, and finds the same.")
lab.question("Why does the backward of a product of matrices have transposes?",
             "A[i, k] meets B[k, j] in forward; on the way back the sum runs over j, the other axis of B, and that is "
             "a product with Bᵀ. The shapes leave no choice: from G (2, 2) and B (3, 2) comes something of the shape "
             "of A (2, 3) only as G Bᵀ.")
lab.finish()
