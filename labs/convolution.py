"""One convolution, computed by every kernel set: the same numbers, and from one step to the next in less time.

By default it is the second convolution of the MNIST network: 32 channels to 64, 3×3, on 64 images of 14×14 pixels, with
both of its gradients. All sets are checked against each other first. Then they are timed, in turn, in many rounds.

    python -m labs.convolution
    python -m labs.convolution --channels-in 64 --size 28 --kernel 5 --batch-size 16
    python -m labs.convolution --preset full            # more rounds, so that the medians are steadier

A GFLOP is 10⁹ operations; a multiplication and an addition are two. Every set is credited with those of the definition,
terms that lie on padding included, whether it does them or finds a way around them.
"""
# %%
import time
from types import FunctionType

import matplotlib.pyplot as plt
import numba
import numpy as np
from matplotlib.patches import Rectangle
from rich.progress import track
from threadpoolctl import threadpool_limits

import minidl
from labs._arguments import positive
from labs._lab import Lab
from minidl.errors import SettingError
from minidl.kernels import compiling, im2col, loops, reference, simd, vectors, winograd
from minidl.kernels.compiling import compiled
from minidl.kernels.geometry import Conv2dGeometry
from minidl.kernels.threads import get_num_threads, parallel, set_num_threads
from minidl.kernels.vectors import LANES, ROWS, VECTORS, add_to, outer, pointers, stay_apart, zeros

FUNCTIONS = {"forward": "conv2d", "input gradient": "conv2d_input_grad", "weight gradient": "conv2d_weight_grad"}
COLOURS = ("C7", "C0", "C1", "C2", "C3")
WINDOWS_AT_MOST = 2e9                                               # bytes


def arguments(parser):
    """The sizes of the convolution, and how often it is timed."""
    for name, value, what in (("channels-in", 32, "channels of the images"), ("channels-out", 64, "channels of the result"),
                              ("size", 14, "height and width of the images"), ("kernel", 3, "height and width of the window")):
        parser.add_argument(f"--{name}", type=positive, default=value, metavar="N", help=f"{what} (default {value})")
    parser.add_argument("--rounds", type=positive, metavar="N", help="how often to time (quick 12, full 60)")
    if numba.config.DISABLE_JIT:
        parser.error("NUMBA_DISABLE_JIT is set, and kernels that are not compiled are not worth timing; unset it, or "
                     'step through the kernels themselves, with minidl.use_kernels("simd") and a small image')


lab = Lab("convolution", __doc__, datasets=(), batch_size=64, extra_arguments=arguments,
          presets={"quick": {"rounds": 12}, "full": {"rounds": 60}}, seconds=lambda args: 10 + args.rounds * 6e-10 * (
              args.batch_size * args.channels_in * args.channels_out * (args.size * args.kernel) ** 2))
args = lab.args
if lab.device != "cpu":
    raise SettingError(f"got {lab.device}, expected cpu, which these kernel sets are made for", where="--device")
window_bytes = 4 * args.batch_size * args.channels_in * (args.size * args.kernel) ** 2
if window_bytes > WINDOWS_AT_MOST:
    raise SettingError(f"got sizes for which im2col would copy {window_bytes / 1e9:,.1f} GB of windows, expected at most "
                       f"{WINDOWS_AT_MOST / 1e9:.0f} GB; take a smaller --batch-size, --size, --channels-in or --kernel")
rng = np.random.default_rng(args.seed)

# %% The ways to compute it: a name, and the functions of that name in FUNCTIONS


def only_tiles(function):
    """A function of `simd`, with its tiles also where it would take Winograd's shorter way."""
    def run(*operands):
        fits, winograd.fits = winograd.fits, lambda *_: False
        try:
            return function(*operands)
        finally:
            winograd.fits = fits

    return run


def a_case(batch, channels, outputs, height, width, kernel, **how):
    """The sizes, random operands of the three functions, in channels-last memory, and the operations of each of them."""
    geometry = Conv2dGeometry.of((batch, channels, height, width), (outputs, channels, *kernel), **how)
    x, g = (rng.standard_normal((batch, *size, count), np.float32).transpose(0, 3, 1, 2)
            for size, count in (((height, width), channels), (geometry.output_size, outputs)))
    w = rng.standard_normal((outputs, channels, *kernel), np.float32)
    return geometry, dict(zip(FUNCTIONS, ((x, w), (g, w), (x, g)), strict=True)), 2 * g.size * w[0].size


WAYS = {name: {label: getattr(kernels, function) for label, function in FUNCTIONS.items()}
        for name, kernels in (("reference", reference), ("im2col", im2col), ("loops", loops), ("simd", simd))}
geometry, operands, work = a_case(args.batch_size, args.channels_in, args.channels_out, args.size, args.size,
                                  (args.kernel, args.kernel), padding=args.kernel // 2)
if winograd.fits(geometry, args.channels_in, args.channels_out):
    shortcut = WAYS.pop("simd")
    WAYS |= {"simd, tiles": {label: only_tiles(function) for label, function in shortcut.items()},
             "simd, Winograd": shortcut}
fast = [name for name in WAYS if name != "reference"]
tiled = next(name for name in fast if name.startswith("simd"))
few = (1, min(8, args.channels_in), min(8, args.channels_out), min(14, args.size), min(14, args.size))
small = a_case(*few, (args.kernel, args.kernel), padding=args.kernel // 2)          # what reference can do in a second
times_smaller = work / small[2]

# %% Equal?
lab.section("Do they compute the same?")


def relative_difference(result, truth):
    """The largest difference between two arrays, as a part of the largest number."""
    assert result.shape == truth.shape
    return float(abs(result - truth).max() / max(abs(truth).max(), 1e-30))


odd = {"3×2 windows two rows and one column apart, padding 1, dilation 2, on 9×7 pixels, 3 to 5 channels":
       a_case(2, 3, 5, 9, 7, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2)),
       "3×3 windows, padding 1, on 5×7 pixels, 32 to 32 channels": a_case(1, 32, 32, 5, 7, (3, 3), padding=1)}
differences, rows, first_calls = {name: {} for name in fast}, [], {name: 0.0 for name in fast}
compiled_before = compiling.seconds()
for case, (odd_geometry, arrays, _) in (odd | {"the case that is timed, against im2col in float64": (geometry, operands, 0)}).items():
    check = im2col if odd_geometry is geometry else reference
    for label, function in FUNCTIONS.items():
        truth = getattr(check, function)(*(array.astype(np.float64) for array in arrays[label]), odd_geometry)
        for name in fast:
            start = time.perf_counter()
            result = WAYS[name][label](*arrays[label], odd_geometry)
            first_calls[name] += time.perf_counter() - start if odd_geometry is geometry else 0
            differences[name].setdefault(case, []).append(relative_difference(result, truth))
    rows.append([case, *(f"{max(differences[name][case]):.1e}" for name in fast)])
compile_seconds = compiling.seconds() - compiled_before
lab.table(rows, ["case", *fast], "The largest difference to reference in float64, as a part of the largest number; "
          "the worst of the result and both gradients")
worst = max(max(values) for cases in differences.values() for values in cases.values())
assert worst < 1e-4, f"the kernel sets differ by {worst:.1e}"
lab.say(f"All agree to {worst:.1e}. A float32 has 24 bits, so each operation may be off by 6e-08 of its result, and a sum "
        f"of {args.channels_in * args.kernel ** 2:,} terms in another order by some times that.")

# %% What the machine can do: multiply-adds on registers, and copying in memory
CHAINS = 8 if VECTORS == 2 else 4               # rows of a tile that leaves registers free for the numbers it multiplies


@compiled
def multiply_in_registers(start, stop, steps, numbers, offsets, total):
    """Outer products of always the same numbers: nothing is fetched, and no product waits for another of its step."""
    stay_apart()
    tile = zeros(CHAINS, VECTORS)
    rows = pointers(tile, numbers, 0, offsets, 0)
    for _ in range(steps):
        tile = outer(tile, rows, 0, numbers, 0)
    add_to(total, start * CHAINS * VECTORS * LANES, VECTORS * LANES, tile)


threads_used = get_num_threads()
counts = sorted({1, threads_used})
numbers, offsets = np.ones(VECTORS * LANES, np.float32), np.arange(CHAINS)
total = np.zeros(threads_used * CHAINS * VECTORS * LANES, np.float32)
source, target, steps = np.ones(1 << 24, np.float32), np.empty(1 << 24, np.float32), 400_000


def multiply(threads):
    """Returns the operations that were done."""
    parallel(multiply_in_registers, [(i, i + 1) for i in range(threads)], steps, numbers, offsets, total)
    return threads * steps * 2 * CHAINS * VECTORS * LANES


def copy(threads):
    """Returns the bytes that were read and written."""
    cuts = np.linspace(0, source.size, threads + 1).astype(int)
    parallel(lambda i, stop: np.copyto(target[cuts[i]:cuts[i + 1]], source[cuts[i]:cuts[i + 1]]),
             [(i, i + 1) for i in range(threads)])
    return 2 * source.nbytes


# %% The rounds: every way once in each, so that a busy moment of the machine meets all of them
def seconds_of(function, *operands):
    """How long one call takes."""
    start = time.perf_counter()
    function(*operands)
    return time.perf_counter() - start


multiply(1)
copy(threads_used)
seconds = {(name, label, threads): [] for name in fast for label in FUNCTIONS for threads in counts}
rates = {(what, threads): [] for what in (multiply, copy) for threads in counts}
parts_of_im2col, small_seconds = {"copy": [], "multiply": []}, {label: [] for label in FUNCTIONS}
matrix = np.ascontiguousarray(operands["forward"][1].transpose(2, 3, 1, 0)).reshape(-1, args.channels_out)
for number in track(range(args.rounds), description="timing"):
    for threads in counts:
        set_num_threads(threads)
        with threadpool_limits(threads, user_api="blas"):
            for name in fast:
                WAYS[name]["forward"](*operands["forward"], geometry)               # its code and data are at hand now
                for label in FUNCTIONS:
                    seconds[name, label, threads].append(seconds_of(WAYS[name][label], *operands[label], geometry))
                if name == "im2col":
                    start = time.perf_counter()
                    windows = im2col.windows_of(operands["forward"][0], geometry, fill=0).reshape(-1, len(matrix))
                    middle = time.perf_counter()
                    windows @ matrix
                    if threads == threads_used:
                        parts_of_im2col["copy"].append(middle - start)
                        parts_of_im2col["multiply"].append(time.perf_counter() - middle)
                    if threads > 1:
                        time.sleep(0.05)            # the threads of the matrix library spin a while after a product
            for what in (multiply, copy):
                start = time.perf_counter()
                rates[what, threads].append(what(threads) / (time.perf_counter() - start))
    if number < 3:
        for label, function in FUNCTIONS.items():
            small_seconds[label].append(seconds_of(getattr(reference, function), *small[1][label], small[0]))

# %% The numbers
median = {key: float(np.median(values)) for key, values in seconds.items()}
for label, values in small_seconds.items():                                         # reference: told from a small case
    median |= {("reference", label, threads): float(np.median(values)) * times_smaller for threads in counts}
gflops = {name: {threads: 3 * work / sum(median[name, label, threads] for label in FUNCTIONS) / 1e9 for threads in counts}
          for name in WAYS}
peak = {threads: float(np.median(rates[multiply, threads])) / 1e9 for threads in counts}
bandwidth = {threads: float(np.median(rates[copy, threads])) / 1e9 for threads in counts}
everyone = f"{threads_used} thread{'s' if threads_used > 1 else ''}"
lab.section("How fast?")
lab.say(f"One of the three functions is {work / 1e9:.4g} GFLOP. Times are medians of {args.rounds} rounds; before them, the "
        f"first calls took " + ", ".join(f"{first_calls[name]:.2f} s ({name})" for name in fast) + ", and compiling "
        f"{compile_seconds:.1f} s of all that was done before (0 if compiled code was found from an earlier run).")
lab.say(f"The peak of this machine, measured in the same rounds: {peak[threads_used]:,.0f} GFLOP/s with {everyone}"
        + (f", {peak[1]:,.0f} with one" if threads_used > 1 else "") + f". That is a compiled loop that multiplies and adds "
        f"numbers in registers, {CHAINS * VECTORS} independent sums of {LANES} numbers each, and touches no memory. Copying "
        f"64 MB reads and writes {bandwidth[threads_used]:,.0f} GB/s. Other programs on the machine lower all of these.")


def row_of(name, milliseconds, rate, star=""):
    """A row of the table of times."""
    return [name, *(f"{value:,.{0 if value >= 100 else 2}f}{star}" for value in milliseconds),
            *(f"{rate[threads]:.3g}" for threads in counts), f"{rate[threads_used] / peak[threads_used]:.1%}"]


all_threads = {name: [1000 * median[name, label, threads_used] for label in FUNCTIONS] for name in WAYS}
lab.table([row_of(name, all_threads[name], gflops[name], "*" if name == "reference" else "") for name in WAYS]
          + [row_of("peak", [work / peak[threads_used] / 1e6] * 3, peak)],
          ["set", *(f"{label}, ms" for label in FUNCTIONS),
           *(f"GFLOP/s, {threads} thread{'s' if threads > 1 else ''}" for threads in counts), "of the peak"],
          f"Milliseconds with {everyone}, and GFLOP/s over all three functions")
lab.say(f"* reference was timed on one image with {few[1]} channels, {few[2]} in the result, and the time multiplied by "
        f"{times_smaller:,.0f}, as there is that much more to do. It runs in one thread and skips what lies on padding.")

# %% Two figures
figure, axes = plt.subplots(figsize=(8.5, 4.4), layout="constrained")
for k, threads in enumerate(counts):
    places = np.arange(len(WAYS)) + (k - (len(counts) - 1) / 2) * 0.4
    bars = axes.bar(places, [gflops[name][threads] for name in WAYS], 0.38, color=COLOURS, alpha=1 if k else 0.55,
                    edgecolor="black", linewidth=0.5)
    axes.bar_label(bars, [f"{gflops[name][threads]:.3g}" for name in WAYS], fontsize=9, padding=2)
    axes.axhline(peak[threads], color="black", linestyle="-" if threads == threads_used else ":", linewidth=1)
    axes.text(-0.45, peak[threads] * (1.08 if threads == threads_used else 0.92), f"peak, {threads} "
              f"thread{'s' if threads > 1 else ''}: {peak[threads]:,.0f}", fontsize=9,
              va="bottom" if threads == threads_used else "top")
axes.set(yscale="log", xticks=range(len(WAYS)), xticklabels=WAYS, ylabel="GFLOP/s (log scale)",
         ylim=(None, 4 * max(*peak.values(), *(max(rate.values()) for rate in gflops.values()))))
axes.set_title(f"Forward and both gradients together; pale: one thread, full: {everyone}" if len(counts) > 1
               else "Forward and both gradients together, one thread", fontsize=11)
lab.figure(figure, "gflops", "How many of the definition's operations each set does in a second. The lines are the "
           "measured peak. reference has been timed on a smaller case, in one thread.")

figure, axes = plt.subplots(figsize=(8.5, 3.8), layout="constrained")
for k, name in enumerate(fast):
    places = np.arange(3) + (k - (len(fast) - 1) / 2) * 0.8 / len(fast)
    axes.bar_label(axes.bar(places, all_threads[name], 0.76 / len(fast), label=name, color=COLOURS[k + 1]), fmt="%.3g",
                   fontsize=9)
axes.axhline(1000 * work / peak[threads_used] / 1e9, color="black", linewidth=1)
axes.text(2.62, 1000 * work / peak[threads_used] / 1e9, " at the\n peak", va="center", fontsize=9)
centimetres = sum(all_threads["reference"]) / 3 / axes.get_ylim()[1] * 8
axes.set(xticks=range(3), xticklabels=FUNCTIONS, ylabel="milliseconds", xlim=(-0.55, 2.6))
axes.set_title(f"Medians with {everyone}. The bars of reference would be {centimetres / 100:,.0f} metres high", fontsize=11)
axes.legend(fontsize=9)
lab.figure(figure, "times", "How long each function takes.")

# %% What simd's tiles do: one step of one tile, from the tables that the kernel itself goes by
frame, tables = simd.forward_tables(geometry, args.channels_in, args.channels_out)
wide = simd.panels_of(np.zeros((1, 1, args.channels_out), np.float32), None)[0] * LANES
tap = args.kernel * args.kernel // 2
terms = simd.all_of(tables.terms)
middle = len(tables.pixels) // ROWS // 2 * ROWS


def place_of(address):
    """Column and row, in the framed image, of the pixel that an address belongs to."""
    return address // args.channels_in % frame.width, address // args.channels_in // frame.width


figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained", width_ratios=[1, 1.5])
grid = np.zeros((frame.height, frame.width))
grid[frame.top:frame.top + args.size, frame.left:frame.left + args.size] = 1
left.pcolormesh(grid, cmap="Greys", vmin=0, vmax=6, edgecolors="white", linewidth=0.5)
for address in tables.pixels[middle:middle + ROWS]:
    left.add_patch(Rectangle(place_of(address + terms[0]), args.kernel, args.kernel, fill=False, edgecolor="C2", alpha=0.35))
    left.add_patch(Rectangle(place_of(address + terms[tap * args.channels_in]), 1, 1, facecolor="C1", edgecolor="white"))
left.set(xticks=[], yticks=[], aspect="equal", title="One number of each of these pixels is read")
left.invert_yaxis()
left.set_xlabel(f"an image in its frame of zeros (white); orange: where tap {tap}\nof the windows (green) of {ROWS} outputs "
                f"lies; one channel of it", fontsize=9)
for i in range(ROWS):
    right.add_patch(Rectangle((-2.2, i), 1, 0.9, facecolor="C1"))
    for j in range(wide):
        right.add_patch(Rectangle((j, i), 0.9, 0.9, facecolor="C2", alpha=0.25 + 0.5 * (i % 2 == j // LANES % 2)))
for j in range(wide):
    right.add_patch(Rectangle((j, -2.2), 0.9, 1, facecolor="C0"))
right.text(wide / 2, -2.7, f"{wide} weights: this tap and channel, for {wide} channels of the result", ha="center", fontsize=9)
right.text(-2.7, ROWS / 2, f"{ROWS} numbers of the image", rotation=90, va="center", ha="right", fontsize=9)
right.text(wide / 2, ROWS + 1.4, f"{ROWS} × {wide} = {ROWS * wide} sums, in {ROWS * wide // LANES} registers of {LANES} all the while",
           ha="center", fontsize=9)
right.set(xlim=(-5, wide + 0.5), ylim=(ROWS + 2, -4), aspect="equal", title=f"{ROWS + wide} numbers fetched, "
          f"{ROWS * wide} multiplied and added")
right.axis("off")
lab.figure(figure, "tile", "One step of the direct tiles: to each sum is added the orange number of its row times the blue "
           f"number of its column. After {len(terms):,} such steps, one for each tap and channel, the tile is done.")

# %% What each step bought
lab.section("What each step bought")


def times_as_fast(name, than, threads=1):
    """How the speeds of two ways compare, in words; on one thread, so that it is the code that is compared."""
    ratio = gflops[name][threads] / gflops[than][threads]
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.1f} times"


def show(*functions):
    """Their code, that of compiled functions too, and of a stand-in that is written inside another function."""
    for function in functions:
        lab.code(getattr(function, "py_func", function))


minutes = 3 * work / gflops["reference"][1] / 6e10
lab.say(f"`reference` is the definition as seven loops. Each multiply-add costs {2 / gflops['reference'][1]:,.0f} ns, most of "
        f"it for Python to find out what it is to multiply; all three functions on the whole case would take {minutes:,.1f} minutes.")
show(Conv2dGeometry.taps, reference.conv2d)
taken = {part: 1000 * float(np.median(values)) for part, values in parts_of_im2col.items()}
lab.say(f"`im2col` is {times_as_fast('im2col', 'reference')} as fast on one thread. Every window is copied into a row of a "
        f"matrix, {window_bytes / 1e6:,.1f} MB, and then one product is left to a matrix library, which has tiles and vectors "
        f"of its own. Forward with {everyone}: {taken['copy']:.2f} ms to copy, {taken['multiply']:.2f} ms to multiply.")
show(im2col.conv2d, im2col.windows_of)
lab.say(f"`loops` is {times_as_fast('loops', 'im2col')} as fast as im2col on one thread, {times_as_fast('loops', 'reference')} as "
        f"fast as reference. The loops are compiled, and only {loops.CHUNK} windows exist at a time: "
        f"{4 * loops.CHUNK * len(terms) / 1024:,.0f} kB, which stay in the cache. The innermost loop runs over channels, which "
        f"lie side by side, so the compiler makes vector instructions of it; but each sum goes to memory and back.")
show(loops._forward, loops.gather, loops.add_product)
lab.say(f"The tiles of `simd` are {times_as_fast(tiled, 'loops')} as fast as loops on one thread: {gflops[tiled][1] / peak[1]:.0%} of "
        f"the peak. No window is copied, and the sums stay in registers for all {len(terms):,} terms. Below: a factory that "
        f"makes the kernel, the step in the form in which a debugger can go through it, and the instructions it becomes.")
twin = next(part for part in vectors._stepwise.__code__.co_consts if getattr(part, "co_name", "") == "outer")
show(simd._make_correlate, FunctionType(twin, vars(vectors)), vectors.outer._defn)
if tiled != "simd":
    squares = args.batch_size * (-(-args.size // 2)) ** 2
    saved = geometry.output_size[0] * geometry.output_size[1] * args.batch_size * 9 / (16 * squares)
    lab.say(f"`simd` with Winograd's formula is {times_as_fast('simd, Winograd', tiled)} as fast as with tiles alone, and at "
            f"{gflops['simd, Winograd'][1] / peak[1]:.0%} of the peak. Above 100 % would be no miracle: it has the same tiles, but "
            f"only 1/{saved:.2f} of the multiplications, and is credited with all. The rest of that factor goes into the "
            f"additions before and after. It is for 3×3 windows side by side, and many channels.")
    show(winograd.fits, winograd.table_of_weights, winograd.correlate_blocks, winograd.turn_inputs, winograd.multiply)
if len(counts) > 1:
    lab.say(f"{everyone} instead of one: " + ", ".join(
        f"{gflops[name][threads_used] / gflops[name][1]:.2f} times as fast ({name})" for name in fast)
        + f", the peak {peak[threads_used] / peak[1]:.2f} times. No set gains more than the machine had cores to spare.")

# %%
traffic = 4 * sum(array.size for array in (*operands["forward"], operands["weight gradient"][1]))     # x, w and y, once each
intensity, balance = work / traffic, peak[threads_used] / bandwidth[threads_used]
lab.question(f"Why is im2col fast, though it copies each pixel up to {args.kernel ** 2} times?",
             f"Copying is cheap beside what it replaces: a number that is copied once is then multiplied {args.channels_out} "
             f"times, once for each channel of the result. Here that was {taken['copy']:.2f} ms of copying before "
             f"{taken['multiply']:.2f} ms of multiplying. With few channels in the result the copies would weigh more.")
lab.question("Why tiles?",
             f"A multiply-add needs two numbers, and a core fetches about as many vectors at a time as it multiplies. Fetched "
             f"for each multiplication anew, they would keep it waiting. A tile of {ROWS} × {wide} does {ROWS * wide} "
             f"multiplications with {ROWS + wide} fetched numbers, {ROWS * wide / (ROWS + wide):.1f} with each. In loops a term "
             f"is added to a sum in memory; without its four by four blocks it would be one multiplication for three accesses.")
lab.question("What limits simd: memory or arithmetic?",
             f"Images, weights and result are {traffic / 1e6:.1f} MB, read or written once; with {work / 1e9:.3g} GFLOP that is "
             f"{intensity:,.0f} operations for each byte. This machine can do {balance:,.1f} operations in the time in which it "
             f"moves a byte: {'arithmetic' if intensity > balance else 'memory'} is the limit. At {bandwidth[threads_used]:,.0f} GB/s "
             f"the bytes would take {1000 * traffic / bandwidth[threads_used] / 1e9:.2f} ms, at the peak the operations of the "
             f"definition {1000 * work / peak[threads_used] / 1e9:.2f} ms; the tiles took {all_threads[tiled][0]:.2f} ms.")
lab.metrics |= {"channels_in": args.channels_in, "channels_out": args.channels_out, "size": args.size, "kernel": args.kernel,
                "rounds": args.rounds, "threads": threads_used, "gflop": work / 1e9, "largest_difference": differences,
                "gflops": gflops, "peak_gflops": peak, "copy_gbytes_per_second": bandwidth, "operations_per_byte": intensity,
                "milliseconds": {name: {threads: {label: 1000 * median[name, label, threads] for label in FUNCTIONS}
                                        for threads in counts} for name in WAYS},
                "fastest_milliseconds": {name: {threads: {label: 1000 * min(seconds[name, label, threads])
                                                          for label in FUNCTIONS} for threads in counts} for name in fast},
                "reference_scaled_by": times_smaller, "im2col_milliseconds": taken,
                "first_call_seconds": first_calls, "compile_seconds": compile_seconds}
lab.finish()
