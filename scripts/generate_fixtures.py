"""Writes the fixtures that tests and benchmarks read, with PyTorch and NumPy.

usage: generate_fixtures.py [--out DIR] [--check]

    "$(scripts/venv.sh)" scripts/generate_fixtures.py --check

DIR is mithril-engine/tests/fixtures if it is not given. What is there is committed, so that nobody needs PyTorch to run
the tests of the engine. With --check nothing is written there: all is made anew elsewhere and compared, and what differs
is named.

    tensor/   a file of every container, with a few tensors each: what the parsers are tested on
    trained/  weights and Adam's moments of a small transformer, trained on the licences of this project

trained/ has the weights as bf16 after 1200 and 1205 steps, and both moments as fp32 after 1200. The learning rate has
fallen to 1e-5 by then, as at the end of a real run, so few weights change from one to the other. It is deterministic:
one thread, one seed, text that does not change. The files that are committed were written by the versions that VERSIONS
names; others may differ in last bits, which no test minds.

tests/golden and tests/fixtures/store are not made here: they are what releases wrote, and must stay readable.
"""

import argparse
import filecmp
import io
import math
import os
import pathlib
import sys
import tempfile

import numpy as np
import torch
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[1]
# It names its storages by their addresses in memory, so no two are alike.
NEVER_THE_SAME = {pathlib.Path("tensor/legacy.pt")}
STEPS = (1200, 1205)
WIDTH, LAYERS, HEADS, CONTEXT, BATCH = 80, 2, 5, 64, 8
RATE, LAST_RATE = 3e-3, 1e-5


class Hostile:
    """Runs a command when it is unpickled by something that executes pickles."""

    def __reduce__(self):
        return os.system, ("touch /tmp/mithril-hostile-pickle-ran",)


def write_containers(out):
    """A file of every container."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    shared = torch.arange(4, dtype=torch.int32) + 1
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "half": torch.ones(5, dtype=torch.bfloat16),
        "eighth": torch.ones(6).to(torch.float8_e4m3fn),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.empty(0, 3),
        "counting": shared,
        "tied": shared,
        "row": torch.ones(2, 4)[1],
        "step": 7,
    }
    torch.save(state, out / "training.pt")
    legacy = {"counting": shared, "flag": torch.tensor([True, False])}
    torch.save(legacy, out / "legacy.pt", _use_new_zipfile_serialization=False)
    np.savez(out / "arrays.npz", counting=shared.numpy(), other=np.ones((2, 2)))

    parts = []
    for tensor in (torch.ones(8), torch.zeros(3, dtype=torch.bfloat16)):
        buffer = io.BytesIO()
        torch.save(tensor, buffer)
        parts.append(buffer.getvalue())
    (out / "sharded.distcp").write_bytes(b"".join(parts))
    torch.save({"weight": torch.ones(3), "surprise": Hostile()}, out / "hostile.pt")


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm_attention, self.norm_mlp = torch.nn.LayerNorm(WIDTH), torch.nn.LayerNorm(WIDTH)
        self.qkv, self.out = torch.nn.Linear(WIDTH, 3 * WIDTH), torch.nn.Linear(WIDTH, WIDTH)
        self.up, self.down = torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        batch, length, _ = x.shape
        heads = self.qkv(self.norm_attention(x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = torch.nn.functional.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.down(torch.nn.functional.gelu(self.up(self.norm_mlp(x))))


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.token, self.position = torch.nn.Embedding(256, WIDTH), torch.nn.Embedding(CONTEXT, WIDTH)
        self.blocks = torch.nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = torch.nn.LayerNorm(WIDTH), torch.nn.Linear(WIDTH, 256, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens):
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def rate(step):
    """A cosine from RATE to LAST_RATE, which stays from the first checkpoint on."""
    done = min(step / STEPS[0], 1)
    return LAST_RATE + (RATE - LAST_RATE) * (1 + math.cos(math.pi * done)) / 2


def save(tensors, path):
    save_file(tensors, path)
    # It lets nobody else read what it writes.
    path.chmod(0o644)


def write_trained(out):
    """Weights and moments of a model that was trained."""
    torch.manual_seed(0)
    licences = b"".join((ROOT / name).read_bytes() for name in ("LICENSE-APACHE", "LICENSE-MIT"))
    text = torch.frombuffer(bytearray(licences), dtype=torch.uint8).long()
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    for step in range(1, STEPS[-1] + 1):
        optimizer.param_groups[0]["lr"] = rate(step)
        starts = torch.randint(0, len(text) - CONTEXT - 1, (BATCH,))
        batch = torch.stack([text[start : start + CONTEXT + 1] for start in starts])
        loss = torch.nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 0 or step in STEPS:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
        if step in STEPS:
            weights = {name: value.detach().bfloat16().contiguous() for name, value in model.state_dict().items()}
            save(weights, out / f"bf16.step{step}.safetensors")
        if step == STEPS[0]:
            named = {id(parameter): name for name, parameter in model.named_parameters()}
            for moment in ("exp_avg", "exp_avg_sq"):
                moments = {named[id(p)]: state[moment].contiguous() for p, state in optimizer.state.items()}
                save(moments, out / f"{moment}.step{step}.safetensors")


def write_all(out):
    for name, write in (("tensor", write_containers), ("trained", write_trained)):
        (out / name).mkdir(parents=True, exist_ok=True)
        write(out / name)
    versions = f"torch {torch.__version__}\nnumpy {np.__version__}\n"
    (out / "VERSIONS").write_text(versions)


def check(committed):
    """Names what differs from what is made now."""
    with tempfile.TemporaryDirectory() as scratch:
        made = pathlib.Path(scratch)
        write_all(made)
        files = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
        others = [path for path in files if path not in NEVER_THE_SAME and not same(made / path, committed / path)]
    for path in others:
        print(f"{path} differs from what is made now")
    if others and pathlib.Path("VERSIONS") in others:
        wanted = (committed / "VERSIONS").read_text() if (committed / "VERSIONS").exists() else "unknown"
        print(f"they were written by other versions: {wanted.split()}")
    return 1 if others else 0


def same(one, other):
    return other.exists() and filecmp.cmp(one, other, shallow=False)


def main():
    parser = argparse.ArgumentParser(description="Writes the fixtures that tests and benchmarks read.")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "mithril-engine/tests/fixtures")
    parser.add_argument("--check", action="store_true", help="compare with what is there instead of writing it")
    arguments = parser.parse_args()
    # The order of additions is that of one thread, whatever machine this is.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if arguments.check:
        return check(arguments.out)
    write_all(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
