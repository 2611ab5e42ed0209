import os
from typing import final

__version__: str

@final
class TensorInfo:
    """A tensor's storage in a file."""

    @property
    def name(self) -> str:
        """The name in the container; empty where the format is unknown."""
    @property
    def dtype(self) -> str:
        """The element type, named as PyTorch names it: "bfloat16", "float32", "float8_e4m3fn"; "bytes" if unknown."""
    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions; () for a scalar."""
    @property
    def offset(self) -> int:
        """The first byte in the file."""
    @property
    def nbytes(self) -> int:
        """Bytes."""

@final
class Inspection:
    """What a file holds."""

    @property
    def container(self) -> str:
        """The format: "safetensors", "torch-zip", "torch-legacy", "npy", "npz", "gguf" or "unknown"."""
    @property
    def note(self) -> str | None:
        """Why the file is unknown although its first bytes looked like a known format."""
    @property
    def file_len(self) -> int:
        """Bytes of the file."""
    @property
    def tensors(self) -> list[TensorInfo]:
        """The tensors by offset; empty ones are left out."""

def inspect(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> Inspection:
    """Finds out what a file holds, without executing anything in it.

    Malformed content is no error: the file is "unknown" then, and `note` says why.

    Raises OSError (FileNotFoundError, PermissionError) if the file cannot be read, and ValueError if the path is a
    directory, a pipe or a device.
    """
