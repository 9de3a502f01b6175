"""The arguments of modules: taken together at construction, and shown."""

from __future__ import annotations

import inspect
from typing import Any, Mapping

from torch import Tensor, nn


def arguments_of(module: type[nn.Module], scope: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a class by name, of the local variables of its constructor."""
    return {name: scope[name] for name in inspect.signature(module.__init__).parameters if name != "self"}


def shown(module: type[nn.Module], arguments: Mapping[str, Any]) -> str:
    """`name=value, ...` of the arguments that are not the defaults of a class; a tensor by its shape.

    The defaults of its bases are those of the arguments that it passes on.
    """
    defaults: dict[str, inspect.Parameter] = {}
    for base in reversed(module.__mro__):
        if issubclass(base, nn.Module) and "__init__" in base.__dict__:
            defaults.update(inspect.signature(base.__dict__["__init__"]).parameters)
    words = []
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            words.append(f"{name}={tuple(value.shape)}")
        elif value != defaults[name].default:
            words.append(f"{name}={getattr(value, '__name__', None) or repr(value)}")
    return ", ".join(words)
