"""Compiling kernels: once for each machine and version, said once, and whatever may be wrong with the cache, the kernels run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import minidl
from minidl.kernels import compiling

ROOT = Path(minidl.__file__).parent

# a kernel that calls another one, from another file; what it imports is the same for every copy of the package
INNER = """
from minidl.kernels.compiling import compiled

@compiled
def shifted(x):
    return x + 1
"""
OUTER = """
from minidl.kernels.compiling import compiled
from minidl.kernels.inner_for_tests import shifted
from minidl.kernels.vectors import stay_apart

@compiled
def doubled(x):
    return 2 * shifted(x)

def scaled_by(factor, function):
    @compiled
    def product(x):
        stay_apart()
        return factor * function(x)

    @compiled
    def scaled(x):
        return product(x)

    return scaled

by_three, by_five = scaled_by(3, shifted), scaled_by(5, shifted)
"""
CALL = "from minidl.kernels import compiling, outer_for_tests as outer; print(outer.doubled(20.0), compiling.names())"
COMPILED = "['inner_for_tests.shifted', 'outer_for_tests.doubled']"


class Copy:
    """A copy of minidl with two more kernels, and a cache folder of its own."""

    def __init__(self, folder):
        self.folder, self.cache = folder, folder / "cache"
        self.kernels = folder / "minidl" / "kernels"
        shutil.copytree(ROOT, folder / "minidl")
        (self.kernels / "inner_for_tests.py").write_text(INNER)
        (self.kernels / "outer_for_tests.py").write_text(OUTER)

    def start(self, code, *arguments, **environment):
        variables = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}
        variables |= {"XDG_CACHE_HOME": str(self.cache), "PYTHONPATH": str(self.folder)} | environment
        command = [sys.executable, *(arguments or ("-c", code))]
        return subprocess.Popen(command, cwd=self.folder, env=variables, text=True, stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, code="", *arguments, **environment):
        """The lines that Python prints, on stdout and on stderr."""
        process = self.start(code, *arguments, **environment)
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        return out.strip(), err.strip()

    def files(self):
        return sorted(path for path in self.cache.rglob("*") if path.is_file()) if self.cache.is_dir() else []


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path)


needs_xdg = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the cache folder is named by XDG_CACHE_HOME")


# -- kept, and compiled again when it has to be -------------------------------------------------------------------------

@needs_xdg
def test_what_is_compiled_is_kept_until_a_kernel_is_edited(copy):
    out, err = copy.run(CALL)
    assert out == f"42.0 {COMPILED}"
    assert err == f"minidl: compiling kernels (once; kept in {next((copy.cache / 'minidl' / 'kernels').iterdir())})"
    assert copy.run(CALL) == ("42.0 []", "")                                # and nothing is said
    # the file of `doubled` is as it was; Numba alone would load the old code
    (copy.kernels / "inner_for_tests.py").write_text(INNER.replace("x + 1", "x + 2"))
    assert copy.run(CALL)[0] == f"44.0 {COMPILED}"
    (copy.kernels / "inner_for_tests.py").write_text(INNER)
    assert copy.run(CALL)[0] == "42.0 []"                                   # the first version is still there


@needs_xdg
def test_functions_made_by_a_function_are_found_again(copy):
    """Their closures hold another compiled function, which Numba would take for a new one in every process."""
    code = ("from minidl.kernels import compiling, outer_for_tests as outer; "
            "print(outer.by_three(1.0), outer.by_five(1.0), len(compiling.names()))")
    assert copy.run(code)[0] == "6.0 10.0 5"
    files = copy.files()
    assert copy.run(code)[0] == "6.0 10.0 0"
    assert copy.files() == files


@needs_xdg
def test_functions_made_by_a_function_are_kept_apart(copy):
    """Numba numbers the functions that a process compiles, and names machine code by these numbers. So two functions of
    one name, compiled first by different processes, are loaded under one name, and one of them runs in place of the
    other. (The hash seed decides about the order of compiler settings in that name.)
    """
    code = "from minidl.kernels import outer_for_tests as outer; print(*(getattr(outer, name)(1.0) for name in {!r}))"
    copy.run(CALL, PYTHONHASHSEED="0")
    for names, expected in ((["by_three"], "6.0"), (["by_five"], "10.0"), (["by_five", "by_three"], "10.0 6.0")):
        assert copy.run(code.format(names), PYTHONHASHSEED="0")[0] == expected


@needs_xdg
def test_numba_cache_dir_is_honoured(copy, tmp_path):
    chosen = tmp_path / "elsewhere"
    copy.run(CALL, NUMBA_CACHE_DIR=str(chosen))
    assert list((chosen / "minidl" / "kernels").rglob("outer_for_tests.doubled*.nbc"))
    assert not copy.files()


def test_the_key_changes_with_the_sources_and_the_settings(tmp_path, monkeypatch):
    for path in compiling.SOURCES.glob("*.py"):
        shutil.copy(path, tmp_path)
    key = compiling.key()
    monkeypatch.setattr(compiling, "SOURCES", tmp_path)
    assert compiling.key() == key                                           # the place does not count
    with open(tmp_path / "geometry.py", "a") as file:
        file.write("\n# a word more\n")
    edited = compiling.key()
    assert edited != key
    (tmp_path / "another.py").touch()
    assert compiling.key() not in (key, edited)
    (tmp_path / "another.py").unlink()
    monkeypatch.setattr(compiling.config, "OPT", "a lower one")
    assert compiling.key() not in (key, edited)


@needs_xdg
def test_the_announcement_can_be_silenced(copy):
    out, err = copy.run(f"import logging; logging.getLogger('minidl').setLevel(logging.ERROR); {CALL}")
    assert out == f"42.0 {COMPILED}"
    assert err == ""


# -- nowhere to keep it, or damaged -----------------------------------------------------------------------------------

@needs_xdg
@pytest.mark.parametrize("place", ["a file", "no home"])
def test_without_a_cache_folder_kernels_are_compiled_each_time(copy, place):
    copy.cache.write_text("something else")
    environment = {"XDG_CACHE_HOME": "", "HOME": os.devnull} if place == "no home" else {}
    for _ in range(2):
        out, err = copy.run(CALL, **environment)
        assert out == f"42.0 {COMPILED}"
        assert err == ("minidl: compiling kernels (in every process: no cache folder can be written, name one in "
                       "NUMBA_CACHE_DIR)")
    assert not list(copy.folder.rglob("*.nbi")), "Numba wrote beside the sources"


def identity_for_tests(x):
    return x + x


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """What `compiled` makes of a function with an empty cache folder: as if every time in a new process."""
    monkeypatch.setattr(compiling, "folder", lambda: tmp_path)
    return lambda: compiling.compiled(identity_for_tests)


def loaded(function):
    return sum(function.stats.cache_hits.values())


@pytest.mark.parametrize("kind", ["*.nbi", "*.nbc"])
@pytest.mark.parametrize("damage", [b"", b"no code", None])
def test_damaged_files_are_replaced(fresh, tmp_path, kind, damage):
    assert fresh()(1) == 2
    again = fresh()
    assert (again(1), loaded(again)) == (2, 1)
    [damaged] = tmp_path.rglob(kind)
    damaged.write_bytes(damaged.read_bytes()[:100] if damage is None else damage)
    for expected in (0, 1):                                                 # compiled again; and kept
        again = fresh()
        assert (again(1), loaded(again)) == (2, expected)


def test_code_that_cannot_be_kept_is_used_all_the_same(fresh, tmp_path):
    """As on a full disk. Here the folder turns into a file between the import and the first call."""
    function = fresh()
    shutil.rmtree(tmp_path)
    tmp_path.touch()
    assert function(1) == 2
    tmp_path.unlink()
    assert function(1.5) == 3                                               # the folder is made again
    assert list(tmp_path.rglob("*.nbc"))


# -- several at once ---------------------------------------------------------------------------------------------------

@needs_xdg
def test_two_processes_may_compile_at_the_same_time(copy):
    """The same function for other types, and for the same ones; whatever was kept is right afterwards."""
    code = ("from minidl.kernels import compiling, outer_for_tests as outer; print('ready', flush=True); input();"
            "import numpy as np; print([outer.doubled(t(20)) for t in (np.float32, np.float64, np.int64)[::{}]])")
    processes = [copy.start(code.format(step)) for step in (1, -1, 1)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        assert out.count("42") == 3
    after = "import numpy as np; from minidl.kernels import outer_for_tests as outer; " \
            "print(*(outer.doubled(t(20)) for t in (np.float32, np.float64, np.int64)))"
    assert copy.run(after)[0] == "42.0 42.0 42"


def test_code_for_other_types_is_never_mixed_up(fresh, monkeypatch):
    """The worst order of two processes: B writes index and code for its types while A is between index and code.

    With Numba's own file names both would write the same file, and the index that stays names A's code for B's types.
    """
    a, b, later = fresh(), fresh(), fresh()
    files_of_a, files_of_b = a._cache._cache_file, b._cache._cache_file
    save = files_of_a._save_data

    def b_comes_between(name, data):
        with monkeypatch.context() as patch:
            patch.setattr(files_of_b, "_load_index", dict)                  # B had looked before A wrote its index
            assert b(1.5) == 3
        save(name, data)

    monkeypatch.setattr(files_of_a, "_save_data", b_comes_between)
    assert a(2) == 4
    assert later(1.5) == 3
    assert loaded(later) == 1
    assert later(2) == 4


# -- not compiled, and what else there is ------------------------------------------------------------------------------

def test_without_jit_functions_stay_plain(copy):
    code = f"{CALL}; import types; print(type(outer.doubled) is types.FunctionType, compiling.seconds())"
    out, err = copy.run(code, NUMBA_DISABLE_JIT="1")
    assert out == "42.0 []\nTrue 0"
    assert err == ""
    assert not copy.files()


def test_compiled_time_is_counted(fresh):
    before, seconds = compiling.names(), compiling.seconds()
    function = fresh()
    assert compiling.names() == before                                      # not before the first call
    began = time.perf_counter()
    function(1)
    assert compiling.names() == [*before, "test_compiling.identity_for_tests"]
    assert 0 < compiling.seconds() - seconds < time.perf_counter() - began
    function(2)
    fresh()(1)                               # loaded
    assert len(compiling.names()) == len(before) + 1


def test_nan_and_infinity_stay_what_they_are(tmp_path, monkeypatch):
    """Fast arithmetic, but not so fast that NaN would be forgotten; division by zero as in NumPy."""
    monkeypatch.setattr(compiling, "folder", lambda: tmp_path)
    check = compiling.compiled(_facts_of_nan)
    nan, inf = float("nan"), float("inf")
    assert check(nan, 0.0) == (True, False, True)
    assert check(inf, 0.0) == (False, True, True)
    assert check(1.0, 2.0) == (False, True, False)
    assert compiling.compiled(_quotient)(1.0, 0.0) == inf


def _facts_of_nan(x, y):
    return x != x, x > 0, x - x != y - y


def _quotient(a, b):
    return a / b


def test_code_that_nobody_uses_is_removed(tmp_path):
    old, used, foreign, link = (tmp_path / name for name in ("0123456789abcdef", "1" * 16, "notes", "2" * 16))
    for folder in (old, used, foreign):
        folder.mkdir()
        (folder / "file").touch()
    link.symlink_to(foreign, target_is_directory=True)
    long_ago = time.time() - 31 * 86400
    for folder in (old, foreign):
        os.utime(folder, (long_ago, long_ago))
    compiling._remove_unused(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([used, foreign, link])
    assert (foreign / "file").exists()


# -- python -m minidl --------------------------------------------------------------------------------------------------

@needs_xdg
@pytest.mark.slow
def test_warmup_compiles_every_kernel_and_then_finds_nothing_to_do(copy):
    # a kernel that warmup forgets is compiled in the middle of a lesson: look for functions without any code
    forgotten = ("; print(*sorted(f'{f.__module__}.{f.__name__}' for f in compiling._ours "
                 "if not f.overloads and f.__module__ != 'minidl.kernels.loops'))")     # that set is not the default
    out, err = copy.run("from minidl.__main__ import main; from minidl.kernels import compiling; main(['warmup'])"
                        + forgotten)
    assert "simd.correlate_images" in out
    assert "pooling.max_pool" in out
    assert out.splitlines()[-1].startswith("compiled"), f"give {out.splitlines()[-1]} work in kernels/warmup.py"
    assert len(err.splitlines()) == 1
    began = time.perf_counter()
    out, err = copy.run("", "-m", "minidl", "warmup")
    assert time.perf_counter() - began < 10                                 # about 1; the machine may be busy
    assert out.startswith("nothing to compile: all kernels were loaded in")
    assert err == ""
    # a function is compiled for each order of memory, too: a network with windows of all kinds must find all it needs
    _, err = copy.run("import minidl; from minidl.models import resnet50v2; x = minidl.randn(2, 3, 96, 96, requires_grad=True); "
                      "resnet50v2(include_top=False).eval()(x).mean().backward()")
    assert err == ""


def test_the_command_line_explains_itself(capsys):
    from minidl.__main__ import COMMANDS, main

    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"{name} " in shown for name in COMMANDS)
    with pytest.raises(SystemExit) as stopped:
        main(["warm"])
    assert stopped.value.code == 2
    assert "invalid choice: 'warm'" in capsys.readouterr().err
