"""The Python side of the simulated device: what torch was built without."""

from __future__ import annotations

import torch

from .shaders import ShaderLibrary


def _storage_to_mps(self: torch.UntypedStorage) -> torch.UntypedStorage:
    if self.device.type == "mps":
        return self
    # UntypedStorage(n, device="mps") is compiled out of builds without MPS
    storage = torch.empty(self.nbytes(), dtype=torch.uint8, device="mps").untyped_storage()
    return storage.copy_(self, False)


def apply() -> None:
    """Makes torch's Python code see an MPS device."""
    torch._C._has_mps = True
    torch._C._mps_compileShader = ShaderLibrary
    torch._C._mps_get_name = lambda: "Simulated MPS device"
    torch._C._mps_get_core_count = lambda: 1
    torch.UntypedStorage.mps = _storage_to_mps
    # cached answers from before
    mps = torch.backends.mps
    for name in ("is_available", "is_macos_or_newer", "is_macos13_or_newer", "get_name", "get_core_count"):
        getattr(getattr(mps, name, None), "cache_clear", lambda: None)()
