"""`tensor.data` in a forward: torch.export freezes the example's values there, although `detach()` means the same and is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class DataIsDetach(TorchFunctionMode):
    """While active, reading `tensor.data` is `tensor.detach()`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        if getattr(func, "__self__", None) is torch.Tensor.data and func.__name__ == "__get__":
            return args[0].detach()
        return func(*args, **(kwargs or {}))
