"""What eager PyTorch says about a case: the reference of every comparison."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from .case import Args, Case
from .draw import Draw

ROWS_CHECKED = (7, 2, 1)


def outputs(module: torch.nn.Module, args: Args) -> list[np.ndarray]:
    """Every tensor that forward gives, in the order of its pytree; `args` stay as they are whatever forward does to its inputs."""
    with torch.no_grad():
        given = module(*copy.deepcopy(args))
    return [leaf.numpy() for leaf in tree_leaves(given) if isinstance(leaf, torch.Tensor)]


def problems(case: Case) -> list[str]:
    """What is odd about a case without any export.

    It fails at some number of rows, gives something else on the same rows the second time, or its scores do not tell rows apart.
    """
    module, found = case.module(), []
    for rows in ROWS_CHECKED:
        args = case.inputs(Draw(rows=rows, seed=1))
        try:
            first, second = outputs(module, args), outputs(module, args)
        except Exception as error:  # a package's forward may raise anything
            found.append(f"fails at {_rows(rows)}: {first_line(error)}")
            continue
        scores = first[0].astype(np.float64)
        if not all(np.array_equal(one, other) for one, other in zip(first, second, strict=True)):
            found.append(f"draws random numbers: two runs on the same {_rows(rows)} differ")
        elif not np.isfinite(scores).all():
            found.append(f"gives NaN or infinity at {_rows(rows)}")
        elif rows > 2 and scores.std(axis=0).max() < 1e-3:
            found.append(f"scores differ by less than 0.001 between {rows} rows")
    return found


def first_line(error: BaseException) -> str:
    """The type and the first line of an error's message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
