"""One convolution by every kernel set: are the results equal, how fast is each, and what did each step buy?

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
from rich.progress import track
from threadpoolctl import threadpool_limits

import minidl
from labs import _convolution
from labs._arguments import positive
from labs._convolution import FUNCTIONS, Case, relative_difference, seconds_of
from labs._lab import Lab
from minidl.errors import SettingError
from minidl.kernels import compiling, im2col, loops, reference, simd, vectors, winograd
from minidl.kernels.geometry import Conv2dGeometry
from minidl.kernels.vectors import LANES, ROWS

COLOURS = ("C7", "C0", "C1", "C2", "C3")
MOST_BYTES = 2e9                                                # of windows that im2col may copy


def arguments(parser):
    """The sizes of the convolution, and how often it is timed."""
    for name, default, what in (("channels-in", 32, "channels of the images"),
                                ("channels-out", 64, "channels of the result"),
                                ("size", 14, "height and width of the images"),
                                ("kernel", 3, "height and width of the window")):
        parser.add_argument(f"--{name}", type=positive, default=default, metavar="N",
                            help=f"{what} (default {default})")
    parser.add_argument("--rounds", type=positive, metavar="N", help="how often to time (quick 12, full 60)")
    if numba.config.DISABLE_JIT:
        parser.error("NUMBA_DISABLE_JIT is set, and times of kernels that are not compiled mean nothing; unset it, or "
                     'step through a kernel itself, with minidl.use_kernels("simd") and a small image')


lab = Lab("convolution", __doc__, datasets=(), batch_size=64, extra_arguments=arguments,
          only_on_cpu="this lab times kernels for the CPU",
          presets={"quick": {"rounds": 12}, "full": {"rounds": 60}}, seconds=lambda args: 10 + args.rounds * 1e-9 * (
              args.batch_size * args.channels_in * args.channels_out * (args.size * args.kernel) ** 2))
args = lab.args
kernel, window_bytes = args.kernel, 4 * args.batch_size * args.channels_in * (args.size * args.kernel) ** 2
if window_bytes > MOST_BYTES:
    raise SettingError(f"got sizes for which im2col would copy {window_bytes / 1e9:,.1f} GB of windows, expected at "
                       f"most {MOST_BYTES / 1e9:.0f} GB; take a smaller --batch-size, --size, --channels-in or "
                       f"--kernel")

# %% The convolution, a part of it that `reference` can do in a second, and two odd ones for the comparison
rng = np.random.default_rng(args.seed)
case = Case.of(rng, (args.batch_size, args.channels_in, args.size, args.size),
               (args.channels_out, args.channels_in, kernel, kernel), padding=kernel // 2)
few_in, few_out, few_pixels = min(8, args.channels_in), min(8, args.channels_out), min(14, args.size)
small = Case.of(rng, (1, few_in, few_pixels, few_pixels), (few_out, few_in, kernel, kernel), padding=kernel // 2)
odd = {"3×2 windows in steps of 2×1, dilation 1×2, padding 1, on 9×7 pixels, 3 to 5 channels": Case.of(
           rng, (2, 3, 9, 7), (5, 3, 3, 2), stride=(2, 1), padding=1, dilation=(1, 2)),
       "3×3 windows, padding 1, on 5×7 pixels, 32 to 32 channels": Case.of(
           rng, (1, 32, 5, 7), (32, 32, 3, 3), padding=1)}
ways = _convolution.ways_to_compute(case)
fast = [name for name in ways if name != "reference"]
tiles = "simd, tiles" if "simd, tiles" in ways else "simd"
geometry, terms = case.geometry, args.channels_in * kernel**2

# %% Equal?
lab.section("Do they compute the same?")
differences, compile_seconds = {name: {} for name in fast}, dict.fromkeys(fast, 0.0)
for what, one in [*odd.items(), ("the convolution that is timed, against im2col in float64", case)]:
    for label, function in FUNCTIONS.items():
        in_float64 = (array.astype(np.float64) for array in one.operands[label])
        truth = getattr(im2col if one is case else reference, function)(*in_float64, one.geometry)
        for name in fast:
            before = compiling.seconds()
            result = ways[name][label](*one.operands[label], one.geometry)
            compile_seconds[name] += compiling.seconds() - before
            differences[name][what] = max(differences[name].get(what, 0.0), relative_difference(result, truth))
worst = max(max(of_name.values()) for of_name in differences.values())
lab.table([[what, *(f"{differences[name][what] * 1e6:.2f}" for name in fast)] for what in differences[fast[0]]],
          ["case", *fast], "The largest difference to reference in float64, in millionths of the largest number: the "
          "worst of the result and both gradients")
assert worst < 1e-4, f"the kernel sets differ by {worst:.1e}"
lab.say(f"All agree. float32 has 24 bits, so an operation may be off by 0.06 millionths of its result, and sums "
        f"of {terms:,} terms (for the weights, of {case.operands['weight gradient'][1][:, 0].size:,}) in another order "
        f"by more.")

# %% The rounds: every way once in each, so that a busy moment of the machine meets all of them
threads_used = minidl.get_num_threads()
counts = sorted({1, threads_used})
source, target = np.ones(_convolution.COPIED, np.float32), np.zeros(_convolution.COPIED, np.float32)
seconds = {(name, label, threads): [] for name in fast for label in FUNCTIONS for threads in counts}
rates = {(what, threads): [] for what in ("multiply", "copy") for threads in counts}
copying, multiplying, small_seconds = [], [], {label: [] for label in FUNCTIONS}
x, w = case.operands["forward"]
matrix = np.ascontiguousarray(w.transpose(2, 3, 1, 0)).reshape(terms, -1)                   # as im2col multiplies
_convolution.operations_per_second(1)                                                       # compiled now
for number in track(range(args.rounds), description="timing"):
    for threads in counts:
        minidl.set_num_threads(threads)
        with threadpool_limits(threads, user_api="blas"):
            for name in fast:
                ways[name]["forward"](x, w, geometry)                   # what it needs is in the caches after this
                for label, function in ways[name].items():
                    seconds[name, label, threads].append(seconds_of(function, *case.operands[label], geometry))
                if name == "im2col":
                    if threads == 1:
                        copying.append(seconds_of(im2col.windows_of, x, geometry, 0))
                        windows = im2col.windows_of(x, geometry, 0).reshape(-1, terms)
                        multiplying.append(seconds_of(np.matmul, windows, matrix))
                    time.sleep(0.05 if threads > 1 else 0)  # the matrix library's threads spin a while after a product
            rates["multiply", threads].append(_convolution.operations_per_second(threads))
            rates["copy", threads].append(_convolution.bytes_per_second(source, target, threads))
    if number < 3:
        for label, function in ways["reference"].items():
            small_seconds[label].append(seconds_of(function, *small.operands[label], small.geometry))

# %% The numbers
median = {key: float(np.median(values)) for key, values in seconds.items()}
median |= {("reference", label, threads): float(np.median(values)) * case.work / small.work
           for label, values in small_seconds.items() for threads in counts}
gflops = {name: {threads: 3 * case.work / sum(median[name, label, threads] for label in FUNCTIONS) / 1e9
                 for threads in counts} for name in ways}
milliseconds = {name: {threads: {label: 1000 * median[name, label, threads] for label in FUNCTIONS}
                       for threads in counts} for name in ways}
peak = {threads: float(np.median(rates["multiply", threads])) / 1e9 for threads in counts}
bandwidth = {threads: float(np.median(rates["copy", threads])) / 1e9 for threads in counts}
named = {threads: f"{threads} thread{'s' if threads > 1 else ''}" for threads in counts}
everyone, at_peak = named[threads_used], case.work / peak[1] / 1e6                          # ms, on one thread
lab.section("How fast?")
compiling_took = ", ".join(f"{took:.1f} s for {name}" for name, took in compile_seconds.items() if took)
lab.say(f"Each of the three functions is {case.work / 1e9:.4g} GFLOP. Times are medians of {args.rounds} rounds. "
        f"Compiling is not in them: {compiling_took or 'here the code was kept from an earlier run'}.")
lab.say("The peak of this machine, measured in the same rounds: "
        + " and ".join(f"{peak[threads]:,.0f} GFLOP/s with {named[threads]}" for threads in counts)
        + f". That is a compiled loop that multiplies and adds numbers in registers, in "
        f"{_convolution.CHAINS * vectors.WIDTH // LANES} independent sums of {LANES} numbers each, and fetches "
        f"nothing. A copy of 64 MiB reads and writes {bandwidth[threads_used]:,.0f} GB/s. Other programs that run "
        "meanwhile lower all these numbers.")
unrest = float(np.median([median[key] / min(values) for key, values in seconds.items()]))
if unrest > 1.25:
    lab.say(f"The machine was busy: half of the calls took {unrest:.1f} times as long as the fastest, or longer. What "
            f"is said below about small differences is not to be trusted; run it again when nothing else runs.")
rows = []
for name in [*ways, "the peak"]:
    for threads in counts if name != "reference" else [1]:
        rate = peak[threads] if name == "the peak" else gflops[name][threads]
        times = [case.work / rate / 1e6] * 3 if name == "the peak" else milliseconds[name][threads].values()
        star = "*" if name == "reference" else ""
        rows.append([name, threads, *(f"{value:,.{0 if star else 2}f}{star}" for value in times), f"{rate:.3g}",
                     f"{rate / peak[threads]:.1%}" if not star else f"{rate / peak[1]:.4%}"])
lab.table(rows, ["set", "threads", *(f"{label}, ms" for label in FUNCTIONS), "GFLOP/s", "of the peak"],
          "Medians, and GFLOP/s over all three functions")
lab.say(f"* reference was timed on one image of {few_pixels}×{few_pixels} pixels with {few_in} channels and {few_out} "
        f"of the result; times are those multiplied by {case.work / small.work:,.0f}, as there is so much more to do. "
        f"It uses one thread, and leaves out the terms on padding.")

# %% Two figures
figure, axes = plt.subplots(figsize=(8.5, 4.4), layout="constrained")
for k, threads in enumerate(counts):
    for place, name in enumerate(ways):
        if name != "reference" or threads == 1:
            aside = 0 if name == "reference" else 0.4 * (k - (len(counts) - 1) / 2)
            bar = axes.bar(place + aside, gflops[name][threads], 0.38, color=COLOURS[place], edgecolor="black",
                           linewidth=0.5, alpha=0.5 if threads < threads_used else 1)
            axes.bar_label(bar, [f"{gflops[name][threads]:.3g}"], fontsize=9, padding=3, zorder=3,
                           bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.2})
    axes.axhline(peak[threads], color="black", linestyle="-" if threads == threads_used else ":", linewidth=1, zorder=0)
axes.text(-0.4, 1.15 * max(peak.values()), "measured peak: " + ", ".join(
    f"{peak[threads]:,.0f} ({named[threads]})" for threads in counts), fontsize=9, va="bottom")
axes.set(yscale="log", xticks=range(len(ways)), xticklabels=ways, ylabel="GFLOP/s (log scale)",
         xlim=(-0.5, len(ways) - 0.5), ylim=(None, 6 * max(max(rate.values()) for rate in (peak, *gflops.values()))))
pale = f"; pale: 1 thread, full: {everyone}" if len(counts) > 1 else ""
axes.set_title(f"Forward and both gradients together{pale}", fontsize=11)
lab.figure(figure, "gflops", "How many of the definition's operations each set gets through in a second. The lines are "
           "the measured peak. reference was timed on a smaller case and has one thread.")

figure, axes = plt.subplots(figsize=(8.5, 3.8), layout="constrained")
for k, name in enumerate(fast):
    bars = axes.bar(np.arange(3) + (k - (len(fast) - 1) / 2) * 0.8 / len(fast), milliseconds[name][1].values(),
                    0.76 / len(fast), label=name, color=COLOURS[k + 1])
    axes.bar_label(bars, fmt="%.3g", fontsize=9, zorder=3, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.2})
axes.axhline(at_peak, color="black", linewidth=1, zorder=0)
axes.text(2.52, at_peak, "at the\npeak", va="center", fontsize=9)
metres = float(np.mean([*milliseconds["reference"][1].values()])) / axes.get_ylim()[1] * 0.08
axes.set(xticks=range(3), xticklabels=FUNCTIONS, ylabel="milliseconds", xlim=(-0.5, 2.5),
         ylim=(0, 1.3 * axes.get_ylim()[1]))
axes.set_title(f"Medians on one thread. The bars of reference would be {metres:,.0f} metres high", fontsize=11)
axes.legend(fontsize=9, ncols=len(fast), loc="upper center")
lab.figure(figure, "times", "How long each function takes.")

# %% What each step bought
lab.section("What each step bought")


def times_as_fast(name, than):
    """How the speeds of two sets compare, on one thread, so that it is the code that is compared."""
    ratio = gflops[name][1] / gflops[than][1]
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.1f} times"


def show(*functions):
    """The code of functions, compiled ones too."""
    for function in functions:
        lab.code(getattr(function, "py_func", function))


wide = _convolution.width_of_tiles(args.channels_out)
minutes = sum(milliseconds["reference"][1].values()) / 60_000
copy_ms, multiply_ms = 1000 * float(np.median(copying)), 1000 * float(np.median(multiplying))
lab.say(f"`reference` is the definition, as loops. A multiply-add costs it {2 / gflops['reference'][1]:,.0f} ns, "
        f"nearly all of it spent by Python on finding out what to multiply. All three functions would take "
        f"{minutes:,.1f} minutes.")
show(Conv2dGeometry.taps, reference.conv2d)
lab.say(f"`im2col` is {times_as_fast('im2col', 'reference')} as fast (as all here: on one thread). It copies every "
        f"window into a row of a matrix, {window_bytes / 1e6:,.1f} MB, and leaves one large product to a matrix "
        f"library, which has tiles and vectors of its own. Forward: {copy_ms:.2f} ms to copy, {multiply_ms:.2f} ms to "
        "multiply.")
show(im2col.conv2d, im2col.windows_of)
lab.say(f"`loops` is {times_as_fast('loops', 'reference')} as fast as reference and {times_as_fast('loops', 'im2col')} "
        f"as fast as im2col. Its loops are compiled, and {loops.CHUNK} windows exist at a time, "
        f"{4 * loops.CHUNK * terms / 1024:,.0f} KiB that the cache holds. The innermost loop runs over channels, which "
        f"lie side by side, and becomes vector instructions; but every sum goes to memory and comes back for each four "
        "terms.")
show(loops._forward, loops.gather, loops.add_product)
lab.say(f"The tiles of `simd` are {times_as_fast(tiles, 'loops')} as fast as loops, and reach "
        f"{gflops[tiles][1] / peak[1]:.0%} of the peak. No window is copied, and the sums stay in registers for all "
        f"{terms:,} terms. Below: the factory that makes the kernel, one step as a debugger sees it, and the "
        "instructions that it becomes.")
lab.figure(_convolution.draw_step(geometry, args.channels_in, args.channels_out), "tile",
           "One step of a tile: to each sum is added the orange number of its row times the blue number of its column. "
           f"After {terms:,} such steps, one for each place in the window and each channel, the tile is done.")
step = next(part for part in vectors._stepwise.__code__.co_consts if getattr(part, "co_name", "") == "outer")
show(simd._make_correlate, FunctionType(step, vars(vectors)), vectors.outer._defn)
if tiles != "simd":
    pixels, squares = np.prod(geometry.output_size), np.prod([(size + 1) // 2 for size in geometry.output_size])
    lab.say(f"Winograd's way is {times_as_fast('simd, Winograd', tiles)} as fast as tiles alone: "
            f"{gflops['simd, Winograd'][1] / peak[1]:.0%} of the peak. More than 100 % is possible because it does "
            f"only {16 * squares / (9 * pixels):.0%} of the multiplications, and is credited with all; the additions "
            f"before and after them cost a part of the gain. It is for 3×3 windows side by side and many channels.")
    show(winograd.fits, winograd.turn_weights, winograd.correlate_blocks, winograd.turn_inputs, winograd.multiply)
if len(counts) > 1:
    lab.say(f"{everyone} instead of one: " + ", ".join(
        f"{name} {gflops[name][threads_used] / gflops[name][1]:.2f} times as fast" for name in fast)
        + f"; the peak is {peak[threads_used] / peak[1]:.2f} times as high. The last number says how many cores were "
        f"free: each thread gets its part of the images, and where one has to share its core, the others wait for it. "
        f"Those of im2col's matrix library wait by spinning, which on a busy machine costs more than they gain.")

# %%
traffic = 4 * (x.size + w.size + case.operands["input gradient"][0].size)                   # bytes of x, w and y
intensity, balance = case.work / traffic, peak[1] / bandwidth[1]
lab.question(f"Why is im2col so fast, though it copies each pixel up to {kernel**2} times?",
             f"A number that is copied is then multiplied {args.channels_out} times, once for each channel of the "
             f"result. Here copying took {copy_ms:.2f} ms and multiplying {multiply_ms:.2f} ms. With few channels in "
             f"the result the copies would outweigh the products.")
lab.question("Why tiles?",
             f"A multiply-add takes two numbers, and a core can fetch about as many vectors as it can multiply. If "
             f"both had to be fetched for every product, it would mostly wait. A step of a tile of {ROWS} × {wide} "
             f"fetches {ROWS + wide} numbers for {ROWS * wide} products, {ROWS * wide / (ROWS + wide):.1f} for each. "
             f"That, and sums that do not go to memory, made the code {times_as_fast(tiles, 'loops')} as fast as that "
             "of loops.")
lab.question("What limits simd: memory or arithmetic?",
             f"Images, weights and result are {traffic / 1e6:.1f} MB; with {case.work / 1e9:.3g} GFLOP that is "
             f"{intensity:,.0f} operations for each byte. One core can do {balance:,.1f} operations in the time in "
             f"which it copies a byte, so the limit is {'arithmetic' if intensity > balance else 'memory'}. The bytes "
             f"alone would take {traffic / bandwidth[1] / 1e6:.2f} ms, the operations {at_peak:.2f} ms at the peak; "
             f"forward took the tiles {milliseconds[tiles][1]['forward']:.2f} ms. What remains goes into reading "
             f"weights and pixels from the caches, and into tiles that hang over an edge, if any do. Only fewer "
             "operations can go below the peak.")
lab.metrics |= {"channels_in": args.channels_in, "channels_out": args.channels_out, "size": args.size, "kernel": kernel,
                "rounds": args.rounds, "threads": threads_used, "gflop": case.work / 1e9, "gflops": gflops,
                "milliseconds": milliseconds, "fastest_milliseconds": {
                    name: {threads: {label: 1000 * min(seconds[name, label, threads]) for label in FUNCTIONS}
                           for threads in counts} for name in fast},
                "largest_difference": differences, "peak_gflops": peak, "copy_gigabytes_per_second": bandwidth,
                "median_over_fastest": unrest,
                "reference_scaled_by": case.work / small.work, "operations_per_byte": intensity,
                "im2col_milliseconds": {"copy": copy_ms, "multiply": multiply_ms}, "compile_seconds": compile_seconds}
lab.finish()
