"""Running the router in this process until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from contextlib import ExitStack, closing
from pathlib import Path

from granian.server.embed import Server

from ..core.errors import RunFailed
from ..core.files import write_atomically
from ..core.store import Store
from ..experiment.config import Experiment, read_experiment, to_toml
from ..experiment.records import EVENTS_FILE, EXPOSURES_FILE
from .app import App
from .arms import LoadedArm, load_arms
from .journal import Journal
from .port import check_port
from .router import Router

LOG = logging.getLogger(__name__)
_BACKLOG = 1024


def run(experiment: Path, *, host: str, port: int, logs: Path, store: Path | None) -> None:
    """Serve the experiment in this file; see `serve`."""
    run_experiment(read_experiment(experiment), host=host, port=port, logs=logs, store=store)


def run_experiment(experiment: Experiment, *, host: str, port: int, logs: Path, store: Path | None) -> bool:
    """Serve until SIGTERM or SIGINT; requests in flight are answered and the logs flushed before this returns.

    Returns whether every model has come to rest: one that hangs is not waited for, and whoever ends the process while a runtime still
    computes must do so without its tear-down (`os._exit`), which aborts then. The experiment is written to `logs/experiment.toml`
    beside the logs it explains. Raises LiftgateError for a model that cannot be loaded, a logs folder in use, or a port in use, before
    the port is opened.
    """
    arms = load_arms(experiment, Store.of(store))
    address = check_port(host, port)
    asyncio.run(_serve(experiment, arms, address, port, logs))
    return not any(arm.busy for arm in arms.values())


async def _serve(experiment: Experiment, arms: dict[str, LoadedArm], address: str, port: int, logs: Path) -> None:
    loop = asyncio.get_running_loop()
    with ExitStack() as opened:
        exposures = opened.enter_context(closing(Journal(logs / EXPOSURES_FILE, loop)))
        events = opened.enter_context(closing(Journal(logs / EVENTS_FILE, loop)))
        write_atomically(logs / "experiment.toml", to_toml(experiment))
        router = opened.enter_context(closing(Router(experiment, arms, exposures, events)))
        await _listen(router, address, port)


async def _listen(router: Router, address: str, port: int) -> None:
    """Answer until a signal asks to stop; a model that still warms up then, or hangs, is not waited for."""
    loop = asyncio.get_running_loop()
    server = Server(
        App(router),
        address=address,
        port=port,
        websockets=False,
        backlog=_BACKLOG,
        backpressure=_BACKLOG,  # overload is answered by the router with 503, not by waiting in front of it
        log_enabled=False,
    )
    listening = asyncio.create_task(server.serve())
    warming = asyncio.create_task(_warm_up(router))
    asked = False

    def stop() -> None:
        nonlocal asked
        asked = True
        warming.cancel()  # else its end would say ready
        router.ready = False
        server.stop()  # type: ignore[no-untyped-call]  # granian does not annotate it

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
    base = f"http://{address}:{port}"
    LOG.info("ask:    POST %s/v2/models/%s/infer", base, router.experiment.name)
    LOG.info("clicks: POST %s/v1/events", base)
    await asyncio.wait({listening, warming}, return_when=asyncio.FIRST_EXCEPTION)
    if warming.done() and not warming.cancelled() and warming.exception() is not None:
        server.stop()  # type: ignore[no-untyped-call]  # granian does not annotate it
    await listening
    if not warming.cancelled():
        await warming
    await _drain(router)
    if not asked:
        raise RunFailed("router", "the HTTP server ended by itself", fix="see its messages above")


async def _warm_up(router: Router) -> None:
    """Warm every arm off the event loop, then say ready."""
    for arm in router.arms.values():
        await arm.warm_up()
    router.ready = True
    LOG.info("ready: %s", ", ".join(f"{arm.name} = {arm.version}" for arm in router.arms.values()))


async def _drain(router: Router) -> None:
    """Wait, a bounded time, for requests that were being computed when the stop arrived."""
    for _ in range(1000):
        if router.in_flight == 0:
            return
        await asyncio.sleep(0.01)
