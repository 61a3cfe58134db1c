"""The loaded models, one pool of threads each, so that a treatment that hangs cannot starve the control."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TypeVar

import msgspec
import numpy as np

from ..core.errors import InputError, LiftgateError, RunFailed
from ..core.signature import Signature
from ..core.store import Store
from ..experiment.config import Arm, Experiment, Serving
from ..runtime.session import Session, SessionSettings, open_session, scores_of
from .feeds import merge_inputs
from .wire import datatype_of

T = TypeVar("T")

# Rows of the synthetic requests every arm answers before the router says it is ready, and length of every other free dimension.
WARM_UP_ROWS = (1, 2, 10, 100, 100, 100)
WARM_UP_LENGTH = 8


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """A model's outputs by name, its scores float64 `[candidates]`, and the seconds it took (waiting not included).

    `begun_ns` and `ended_ns` are its times on the monotonic clock.
    """

    outputs: dict[str, np.ndarray]
    scores: np.ndarray
    begun_ns: int
    ended_ns: int

    @property
    def seconds(self) -> float:
        return (self.ended_ns - self.begun_ns) / 1e9


class _Workers:
    """Threads that share one queue.

    They are daemons: a ThreadPoolExecutor's threads are joined when the interpreter exits, and then a model that hangs would keep the
    process from ending.
    """

    def __init__(self, count: int, name: str) -> None:
        # What to run, and how to cancel it while it waits.
        self._jobs: queue.SimpleQueue[tuple[Callable[[], None], Callable[[], bool]] | None] = queue.SimpleQueue()
        self._running: set[int] = set()
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{i}", daemon=True) for i in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Run `call` when a thread is free."""
        future: Future[T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            self._running.add(id(future))
            try:
                future.set_result(call())
            except BaseException as error:  # raised again where the future is awaited
                future.set_exception(error)
            finally:
                self._running.discard(id(future))

        self._jobs.put((job, future.cancel))
        return future

    @property
    def busy(self) -> bool:
        """Whether a thread is in the middle of a job."""
        return bool(self._running)

    def close(self) -> None:
        """Cancel what waits, and end every thread that is not in the middle of a job."""
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                job[1]()
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job[0]()


class LoadedArm:
    """One arm's model in memory.

    At most `concurrency` requests are computed at once and `queue` more wait. A request that was given up (timeout) still counts until
    its thread is free again. Sessions that are not safe to share are guarded by a lock.
    """

    def __init__(self, arm: Arm, version: str, session: Session, settings: Serving, *, shareable: bool) -> None:
        self.name = arm.name
        self.version = version
        self.session = session
        self._limit = settings.concurrency + settings.queue
        self._workers = _Workers(settings.concurrency, f"arm-{arm.name}")
        self._busy = 0
        self._lock = None if shareable else threading.Lock()

    @property
    def signature(self) -> Signature:
        return self.session.signature

    @property
    def digest(self) -> str:
        return self.session.ref.digest

    @property
    def full(self) -> bool:
        """Whether another request would have to be refused."""
        return self._busy >= self._limit

    @property
    def busy(self) -> bool:
        """Whether the model is computing at this moment, for a request that was given up perhaps."""
        return self._workers.busy

    async def predict(self, feeds: Mapping[str, np.ndarray]) -> Prediction:
        """Run the model off the event loop; raises InputError for scores that are not finite and whatever the runtime raises."""
        self._busy += 1
        future = asyncio.wrap_future(self._workers.submit(lambda: self.predict_now(feeds)))
        future.add_done_callback(self._finished)
        # Shielded: cancelling the waiting does not stop the thread, so the slot stays taken until the thread is done.
        return await asyncio.shield(future)

    async def warm_up(self) -> None:
        """Run the module's `warm_up` off the event loop."""
        await asyncio.wrap_future(self._workers.submit(lambda: warm_up(self)))

    def predict_now(self, feeds: Mapping[str, np.ndarray]) -> Prediction:
        """The same in the calling thread."""
        if self._lock is None:
            return self._run(feeds)
        with self._lock:
            return self._run(feeds)

    def close(self) -> None:
        """Cancel waiting requests and take no more; running ones are not waited for."""
        self._workers.close()

    def _run(self, feeds: Mapping[str, np.ndarray]) -> Prediction:
        recorder = _Recorder(self.session)
        begun = time.perf_counter_ns()
        scores = scores_of(recorder, feeds, where=f"model {self.version}")
        return Prediction(outputs=recorder.outputs, scores=scores, begun_ns=begun, ended_ns=time.perf_counter_ns())

    def _finished(self, future: asyncio.Future[Prediction]) -> None:
        self._busy -= 1
        if not future.cancelled():
            future.exception()  # seen: a request that timed out has nobody left to tell


class _Recorder:
    """A session that keeps its last outputs, so that `scores_of` checks them and the response can still carry them all."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.ref = session.ref
        self.signature = session.signature
        self.outputs: dict[str, np.ndarray] = {}

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.outputs = self._session.run(feeds)
        return self.outputs


def load_arms(experiment: Experiment, store: Store) -> dict[str, LoadedArm]:
    """Open every arm's model and run it once; raises LiftgateError naming the arm before anything is served."""
    settings = SessionSettings(threads=experiment.serving.threads)
    arms: dict[str, LoadedArm] = {}
    for arm in experiment.arms:
        try:
            session = open_session(arm.model, settings, store=store)
        except LiftgateError as error:
            raise InputError(f"arm '{arm.name}'", str(error)) from None
        loaded = LoadedArm(arm, session.ref.name, session, experiment.serving, shareable=session.ref.runtime == "onnxruntime")
        warm_up(loaded, rows=(1,))
        arms[arm.name] = loaded
    _check_agreement(experiment, arms)
    return arms


def _check_agreement(experiment: Experiment, arms: Mapping[str, LoadedArm]) -> None:
    """Raise InputError unless a client can talk to every arm in the same words."""
    score = _score_of(experiment.control, arms[experiment.control].signature)
    seen: dict[str, str] = {}
    for name, arm in arms.items():
        if _score_of(name, arm.signature) != score:
            raise InputError.mismatch(
                f"arm '{name}': score output",
                expected=f"'{score}', as in the control",
                found=f"'{_score_of(name, arm.signature)}'",
                fix="export it again",
            )
        if seen.setdefault(arm.version, name) != name:
            raise InputError.mismatch(
                f"arm '{name}'", expected="models with different names", found=f"'{arm.version}' in arm '{seen[arm.version]}' too"
            )
        for output in arm.signature.outputs:
            datatype_of(output.dtype, where=f"arm '{name}': output '{output.name}'")
    inputs = merge_inputs({name: arm.signature for name, arm in arms.items()})
    if experiment.item is not None:
        spec = inputs.get(experiment.item)
        if spec is None or spec.role != "candidate" or np.dtype(spec.dtype).kind not in "iu" or len(spec.shape) != 1:
            known = ", ".join(name for name, s in inputs.items() if s.role == "candidate") or "none"
            raise InputError.mismatch(
                "item", expected=f"an integer candidate input with one value per row (candidates: {known})", found=experiment.item
            )


def _score_of(arm: str, signature: Signature) -> str:
    """What candidates are ranked by, as text; raises InputError for a model that does not say."""
    if signature.score is None:
        found = ", ".join(f"{o.name} {list(o.shape)}" for o in signature.outputs)
        fix = "export the model with --score OUTPUT or --score 'OUTPUT[COLUMN]'"
        raise InputError.mismatch(f"arm '{arm}'", expected="an output with one score per row", found=found, fix=fix)
    return signature.score.text


def warm_up(arm: LoadedArm, rows: tuple[int, ...] = WARM_UP_ROWS) -> None:
    """Answer synthetic requests (all zeros) of these sizes, so that no user pays for first-time allocations."""
    for count in rows:
        try:
            arm.predict_now(synthetic_feeds(arm.signature, count))
        except InputError:
            continue  # an all-zero request may well score NaN; that it ran is what matters
        except Exception as error:  # the runtimes raise their own types, which share no public base class
            raise RunFailed(
                f"arm '{arm.name}'", f"model cannot run a request of {count} candidates: {error}", fix="export the model again"
            ) from error


def synthetic_feeds(signature: Signature, rows: int) -> dict[str, np.ndarray]:
    """Zeros for every input in the signature's layout: `rows` candidates, other free dimensions `WARM_UP_LENGTH`."""
    feeds = {}
    for spec in signature.inputs:
        leading = 1 if signature.layout == "request" and spec.role == "request" else rows
        first = spec.shape[0] if isinstance(spec.shape[0], int) else leading
        rest = [dim if isinstance(dim, int) else WARM_UP_LENGTH for dim in spec.shape[1:]]
        feeds[spec.name] = np.zeros((first, *rest), dtype=spec.dtype)
    return feeds
