"""Trains a GPT of 10 million parameters on text of this machine, and writes the tensors that its checkpoints would hold.

usage: training_run.py DIR

DIR gets safetensors files, and cases.json that says which of them compare.py is to compress, alone or against which
other. What is there already is kept. One model is trained in bf16 with fp32 masters, at three learning rates and then
with most of its layers frozen; then its weights go on in bf16 alone. AdamW throughout.

Products of matrices are computed in fp32 from operands rounded to bf16, and rounded: what `torch.autocast` gives,
without waiting for processors that have no bf16 arithmetic.
"""

import collections
import json
import os
import pathlib
import re
import sys
import time

# Threads that wait for each other sleep: on a machine with other work, spinning takes a hundred times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import gpt  # noqa: E402

# Runs of another version are trained anew.
VERSION = 1
WIDTH, LAYERS, HEADS, CONTEXT, VOCABULARY, BATCH = 256, 10, 4, 64, 4096, 2
# Learning rate, and steps before its first checkpoint.
PHASES = ((3e-4, 120), (1e-5, 20), (1e-6, 20))
ELEMENTS = {"bf16": (torch.bfloat16, "BF16"), "fp16": (torch.float16, "F16"), "fp32": (torch.float32, "F32")}


class RoundedLinear(torch.nn.Linear):
    """A product as the units for bf16 compute it; gradients are rounded on the way back too."""

    def forward(self, x):
        rounded = [None if part is None else part.bfloat16().float() for part in (x, self.weight, self.bias)]
        return torch.nn.functional.linear(*rounded).bfloat16().to(x.dtype)


def read_tokens():
    """Words, blanks and signs of the text; all but the most frequent ones are one token. Like in larger models, many
    rows of the embedding are then rarely touched."""
    words = re.findall(rb"\s+|\w+|[^\w\s]", gpt.read_bytes())
    frequent = collections.Counter(words).most_common(VOCABULARY - 1)
    numbers = {word: number for number, (word, _) in enumerate(frequent, 1)}
    return torch.tensor([numbers.get(word, 0) for word in words])


class Run:
    """A model in training, and the cases that its files make."""

    def __init__(self, directory, tokens):
        self.directory, self.tokens, self.cases = directory, tokens, []
        self.model = gpt.Model(WIDTH, LAYERS, HEADS, CONTEXT, VOCABULARY, RoundedLinear)
        self.started = time.monotonic()
        self.begin(PHASES[0][0])

    def begin(self, rate):
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=rate, weight_decay=0.1, fused=True)

    def set_rate(self, rate):
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def train(self, steps):
        for _ in range(steps):
            tokens, following = gpt.draw_batch(self.tokens, BATCH, CONTEXT)
            logits = self.model(tokens).flatten(0, 1).float()
            loss = torch.nn.functional.cross_entropy(logits, following.flatten())
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
        return loss.item()

    def note(self, phase, loss):
        print(f"{phase}: loss {loss:.2f}, {time.monotonic() - self.started:.0f} s", flush=True)

    def save(self, name, kinds):
        """Writes a file for each kind: w.bf16, w.fp32, m.fp32 and so on; returns their names by kind."""
        parameters = dict(self.model.named_parameters())
        states = {"m": "exp_avg", "v": "exp_avg_sq"}
        files = {}
        for kind in kinds:
            what, element = kind.split(".")
            values = {
                key: (self.optimizer.state[value][states[what]] if what in states else value).detach()
                for key, value in parameters.items()
            }
            files[kind] = f"{name}.{kind}.safetensors"
            converted = {key: value.to(ELEMENTS[element][0]).contiguous() for key, value in values.items()}
            save_file(converted, self.directory / files[kind])
        return files

    def alone(self, phase, files):
        for kind, file in files.items():
            what, element = kind.split(".")
            name = f"{what} {element}, {phase}"
            self.cases.append({"name": name, "element": ELEMENTS[element][1], "new": file, "base": None})

    def deltas(self, phase, apart, news, olds):
        for kind in [kind for kind in news if kind in olds]:
            what, element = kind.split(".")
            name = f"{what} {element}, {phase}, {apart}"
            self.cases.append({"name": name, "element": ELEMENTS[element][1], "new": news[kind], "base": olds[kind]})


def train_with_masters(run):
    for rate, steps in PHASES:
        run.set_rate(rate)
        phase = f"lr {rate:.0e}".replace("e-0", "e-")
        first = rate == PHASES[0][0]
        run.train(steps)
        moments = ["m.fp32", "v.fp32"] if first else []
        files = [run.save(f"{rate:.0e}.0", ["w.bf16", "w.fp16", "w.fp32", *moments])]
        if first:
            run.alone(phase, files[0])
        run.train(1)
        halves = [] if first else ["w.fp16"]
        files.append(run.save(f"{rate:.0e}.1", ["w.bf16", "w.fp32", *halves, *moments]))
        loss = run.train(99)
        files.append(run.save(f"{rate:.0e}.100", ["w.bf16", "w.fp32"]))
        run.deltas(phase, "1 step", files[1], files[0])
        run.deltas(phase, "100 steps", files[2], files[0])
        run.note(phase, loss)


def train_frozen(run):
    """The last fifth of the layers goes on, as in fine-tuning. AdamW leaves what has no gradient alone."""
    run.set_rate(1e-4)
    run.model.requires_grad_(False)
    for part in (*run.model.blocks[LAYERS * 4 // 5 :], run.model.norm, run.model.head):
        part.requires_grad_(True)
    run.optimizer.zero_grad()
    run.train(10)
    files = [run.save("frozen.0", ["w.bf16", "w.fp32"])]
    loss = run.train(1)
    files.append(run.save("frozen.1", ["w.bf16", "w.fp32"]))
    run.deltas("4/5 frozen", "1 step", files[1], files[0])
    run.deltas("all frozen", "1 step", files[1], files[1])
    run.model.requires_grad_(True)
    run.note("4/5 frozen", loss)


def train_pure_bf16(run):
    run.model.bfloat16()
    run.begin(PHASES[0][0])
    run.train(40)
    kinds = ["w.bf16", "m.bf16", "v.bf16"]
    files = [run.save("pure.0", kinds)]
    run.alone("pure bf16", files[0])
    run.train(1)
    files.append(run.save("pure.1", kinds))
    loss = run.train(99)
    files.append(run.save("pure.100", ["w.bf16"]))
    run.deltas("pure bf16", "1 step", files[1], files[0])
    run.deltas("pure bf16", "100 steps", files[2], files[0])
    run.note("pure bf16", loss)


def main():
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    listing = directory / "cases.json"
    if listing.exists() and json.loads(listing.read_text())["version"] == VERSION:
        return
    for old in directory.glob("*.safetensors"):
        old.unlink()
    torch.manual_seed(0)
    run = Run(directory, read_tokens())
    millions = sum(parameter.numel() for parameter in run.model.parameters()) / 1e6
    print(f"training {millions:.1f} million parameters with {torch.get_num_threads()} threads: some minutes", flush=True)
    train_with_masters(run)
    train_frozen(run)
    train_pure_bf16(run)
    # What stands alone first, then deltas; bf16 before fp32, weights before moments.
    order = {"BF16": 0, "F16": 1, "F32": 2}
    run.cases.sort(key=lambda case: (case["base"] is not None, order[case["element"]], case["name"][0] != "w"))
    partial = listing.with_suffix(".partial")
    partial.write_text(json.dumps({"version": VERSION, "cases": run.cases}, indent=1))
    partial.rename(listing)


main()
