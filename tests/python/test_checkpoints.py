"""Checkpoints of real PyTorch and safetensors through a mount: what comes back is what was saved.

Every test writes in the mount and outside of it by the same calls, packs, unmounts, mounts again with the caches
dropped, and compares.
"""

import hashlib
import io
import os
import pathlib
import pickle
import struct
import zipfile

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

# The file system packs nothing below 64 KiB.
PACKED_FROM = 64 << 10


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def bits(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def same(left, right):
    """Equal in structure, types and every bit, NaN included."""
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and left.shape == right.shape and torch.equal(bits(left), bits(right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


def compare(directory, copy):
    """Every file of the copy is in the directory, with the same bytes, and nothing else is."""
    listed = [{path.relative_to(root) for path in root.rglob("*")} for root in (directory, copy)]
    assert listed[0] == listed[1]
    wrong = [
        str(name)
        for name in sorted(listed[1])
        if (copy / name).is_file() and sha256(directory / name) != sha256(copy / name)
    ]
    assert not wrong


class Training:
    """A model with its optimizer, in real steps on random data."""

    def __init__(self, seed=0, width=192):
        torch.manual_seed(seed)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(width, 4 * width), torch.nn.GELU(), torch.nn.Linear(4 * width, width)
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)
        self.width, self.done = width, 0

    def step(self):
        data = torch.randn(16, self.width)
        loss = (self.model(data) - data.roll(1, 1)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.done += 1

    def state(self):
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.done}

    def weights(self, dtype=None):
        return {name: value.detach().to(dtype or value.dtype) for name, value in self.model.state_dict().items()}


def test_a_run_of_checkpoints(directory, copy):
    training = Training()
    for _ in range(5):
        training.step()
        for root in (directory.path, copy):
            torch.save(training.state(), root / f"step_{training.done}.pt")
            checkpoint = root / f"checkpoint-{training.done}"
            checkpoint.mkdir()
            save_file(training.weights(torch.bfloat16), checkpoint / "model.safetensors", metadata={"format": "pt"})
            torch.save(training.optimizer.state_dict(), checkpoint / "optimizer.pt")
            (checkpoint / "trainer_state.json").write_text(f'{{"global_step": {training.done}}}')
    directory.sync()
    packed = [f"step_{step}.pt" for step in range(1, 6)]
    packed += [f"checkpoint-{step}/{name}" for step in range(1, 6) for name in ("model.safetensors", "optimizer.pt")]
    directory.expect_packed(*packed)
    compare(directory.path, copy)
    directory.remount()
    compare(directory.path, copy)
    directory.expect_packed(*packed)
    for name in packed:
        load = load_file if name.endswith(".safetensors") else torch.load
        assert same(load(directory.path / name), load(copy / name)), name
    resumed = Training(seed=1)
    state = torch.load(directory.path / "step_5.pt", weights_only=True)
    resumed.model.load_state_dict(state["model"])
    resumed.optimizer.load_state_dict(state["optimizer"])
    torch.manual_seed(9)
    training.step()
    torch.manual_seed(9)
    resumed.step()
    assert same(resumed.model.state_dict(), training.model.state_dict())


def test_loading_by_mapping(directory, copy):
    training = Training()
    training.step()
    for root in (directory.path, copy):
        torch.save(training.state(), root / "state.pt")
        save_file(training.weights(), root / "model.safetensors")
    directory.sync()
    directory.expect_packed("state.pt", "model.safetensors")
    directory.remount()
    mapped = torch.load(directory.path / "state.pt", mmap=True, weights_only=True)
    assert same(mapped, torch.load(copy / "state.pt", weights_only=True))
    assert same(load_file(directory.path / "model.safetensors"), load_file(copy / "model.safetensors"))


def test_overwriting_the_latest_checkpoint(directory, copy):
    training = Training()
    for _ in range(3):
        training.step()
        for root in (directory.path, copy):
            torch.save(training.state(), root / "latest.pt")
            save_file(training.weights(), root / "latest.safetensors")
        directory.sync()
        directory.expect_packed("latest.pt", "latest.safetensors")
    directory.remount()
    compare(directory.path, copy)
    assert torch.load(directory.path / "latest.pt", weights_only=True)["step"] == 3


def test_appending_to_a_packed_file(directory, copy):
    for root in (directory.path, copy):
        save_file(Training().weights(), root / "model.safetensors")
    directory.sync()
    directory.expect_packed("model.safetensors")
    for root in (directory.path, copy):
        with open(root / "model.safetensors", "ab") as file:
            file.write(b"appended")
    compare(directory.path, copy)
    directory.sync()
    directory.remount()
    compare(directory.path, copy)


@pytest.mark.parametrize("size", [0, 1, 4095, PACKED_FROM - 1, PACKED_FROM, (1 << 20) + 1])
def test_sizes_around_limits(directory, copy, size):
    for root in (directory.path, copy):
        (root / "text").write_bytes(b"the same line again and again\n" * (size // 30) + b"x" * (size % 30))
    directory.sync()
    if size >= PACKED_FROM:
        directory.expect_packed("text")
    directory.remount()
    assert (directory.path / "text").stat().st_size == size
    compare(directory.path, copy)


def test_scalars_and_empty_tensors(directory, copy):
    tensors = {
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0),
        "no rows": torch.empty(0, 7, dtype=torch.bfloat16),
        "big": torch.randn(300, 300),
    }
    for root in (directory.path, copy):
        torch.save(tensors, root / "state.pt")
        save_file(tensors, root / "state.safetensors")
    directory.sync()
    directory.expect_packed("state.pt", "state.safetensors")
    directory.remount()
    compare(directory.path, copy)
    assert same(torch.load(directory.path / "state.pt", weights_only=True), tensors)
    assert same(load_file(directory.path / "state.safetensors"), tensors)


DTYPES = [
    "bool uint8 int8 int16 int32 int64 uint16 uint32 uint64 float16 bfloat16 float32 float64",
    "float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu complex64",
]


@pytest.mark.parametrize("name", " ".join(DTYPES).split())
def test_every_type(directory, copy, name):
    """Zeros, then random bit patterns: NaN of every kind, infinities and -0 among them."""
    dtype = getattr(torch, name)
    generator = torch.Generator().manual_seed(1)
    first = torch.randint(0, 2 if name == "bool" else 256, (128 << 10,), dtype=torch.uint8, generator=generator)
    # Without the zeros it would be noise, which stays plain.
    first[: len(first) // 2] = 0
    second = first.clone()
    second[:: 64 * 8] ^= 1
    for root in (directory.path, copy):
        for step, content in enumerate((first, second)):
            save_file({"tensor": content.view(dtype).view(64, -1)}, root / f"step_{step}.safetensors")
            torch.save({"tensor": content.view(dtype).view(64, -1)}, root / f"step_{step}.pt")
    directory.sync()
    directory.expect_packed(*(f"step_{step}.{suffix}" for step in range(2) for suffix in ("pt", "safetensors")))
    directory.remount()
    compare(directory.path, copy)
    for step in range(2):
        loaded = load_file(directory.path / f"step_{step}.safetensors")["tensor"]
        assert loaded.dtype == dtype and torch.equal(bits(loaded), (first, second)[step])


def test_tied_weights_and_views(directory, copy):
    embedding = torch.randn(256, 256)
    state = {
        "embedding": embedding,
        "head": embedding,
        "row": embedding[3],
        "turned": embedding.t(),
        "strided": embedding[::2, ::3],
    }
    for root in (directory.path, copy):
        torch.save(state, root / "tied.pt")
    directory.sync()
    directory.expect_packed("tied.pt")
    directory.remount()
    compare(directory.path, copy)
    loaded = torch.load(directory.path / "tied.pt", weights_only=True)
    assert same(loaded, state)
    assert loaded["embedding"].data_ptr() == loaded["head"].data_ptr()


def test_the_legacy_format(directory, copy):
    training = Training()
    for _ in range(2):
        training.step()
        for root in (directory.path, copy):
            path = root / f"legacy_{training.done}.pt"
            torch.save(training.state(), path, _use_new_zipfile_serialization=False)
    directory.sync()
    directory.expect_packed("legacy_1.pt", "legacy_2.pt")
    directory.remount()
    compare(directory.path, copy)
    assert same(torch.load(directory.path / "legacy_2.pt", weights_only=True), training.state())


class Runs:
    """A pickle of this makes a directory when it is loaded."""

    def __init__(self, proof):
        self.proof = str(proof)

    def __reduce__(self):
        return os.mkdir, (self.proof,)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_pickle_is_never_executed(directory, copy, scratch, legacy):
    proof = scratch / "it ran"
    state = {"weight": torch.zeros(256, 256), "surprise": Runs(proof)}
    for root in (directory.path, copy):
        torch.save(state, root / "hostile.pt", _use_new_zipfile_serialization=not legacy)
    directory.sync()
    directory.expect_packed("hostile.pt")
    directory.remount()
    compare(directory.path, copy)
    assert not proof.exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(directory.path / "hostile.pt", weights_only=True)
    torch.load(directory.path / "hostile.pt", weights_only=False)
    assert proof.exists(), "the file must be able to run something, or this test shows nothing"


def saved():
    buffer = io.BytesIO()
    torch.save(Training().state(), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_truncated_archive(directory, copy, keep):
    content = saved()
    for root in (directory.path, copy):
        (root / "cut.pt").write_bytes(content[: int(len(content) * keep)])
    directory.sync()
    directory.expect_packed("cut.pt")
    directory.remount()
    compare(directory.path, copy)
    with pytest.raises((RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError)):
        torch.load(directory.path / "cut.pt", weights_only=True)


def test_a_damaged_archive(directory, copy):
    """Every field of the directory of a zip, turned to all ones in turn."""
    content = saved()
    begin = content.index(b"PK\x01\x02")
    for root in (directory.path, copy):
        for position in range(0, 46, 4):
            damaged = bytearray(content)
            damaged[begin + position : begin + position + 4] = b"\xff" * 4
            (root / f"damaged_{position}.pt").write_bytes(damaged)
    directory.sync()
    directory.remount()
    compare(directory.path, copy)


HOSTILE_HEADERS = {
    "longer than the file": (1 << 40, b"{}"),
    "2^64 - 1": ((1 << 64) - 1, b"{}"),
    "no json": (4, b"\xff\xfe{{"),
    "deep": (100_000, b'{"a":' * 20_000),
    "overlapping": (
        None,
        b'{"a":{"dtype":"F32","shape":[100],"data_offsets":[0,400]},"b":{"dtype":"F32","shape":[100],"data_offsets":[200,600]}}',
    ),
    "outside": (None, b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'),
    "overflowing": (None, b'{"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'),
    "backwards": (None, b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}}'),
    "wrong length": (None, b'{"a":{"dtype":"BF16","shape":[3],"data_offsets":[0,400]}}'),
    "unknown type": (None, b'{"a":{"dtype":"X99","shape":[100],"data_offsets":[0,400]}}'),
}


def test_hostile_safetensors_headers(directory, copy):
    body = b"0123456789abcdef" * 8192
    for root in (directory.path, copy):
        for number, (length, header) in enumerate(HOSTILE_HEADERS.values()):
            content = struct.pack("<Q", len(header) if length is None else length) + header + body
            (root / f"hostile_{number}.safetensors").write_bytes(content)
    directory.sync()
    directory.expect_packed(*(f"hostile_{number}.safetensors" for number in range(len(HOSTILE_HEADERS))))
    directory.remount()
    compare(directory.path, copy)
    for number in range(len(HOSTILE_HEADERS)):
        with pytest.raises(SafetensorError):
            load_file(directory.path / f"hostile_{number}.safetensors")


def test_noise_stays_what_it_is(directory, copy):
    noise = os.urandom(3 << 20)
    for root in (directory.path, copy):
        (root / "noise").write_bytes(noise)
    directory.sync()
    directory.remount()
    compare(directory.path, copy)


def test_a_sparse_file_of_5_gib(directory):
    size, step = 5 << 30, 1 << 30
    path = directory.path / "sparse.bin"
    with open(path, "wb") as file:
        for offset in range(0, size, step):
            file.seek(offset)
            file.write(b"island" * 20_000)
        file.truncate(size)
    directory.sync()
    directory.expect_packed("sparse.bin")
    directory.remount()
    assert path.stat().st_size == size
    with open(path, "rb") as file:
        descriptor, offset, islands = file.fileno(), 0, []
        while True:
            try:
                start = os.lseek(descriptor, offset, os.SEEK_DATA)
            except OSError:
                break
            offset = os.lseek(descriptor, start, os.SEEK_HOLE)
            islands.append((start, offset))
        assert sum(end - start for start, end in islands) < 64 << 20, "holes are known, or a copy fills the disk"
        for begin in range(0, size, step):
            assert any(start <= begin and begin + 120_000 <= end for start, end in islands)
            assert os.pread(descriptor, 120_010, begin) == b"island" * 20_000 + bytes(10)
        assert os.pread(descriptor, 100, size - 10) == bytes(10)


def test_names_that_are_not_utf8(directory, copy):
    names = [b"caf\xe9.pt", b"\xff\xfe", "日本語.pt".encode(), b"new\nline.pt", b" spaces .pt ", b"x" * 255]
    training = Training()
    for name in names:
        training.step()
        for root in (directory.path, copy):
            (pathlib.Path(os.fsdecode(os.fsencode(root) + b"/d\xe9p"))).mkdir(exist_ok=True)
            with open(os.fsencode(root) + b"/d\xe9p/" + name, "wb") as file:
                torch.save(training.state(), file)
    directory.sync()
    directory.expect_packed(*(os.fsdecode(b"d\xe9p/" + name) for name in names))
    directory.remount()
    compare(directory.path, copy)


def test_a_directory_that_had_files_before(directory, copy):
    """Existing files are adopted: they are there after mounting, and are packed."""
    if directory.is_plain:
        pytest.skip("needs a mount")
    directory.run("umount", directory.path)
    training = Training()
    for root in (directory.path, copy):
        torch.save(training.state(), root / "before.pt")
    directory.mount()
    compare(directory.path, copy)
    directory.sync()
    directory.expect_packed("before.pt")
    directory.remount()
    compare(directory.path, copy)
