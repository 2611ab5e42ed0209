"""Runs one of the peers, as mithril-engine/examples/codec_bench.rs runs the codec, by the same protocol.

usage: peer_worker.py list      what can be imported here and its version, and why what cannot
       peer_worker.py run NAME  reads requests, one JSON value a line, and answers each
"""

import gc
import importlib
import importlib.metadata
import json
import sys
import time

from peers import PEERS


def available():
    for name, peer in PEERS.items():
        entry = {"name": name, "package": peer.package, "modes": peer.modes, "elements": peer.elements, "how": peer.how}
        try:
            importlib.import_module(peer.package)
            yield {**entry, "version": importlib.metadata.version(peer.package)}
        except Exception as error:
            yield {**entry, "error": f"{type(error).__name__}: {error}"}


def timed(action, *arguments):
    started = time.perf_counter()
    result = action(*arguments)
    return result, time.perf_counter() - started


def measure(peer, new, base):
    given = bytes(bytearray(new)) if peer.overwrites else new
    blob, compress = timed(peer.encode, given, base)
    plain, decompress = timed(peer.decode, blob, base)
    if memoryview(plain).cast("B") != new:
        return {"error": "other bytes came back"}
    return {"stored": len(blob), "compress": compress, "decompress": decompress}


def run(name):
    # What a peer prints is not an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    gc.disable()
    peer = new = base = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request == "round":
                answer = measure(peer, new, base)
            else:
                request = request["open"]
                new, base = (open(path, "rb").read() if path else None for path in (request["new"], request["base"]))
                peer = PEERS[name](request["element"])
                answer = {"raw": len(new)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "list":
        print(json.dumps(list(available())))
    else:
        run(sys.argv[2])
