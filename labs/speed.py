"""How fast is it? Whole training steps of minidl beside PyTorch's, on the CPU, and the memory they need.

Each engine trains in a process of its own, from the same weights and on the same batches, and they take turns: a few
steps of one, then of the next, round after round, so that a busy moment of the machine hits all alike. A step is what a
loop does: `zero_grad`, forward, loss, backward, `optimizer.step()`, `loss.item()`. After 20 steps the losses must agree
to a thousandth, or the lab ends with an error.

    python -m labs.speed                                # about two minutes
    python -m labs.speed --preset full                  # more rounds, about six minutes
    python -m labs.speed --workloads W1 W1_inference
    python -m labs.speed --avx2                         # as on a processor without AVX-512

Without PyTorch (`pip install torch==2.13.0`) it times minidl alone. Stop other programs first; they cost more than any
difference that is measured here.
"""
# %%
import importlib.util
import os
import platform
import sys
import time
from contextlib import ExitStack

import matplotlib.pyplot as plt
import numpy as np
from rich.progress import track

from labs import _speed_worker
from labs._arguments import one_of, positive
from labs._lab import Lab
from labs._speed_worker import CHECKED, ENGINES, WORKLOADS, Worker
from minidl.environment import processor_name
from minidl.errors import SettingError

TOLERANCE = 1e-3                    # by which the losses may differ, relative to PyTorch's
COLOURS = {"minidl": "C0", "minidl_fused": "C9", "torch": "C1", "torch_best": "C3"}
WEIGHED = ("minidl", "minidl_fused", "torch")       # the engines whose memory is measured


def add_arguments(parser):
    """What this lab has beside what all have."""
    parser.add_argument("--workloads", nargs="+", type=one_of(list(WORKLOADS)), default=list(WORKLOADS), metavar="NAME",
                        help=f"{', '.join(WORKLOADS)} (default all)")
    parser.add_argument("--rounds", type=positive, metavar="N", help="turns of each engine (quick 5, full 20)")
    parser.add_argument("--steps", type=positive, metavar="N", help="timed steps in a turn (default 20; W3 and W4 3)")
    parser.add_argument("--threads", type=positive, default=2, metavar="N", help="threads of each engine (default 2)")
    parser.add_argument("--avx2", action="store_true", help="let all do without AVX-512")


def about_seconds(args):
    """Starting the processes, and the steps, one of each turn to warm up."""
    return sum(15 + max(CHECKED, args.rounds * (1 + (args.steps or work.steps))) * work.seconds
               for work in map(WORKLOADS.get, dict.fromkeys(args.workloads)))


lab = Lab("speed", __doc__, datasets=(), presets={"quick": {"rounds": 5}, "full": {"rounds": 20}},
          extra_arguments=add_arguments, seconds=about_seconds, only_on_cpu="this lab times the CPU alone")
args = lab.args
if args.epochs or args.batch_size:
    raise SettingError("got a number, expected none: each workload has its own; see --steps and --rounds",
                       where="--epochs" if args.epochs else "--batch-size")
if args.avx2 and platform.machine().lower() not in ("x86_64", "amd64"):
    raise SettingError(f"got it on {platform.machine()}, expected an x86-64 processor, which has AVX2", where="--avx2")

# %% What is compared
lab.section("What is compared")
has_torch = importlib.util.find_spec("torch") is not None       # looked for only: it is imported in its own process
if not has_torch:
    lab.say("PyTorch is not installed, so minidl runs alone. To compare: `pip install torch==2.13.0`")
lab.table([[name, WORKLOADS[name].about] for name in dict.fromkeys(args.workloads)], ["", "workload"])
lab.code(_speed_worker.Run)


def measure(name):
    """Time one workload: for each engine its facts, milliseconds (one list a round), losses, seconds of the first step,
    and MB; and how many cores other programs kept busy meanwhile.
    """
    work, settings = WORKLOADS[name], {"seed": args.seed, "threads": args.threads, "avx2": args.avx2}
    engines = [engine for engine in ENGINES
               if (has_torch or not engine.startswith("torch")) and (work.fuses or engine != "minidl_fused")]
    ms, losses, first, memory = {engine: [] for engine in engines}, {}, {}, {}
    with ExitStack() as stack:                                      # which ends the processes, however it is left
        with lab.console.status(f"{name}: starting; a first run compiles kernels, which takes half a minute"):
            workers = {engine: stack.enter_context(Worker(engine, name, **settings)) for engine in engines}
            for engine, worker in workers.items():
                answer = worker.ask("steps", count=1)
                first[engine], losses[engine] = answer["ms"][0] / 1000, answer["losses"]
        start, start_busy, own = time.perf_counter(), _speed_worker.busy_seconds(), -time.process_time()
        for i in track(range(args.rounds), description=f"{name:12}", console=lab.console):
            for engine in np.roll(engines, -i):                     # each comes first in its turn
                answer = workers[engine].ask("steps", count=1 + (args.steps or work.steps))
                ms[engine].append(answer["ms"][1:])                 # without the step that fills the caches again
                losses[engine] += answer["losses"]
                own += answer["cpu_seconds"]
        own += time.process_time() + 0.1                            # seconds, by which the system's clock may be off
        others = start_busy and (_speed_worker.busy_seconds() - start_busy - own) / (time.perf_counter() - start)
        for engine, worker in workers.items():
            losses[engine] += worker.ask("steps", count=max(0, CHECKED - len(losses[engine])))["losses"]
            worker.ask("tiny step")                                 # compiles what the next processes only load
        facts = {engine: worker.facts for engine, worker in workers.items()}
    for engine in filter(WEIGHED.__contains__, engines):
        with Worker(engine, name, **settings) as worker:
            memory[engine] = worker.ask("memory")
    return facts, ms, losses, first, memory, others and max(others, 0.0)


def digits(number):
    """Three of them, or a dash for what was not measured."""
    return "–" if number is None else f"{number:,.{2 if number < 10 else 1 if number < 100 else 0}f}"


def ratio(a, b):
    """a ÷ b, or None where one of them was not measured."""
    return a / b if a and b else None


# %% Measuring: the processes of a workload sleep while one of them works
lab.section("Measuring")
measured = {name: measure(name) for name in dict.fromkeys(args.workloads)}
results, facts, exact = {}, {}, True
for name, (its_facts, ms, losses, first, memory, others) in measured.items():
    facts, exact = facts | its_facts, exact and all(answer["exact"] for answer in memory.values())
    medians = {engine: float(np.median(ms[engine])) if engine in ms else None for engine in ENGINES}
    results[name] = {
        **{f"{engine}_ms": medians[engine] for engine in ENGINES},
        "ratio": ratio(medians["torch"], medians["minidl"]),
        "ratio_fused": ratio(medians["torch"], medians["minidl_fused"]),
        "ratio_best": ratio(medians["torch_best"], medians["minidl_fused"] or medians["minidl"]),
        **{f"{engine}_mb": memory[engine]["mb"] if engine in memory else None for engine in WEIGHED},
        "other_programs_cores": others,
        "rounds_ms": {engine: [float(np.median(turn)) for turn in turns] for engine, turns in ms.items()},
        "first_step_seconds": first,
        "first_loss": {engine: values[0] for engine, values in losses.items()},
        "loss_after_20": {engine: values[CHECKED - 1] for engine, values in losses.items()}}

# %% The same training?
lab.section("Do they compute the same?")
findings, rows = [], []
for name, result in results.items():
    after = result["loss_after_20"]
    right = after["torch" if has_torch else "minidl"]
    off = {engine: abs(value / right - 1) for engine, value in after.items()}
    wrong = [engine for engine in after if not off[engine] <= TOLERANCE]
    findings += [f"{name}: the loss of {ENGINES[engine]} is {after[engine]:.6g} after {CHECKED} steps, expected "
                 f"{right:.6g}, to a thousandth" for engine in wrong]
    rows.append([name, f"{result['first_loss']['minidl']:.6f}",
                 *(f"{after[engine]:.6f}" if engine in after else "–" for engine in ENGINES),
                 f"{max(off.values()):.1e}", "no" if wrong else "yes" if len(after) > 1 else "alone"])
lab.table(rows, ["", "first loss", *ENGINES.values(), "differ by", "agree"],
          f"The loss after {CHECKED} steps from the same weights on the same batches (forward alone: of the scores)")
lab.say("; ".join(findings) or f"What is compared agrees to {TOLERANCE:g} of its size: the same work is timed.")

# %% The time of a step
lab.section("The time of a step")
spoiled = {name: result["other_programs_cores"] for name, result in results.items()
           if (result["other_programs_cores"] or 0) > max(0, os.cpu_count() - args.threads) + 0.1}
lab.table([[name + " *" * (name in spoiled), *(digits(result[f"{engine}_ms"]) for engine in ENGINES),
            *(digits(result[key]) for key in ("ratio", "ratio_fused", "ratio_best"))]
           for name, result in results.items()],
          ["", *(f"{title}, ms" for title in ENGINES.values()), "ratio", "ratio, fused", "ratio, best"],
          "Medians over all timed steps. Ratios above 1: minidl is faster")
if spoiled:
    cores = ", ".join(f"{cores:.1f} ({name})" for name, cores in spoiled.items())
    lab.say(f"* Do not believe these times: meanwhile other programs kept {cores} of {os.cpu_count()} cores busy. "
            f"Threads that wait for each other lose far more than the share that is taken, PyTorch's most of all.")
lab.say("ratio is PyTorch ÷ minidl as they are; “fused” is PyTorch ÷ `minidl.fuse(model)`; “best” is PyTorch at its "
        "best ÷ the fused minidl, or plain minidl where there is nothing to fuse (W2, which has dense layers alone).")

figure, panels = plt.subplots(1, len(results), figsize=(1.2 + 2.3 * len(results), 4), layout="constrained",
                              squeeze=False)
for axes, (name, result) in zip(panels[0], results.items(), strict=True):
    top = 1.5 * max(result[f"{engine}_ms"] for engine in result["rounds_ms"])           # slower rounds are not shown
    every_round = [turn for turns in result["rounds_ms"].values() for turn in turns if turn < top]
    axes.set_ylim(0, 1.1 * max(top / 1.5, *every_round))
    for i, (engine, turns) in enumerate(result["rounds_ms"].items()):
        height = result[f"{engine}_ms"]
        axes.bar(i, height, color=COLOURS[engine], label=ENGINES[engine])
        axes.plot(i + np.linspace(-0.25, 0.25, len(turns) + 2)[1:-1], turns, "k.", markersize=3)
        highest = max([height, *(turn for turn in turns if turn < top)])
        axes.annotate(digits(height), (i, highest), (0, 4), textcoords="offset points", ha="center")
    axes.set(title=name.replace("_", " "), xticks=[])
    axes.spines[["top", "right"]].set_visible(False)
panels[0, 0].set_ylabel("milliseconds a step")
shown = {label: bar for axes in panels[0] for bar, label in zip(*axes.get_legend_handles_labels(), strict=True)}
figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4, frameon=False)
lab.figure(figure, "steps", "The median step of each engine, lower is faster; each panel has its own scale. The dots "
           "are the medians of single rounds: where they lie apart, the machine was busy.")

# %% Memory, and the first step
lab.section("Memory, and the first step")
lab.table([[name, *(digits(result[f"{engine}_mb"]) for engine in WEIGHED),
            *(digits(result["first_step_seconds"].get(engine)) for engine in ENGINES)]
           for name, result in results.items()],
          ["", *(f"{ENGINES[engine]}, MB" for engine in WEIGHED),
           *(f"{title}, first step, s" for title in ENGINES.values())])
lab.say("Memory: the peak of two steps with weights, gradients, optimizer and batches, less what the process has after "
        "a step of the same model in tiny, in a new process. The first step is in none of the times above: in it "
        "minidl compiles its kernels, or loads them from the cache if an earlier run left them there."
        + ("" if exact else " This system cannot forget an earlier peak, so the memory given is a lower bound."))

figure, axes = plt.subplots(figsize=(1.5 + 1.7 * len(results), 3.6), layout="constrained")
for i, engine in enumerate(WEIGHED):
    heights = {j: result[f"{engine}_mb"] for j, result in enumerate(results.values()) if result[f"{engine}_mb"]}
    if heights:
        bars = axes.bar([j + 0.27 * (i - 1) for j in heights], list(heights.values()), 0.25, color=COLOURS[engine],
                        label=ENGINES[engine])
        axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=8)
axes.set_xticks(range(len(results)), [name.replace("_", " ") for name in results])
axes.set(ylabel="peak memory of a step, MB")
axes.spines[["top", "right"]].set_visible(False)
figure.legend(loc="outside lower center", ncols=3, frameon=False)
lab.figure(figure, "memory", "What a step needs at most. A dash in the table is no bar here.")

# %% How it was measured
lab.section("How it was measured")
versions = ", ".join(f"{title} {facts[engine]['version']} ({facts[engine]['threads']} threads)"
                     for engine, title in (("minidl", "minidl"), ("torch", "PyTorch")) if engine in facts)
lab.say(f"{versions}; {processor_name()}, {os.cpu_count()} cores{', without AVX-512' if args.avx2 else ''}; float32. "
        f"{args.rounds} rounds; in each, every engine has a turn of one step to warm up and then "
        f"{args.steps or '20 (W3 and W4: 3)'} that are timed, while the processes of the others sleep. PyTorch is "
        f"eager, its optimizers are `fused=True`, the fastest of its three; at its best it also has channels_last "
        f"memory, where there are images, and a malloc that keeps memory ({', '.join(_speed_worker.KEEP_MEMORY)}). "
        f"minidl asks for both itself, so “best” compares like with like.")

# %%
name, result = next(iter(results.items()))
by_round = result["rounds_ms"]["minidl"]
lab.question("Why do the engines take turns, and why is it the median that counts?",
             f"Because a machine is never quite the same. In {name} the median of a single round of minidl was between "
             f"{digits(min(by_round))} and {digits(max(by_round))} ms. Had one engine run before the other, such a "
             f"difference could pass for one between them; a mean would count every interruption in full.")
lab.question("What does PyTorch gain from a malloc that keeps its memory and from channels_last?",
             "PyTorch is not installed, so this run cannot tell." if not has_torch else
             "; ".join(f"{name}: {digits(result['torch_ms'])} → {digits(result['torch_best_ms'])} ms"
                       for name, result in results.items()) +
             ". Large arrays that are freed go back to the system, and in the next step each page of the new ones is "
             "first filled with zeros. Channels-last memory has the channels of a pixel side by side, as convolution "
             "kernels read them.")
lab.question("Why does a training step need so much more memory than its weights?",
             f"Backward needs what forward computed: it is kept for every layer until its gradient is known. In {name} "
             f"the peak is {result['minidl_mb']:.0f} MB with minidl. Each weight counts once for itself, once for its "
             f"gradient, and with Adam twice more for the two averages.")
lab.metrics |= {**results, "workloads": list(results), "rounds": args.rounds, "threads": args.threads,
                "avx2": args.avx2, "torch_version": facts["torch"]["version"] if has_torch else None,
                "losses_agree": not findings, "memory_is_exact": exact}
lab.finish()
if findings:
    sys.exit("error: " + "; ".join(findings))
