"""The promises of mithril.inspect, on files written by the libraries themselves."""

import errno
import os
import pathlib
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

import mithril


def test_version_is_that_of_the_workspace():
    cargo = pathlib.Path(__file__).parents[2] / "Cargo.toml"
    assert mithril.__version__ == re.search(r'\[workspace.package\]\nversion = "(.*)"', cargo.read_text())[1]


def test_safetensors(tmp_path):
    path = tmp_path / "model.safetensors"
    weights = {"layer.weight": torch.randn(8, 32).bfloat16(), "scale": torch.tensor(2.5), "none": torch.empty(0, 3)}
    save_file(weights, path)
    found = mithril.inspect(path)
    assert (found.container, found.note, found.file_len) == ("safetensors", None, path.stat().st_size)
    by_name = {tensor.name: tensor for tensor in found.tensors}
    assert by_name.keys() == {"layer.weight", "scale"}
    weight = by_name["layer.weight"]
    assert (weight.dtype, weight.shape, weight.nbytes) == ("bfloat16", (8, 32), 512)
    assert (by_name["scale"].dtype, by_name["scale"].shape) == ("float32", ())
    stored = path.read_bytes()[weight.offset : weight.offset + weight.nbytes]
    assert stored == weights["layer.weight"].view(torch.uint8).numpy().tobytes()


def test_torch(tmp_path):
    path = tmp_path / "step_1.pt"
    model = torch.nn.Linear(64, 16)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 64)).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 1}, path)
    found = mithril.inspect(path)
    assert found.container == "torch-zip"
    by_name = {tensor.name: tensor for tensor in found.tensors}
    assert by_name["model.weight"].shape == (16, 64)
    assert by_name["model.weight"].dtype == "float32"
    content = path.read_bytes()
    for name, expected in [
        ("model.weight", model.weight),
        ("optimizer.state.0.exp_avg", optimizer.state[model.weight]["exp_avg"]),
    ]:
        tensor = by_name[name]
        assert content[tensor.offset : tensor.offset + tensor.nbytes] == expected.detach().numpy().tobytes()


def test_tensors_are_in_file_order_and_do_not_overlap(tmp_path):
    path = tmp_path / "many.safetensors"
    save_file({f"t{i}": torch.full((i + 1,), i, dtype=torch.int16) for i in range(50)}, path)
    found = mithril.inspect(path)
    assert len(found.tensors) == 50
    end = 0
    for tensor in found.tensors:
        assert tensor.offset >= end
        end = tensor.offset + tensor.nbytes
    assert end == found.file_len


def test_what_is_no_checkpoint_is_unknown(tmp_path):
    path = tmp_path / "noise"
    path.write_bytes(os.urandom(100_000))
    found = mithril.inspect(path)
    assert (found.container, found.file_len) == ("unknown", 100_000)
    path.write_bytes(b"")
    found = mithril.inspect(path)
    assert (found.container, found.file_len, found.tensors) == ("unknown", 0, [])


def test_a_header_that_lies_is_noted(tmp_path):
    path = tmp_path / "model.safetensors"
    header = b'{"w":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    found = mithril.inspect(path)
    assert found.container == "unknown"
    assert "safetensors" in found.note


def test_a_pickle_is_never_executed(tmp_path):
    path, proof = tmp_path / "hostile.pt", tmp_path / "it ran"

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(proof),)

    torch.save({"weight": torch.ones(300), "surprise": Hostile()}, path)
    mithril.inspect(path)
    assert not proof.exists()
    torch.load(path, weights_only=False)
    assert proof.exists(), "the file must be able to run something, or this test shows nothing"


@pytest.mark.parametrize("convert", [str, os.fsencode, pathlib.Path], ids=["str", "bytes", "path"])
def test_paths_of_every_kind(tmp_path, convert):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert mithril.inspect(convert(str(path))).file_len == 10


def test_a_name_that_is_not_utf8(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9\xff"
    with open(path, "wb") as file:
        file.write(b"content")
    assert mithril.inspect(path).file_len == 7
    assert mithril.inspect(os.fsdecode(path)).file_len == 7


def test_errors_are_those_of_open(tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError) as raised:
        mithril.inspect(missing)
    assert (raised.value.errno, raised.value.filename) == (errno.ENOENT, str(missing))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        mithril.inspect(tmp_path / "file" / "below")
    with pytest.raises(ValueError, match="regular file"):
        mithril.inspect(tmp_path)
    with pytest.raises(ValueError):
        mithril.inspect("zero\0byte")
    with pytest.raises(TypeError):
        mithril.inspect(42)


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="regular file"):
        mithril.inspect(tmp_path / "pipe")


def test_results_cannot_be_changed(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.zeros(2)}, path)
    found = mithril.inspect(path)
    with pytest.raises(AttributeError):
        found.container = "other"
    with pytest.raises(AttributeError):
        found.tensors[0].name = "other"
    assert "safetensors" in repr(found)
    assert "name='w', dtype='float32', shape=(2,)" in repr(found.tensors[0])


def test_the_stub_names_what_the_module_has():
    """A stub that forgot a name would hide it from type checkers."""
    import ast

    stub = pathlib.Path(mithril.__file__).with_name("_mithril.pyi")
    tree = ast.parse(stub.read_text())
    described = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            described[node.name] = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
        elif isinstance(node, ast.FunctionDef):
            described[node.name] = None
        elif isinstance(node, ast.AnnAssign):
            described[node.target.id] = None
    assert described.keys() == set(mithril.__all__)
    for name, members in described.items():
        if members is not None:
            assert members == {member for member in dir(getattr(mithril, name)) if not member.startswith("_")}


def test_importing_needs_no_torch():
    script = "import sys, mithril; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
