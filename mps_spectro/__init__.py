"""torch.stft and torch.istft on fused Metal shaders: a drop-in for PyTorch on Apple Silicon, NVIDIA and CPU.

`patch_torch()` makes a program that was written for torch use them; `stft` and `istft` can be called directly.
"""

from ._backend import use_backend
from ._diagnostics import diagnostics

__version__ = "0.1.0"
__all__ = ["__version__", "diagnostics", "use_backend"]
