"""minidl.draw: what is on the picture is what is in the graph, and the picture can be read."""

from __future__ import annotations

import itertools
import re
import time
from xml.etree import ElementTree

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

import minidl
import minidl.nn.functional as F
from minidl import nn
from minidl.debug.drawing import layout
from minidl.errors import GraphError, MinidlError, SettingError

SVG = "{http://www.w3.org/2000/svg}"


def leaf(value, **settings):
    return minidl.tensor(value, dtype=minidl.float64, requires_grad=True, **settings)


def parsed(drawing):
    """(boxes, labels, arrows) read from the DOT: texts of node i; (i, j) -> texts of the arrows between them."""
    first, *lines, last = drawing.dot.splitlines()
    assert (first, last) == ("digraph minidl {", "}")
    boxes, arrows = {}, {}
    text = r'"((?:[^"\\]|\\.)*)"'
    for line in lines:
        if re.fullmatch(r'  (node|edge) \[.*\];', line):
            continue
        node = re.fullmatch(rf'  n(\d+) \[label={text}, fillcolor="#[0-9a-f]{{6}}", tooltip={text}\];', line)
        arrow = re.fullmatch(rf"  n(\d+) -> n(\d+) \[label={text}\];", line)
        assert node or arrow, line
        if node:
            boxes[int(node[1])] = unquoted(node[2])
        else:
            assert int(arrow[1]) in boxes
            assert int(arrow[2]) in boxes
            arrows.setdefault((int(arrow[1]), int(arrow[2])), []).append(unquoted(arrow[3]))
    return boxes, arrows


def unquoted(text):
    text = re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), text)
    return text.split("\n") if text else []


def texts(drawing):
    return [node.text for node in ElementTree.fromstring(drawing.svg).iter(f"{SVG}text")]


def labels(drawing):
    """Title of the source, title of the target -> what stands on the arrow; the order is that of the arrows."""
    boxes, arrows = parsed(drawing)
    return [(boxes[i][0], boxes[j][0], label) for (i, j), found in arrows.items() for label in found]


def classic():
    x, y, z = leaf(-2.0), leaf(5.0), leaf(-4.0)
    q = x + y
    return {"x": x, "y": y, "z": z, "q": q, "f": q * z}


def test_the_classic_example():
    names = classic()
    drawing = minidl.draw(names["f"], names, gradients=True)
    boxes, _ = parsed(drawing)
    assert sorted(boxes.values()) == [["Add"], ["Mul"], ["f", "output"], ["x", "leaf"], ["y", "leaf"], ["z", "leaf"]]
    assert labels(drawing) == [
        ("x", "Add", ["() = -2", "grad = -4"]), ("y", "Add", ["() = 5", "grad = -4"]),
        ("Add", "Mul", ["q () = 3", "grad = -4"]), ("z", "Mul", ["() = -4", "grad = 3"]),
        ("Mul", "f", ["() = -12", "grad = 1"])]
    in_dot = [text for lines in [*boxes.values(), *(lines for _, _, lines in labels(drawing))] for text in lines]
    assert sorted(texts(drawing)) == sorted(in_dot)
    hints = [title.text for title in ElementTree.fromstring(drawing.svg).iter(f"{SVG}title")]
    assert sorted(hints) == sorted(names[name].node.where for name in "xyzqf")
    assert all(hint.startswith("test_draw.py:") for hint in hints)


def test_names_as_pairs_and_in_the_word_of_torchviz():
    names = classic()
    wanted = minidl.draw(names["f"], names).svg
    assert minidl.draw(names["f"], list(names.items())).svg == wanted
    assert minidl.draw(names["f"], params=names).svg == wanted
    assert minidl.draw(names["f"], names.items()).svg == wanted
    assert minidl.draw(names["f"]).svg != wanted


# -- gradients ---------------------------------------------------------------------------------------------------------

def test_gradients_true_leaves_everything_as_it_was():
    names = classic()
    names["x"].grad = minidl.tensor(7.0, dtype=minidl.float64)
    minidl.draw(names["f"], gradients=True)
    assert names["x"].grad.item() == 7
    assert names["y"].grad is None
    names["f"].backward()
    assert names["x"].grad.item() == 7 - 4


def test_steps_show_the_pass_that_they_are_of():
    names = classic()
    wanted = minidl.draw(names["f"], names, gradients=True).svg
    steps = list(names["f"].backward_steps(retain_graph=True))
    assert minidl.draw(names["f"], names, gradients=steps).svg == wanted
    assert minidl.draw(names["f"], names, gradients=iter(steps)).svg == wanted
    twice = list(names["f"].backward_steps(minidl.tensor(2.0, dtype=minidl.float64)))
    assert ("z", "Mul", ["() = -4", "grad = 6"]) in labels(minidl.draw(names["f"], names, gradients=twice))


def test_after_backward_the_grad_that_is_there_is_shown():
    names = classic()
    names["q"].retain_grad()
    assert "grad" not in "".join(texts(minidl.draw(names["f"], names)))
    names["f"].backward()
    boxes, _ = parsed(minidl.draw(names["f"], names))
    assert ["x", "leaf", "grad = -4"] in boxes.values()
    assert ["z", "leaf", "grad = 3"] in boxes.values()
    assert ["Add", "grad = -4"] in boxes.values()
    assert "grad" not in "".join(texts(minidl.draw(names["f"], names, gradients=False)))
    with pytest.raises(GraphError, match="freed what it had kept"):
        minidl.draw(names["f"], names, gradients=True)


def test_the_parts_of_a_fork_and_their_sum():
    x, y = leaf(3.0), leaf(-2.0)
    square = x * x
    names, z = {"x": x, "y": y, "square": square}, square * y + x
    drawing = minidl.draw(z, names, gradients=True)
    parts = [lines for source, _, lines in labels(drawing) if source == "x"]
    assert parts == [["() = 3", "grad = -6"], ["() = 3", "grad = -6"], ["() = 3", "grad = 1"]]
    assert ["x", "leaf", "sum of 3: grad = -11"] in parsed(drawing)[0].values()
    assert ["y", "leaf"] in parsed(drawing)[0].values()
    assert minidl.draw(z, names, gradients=list(z.backward_steps(retain_graph=True))).svg == drawing.svg


def test_a_large_gradient_is_shown_by_its_length():
    w = minidl.randn(4, 5, requires_grad=True)
    drawing = minidl.draw((w ** 2).sum(), {"w": w}, gradients=True)
    length = np.linalg.norm(2 * w.detach().numpy().astype(np.float64))
    assert ("w", "Pow", ["(4, 5)", f"‖grad‖ = {length:.4g}"]) in labels(drawing)


def test_the_graph_of_a_gradient():
    x = leaf(2.0)
    (slope,) = minidl.autograd.grad(x ** 3, x, create_graph=True)
    drawing = minidl.draw(slope, {"x": x}, gradients=True)
    total = sum(float(lines[-1].removeprefix("grad = ")) for source, _, lines in labels(drawing) if source == "x")
    assert total == 12                                          # 6x
    ElementTree.fromstring(drawing.svg)


# -- values ------------------------------------------------------------------------------------------------------------

def test_values_of_small_tensors_only():
    w, x = leaf([[1.0, -2.0], [0.5, 100.0]]), minidl.ones(2, 7, dtype=minidl.float64)
    y = w @ x
    assert ("w", "MatMul", ["(2, 2) =", "[[  1,  -2], ", " [0.5, 100]] "]) in labels(minidl.draw(y, {"w": w, "x": x}))
    assert ("x", "MatMul", ["(2, 7)"]) in labels(minidl.draw(y, {"w": w, "x": x}))
    assert ("MatMul", "output", ["(2, 7)"]) in labels(minidl.draw(y, {"w": w, "x": x}))
    assert ("w", "MatMul", ["(2, 2)"]) in labels(minidl.draw(y, {"w": w}, values=False))


@pytest.mark.parametrize(("value", "text"), [
    (0.0, "0"), (-0.0, "0"), (1 / 3, "0.3333"), (-12345.678, "-1.235e+04"), (float("nan"), "nan"), (float("inf"), "inf"),
    ([1.0, -2.5], "[1, -2.5]"), ([[1.0, 2.0]], "[[1, 2]]"), ([[[1.0]], [[2.0]]], "[[[1]], [[2]]]")])
def test_how_numbers_look(value, text):
    assert labels(minidl.draw(leaf(value).exp().log().sum(), names={"x": (x := leaf(value))}))[-1][2][0].startswith("() = ")
    assert labels(minidl.draw(x * 1, {"x": x}))[0][2] == [f"{tuple(x.shape)} = {text}"]


def test_data_and_numbers_are_told_from_leaves():
    w, x = nn.Parameter(minidl.tensor([1.0, 2.0])), minidl.tensor([3.0, 4.0])
    boxes, _ = parsed(minidl.draw(w * x * 3, {"w": w, "x": x}))
    assert sorted(boxes.values()) == [["3", "number"], ["Mul"], ["Mul"], ["output"], ["w", "parameter"], ["x", "data"]]
    boxes, _ = parsed(minidl.draw(w * x))
    assert sorted(boxes.values()) == [["(2,)", "data"], ["(2,)", "parameter"], ["Mul"], ["output"]]


def test_a_value_that_was_overwritten_is_not_shown():
    x = leaf([1.0, 2.0])
    h = x.exp()
    y = h * h
    assert [lines for source, _, lines in labels(minidl.draw(y)) if source == "Exp"] == 2 * [["(2,) = [2.718, 7.389]"]]
    with minidl.no_grad():
        h.zero_()
    assert [lines for source, _, lines in labels(minidl.draw(y)) if source == "Exp"] == 2 * [["(2,)"]]


def test_several_outputs_and_one_that_others_use():
    x = leaf(2.0)
    y = x * x
    z = y.exp()
    drawing = minidl.draw([y, z], {"x": x, "y": y, "z": z}, gradients=True)
    found = labels(drawing)
    assert ("Mul", "y", ["() = 4", f"grad = {1 + np.exp(4):.4g}"]) in found
    assert ("Exp", "z", [f"() = {np.exp(4):.4g}", "grad = 1"]) in found
    assert len([box for box in parsed(drawing)[0].values() if "output" in box]) == 2


# -- models ------------------------------------------------------------------------------------------------------------

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU())
        self.head = nn.Linear(3 * 4, 2)

    def forward(self, x):
        return self.head(F.max_pool2d(self.features(x), 3).flatten(1))


def test_a_model_names_its_parameters_and_layers():
    model, images = Net(), minidl.randn(5, 1, 8, 8)
    loss = F.cross_entropy(model(images), minidl.tensor([0, 1, 0, 1, 0]))
    boxes, _ = parsed(drawing := minidl.draw(loss, {"images": images}, gradients=True))
    names = [lines[0] for lines in boxes.values() if "parameter" in lines]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert ["images", "data"] in boxes.values()
    assert ["Conv2d", "features.0"] in boxes.values()
    assert ["Linear", "head"] in boxes.values()
    assert ("images", "Conv2d", ["(5, 1, 8, 8)"]) in labels(drawing)
    weight = model.head.weight
    loss.backward()
    assert ("head.weight", "Linear", ["(2, 12)", f"‖grad‖ = {weight.grad.norm().item():.4g}"]) in labels(drawing)
    same = minidl.draw(loss, params=dict(model.named_parameters()))
    assert {name for name, _ in model.named_parameters()} <= set(texts(same))


def test_ops_of_all_kinds(monkeypatch):
    class Double(minidl.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, g):
            return 2 * g

    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    drawing = minidl.draw(Double.apply(minidl.cat([a, b, a])).sum(), {"a": a, "b": b}, gradients=True)
    assert [(source, lines[1]) for source, target, lines in labels(drawing) if target == "Cat"] == \
        [("a", "grad = [2, 2]"), ("a", "grad = [2, 2]"), ("b", "grad = [2, 2]")]
    assert "Double" in texts(drawing)
    h = minidl.tensor([1.0, 2.0], dtype=minidl.float16, requires_grad=True)
    assert ("h", "Exp", ["(2,) = [1, 2]", "grad = [2.719, 7.391]"]) in labels(minidl.draw(h.exp().sum(), {"h": h}, gradients=True))


def test_on_the_strict_device():
    x = minidl.tensor([1.0, 2.0], device="fake", requires_grad=True)
    w = minidl.randn(9, device="fake", requires_grad=True)
    drawing = minidl.draw((x * x).sum() + w.sum(), {"x": x, "w": w}, gradients=True)
    assert ["x", "leaf", "sum of 2: grad = [2, 4]"] in parsed(drawing)[0].values()
    assert ("w", "Sum", ["(9,)", "‖grad‖ = 3"]) in labels(drawing)


# -- without a graph, too large, wrong ---------------------------------------------------------------------------------

def test_a_tensor_without_a_graph_is_one_box_that_says_so():
    (box,) = parsed(minidl.draw(leaf([1.0, 2.0]).detach()))[0].values()
    assert box[:2] == ["tensor", "(2,) = [1, 2]"]
    assert " ".join(box[2:]) == "no graph: it was not computed from what requires grad, or under no_grad(), or detached"
    x = minidl.ones(2)
    assert next(iter(parsed(minidl.draw(x, {"x": x}, gradients=True))[0].values()))[0] == "x"


def test_a_leaf_is_one_box():
    x = leaf([1.0, 2.0])
    assert parsed(minidl.draw(x, {"x": x})) == ({0: ["x", "leaf", "(2,) = [1, 2]"]}, {})
    x.sum().backward()
    assert parsed(minidl.draw(x, {"x": x}))[0] == {0: ["x", "leaf", "(2,) = [1, 2]", "grad = [1, 1]"]}


def chain(length):
    x = h = leaf([1.0, 2.0])
    for k in range(length):
        h = h * x if k % 3 else h + 1
    return h.sum()


def test_a_large_graph_is_refused_at_once_and_drawn_if_asked_for():
    start = time.process_time()
    with pytest.raises(GraphError, match=r"draw: got a graph of 5,002 nodes, expected at most 500"):
        minidl.draw(chain(5_000))
    drawing = minidl.draw(chain(300), max_nodes=302, gradients=True)     # x leads to 200 ops: one thread down the side
    assert time.process_time() - start < 5
    assert len(parsed(drawing)[0]) == 300 + 3
    assert len(ElementTree.fromstring(drawing.svg).findall(f".//{SVG}text")) > 600


@pytest.mark.parametrize(("arguments", "sentence"), [
    ([[1.0, 2.0]], "draw: got list, expected a tensor, or a list of one or more"),
    ([[]], "draw: got list, expected a tensor"),
    ([np.ones(2)], "draw: got ndarray, expected a tensor"),
    ([leaf(1.0), {"x": 3}], 'expected names with their tensors: {"x": x}'),
    ([leaf(1.0), ["x"]], "as names, expected names with their tensors"),
    ([leaf(1.0), [leaf(1.0)]], "as names, expected names with their tensors"),
    ([leaf(1.0), 5], "draw: got 5 as names"),
])
def test_what_cannot_be_drawn_is_one_sentence(arguments, sentence):
    with pytest.raises(SettingError, match=re.escape(sentence)):
        minidl.draw(*arguments)


def test_wrong_gradients_and_file_names():
    y = leaf([1.0, 2.0]).exp()
    with pytest.raises(SettingError, match=r"as gradients, expected True, False, None or list\(z.backward_steps\(\)\)"):
        minidl.draw(y, gradients=[leaf(1.0)])
    with pytest.raises(MinidlError, match="expected a single number"):
        minidl.draw(y, gradients=True)
    with pytest.raises(SettingError, match=r"got 'graph.png', expected a name that ends in .svg or .dot"):
        minidl.draw(y).save("graph.png")


# -- files -------------------------------------------------------------------------------------------------------------

def test_it_is_saved_and_shown_in_a_notebook(tmp_path):
    drawing = minidl.draw(classic()["f"])
    drawing.save(tmp_path / "graph.svg")
    drawing.save(str(tmp_path / "graph.DOT"))
    assert (tmp_path / "graph.svg").read_text(encoding="utf-8") == drawing.svg == drawing._repr_svg_()
    assert (tmp_path / "graph.DOT").read_text(encoding="utf-8") == drawing.dot
    assert "5 arrows" in repr(drawing)
    with pytest.raises(MinidlError, match="cannot be written"):
        drawing.save(tmp_path / "nowhere" / "graph.svg")


@pytest.mark.parametrize("name", ['<b>&"quoted"</b>', r"back\slash\n", "two\nlines", "bell\a", "重み", "a -> b; }", "'", "‖x‖"])
def test_any_name_can_be_written(name):
    x = leaf(1.0)
    drawing = minidl.draw(x.exp(), {name: x})
    shown = "".join(character if character.isprintable() else "�" for character in name)
    assert shown in texts(drawing)
    assert "\n".join(next(iter(parsed(drawing)[0].values()))[:-1]) == shown


# -- the layout --------------------------------------------------------------------------------------------------------

def rectangle(item):
    return item.x - item.width / 2, item.y, item.x + item.width / 2, item.y + item.height


def random_graph(rng):
    """Boxes and arrows as a graph has them: each from an earlier box, every box but the last leads on."""
    count = int(rng.integers(2, 40))
    boxes = [(float(rng.uniform(20, 200)), float(rng.uniform(20, 80))) for _ in range(count)]
    arrows = [(int(rng.integers(0, target)), target) for target in range(1, count) for _ in range(rng.integers(0, 4))]
    arrows += [(source, count - 1) for source in range(count - 1) if all(start != source for start, _ in arrows)]
    return boxes, [(*arrow, (float(rng.uniform(10, 250)), float(rng.uniform(10, 60)))) for arrow in arrows]


@pytest.mark.parametrize("seed", range(30))
def test_nothing_is_written_over_anything(seed):
    boxes, arrows = random_graph(np.random.default_rng(seed))
    placed = layout.lay_out(boxes, arrows)
    things = [*placed.boxes, *placed.labels]
    assert [(item.width, item.height) for item in things] == [*boxes, *(size for _, _, size in arrows)]
    for one, other in itertools.combinations(map(rectangle, things), 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, (one, other)
    for item in placed.items:
        left, top, right, bottom = rectangle(item)
        assert left >= -1e-6
        assert top >= 0
        assert right <= placed.width + 1e-6
        assert bottom <= placed.height + 1e-6
        for lower in item.below:                                # curves run in the space between two layers
            assert item.bottom < lower.top
        if item.kind == "thread":                               # and through a layer beside all that stands there
            beside = [rectangle(other) for other in things if other.layer == item.layer]
            assert not any(box[0] < item.x < box[2] for box in beside)
    for (source, target, _), label in zip(arrows, placed.labels, strict=True):
        (above,), (below,) = label.above, label.below
        assert below is placed.boxes[target]
        while above.kind == "thread":
            (above,) = above.above
        assert above is placed.boxes[source]


def test_a_leaf_stands_right_above_its_first_user():
    size = (10.0, 10.0)
    placed = layout.lay_out([size] * 6, [(0, 1, size), (1, 2, size), (2, 4, size), (3, 4, size), (3, 5, size), (4, 5, size)])
    assert [item.layer for item in placed.boxes] == [0, 2, 4, 4, 6, 8]
    assert placed.boxes[2].y == placed.boxes[3].y > placed.boxes[1].y


def test_text_fits_into_its_box():
    drawing = minidl.draw((Net()(minidl.randn(1, 1, 8, 8)) * 1e-5).sum(), gradients=True)
    root, count = ElementTree.fromstring(drawing.svg), 0
    for group in root.iter(f"{SVG}g"):
        rect = group.find(f"{SVG}rect")
        for text in group.findall(f"{SVG}text"):
            count += 1
            needed = len(text.text) * 0.6 * float(root.get("font-size"))
            assert needed <= float(rect.get("width"))
            assert float(rect.get("y")) + 9 < float(text.get("y")) < float(rect.get("y")) + float(rect.get("height"))
            assert text.get("text-anchor") == "middle"
            middle = float(rect.get("x")) + float(rect.get("width")) / 2
            assert abs(float(text.get("x")) - middle) < 0.11
    assert count == len(texts(drawing)) > 20


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
              for c in (int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """As the Web Content Accessibility Guidelines define it: 1 to 21."""
    bright, dark = sorted([luminance(one), luminance(other)], reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_it_can_be_read_on_light_and_on_dark_pages():
    names = classic()
    root = ElementTree.fromstring(minidl.draw(names["f"] * names["x"] * 2, names, gradients=True).svg)
    for group in root.iter(f"{SVG}g"):                          # texts have a ground of their own
        for text in group.findall(f"{SVG}text"):
            assert contrast(text.get("fill"), group.find(f"{SVG}rect").get("fill")) >= 4.5
    lines = {path.get("stroke") or path.get("fill") for path in root.iter(f"{SVG}path")}
    assert all(contrast(line, page) >= 3 for line in lines for page in ("#ffffff", "#17191c"))
    assert not root.findall(f".//{SVG}style")                   # nothing that would leak into a page
    assert not any("id" in node.attrib for node in root.iter())


def test_a_tree_has_no_crossings_and_operands_stand_in_order():
    names = {f"leaf {k}": leaf(float(k)) for k in range(8)}
    x = list(names.values())
    while len(x) > 1:
        x = [a * b for a, b in zip(x[::2], x[1::2], strict=True)]
    root = ElementTree.fromstring(minidl.draw(x[0], names, gradients=True).svg)
    places = [(float(node.get("x")), node.text) for node in root.iter(f"{SVG}text") if node.text in names]
    assert [name for _, name in sorted(places)] == list(names)


@pytest.mark.parametrize("seed", range(5))
def test_crossings_are_counted(seed):
    rng = np.random.default_rng(seed)
    upper, lower = ([layout.Item(1, 1, "box") for _ in range(6)] for _ in range(2))
    links = [(int(a), int(b)) for a, b in rng.integers(0, 6, (12, 2))]
    for a, b in links:
        layout._link(upper[a], lower[b])
    crossing = sum((a - c) * (b - d) < 0 for (a, b), (c, d) in itertools.combinations(links, 2))
    assert layout._crossings([upper, lower]) == crossing


@pytest.mark.parametrize("seed", range(5))
def test_items_are_packed_with_the_least_squares(seed):
    rng = np.random.default_rng(seed)
    items = [layout.Item(float(rng.uniform(0, 50)), 1, str(rng.choice(["box", "thread"]))) for _ in range(12)]
    wanted = rng.uniform(0, 400, 12)
    layout._pack(items, wanted.tolist())
    widths = np.array([item.width for item in items])
    offsets = np.concatenate([[0], np.cumsum((widths[:-1] + widths[1:]) / 2 + layout.BETWEEN_ITEMS)])
    weights = [layout.THREAD_WEIGHT if item.kind == "thread" else 1 for item in items]
    best = IsotonicRegression().fit(range(12), wanted - offsets, weights).predict(range(12)) + offsets
    np.testing.assert_allclose([item.x for item in items], best, atol=1e-4)


def test_an_empty_label_takes_no_room():
    x = leaf(2.0)
    root = ElementTree.fromstring(minidl.draw(x ** 2, {"x": x}).svg)
    assert not [rect for rect in root.iter(f"{SVG}rect") if float(rect.get("width")) == 0]


def test_writing_twice_is_the_same():
    names = classic()
    assert minidl.draw(names["f"], names).svg == minidl.draw(names["f"], names).svg
