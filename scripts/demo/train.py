"""train.py MOUNT COPY: trains a small language model and saves it as training scripts do, in the mount and in a copy.

The text is Python's standard library, byte by byte; the model is a transformer of 5 million parameters. What is saved
is saved twice by the same calls, so that the copy owes nothing to the mount.
"""

import hashlib
import pathlib
import sys
import sysconfig
import time

import torch
from safetensors.torch import save_file

WIDTH, LAYERS, HEADS, CONTEXT, BATCH = 256, 6, 4, 64, 4
STEPS, SAVE_EVERY, RATE = 120, 12, 3e-4


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


def read_text():
    sources = sorted(pathlib.Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    content = bytearray(b"".join(path.read_bytes() for path in sources))
    if len(content) < 100_000:
        sys.exit(f"there is no text to train on in {sysconfig.get_paths()['stdlib']}")
    return torch.frombuffer(content, dtype=torch.uint8).long()


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
    text = read_text()
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS, eta_min=RATE / 10)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(f"{millions:.1f} million parameters, {len(text) / 1e6:.1f} MB of text, AdamW at {RATE:g} falling to a tenth")
    started, losses = time.monotonic(), []
    for step in range(1, STEPS + 1):
        starts = torch.randint(0, len(text) - CONTEXT - 1, (BATCH,)).tolist()
        batch = torch.stack([text[start : start + CONTEXT + 1] for start in starts])
        loss = torch.nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
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
