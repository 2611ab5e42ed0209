"""What is compressed: the tensors of one element type of a safetensors file, alone or against an earlier file.

Reads safetensors itself, so that it needs nothing but Python, and writes the tensors' bytes one after the other: every
tool then sees the same bytes.
"""

import dataclasses
import json
import pathlib
import struct
import sys

# Bytes of the element types that are measured. Whatever else a file holds is left out.
WIDTHS = {"BF16": 2, "F16": 2, "F32": 4}
# Less than this of a type says nothing about its speed.
LEAST_BYTES = 1 << 16


@dataclasses.dataclass
class Case:
    name: str
    element: str
    new: pathlib.Path
    base: pathlib.Path | None = None

    @property
    def mode(self):
        return "alone" if self.base is None else "delta"


def read_header(path):
    """The tensors of a safetensors file by name, and where its data begins."""
    try:
        with open(path, "rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            # As much as the library allows.
            tensors = json.loads(file.read(min(length, 100_000_000)))
        tensors.pop("__metadata__", None)
    except (OSError, ValueError, struct.error) as error:
        sys.exit(f"{path} cannot be read as safetensors: {error}")
    return tensors, 8 + length


def shared_tensors(case):
    """The tensors that are compressed, in the order of the file: as (shape, place in the file, place in the base)."""
    tensors, start = read_header(case.new)
    olds, old_start = read_header(case.base) if case.base else (None, 0)
    found = []
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = tensor["data_offsets"]
        old = olds.get(name) if olds is not None else None
        if tensor["dtype"] != case.element or begin == end:
            continue
        if olds is not None and (old is None or (old["dtype"], old["shape"]) != (tensor["dtype"], tensor["shape"])):
            continue
        old_place = (old_start + old["data_offsets"][0], end - begin) if old else None
        found.append((tensor["shape"], (start + begin, end - begin), old_place))
    return found


def cases_of(new, base=None):
    """A case for each element type of a file of which there is enough."""
    new, base = pathlib.Path(new), base and pathlib.Path(base)
    cases = []
    for element in WIDTHS:
        name = f"{new.name} {element}" + (f" against {base.name}" if base else "")
        case = Case(name, element, new, base)
        if sum(length for _, (_, length), _ in shared_tensors(case)) >= LEAST_BYTES:
            cases.append(case)
    if not cases:
        shared = f" that {base} has too" if base else ""
        sys.exit(f"{new} has no {LEAST_BYTES} bytes of BF16, F16 or F32 tensors{shared}")
    return cases


def cases_of_run(directory):
    """The cases that training_run.py listed."""
    directory = pathlib.Path(directory)
    found = []
    for entry in json.loads((directory / "cases.json").read_text())["cases"]:
        base = directory / entry["base"] if entry["base"] else None
        found.append(Case(entry["name"], entry["element"], directory / entry["new"], base))
    return found


def extract(case, directory):
    """Writes the bytes to compress, and those of the base, into `directory`. Returns the request that opens them."""
    tensors = shared_tensors(case)
    request = {"element": case.element, "shapes": [shape for shape, _, _ in tensors], "new": None, "base": None}
    for role, source, column in (("new", case.new, 1), ("base", case.base, 2)):
        if source is None:
            continue
        target = pathlib.Path(directory) / role
        with open(source, "rb") as file, open(target, "wb") as out:
            for tensor in tensors:
                offset, length = tensor[column]
                file.seek(offset)
                out.write(file.read(length))
        request[role] = str(target)
    return request


def write_safetensors(path, element, tensors):
    """Writes tensors given as {name: (shape, bytes)}."""
    header, offset = {}, 0
    for name, (shape, content) in tensors.items():
        header[name] = {"dtype": element, "shape": shape, "data_offsets": [offset, offset + len(content)]}
        offset += len(content)
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        file.writelines(content for _, content in tensors.values())
