"""Running labs, and looking at their figures without eyes: is there something on each panel, and something else on the
next?
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PathCollection, QuadMesh

from labs._lab import Lab

ROOT = Path(__file__).parent.parent


def check_figure(figure, equal_panels=False) -> int:
    """Assert that each panel shows data, all of it finite, no picture of one colour, and no two panels the same.

    A panel with nothing but text (a label in a grid) and the scale of a colour bar are no data. equal_panels: whether
    panels may show the same. Returns how many panels show data.
    """
    seen, count = {}, 0
    for number, axes in enumerate(panels_of(figure)):
        where = f"panel {number} ({axes.get_title() or 'without a title'})"
        data = data_of(axes)
        if not data and axes.texts:
            continue
        assert data, f"{where} is empty"
        count += 1
        for kind, values in data:
            assert np.isfinite(values).all(), f"{where} has {kind} with nan or inf"
        for line in lines_of(axes):
            for scale, values in ((axes.get_xscale(), line.get_xdata()), (axes.get_yscale(), line.get_ydata())):
                assert scale != "log" or (numbers(values) > 0).all(), f"{where} has a value on a log scale that is not above 0"
        for picture in pictures_of(axes):
            colours = np.asarray(picture.to_rgba(picture.get_array(), bytes=True)).reshape(-1, 4)
            assert (colours != colours[0]).any(), f"{where} has a picture of one colour"
        if not equal_panels:
            key = tuple((kind, values.shape, values.tobytes()) for kind, values in data)
            assert key not in seen, f"{where} shows the same as {seen[key]}"
            seen[key] = where
    assert count, "the figure shows no data"
    return count


def panels_of(figure):
    """All axes that can be seen, those inside of others too, without colour bars."""
    def with_children(axes):
        yield axes
        for child in axes.child_axes:
            yield from with_children(child)

    return [axes for outer in figure.axes for axes in with_children(outer)
            if axes.get_visible() and axes.get_label() != "<colorbar>"]


def data_of(axes) -> list[tuple[str, np.ndarray]]:
    """(kind, numbers) for all that is drawn in the coordinates of the data; lines across the whole panel are not."""
    found = []
    for picture in pictures_of(axes):
        found.append(("a picture", numbers(picture.get_array())))
    for line in lines_of(axes):
        if np.size(line.get_xdata()):
            found.append(("a line", np.stack([numbers(line.get_xdata()), numbers(line.get_ydata())])))
    for patch in axes.patches:
        corners = numbers(patch.get_patch_transform().transform(patch.get_path().vertices))
        if patch.get_data_transform() is axes.transData and not (np.ptp(corners, axis=0) == 0).any():
            found.append(("a bar or patch", corners))
    for collection in axes.collections:
        if isinstance(collection, PathCollection):                      # points, as scatter draws them
            places = numbers(collection.get_offsets())
        else:
            places = numbers(np.concatenate([path.vertices for path in collection.get_paths()] or [np.empty((0, 2))]))
        if places.size and not isinstance(collection, QuadMesh):
            found.append(("points or areas", places))
    return found


def lines_of(axes):
    """Lines in the coordinates of the data; axvline and axhline cross the whole panel."""
    return [line for line in axes.lines if line.get_transform() is axes.transData]


def pictures_of(axes):
    return [*axes.images, *(collection for collection in axes.collections if isinstance(collection, QuadMesh))]


def numbers(values) -> np.ndarray:
    """As floats; what matplotlib masks because it is not a number is nan again."""
    return np.ma.filled(np.ma.asarray(values, float), np.nan)


def run_here(monkeypatch, name, *arguments, equal_panels=()):
    """Run a lab in this process: its global names, and its figures by name, each of which is checked.

    equal_panels: names of figures whose panels may show the same.
    """
    figures, save = {}, Lab.figure

    def keep(lab, figure, name, caption):
        check_figure(figure, equal_panels=name in equal_panels)
        figures[name] = figure
        save(lab, figure, name, caption)

    monkeypatch.setattr(Lab, "figure", keep)
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)              # the lab takes it until it has finished
    return runpy.run_module(f"labs.{name}", run_name="__main__", alter_sys=True), figures


def run_once(tmp_path_factory, name, *arguments, equal_panels=()):
    """For a fixture of a module: one run in this process. Its global names, its figures, and the folder of its results."""
    folder = tmp_path_factory.mktemp(name)
    with pytest.MonkeyPatch.context() as monkeypatch:
        names, figures = run_here(monkeypatch, name, "--out", folder, *arguments, equal_panels=equal_panels)
    return names, figures, folder


def run_lab(name, *arguments, check=True, data=""):
    """Run a lab as a user does, in a process of its own. data: the folder of the datasets; none by default."""
    return subprocess.run([sys.executable, "-m", f"labs.{name}", *map(str, arguments)], cwd=ROOT, capture_output=True,
                          text=True, check=check, env={**os.environ, "MINIDL_DATA": data})
