"""Weights with which every part of a model matters: fresh models often score 0.5 everywhere, which any wrong graph would also do."""

from __future__ import annotations

import math

import torch


def settle(module: torch.nn.Module, seed: int, scale: float = 1.0) -> torch.nn.Module:
    """Draw every weight and running statistic of `module` anew and put it in eval mode."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            _settle_part(part, random, scale)
    return module.eval()


def _settle_part(part: torch.nn.Module, random: torch.Generator, scale: float) -> None:
    normalizes = "norm" in type(part).__name__.lower()
    for name, weight in part.named_parameters(recurse=False):
        if normalizes and name == "weight":
            weight.uniform_(0.5, 1.5, generator=random)
        elif weight.ndim >= 2:
            weight.normal_(0, scale * _spread(part, weight), generator=random)
        elif weight.ndim == 1:
            weight.normal_(0, 0.1, generator=random)
    for name, value in part.named_buffers(recurse=False):
        if name == "running_mean":
            value.normal_(0, 0.3, generator=random)
        elif name == "running_var":
            value.uniform_(0.5, 1.5, generator=random)
    if isinstance(part, torch.nn.Embedding) and part.padding_idx is not None:
        part.weight[part.padding_idx] = 0


def _spread(part: torch.nn.Module, weight: torch.Tensor) -> float:
    """Standard deviation: fixed for tables; by the larger of fan-in and fan-out for matrices, so that values keep their size."""
    if isinstance(part, torch.nn.Embedding):
        return 0.5
    return math.sqrt(2 / max(weight.shape[0], weight.numel() // weight.shape[0]))
