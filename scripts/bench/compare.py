"""Measures the codec and its peers on the same tensors, in turn, and prints a table.

Each tool is a process of its own that keeps its data in memory, on one core, and is asked for one round after the
other: all do their first, then all their second, so that what disturbs the machine disturbs all. The first round does
not count, the best of the others does. Every round compares what comes back.
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import cases as data

# What the index and the manifest take for a chunk of ours. Peers have what they need in what they wrote.
INDEX_BYTES = 120
LEVELS = ("fast", "default", "max")
# A tool whose round takes longer does only two that count: they vary little.
LONG_SECONDS, LONG_ROUNDS = 0.5, 2
# With more of the processor in use by others, before or after, the speeds are not to be quoted.
QUIET_SHARE = 0.05


class Tool:
    """A process that measures. `modes` and `elements` are what it can do, `how` the way it does deltas."""

    def __init__(self, name, command, modes=("alone", "delta"), elements=None, how="", is_ours=False, cores=None):
        self.name, self.modes, self.elements, self.how, self.is_ours = name, modes, elements, how, is_ours
        # Memory that was freed is used again: what returns large buffers is not made to wait for the kernel.
        reuse = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "PYTHONDONTWRITEBYTECODE": "1"}
        cores = cores or {max(os.sched_getaffinity(0))}
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if is_ours else subprocess.DEVNULL,
            text=True,
            env=os.environ | reuse,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )

    def can(self, case):
        return case.mode in self.modes and (self.elements is None or case.element in self.elements)

    def label(self, case):
        return f"{self.name} {self.how}".strip() if case.base else self.name

    def ask(self, request):
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        return json.loads(answer) if answer else {"error": "it ended"}

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def start_tools(bench, peers_python, known_peers):
    """Ours by level and instruction set, the peers, and the limits of the machine."""
    isas = subprocess.run([bench, "isas"], capture_output=True, text=True, check=True).stdout.split()[::-1]
    tools = []
    for isa in isas:
        for level in LEVELS:
            command = [bench, "codec", level, isa, 1]
            tools.append(Tool(f"mithril {level} {isa}", command, is_ours=True))
    cores = os.sched_getaffinity(0)
    if len(cores) > 1:
        command = [bench, "codec", "default", isas[0], 2]
        tools.append(Tool(f"mithril default {isas[0]}, 2 threads", command, is_ours=True, cores=cores))
    for peer in known_peers:
        worker = [peers_python, pathlib.Path(__file__).with_name("peer_worker.py"), "run", peer["name"]]
        tools.append(Tool(peer["name"], worker, peer["modes"], peer["elements"], peer["how"]))
    limits = [Tool(name, [bench, method]) for name, method in (("memcpy", "copy"), ("BLAKE3", "blake3"))]
    return isas, tools, limits


def measure(case, tools, rounds, directory):
    """The best of the rounds of each tool that can do this case, as dictionaries; and the bytes of the case."""
    request = {"open": data.extract(case, directory)}
    taking_part = [tool for tool in tools if tool.can(case)]
    results = {tool.label(case): tool.ask(request) for tool in taking_part}
    sizes = {result["raw"] for result in results.values() if "raw" in result}
    assert len(sizes) == 1, f"the tools do not see the same bytes: {sizes}"
    for number in range(rounds + 1):
        for tool in taking_part:
            label = tool.label(case)
            best = results[label]
            if "error" in best or (number > LONG_ROUNDS and best["compress"] + best["decompress"] > LONG_SECONDS):
                continue
            answer = tool.ask("round")
            if "error" in answer or number <= 1:
                results[label] = answer
            else:
                assert answer["stored"] == best["stored"], f"{label} does not always write the same"
                for what in ("compress", "decompress"):
                    best[what] = min(best[what], answer[what])
    size = sizes.pop()
    for result in results.values():
        if "error" not in result:
            result["ratio"] = size / (result["stored"] + INDEX_BYTES * result.get("chunks", 0))
            for what in ("compress", "decompress"):
                result[what] = size / result[what] / 1e6
    return size, results


def print_case(case, size, results, limits):
    against = ", against as much" if case.base else ""
    copy, hashing = (results[limit.name]["compress"] for limit in limits)
    print(f"\n{case.name}: {size / 1e6:.1f} MB{against}; memcpy {copy:.0f} MB/s, BLAKE3 {hashing:.0f} MB/s")
    for name, result in results.items():
        if name in (limit.name for limit in limits):
            continue
        if "error" in result:
            print(f"  {name:32} FAILED: {result['error']}")
            continue
        scaling = ""
        one = results[name.removesuffix(", 2 threads")]
        if one is not result and "error" not in one:
            factors = [result[what] / one[what] for what in ("compress", "decompress")]
            scaling = "   {:.2f} and {:.2f} times one thread".format(*factors)
        print(f"  {name:32} {result['ratio']:9.3f} {result['compress']:8.0f} {result['decompress']:8.0f}{scaling}")
    sys.stdout.flush()


def print_ratios(measured, isa):
    """Ratios only: a row for each case, a column for each tool; of ours, those of the widest instruction set."""
    for mode in ("alone", "delta"):
        rows = [(case, results) for case, results in measured if case.mode == mode]
        names = list(dict.fromkeys(name for _, results in rows for name in results))
        ours = [f"mithril {level} {isa}" for level in LEVELS]
        names = ours + [name for name in names if not name.startswith("mithril ")]
        words = [name.split() if name not in ours else name.split()[:2] for name in names]
        if rows:
            width = max(len(case.name) for case, _ in rows)
            print()
            for line in range(3):
                heads = "".join(f"{(word + [''] * 3)[line]:>8}" for word in words)
                print(f"{'' if line else 'ratio, ' + mode:{width}}{heads}".rstrip())
        for case, results in rows:
            cells = [results.get(name, {}) for name in names]
            texts = ["FAILED" if "error" in cell else brief(cell["ratio"]) if cell else "" for cell in cells]
            print(f"{case.name:{width}}{''.join(f'{text:>8}' for text in texts)}".rstrip())


def brief(ratio):
    return f"{ratio:.3f}" if ratio < 1000 else f"{ratio:.0f}" if ratio < 100_000 else f"{ratio / 1000:.0f}k"


def busy_share(seconds=1):
    """The share of all cores that others use, while nothing runs here."""

    def ticks():
        with open("/proc/stat", encoding="ascii") as file:
            fields = [int(field) for field in file.readline().split()[1:9]]
        # What was idle, and what waited for a disk.
        return fields[3] + fields[4], sum(fields)

    idle, total = ticks()
    time.sleep(seconds)
    later_idle, later_total = ticks()
    return 1 - (later_idle - idle) / max(1, later_total - total)


def warn_if_busy(share):
    if share > QUIET_SHARE:
        print(f"NOT QUOTABLE: other processes use {share:.0%} of this machine, and slow down what is measured")


def processor():
    for line in open("/proc/cpuinfo", encoding="utf-8"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown processor"


def list_peers(python):
    """What the peers' environment has; what it lacks is named."""
    if python is None:
        return []
    worker = pathlib.Path(__file__).with_name("peer_worker.py")
    listing = subprocess.run([python, "-B", worker, "list"], capture_output=True, text=True, check=True).stdout
    peers = json.loads(listing)
    for package, error in {peer["package"]: peer["error"] for peer in peers if "error" in peer}.items():
        print(f"left out: {package}, {error}")
    peers = [peer for peer in peers if "error" not in peer]
    versions = dict.fromkeys(f"{peer['package']} {peer['version']}" for peer in peers)
    print(f"peers: {', '.join(versions) or 'none'}")
    return peers


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bench", help="the example codec_bench, built")
    parser.add_argument("--peers", metavar="PYTHON", help="a Python that has them")
    parser.add_argument("--run", metavar="DIR", help="what training_run.py wrote")
    parser.add_argument("--file", action="append", default=[], help="a safetensors file")
    parser.add_argument("--pair", action="append", default=[], nargs=2, metavar=("OLD", "NEW"))
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose name has it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ratios", action="store_true", help="one round, and no speeds")
    arguments = parser.parse_args()
    found = data.cases_of_run(arguments.run) if arguments.run else []
    found += [case for file in arguments.file for case in data.cases_of(file)]
    found += [case for old, new in arguments.pair for case in data.cases_of(new, old)]
    found = [case for case in found if arguments.only in case.name]
    if not found:
        sys.exit("there is nothing to compress")

    known_peers = list_peers(arguments.peers)
    # Before the tools start: these are busy until they are ready.
    share = busy_share()
    isas, tools, limits = start_tools(arguments.bench, arguments.peers, known_peers)
    print(f"{datetime.date.today()}, {processor()}, {os.cpu_count()} cores, {' '.join(isas)}")
    if not arguments.ratios:
        print(f"one thread, best of {arguments.rounds} rounds, {LONG_ROUNDS} if long: ratio, MB/s to compress, MB/s to decompress")
        warn_if_busy(share)
    measured, rounds = [], 0 if arguments.ratios else arguments.rounds
    with tempfile.TemporaryDirectory(prefix="mithril-bench.") as directory:
        for case in found:
            size, results = measure(case, tools if arguments.ratios else tools + limits, rounds, directory)
            measured.append((case, results))
            if not arguments.ratios:
                print_case(case, size, results, limits)
    if arguments.ratios:
        print_ratios(measured, isas[0])
    else:
        print()
        warn_if_busy(busy_share())
    for tool in tools + limits:
        tool.close()
    ours = [tool.name for tool in tools if tool.is_ours]
    failed = [name for name in ours if any("error" in results[name] for _, results in measured)]
    if failed:
        sys.exit(f"FAILED: {', '.join(failed)}")


if __name__ == "__main__":
    main()
