"""Reading a state_dict from any file that holds one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InputError, UntrustedError
from .content import open_content
from .kinds import a, kind_of

if TYPE_CHECKING:
    import torch

_EXPECTED = "a state_dict (torch.save(model.state_dict(), path), or safetensors)"
_AGAIN = "save only the weights: torch.save(model.state_dict(), path)"


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The state_dict in a safetensors, torch.save or pickle file, on the CPU; a checkpoint around it is opened when it holds only one.

    Raises UntrustedError when the file is a pickled object, InputError when it is damaged, something else or ambiguous.
    """
    where = str(path)
    kind = kind_of(path)
    if kind == "safetensors file":
        return _read_safetensors(path)
    if kind not in {"torch.save file", "pickle"}:
        raise InputError.mismatch(where, expected=_EXPECTED, found=a(kind), fix=_AGAIN)
    with open_content(path, where) as content:
        if content.needs_code:
            raise UntrustedError(where, f"is {content.what}, not a state_dict; reading it would execute code it contains", fix=_AGAIN)
        found = content.state_dicts
        if len(found) > 1:
            fix = "save the one you mean into a file of its own"
            raise InputError.mismatch(where, expected="one state_dict", found=content.what, fix=fix)
        if not found:
            raise InputError.mismatch(where, expected=_EXPECTED, found=content.what, fix=_AGAIN)
        state = next(iter(found.values()))
        return {name: content.tensor(value, f"'{name[:80]}'") for name, value in state.items()}


def fit_names(state: dict[str, torch.Tensor], wanted: set[str]) -> dict[str, torch.Tensor]:
    """`state` with the prefix taken off that a wrapper put before every name (`module.` of DataParallel, `model.` of Lightning).

    A prefix counts only when what is below it are exactly the `wanted` names and no other prefix fits as well; else `state` is returned.
    """
    if state.keys() == wanted:
        return state
    longest = max(wanted, key=len, default="")
    fitting = []
    for prefix in {name[: -len(longest)] for name in state if name.endswith(f".{longest}")}:
        below = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        if below.keys() == wanted:
            fitting.append(below)
    return fitting[0] if len(fitting) == 1 else state


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError  # noqa: PLC0415 - only for files of this kind
    from safetensors.torch import load_file  # noqa: PLC0415 - torch takes seconds

    try:
        found: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(str(path), f"is no readable safetensors file ({reason[:160]})", fix="copy or save the file again") from None
    return found
