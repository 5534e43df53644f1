"""Placing boxes and arrows on a page: a graph without cycles, drawn in layers from top to bottom.

The method of Sugiyama, Tagawa and Toda 1981, "Methods for visual understanding of hierarchical system structures":

1. Layers: a box stands one layer below the lowest box that an arrow to it comes from.
2. Between two layers of boxes is a layer of labels. An arrow that passes layers leaves a thread in each. All of these
   are items, which have a width, so nothing is ever written over anything else. Arrows from one box share the thread.
3. Order in a layer: the barycentre of an item's neighbours, up and down in turn; the order with fewest crossings stays.
4. Positions: as close to the neighbours as that order and the widths let them be.

Nothing here knows what the boxes mean, and nothing recurses.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

BETWEEN_ITEMS, BETWEEN_LAYERS = 18.0, 16.0
STEEPNESS, MOST_BETWEEN_LAYERS = 0.12, 60.0             # links that lead far to the side get more height, up to this
SWEEPS_FOR_ORDER, SWEEPS_FOR_PLACES = 8, 30
THREAD_WEIGHT = 8.0                         # threads stay straight: a bend in them is worse than a box off the middle


@dataclass(eq=False)
class Item:
    """A box, a label or a thread: its size, the middle `x` and the upper edge `y`, and the items it is linked to."""

    width: float
    height: float
    kind: str                               # "box", "label" or "thread"
    layer: int = 0
    x: float = 0.0
    y: float = 0.0
    top: float = 0.0                        # of its layer
    bottom: float = 0.0
    above: list[Item] = field(default_factory=list)
    below: list[Item] = field(default_factory=list)
    place: int = 0                          # in the order of its layer


@dataclass
class Layout:
    """All items with their places, `boxes` and `labels` as they were given, and the size of the page."""

    items: list[Item]
    boxes: list[Item]
    labels: list[Item]
    width: float
    height: float


Size = tuple[float, float]


def lay_out(boxes: Sequence[Size], arrows: Sequence[tuple[int, int, Size]]) -> Layout:
    """Places for all.

    boxes: (width, height). arrows: (from box, to box, size of the label), from one that stands earlier in the list.
    """
    items = [Item(*size, kind="box") for size in boxes]
    _choose_layers(items, arrows)
    labels, threads = _connect(items, arrows)
    layers = _in_layers([*items, *threads, *labels], items)
    layers = _order(layers)
    _place_across(layers)
    everything = [item for layer in layers for item in layer]
    left = min(item.x - item.width / 2 for item in everything)
    for item in everything:
        item.x -= left
    height = _place_down(layers)
    return Layout(everything, items, labels, max(item.x + item.width / 2 for item in everything), height)


# -- 1. layers: boxes on even ones, labels on odd ones -------------------------------------------------------------

def _choose_layers(items: Sequence[Item], arrows: Sequence[tuple[int, int, Size]]) -> None:
    sources_of: dict[int, list[int]] = {}
    targets_of: dict[int, list[int]] = {}
    for source, target, _ in arrows:
        sources_of.setdefault(target, []).append(source)
        targets_of.setdefault(source, []).append(target)
    for i, item in enumerate(items):                        # sources come first in the list, so they are known
        item.layer = max((items[source].layer + 2 for source in sources_of.get(i, [])), default=0)
    for i, item in enumerate(items):
        if i not in sources_of and i in targets_of:         # a leaf stands right above its first user
            item.layer = min(items[target].layer for target in targets_of[i]) - 2


# -- 2. labels and threads -----------------------------------------------------------------------------------------

def _connect(items: Sequence[Item], arrows: Sequence[tuple[int, int, Size]]) -> tuple[list[Item], list[Item]]:
    """A label right above the target of each arrow, and threads from the source down to it."""
    labels = [Item(*size, kind="label", layer=items[target].layer - 1) for _, target, size in arrows]
    ends = list(items)                                      # of the thread that hangs from each box
    threads: list[Item] = []
    for label, (source, target, _) in sorted(zip(labels, arrows, strict=True), key=lambda pair: pair[0].layer):
        while ends[source].layer < label.layer - 1:
            threads.append(Item(0, 0, "thread", ends[source].layer + 1))
            _link(ends[source], threads[-1])
            ends[source] = threads[-1]
        _link(ends[source], label)
        _link(label, items[target])
    return labels, threads


def _link(upper: Item, lower: Item) -> None:
    upper.below.append(lower)
    lower.above.append(upper)


# -- 3. the order in each layer ------------------------------------------------------------------------------------

def _in_layers(items: Sequence[Item], boxes: Sequence[Item]) -> list[list[Item]]:
    """The layers, each in the order of a walk up from the outputs: a tree comes out without crossings."""
    layers: list[list[Item]] = [[] for _ in range(1 + max(item.layer for item in items))]
    seen: set[Item] = set()
    to_visit = [box for box in reversed(boxes) if not box.below]
    while to_visit:
        item = to_visit.pop()
        if item not in seen:
            seen.add(item)
            layers[item.layer].append(item)
            to_visit += reversed(item.above)
    return layers


def _order(layers: list[list[Item]]) -> list[list[Item]]:
    best, fewest = [list(layer) for layer in layers], _crossings(layers)
    for sweep in range(SWEEPS_FOR_ORDER):
        if fewest == 0:
            break
        downwards = sweep % 2 == 0
        for layer in layers if downwards else reversed(layers):
            places = {item: [other.place for other in (item.above if downwards else item.below)] for item in layer}
            wanted = {item: sum(of) / len(of) if of else item.place for item, of in places.items()}
            layer.sort(key=wanted.__getitem__)
            _number(layer)
        crossings = _crossings(layers)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    for layer in best:
        _number(layer)
    return best


def _number(layer: Sequence[Item]) -> None:
    for place, item in enumerate(layer):
        item.place = place


def _crossings(layers: Sequence[Sequence[Item]]) -> int:
    """How often links cross: pairs whose upper ends are in one order and whose lower ends are in the other."""
    count = 0
    for layer in layers:
        _number(layer)
    for layer in layers:
        ends: list[int] = []                                # lower ends of the links so far, from left to right
        for item in layer:
            own = [other.place for other in item.below]
            count += sum(len(ends) - bisect_right(ends, end) for end in own)
            for end in own:
                insort(ends, end)
    return count


# -- 4. positions --------------------------------------------------------------------------------------------------

def _place_across(layers: Sequence[list[Item]]) -> None:
    for layer in layers:
        _pack(layer, [0.0] * len(layer))
    for sweep in range(SWEEPS_FOR_PLACES):
        downwards, both = sweep % 2 == 0, sweep > SWEEPS_FOR_PLACES / 2
        for layer in layers if downwards else reversed(layers):
            _pack(layer, [_wish(item, item.above + item.below if both else item.above if downwards else item.below)
                          for item in layer])


def _wish(item: Item, neighbours: Sequence[Item]) -> float:
    """Where an item wants to be: in the middle of its neighbours; a thread, above all, in line with its thread."""
    weights = [THREAD_WEIGHT if item.kind == other.kind == "thread" else 1.0 for other in neighbours]
    if not neighbours:
        return item.x
    return sum(weight * other.x for weight, other in zip(weights, neighbours, strict=True)) / sum(weights)


def _pack(layer: Sequence[Item], wanted: Sequence[float]) -> None:
    """Put items as close to `wanted` as they can be, in their order and without touching: the least sum of squares.

    Without its distances from the first, an item that wants to be left of the one before forms a block with it, which
    stands at the mean of what both want (pool adjacent violators).
    """
    offsets, edge = [], 0.0
    for item in layer:
        offsets.append(edge + item.width / 2)
        edge += item.width + BETWEEN_ITEMS
    blocks: list[list[float]] = []                          # [sum of weights · wishes, sum of weights, how many items]
    for item, wish, offset in zip(layer, wanted, offsets, strict=True):
        weight = THREAD_WEIGHT if item.kind == "thread" else 1.0
        blocks.append([weight * (wish - offset), weight, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    starts = [total / weight for total, weight, count in blocks for _ in range(int(count))]
    for item, start, offset in zip(layer, starts, offsets, strict=True):
        item.x = start + offset


def _place_down(layers: Sequence[Sequence[Item]]) -> float:
    """Layers one below the other; threads pass through the whole height of theirs. Returns the height of the page."""
    y = 0.0
    for layer in layers:
        aside = max((abs(item.x - other.x) for item in layer for other in item.above), default=0.0)
        y += min(max(BETWEEN_LAYERS, STEEPNESS * aside), MOST_BETWEEN_LAYERS) if layer is not layers[0] else 0.0
        height = max(item.height for item in layer)
        for item in layer:
            item.top, item.bottom = y, y + height
            if item.kind == "thread":
                item.height = height
            item.y = y + (height - item.height) / 2
        y += height
    return y
