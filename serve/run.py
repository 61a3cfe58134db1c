"""Running the router in this process until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path

from granian.server.embed import Server

from ..core.errors import InputError, RunFailed
from ..core.files import write_atomically
from ..core.spans import SpanFile, SpanRecorder, write_spans
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
_SPANS_EVERY_S = 1.0


def run(experiment: Path, *, host: str, port: int, logs: Path, store: Path | None) -> None:
    """Serve the experiment in this file; see `serve`."""
    run_experiment(read_experiment(experiment), host=host, port=port, logs=logs, store=store)


def run_experiment(
    experiment: Experiment,
    *,
    host: str,
    port: int,
    logs: Path,
    store: Path | None,
    trace: Path | None = None,
    trace_sample: float = 0.1,
) -> bool:
    """Serve until SIGTERM or SIGINT; requests in flight are answered and the logs flushed before this returns.

    Returns whether every model has come to rest: one that hangs is not waited for, and whoever ends the process while a runtime still
    computes must do so without its tear-down (`os._exit`), which aborts then. The experiment is written to `logs/experiment.toml`
    beside the logs it explains. With `trace`, a `trace_sample` share of the requests and the slowest ones are written to
    `trace/spans-PID.json`, every second anew. Raises LiftgateError for a model that cannot be loaded, a logs folder in use, or a port in
    use, before the port is opened.
    """
    recorder = None if trace is None else SpanRecorder(f"liftgate serve {experiment.name}", sample=trace_sample)
    if recorder is not None and trace is not None:
        write_spans(recorder.file(), _spans_path(trace))  # a folder that cannot be written is found out before anything is served
    arms = load_arms(experiment, Store.of(store))
    address = check_port(host, port)
    asyncio.run(_serve(experiment, arms, address, port=port, logs=logs, recorder=recorder, trace=trace))
    return not any(arm.busy for arm in arms.values())


async def _serve(
    experiment: Experiment,
    arms: dict[str, LoadedArm],
    address: str,
    *,
    port: int,
    logs: Path,
    recorder: SpanRecorder | None,
    trace: Path | None,
) -> None:
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as opened:
        exposures = opened.enter_context(closing(Journal(logs / EXPOSURES_FILE, loop)))
        events = opened.enter_context(closing(Journal(logs / EVENTS_FILE, loop)))
        write_atomically(logs / "experiment.toml", to_toml(experiment))
        if recorder is not None and trace is not None:
            await opened.enter_async_context(_writing(recorder, _spans_path(trace)))
        router = opened.enter_context(closing(Router(experiment, arms, exposures, events, spans=recorder)))
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


def _spans_path(folder: Path) -> Path:
    return folder / f"spans-{os.getpid()}.json"


@asynccontextmanager
async def _writing(recorder: SpanRecorder, path: Path) -> AsyncIterator[None]:
    """Inside the block spans are written every second, off the event loop; and once more at its end."""
    task = asyncio.create_task(_keep_writing(recorder, path))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        _write_file(recorder.file(), path)


async def _keep_writing(recorder: SpanRecorder, path: Path) -> None:
    written = 0
    while True:
        await asyncio.sleep(_SPANS_EVERY_S)
        if recorder.seen != written:
            written = recorder.seen
            file = recorder.file()
            await asyncio.to_thread(_write_file, file, path)


def _write_file(file: SpanFile, path: Path) -> None:
    """A full disk must not take the service down."""
    try:
        write_spans(file, path)
    except InputError as error:
        LOG.warning("spans are lost: %s", error)
