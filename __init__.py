"""liftgate decides whether a fine-tuned recommender deserves to ship, and makes it deserve it.

Everything a command does is one of these functions; importing this package loads neither torch nor onnxruntime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# Imported eagerly, so that the function and not the room of the same name stays bound to `liftgate.serve`.
from .serve import serve as serve

if TYPE_CHECKING:
    from .experiment.analyse import analyse
    from .optimize.apply import apply
    from .optimize.export import export
    from .optimize.save import save
    from .profile.compare import compare
    from .quality.evaluate import evaluate
    from .reports.report import report

__all__ = ["analyse", "apply", "compare", "evaluate", "export", "report", "save", "serve"]

_HOME = {
    "analyse": "experiment.analyse",
    "apply": "optimize.apply",
    "compare": "profile.compare",
    "evaluate": "quality.evaluate",
    "export": "optimize.export",
    "report": "reports.report",
    "save": "optimize.save",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'liftgate' has no attribute '{name}'")
    from importlib import import_module  # noqa: PLC0415 - only when something is asked for

    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
