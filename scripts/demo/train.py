"""Trains a small language model and saves it as training scripts do.

usage: train.py MOUNTED OUTSIDE

Each checkpoint is saved below MOUNTED and copied to OUTSIDE at once, from memory, for comparing.
"""

import pathlib
import sys
import sysconfig
import time

import torch
from safetensors.torch import save, save_file

mounted, outside = (pathlib.Path(argument) for argument in sys.argv[1:3])
CONTEXT, BATCH, WIDTH, LAYERS = 64, 8, 256, 6
WARM_UP, EVERY, CHECKPOINTS = 60, 8, 10

torch.manual_seed(0)
sources = sorted(pathlib.Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
text = torch.frombuffer(bytearray(b"".join(path.read_bytes() for path in sources)), dtype=torch.uint8).long()


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.token = torch.nn.Embedding(256, WIDTH)
        self.position = torch.nn.Embedding(CONTEXT, WIDTH)
        layer = torch.nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = torch.nn.Linear(WIDTH, 256)

    def forward(self, tokens):
        length = tokens.shape[1]
        mask = torch.nn.Transformer.generate_square_subsequent_mask(length)
        hidden = self.token(tokens) + self.position(torch.arange(length))
        return self.head(self.layers(hidden, mask=mask, is_causal=True))


def save_torch(value, name):
    path = mounted / name
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path)
    copy = outside / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    # The name inside the archive is that of the file.
    torch.save(value, copy)


def save_tensors(tensors, name):
    path = mounted / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    copy = outside / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(save(tensors))


model = Model()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, WARM_UP + EVERY * CHECKPOINTS, 1e-5)
print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, {len(text) / 1e6:.1f} MB of text")
started = time.time()
for step in range(1, WARM_UP + EVERY * CHECKPOINTS + 1):
    starts = torch.randint(0, len(text) - CONTEXT - 1, (BATCH,))
    batch = torch.stack([text[start : start + CONTEXT + 1] for start in starts])
    loss = torch.nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    if step == 1:
        print(f"step {step}: loss {loss.item():.3f}", flush=True)
    if step <= WARM_UP or (step - WARM_UP) % EVERY:
        continue
    weights = {name: value.bfloat16().contiguous() for name, value in model.state_dict().items()}
    save_torch({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, f"run/step_{step}.pt")
    save_tensors(weights, f"hf/checkpoint-{step}/model.safetensors")
    save_torch(optimizer.state_dict(), f"hf/checkpoint-{step}/optimizer.pt")
    print(f"step {step}: loss {loss.item():.3f}, saved after {time.time() - started:.0f} s", flush=True)
