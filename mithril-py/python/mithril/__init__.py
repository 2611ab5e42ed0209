"""What checkpoint files hold: containers, tensors and where their bytes are."""

from ._mithril import Inspection, TensorInfo, __version__, inspect

__all__ = ["Inspection", "TensorInfo", "__version__", "inspect"]
