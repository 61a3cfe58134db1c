"""The split router's room; the function `serve` itself stands here because `liftgate.serve` names both (see docs/decisions)."""

from __future__ import annotations

from pathlib import Path


def serve(
    experiment: Path | str, *, host: str = "127.0.0.1", port: int = 8080, logs: Path | str = Path("logs"), store: Path | str | None = None
) -> None:
    """Serve the arms of an experiment behind one HTTP port until interrupted.

    `experiment` is a path to an `experiment.toml`. Exposures and events are appended below `logs`. Raises InputError for a bad
    experiment or an unknown model, before the port is opened.
    """
    from .run import run  # noqa: PLC0415 - the room's weight is loaded only when something is served

    run(Path(experiment), host=host, port=port, logs=Path(logs), store=Path(store) if store is not None else None)
