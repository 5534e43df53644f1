"""save and load: everything comes back, nothing is half-written, and damaged files are answered with a sentence."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.errors import DtypeError, MinidlError


def test_a_state_dict_comes_back_and_others_can_read_it(tmp_path):
    from safetensors.numpy import load_file

    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    model(minidl.randn(4, 1, 4, 4))
    minidl.save(model.state_dict(), tmp_path / "model.pth")
    twin = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    loaded = minidl.load(tmp_path / "model.pth", weights_only=True)
    assert list(loaded) == list(model.state_dict())
    assert repr(twin.load_state_dict(loaded)) == "<All keys matched successfully>"
    for name, x in model.state_dict().items():
        assert twin.state_dict()[name].equal(x)
        assert twin.state_dict()[name].shape == x.shape
    foreign = load_file(tmp_path / "model.pth")
    np.testing.assert_array_equal(foreign["3.weight"], model[3].weight.detach().numpy())
    assert [p.name for p in tmp_path.iterdir()] == ["model.pth"]


def test_a_checkpoint_with_everything_around_the_tensors(tmp_path):
    weight = nn.Parameter(minidl.randn(3, 2))
    optimizer = optim.Adam([weight], lr=0.1)
    (weight * weight).sum().backward()
    optimizer.step()
    checkpoint = {"epoch": 3, "model": {"w": weight, "w.t": weight.T}, "optimizer": optimizer.state_dict(), "losses": [0.5, math.inf],
                  "best": (None, True, np.float32(0.25)), "name": "täst", 7: minidl.tensor(3)}
    minidl.save(checkpoint, tmp_path / "c.pt")
    loaded = minidl.load(tmp_path / "c.pt", map_location="cpu")
    assert loaded["epoch"] == 3
    assert loaded["losses"] == [0.5, math.inf]
    assert loaded["best"] == (None, True, 0.25)
    assert loaded["name"] == "täst"
    assert loaded[7].item() == 3
    assert loaded[7].shape == ()
    assert loaded["model"]["w"].equal(weight.detach())
    assert loaded["model"]["w.t"].equal(weight.T.detach())          # transposed memory is written in order
    again = optim.Adam([nn.Parameter(weight.detach().clone())], lr=0.5)
    again.load_state_dict(loaded["optimizer"])
    assert again.param_groups[0]["lr"] == 0.1
    assert again.state_dict()["state"][0]["exp_avg"].equal(optimizer.state_dict()["state"][0]["exp_avg"])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"])
def test_every_type_comes_back(dtype):
    x, buffer = minidl.tensor([[0, 1], [1, 0]]).to(dtype=dtype), io.BytesIO()
    minidl.save(x, buffer)
    buffer.seek(0)
    back = minidl.load(buffer)
    assert back.dtype == x.dtype
    assert back.equal(x)
    back[0, 0] = 1                                                  # memory of its own, which may be changed


def test_files_of_other_programs_are_a_dict_of_tensors(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.ones((2, 3), np.float32)}, tmp_path / "x.safetensors")
    assert minidl.load(tmp_path / "x.safetensors")["a"].shape == (2, 3)


def test_what_cannot_be_saved_or_read_is_answered_with_a_sentence(tmp_path):
    path = tmp_path / "m.pt"
    minidl.save({"w": minidl.ones(100)}, path)
    before = path.read_bytes()
    for wrong, message in ((nn.Linear(1, 1), "save model.state_dict"), ({"f": print}, "got a builtin_function"), ({1.5: 1}, "got the key 1.5")):
        with pytest.raises(DtypeError, match=message):
            minidl.save(wrong, path)
    assert path.read_bytes() == before
    for content in (before[:-50], before[:20], b"", b"PK\x03\x04 a pickle in a zip", b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(MinidlError, match=r"load: got .*m\.pt of [\d,]+ bytes, which is no whole safetensors file"):
            minidl.load(path)
    with pytest.raises(MinidlError, match="cannot be read"):
        minidl.load(tmp_path / "nowhere.pt")
    with pytest.raises(MinidlError, match="cannot be written"):
        minidl.save({}, tmp_path / "nowhere" / "m.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt"]


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.pt"
    minidl.save(minidl.ones(2), path)

    def full(self, content):
        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(MinidlError, match="No space left on device"):
        minidl.save(minidl.zeros(2), path)
    monkeypatch.undo()
    assert minidl.load(path).tolist() == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt"]
