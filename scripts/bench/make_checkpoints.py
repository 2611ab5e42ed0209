"""Trains a transformer on text of this machine and writes its weights after some steps, for the benchmarks.

usage: make_checkpoints.py OUT [--layers N] [--width N] [--steps A,B]

Writes OUT/bf16.stepA.safetensors, OUT/bf16.stepB.safetensors and the same for fp32. About 85 million parameters by
default: files of 170 and 340 MB.
"""

import argparse
import pathlib
import sys
import time

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import gpt  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("--layers", type=int, default=12)
parser.add_argument("--width", type=int, default=768)
parser.add_argument("--steps", default="20,25")
parser.add_argument("--learning-rate", type=float, default=1e-4)
arguments = parser.parse_args()
arguments.out.mkdir(parents=True, exist_ok=True)
save_at = sorted(int(step) for step in arguments.steps.split(","))

torch.manual_seed(0)
text = gpt.read_text()


class Model(torch.nn.Module):
    def __init__(self, width, layers, context=64):
        super().__init__()
        self.token = torch.nn.Embedding(256, width)
        self.position = torch.nn.Embedding(context, width)
        layer = torch.nn.TransformerEncoderLayer(
            width, width // 64, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = torch.nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = torch.nn.Linear(width, 256)

    def forward(self, tokens):
        length = tokens.shape[1]
        mask = torch.nn.Transformer.generate_square_subsequent_mask(length)
        hidden = self.token(tokens) + self.position(torch.arange(length))
        return self.head(self.layers(hidden, mask=mask, is_causal=True))


model = Model(arguments.width, arguments.layers)
optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate)
print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters", flush=True)
started = time.time()
for step in range(1, save_at[-1] + 1):
    tokens, following = gpt.draw_batch(text, 4, 64)
    loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), following.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step in save_at:
        weights = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
        save_file(weights, arguments.out / f"fp32.step{step:04}.safetensors")
        half = {name: value.bfloat16() for name, value in weights.items()}
        save_file(half, arguments.out / f"bf16.step{step:04}.safetensors")
        print(f"step {step}: loss {loss.item():.3f}, {time.time() - started:.0f} s", flush=True)
