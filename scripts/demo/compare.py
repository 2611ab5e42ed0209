"""compare.py MOUNT COPY: reads everything in the mount, and compares bytes and tensors with the copy's.

Prints a line for each file that differs, and exits with 1 if there is one.
"""

import hashlib
import pathlib
import sys
import time

import torch
from safetensors.torch import load_file


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def load(path):
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


def same(left, right):
    """Whether two loaded states are equal in structure, types and every bit of their tensors."""
    if isinstance(left, torch.Tensor):
        bits = [tensor.contiguous().view(-1).view(torch.uint8) for tensor in (left, right)]
        return left.dtype == right.dtype and left.shape == right.shape and torch.equal(*bits)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


def main():
    mount, copy = map(pathlib.Path, sys.argv[1:])
    expected = dict(reversed(line.split("  ", 1)) for line in (copy / "SHA256SUMS").read_text().splitlines())
    found = {str(path.relative_to(mount)) for path in mount.rglob("*") if path.is_file()}
    wrong = [f"{name}: only on one side" for name in sorted(found ^ expected.keys())]
    names = sorted(found & expected.keys())
    started, size = time.monotonic(), 0
    for name in names:
        size += (mount / name).stat().st_size
        if sha256(mount / name) != expected[name]:
            wrong.append(f"{name}: other bytes")
    print(f"{len(names)} files, {size / 1e6:.0f} MB, hashed in {time.monotonic() - started:.1f} s")
    started = time.monotonic()
    for name in names:
        if not same(load(mount / name), load(copy / name)):
            wrong.append(f"{name}: other tensors")
    print(f"loaded and compared tensor by tensor in {time.monotonic() - started:.1f} s")
    print("\n".join(wrong) or "no difference")
    sys.exit(bool(wrong) or not names)


main()
