"""Compares what a mount gives back with copies made outside it: bytes, and tensors.

usage: compare.py MOUNTED OUTSIDE
"""

import hashlib
import pathlib
import sys

import torch
from safetensors.torch import load_file

mounted, outside = (pathlib.Path(argument) for argument in sys.argv[1:3])


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read()).hexdigest()


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def load(path):
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


files = sorted(path.relative_to(outside) for path in outside.rglob("*") if path.is_file())
wrong = [name for name in files if digest(mounted / name) != digest(outside / name)]
unequal = [name for name in files if not equal(load(mounted / name), load(outside / name))]
for name in wrong:
    print(f"FAIL: {name} has other bytes")
for name in unequal:
    print(f"FAIL: {name} has other tensors")
if wrong or unequal or not files:
    sys.exit(f"FAIL: {len(set(wrong + unequal))} of {len(files)} files differ")
print(f"PASS: {len(files)} files are identical, byte for byte and tensor for tensor")
