"""How modules show their arguments."""

from __future__ import annotations

import inspect
from typing import Any, Mapping

from torch import Tensor, nn


def shown(module: type[nn.Module], arguments: Mapping[str, Any]) -> str:
    """`name=value, ...` of the arguments that are not the defaults of a class; a tensor by its shape."""
    defaults = inspect.signature(module.__init__).parameters
    words = []
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            words.append(f"{name}={tuple(value.shape)}")
        elif value != defaults[name].default:
            words.append(f"{name}={getattr(value, '__name__', None) or repr(value)}")
    return ", ".join(words)
