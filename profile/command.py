"""The command line that repeats a comparison, and why there may be none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.artifact import ModelArtifact
from ..core.requests import Requests
from ..core.store import Store
from .budget import Budget
from .inputs import Model


def repeatable(
    models: Sequence[Model], *, requests: Requests | Path | str | None, budget: Budget | Path | str | None, store: Store
) -> list[str]:
    """`profile compare` with its models and files."""
    words = ["profile", "compare", *(_model_word(model, store) for model in models)]
    words += [] if requests is None else ["--requests", str(requests)]
    return words if budget is None else [*words, "--budget", str(budget)]


def settings(*, seconds: float, launches: int, seed: int, threads: int | None, store: Store) -> list[str]:
    """What decides the numbers, also where it is as usual; the rest only where it is not."""
    words = ["--seconds", f"{seconds:.15g}", "--launches", str(launches), "--seed", str(seed)]
    words += ["--threads", str(threads)] if threads is not None else []
    return [*words, "--store", str(store.root)] if store.root != Store.default().root else words


def _model_word(model: Model, store: Store) -> str:
    """How the command line calls a model: an artifact by its name while the name leads to it, else by its path."""
    if not isinstance(model, ModelArtifact):
        return str(model)
    name = model.manifest.name
    named = name in store.names() and store.resolve(name).path.resolve() == model.path.resolve()
    return name if named else str(model.path)


def repeated(option: str, values: Sequence[str], usual: Sequence[str]) -> list[str]:
    """`option` once per value; nothing when the values are what the command does anyway."""
    return [] if tuple(values) == tuple(dict.fromkeys(usual)) else [word for value in values for word in (option, value)]


def obstacles_to_repeating(
    requests: Requests | Path | str | None, budget: Budget | Path | str | None, *, instances: Sequence[str], metrics: Sequence[str]
) -> list[str]:
    """Why no command line repeats a comparison; empty when one does."""
    found = [
        f"the {what} came from memory"
        for what, given in (("requests", requests), ("budget", budget))
        if isinstance(given, Requests | Budget)
    ]
    found += [f"no {what} was asked for" for what, given in (("instance", instances), ("metric", metrics)) if not given]
    return found
