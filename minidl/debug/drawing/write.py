"""A picture as SVG, which every browser shows, and as DOT, which Graphviz and its relatives read.

Each text stands on a light ground of its own, so that it can be read on light and on dark pages; the SVG has no style
sheet and no ids, so that several can stand in one page.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from html import escape

from minidl.debug.drawing.layout import Item, lay_out
from minidl.debug.drawing.picture import Line, Picture

FILL = {"parameter": "#cfe3f7", "leaf": "#d5efd8", "data": "#ececec", "op": "#fbe6c2", "output": "#ead9f3"}
INK = {"title": "#17191c", "note": "#565b61", "value": "#17191c", "grad": "#a3123a"}
EDGE = "#7f868d"
MARGIN = 8.0
TEXT, LINE_HEIGHT = 13.0, 17.0
CHARACTER = 0.61 * TEXT                     # the width of a character: in fonts of one width it is 0.6 of the size


def svg(picture: Picture) -> str:
    """The picture as an SVG document."""
    layout = lay_out([_size(box.lines, 10, 6) for box in picture.boxes],
                     [(arrow.source, arrow.target, _size(arrow.lines, 4, 1)) for arrow in picture.arrows])
    width, height = layout.width + 2 * MARGIN, layout.height + 2 * MARGIN
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
             f'viewBox="{-MARGIN:g} {-MARGIN:g} {width:.1f} {height:.1f}" role="img" aria-label="computation graph: '
             f'{len(picture.boxes)} boxes, {len(picture.arrows)} arrows" '
             f'font-family="ui-monospace, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" font-size="{TEXT:g}">']
    parts += [_links_of(item) for item in layout.items]
    for label, arrow in zip(layout.labels, picture.arrows, strict=True):
        if arrow.lines:
            parts.append(f"<g>{_ground(label, '#ffffff', 3)}{_texts(label, arrow.lines)}</g>")
    for item, box in zip(layout.boxes, picture.boxes, strict=True):
        hint = f"<title>{_for_xml(box.hint)}</title>" if box.hint else ""
        ground = _ground(item, FILL[box.kind], 3 if box.kind == "op" else 9, f' stroke="{EDGE}"')
        parts.append(f"<g>{hint}{ground}{_texts(item, box.lines)}</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def dot(picture: Picture) -> str:
    """The picture in the language of Graphviz."""
    lines = ["digraph minidl {", '  node [shape=box, style="rounded,filled", fontname="monospace"];',
             '  edge [fontname="monospace"];']
    for i, box in enumerate(picture.boxes):
        lines.append(f'  n{i} [label={_quoted(box.lines)}, fillcolor="{FILL[box.kind]}", '
                     f"tooltip={_quoted([Line(box.hint, 'note')])}];")
    for arrow in picture.arrows:
        lines.append(f"  n{arrow.source} -> n{arrow.target} [label={_quoted(arrow.lines)}];")
    return "\n".join([*lines, "}"]) + "\n"


def _size(lines: Sequence[Line], beside: float, above: float) -> tuple[float, float]:
    """Width and height of lines of text, with some room around them."""
    if not lines:
        return 0.0, 0.0
    columns = max(sum(_columns(character) for character in line.text) for line in lines)
    return columns * CHARACTER + 2 * beside, len(lines) * LINE_HEIGHT + 2 * above


def _columns(character: str) -> int:
    """How wide a character is: Chinese ones take two places."""
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _links_of(item: Item) -> str:
    """The curves from an item down to those that it leads to, the line through it if it is no box."""
    parts = []
    if item.kind != "box" and item.height:
        parts.append(f"M{item.x:.1f} {item.y:.1f}V{item.y + item.height:.1f}")
    heads = []
    for lower in item.below:
        x, y = _entry(item, lower), lower.y - (5 if lower.kind == "box" else 0)
        middle = (item.bottom + lower.top) / 2
        parts.append(f"M{item.x:.1f} {item.y + item.height:.1f}V{item.bottom:.1f}"
                     f"C{item.x:.1f} {middle:.1f} {x:.1f} {middle:.1f} {x:.1f} {lower.top - 5:.1f}V{y:.1f}")
        if lower.kind == "box":
            heads.append(f'<path d="M{x:.1f} {lower.y:.1f}l-4 -8h8z" fill="{EDGE}"/>')
    if not parts:
        return ""
    return f'<path d="{"".join(parts)}" fill="none" stroke="{EDGE}" stroke-width="1.5"/>{"".join(heads)}'


def _entry(upper: Item, lower: Item) -> float:
    """Where on its upper edge a box is entered: arrows stand side by side, in the order that they come from."""
    if lower.kind != "box":
        return lower.x
    side_by_side = sorted(lower.above, key=lambda item: item.x)
    step = min(16.0, lower.width / (len(side_by_side) + 1))
    return lower.x + step * (side_by_side.index(upper) - (len(side_by_side) - 1) / 2)


def _ground(item: Item, fill: str, radius: float, more: str = "") -> str:
    return (f'<rect x="{item.x - item.width / 2:.1f}" y="{item.y:.1f}" width="{item.width:.1f}" '
            f'height="{item.height:.1f}" rx="{radius:g}" fill="{fill}"{more}/>')


def _texts(item: Item, lines: Sequence[Line]) -> str:
    """Lines one below the other, in the middle."""
    first = item.y + (item.height - LINE_HEIGHT * len(lines)) / 2 + 0.75 * LINE_HEIGHT
    return "".join(f'<text x="{item.x:.1f}" y="{first + k * LINE_HEIGHT:.1f}" text-anchor="middle" '
                   f'xml:space="preserve" fill="{INK[line.role]}">{_for_xml(line.text)}</text>'
                   for k, line in enumerate(lines))


def _printable(text: str) -> str:
    """Without control characters, most of which XML does not know at all, and without ends of lines."""
    return "".join(character if character.isprintable() else "�" for character in text)


def _for_xml(text: str) -> str:
    return escape(_printable(text))


def _quoted(lines: Sequence[Line]) -> str:
    """A string of DOT."""
    texts = [_printable(line.text).replace("\\", "\\\\").replace('"', '\\"') for line in lines]
    return '"' + "\\n".join(texts) + '"'
