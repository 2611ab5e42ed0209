"""Checks that what compare.py prints is true, on tensors of a few hundred KB, without peers.

usage: self_test.py CODEC_BENCH
"""

import contextlib
import io
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile

import cases
import compare
import peer_worker
from peers import Peer

bench = sys.argv[1]


def bf16(values):
    """The upper half of each float."""
    return b"".join(struct.pack("<f", value)[2:] for value in values)


def write_inputs(directory):
    """A bf16 file, one in which a tenth of the weights moved by a step, and the same numbers in fp32 beside others."""
    generator = random.Random(1)
    shape = [256, 384]
    values = [generator.gauss(0, 0.02) for _ in range(shape[0] * shape[1])]
    old = bf16(values)
    new = bytearray(old)
    for place in generator.sample(range(0, len(new), 2), len(new) // 20):
        new[place] ^= 1
    names = [pathlib.Path(directory) / name for name in ("old.safetensors", "new.safetensors", "fp32.safetensors")]
    cases.write_safetensors(names[0], "BF16", {"a": (shape, old), "b": ([3], b"abcdef")})
    cases.write_safetensors(names[1], "BF16", {"b": ([3], b"abcdef"), "a": (shape, bytes(new))})
    cases.write_safetensors(names[2], "F32", {"a": (shape, struct.pack(f"<{len(values)}f", *values))})
    return names


def printed(*arguments):
    """The ratios that compare.py prints, by case and tool."""
    sys.argv = ["compare.py", bench, *map(str, arguments)]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        compare.main()
    ratios, case = {}, None
    for line in out.getvalue().splitlines():
        if heading := re.fullmatch(r"(.*): [\d.]+ MB.*; memcpy \d+ MB/s, BLAKE3 \d+ MB/s", line):
            case = heading[1]
        elif row := re.match(r"  (mithril .*?)  +([\d.]+) +(\d+) +(\d+)", line):
            ratios[case, row[1]] = float(row[2])
            assert int(row[3]) > 0 and int(row[4]) > 0, line
    return ratios


def check_numbers(old, new, fp32):
    ratios = printed("--rounds", 2, "--file", old, "--pair", old, new, "--pair", old, old, "--file", fp32)
    isas = subprocess.run([bench, "isas"], capture_output=True, text=True, check=True).stdout.split()
    # Normally distributed exponents have some 2.6 bits; a bit that flips in a tenth of the elements has 0.47.
    expected = {
        "old.safetensors BF16": (1.3, 1.55),
        "new.safetensors BF16 against old.safetensors": (16, 34),
        "old.safetensors BF16 against old.safetensors": (500, 5000),
        "fp32.safetensors F32": (1.1, 1.25),
    }
    for case, (least, most) in expected.items():
        for level in compare.LEVELS:
            for isa in isas:
                ratio = ratios.pop((case, f"mithril {level} {isa}"))
                assert least < ratio < most, f"{case}, {level}, {isa}: a ratio of {ratio}"
    assert all(name.endswith("2 threads") for _, name in ratios), f"unexpected rows: {ratios}"


def check_bytes(old, new, directory):
    """The tensors of both files come in one order, without those that only one has."""
    case = cases.Case("", "BF16", new, old)
    request = cases.extract(case, directory)
    assert request["shapes"] == [[3], [256, 384]], request
    there, before = (pathlib.Path(request[role]).read_bytes() for role in ("new", "base"))
    assert len(there) == len(before) and there[:6] == before[:6] == b"abcdef"
    assert sum(a != b for a, b in zip(there, before)) == len(there) // 20


def check_that_errors_show(old, directory):
    class Liar(Peer):
        def encode(self, new, base):
            return b"short"

        def decode(self, blob, base):
            return b"something else"

    assert "error" in peer_worker.measure(Liar(), b"something", None)
    case = cases.cases_of(old)[0]
    dead = compare.Tool("dead", [sys.executable, "-c", ""], elements=["BF16"])
    ours = compare.Tool("ours", [bench, "codec", "fast", "portable", 1], is_ours=True)
    _, results = compare.measure(case, [dead, ours], 0, directory)
    assert "error" in results["dead"] and results["ours"]["ratio"] > 1, results
    # A base of another length is refused, not measured as something else.
    request = cases.extract(case, directory)
    (pathlib.Path(directory) / "short").write_bytes(b"short")
    broken = compare.Tool("ours", [bench, "codec", "fast", "portable", 1], is_ours=False)
    assert "error" in broken.ask({"open": {**request, "base": f"{directory}/short"}})
    for tool in (ours, broken):
        tool.close()


with tempfile.TemporaryDirectory(prefix="mithril-self-test.") as directory:
    old, new, fp32 = write_inputs(directory)
    check_numbers(old, new, fp32)
    check_bytes(old, new, directory)
    check_that_errors_show(old, directory)
print("the measuring is right")
