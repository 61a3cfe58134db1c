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


def rows_of(args: Args, rows: slice) -> Args:
    """The same rows of every tensor in `args`."""
    taken: Args = torch.utils._pytree.tree_map(lambda leaf: leaf[rows], args)
    return taken


def problems(case: Case) -> list[str]:
    """What is odd about a case without any export: it fails at some number of rows, or its scores do not tell rows apart."""
    module, found = case.module(), []
    for rows in ROWS_CHECKED:
        try:
            scores = outputs(module, case.inputs(Draw(rows=rows, seed=1)))[0].astype(np.float64)
        except Exception as error:  # a package's forward may raise anything
            found.append(f"fails at {rows} rows: {first_line(error)}")
            continue
        if not np.isfinite(scores).all():
            found.append(f"gives NaN or infinity at {rows} rows")
        elif rows > 2 and scores.std(axis=0).max() < 1e-3:
            found.append(f"scores differ by less than 0.001 between {rows} rows")
    return found


def first_line(error: BaseException) -> str:
    """The type and the first line of an error's message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
