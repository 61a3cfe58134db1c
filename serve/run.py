"""Running the router in this process until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from pathlib import Path

from granian.server.embed import Server

from ..core.errors import InputError, RunFailed
from ..core.files import write_atomically
from ..core.store import Store
from ..experiment.config import Experiment, read_experiment, to_toml
from ..experiment.records import EVENTS_FILE, EXPOSURES_FILE
from .app import App
from .arms import LoadedArm, load_arms, warm_up
from .journal import Journal
from .port import check_port
from .router import Router

LOG = logging.getLogger(__name__)
_BACKLOG = 1024


def run(experiment: Path, *, host: str, port: int, logs: Path, store: Path | None) -> None:
    """Serve the experiment in this file; see `serve`."""
    run_experiment(read_experiment(experiment), host=host, port=port, logs=logs, store=store)


def run_experiment(experiment: Experiment, *, host: str, port: int, logs: Path, store: Path | None) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight are answered and the logs flushed before this returns.

    The experiment is written to `logs/experiment.toml` beside the logs it explains. Raises LiftgateError for a model that cannot be
    loaded, a logs folder in use, or a port in use, before the port is opened.
    """
    arms = load_arms(experiment, Store.of(store))
    address = check_port(host, port)
    asyncio.run(_serve(experiment, arms, address, port, logs))


async def _serve(experiment: Experiment, arms: dict[str, LoadedArm], address: str, port: int, logs: Path) -> None:
    loop = asyncio.get_running_loop()
    exposures = Journal(logs / EXPOSURES_FILE, loop)
    try:
        events = Journal(logs / EVENTS_FILE, loop)
    except InputError:
        exposures.close()
        raise
    write_atomically(logs / "experiment.toml", to_toml(experiment))
    router = Router(experiment, arms, exposures, events)
    server = Server(
        App(router),
        address=address,
        port=port,
        websockets=False,
        backlog=_BACKLOG,
        backpressure=_BACKLOG,  # overload is answered by the router with 503, not by waiting in front of it
        log_enabled=False,
    )

    asked = asyncio.Event()

    def stop() -> None:
        asked.set()
        router.ready = False
        server.stop()  # type: ignore[no-untyped-call]  # granian does not annotate it

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
    try:
        listening = asyncio.create_task(server.serve())
        warming = asyncio.create_task(_warm_up(router))
        LOG.info("listening on %s, port %d", address, port)
        await asyncio.wait({listening, warming}, return_when=asyncio.FIRST_EXCEPTION)
        if warming.done() and warming.exception() is not None:
            server.stop()  # type: ignore[no-untyped-call]  # granian does not annotate it
        await listening
        await warming
        await _drain(router)
        if not asked.is_set():
            raise RunFailed("router", "the HTTP server ended by itself", fix="see its messages above")
    finally:
        router.close()


async def _warm_up(router: Router) -> None:
    """Warm every arm off the event loop, then say ready."""
    for arm in router.arms.values():
        await asyncio.to_thread(warm_up, arm)
    router.ready = True
    LOG.info("ready: %s", ", ".join(f"{arm.name} = {arm.version}" for arm in router.arms.values()))


async def _drain(router: Router) -> None:
    """Wait, a bounded time, for requests that were being computed when the stop arrived."""
    for _ in range(1000):
        if router.in_flight == 0:
            return
        await asyncio.sleep(0.01)
