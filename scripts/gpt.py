"""A small GPT and the text that it is trained on: Python's standard library of this machine. For demo and benchmarks."""

import pathlib
import sys
import sysconfig

import torch


def read_bytes():
    """The bytes of all modules, one after the other."""
    sources = sorted(pathlib.Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    content = b"".join(path.read_bytes() for path in sources)
    if len(content) < 100_000:
        sys.exit(f"there is no text to train on in {sysconfig.get_paths()['stdlib']}")
    return content


def read_text():
    """These bytes as tokens."""
    return torch.frombuffer(bytearray(read_bytes()), dtype=torch.uint8).long()


def draw_batch(text, size, context):
    """Random places of the text: the tokens there, and those that come next."""
    starts = torch.randint(0, len(text) - context - 1, (size,)).tolist()
    batch = torch.stack([text[start : start + context + 1] for start in starts])
    return batch[:, :-1], batch[:, 1:]


class Block(torch.nn.Module):
    def __init__(self, width, heads, linear):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.qkv, self.out = linear(width, 3 * width), linear(width, width)
        self.up, self.down = linear(width, 4 * width), linear(4 * width, width)

    def forward(self, x):
        batch, length, _ = x.shape
        heads = self.qkv(self.norm_attention(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # Without bf16 arithmetic, processors are some twenty times as slow with bf16.
        mixed = torch.nn.functional.scaled_dot_product_attention(*heads.float(), is_causal=True).to(x.dtype)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, -1))
        return x + self.down(torch.nn.functional.gelu(self.up(self.norm_mlp(x))))


class Model(torch.nn.Module):
    """`linear` makes the layers that multiply matrices, as `torch.nn.Linear` does."""

    def __init__(self, width, layers, heads, context, vocabulary=256, linear=torch.nn.Linear):
        super().__init__()
        self.token, self.position = torch.nn.Embedding(vocabulary, width), torch.nn.Embedding(context, width)
        self.blocks = torch.nn.ModuleList(Block(width, heads, linear) for _ in range(layers))
        self.norm, self.head = torch.nn.LayerNorm(width), linear(width, vocabulary, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens):
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
