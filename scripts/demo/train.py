"""train.py MOUNT COPY: trains a small language model and saves it as training scripts do, in the mount and in a copy.

The text is Python's standard library, byte by byte; the model is a transformer of 5 million parameters. What is saved
is saved twice by the same calls, so that the copy owes nothing to the mount.
"""

import hashlib
import pathlib
import sys
import time

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import gpt  # noqa: E402

WIDTH, LAYERS, HEADS, CONTEXT, BATCH = 256, 6, 4, 64, 4
STEPS, SAVE_EVERY, RATE = 120, 12, 3e-4


def save(root, model, optimizer, step, loss):
    """What training scripts do, in their two usual layouts; in turn, since the same state in both would be stored once
    and make the run look smaller than it is."""
    (root / "run").mkdir(exist_ok=True)
    if step // SAVE_EVERY % 2:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "loss": loss}
        torch.save(state, root / "run" / f"step_{step}.pt")
        return
    checkpoint = root / "hf" / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    weights = {name: value.bfloat16() for name, value in model.state_dict().items()}
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    torch.save(optimizer.state_dict(), checkpoint / "optimizer.pt")


def main():
    mount, copy = map(pathlib.Path, sys.argv[1:])
    torch.manual_seed(0)
    text = gpt.read_text()
    model = gpt.Model(WIDTH, LAYERS, HEADS, CONTEXT)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS, eta_min=RATE / 10)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(f"{millions:.1f} million parameters, {len(text) / 1e6:.1f} MB of text, AdamW at {RATE:g} falling to a tenth")
    started, losses = time.monotonic(), []
    for step in range(1, STEPS + 1):
        tokens, following = gpt.draw_batch(text, BATCH, CONTEXT)
        loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), following.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % SAVE_EVERY == 0:
            before = time.monotonic()
            save(mount, model, optimizer, step, losses[-1])
            saving = time.monotonic() - before
            save(copy, model, optimizer, step, losses[-1])
            mean = sum(losses[-SAVE_EVERY:]) / SAVE_EVERY
            print(f"step {step:3}: loss {mean:.3f}, {before - started:3.0f} s, saved in {saving:.2f} s", flush=True)
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(copy)}\n" for path in files]
    (copy / "SHA256SUMS").write_text("".join(sums))
    if sum(losses[-5:]) >= sum(losses[:5]):
        sys.exit("the loss did not fall: this is no training run")


main()
