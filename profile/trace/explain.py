"""`profile explain`: which operators make one model slower than another."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from ...core.errors import InputError
from ...core.estimate import Estimate
from ...core.machine import this_machine, tool_versions
from ...core.progress import Progress, silent
from ...core.requests import Requests
from ...core.store import Store
from ..health import disturbances, read_counters
from ..inputs import Model, check_duration, load_placements, load_requests, load_subjects
from ..launch import WORKER, Subject, WorkerHandle, aside
from ..machines.confine import confined
from ..machines.instance import LOCAL, Placement
from ..sequential import FEWEST_LAUNCHES
from ..setting import Positions, pilot, pool_of
from .attribute import OUTSIDE, Attribution, Paired, attribute, middle
from .explanation import Change, Explanation, Unprofiled
from .nodes import read_worker_trace
from .times import Floats, Integers, Times, estimates, resampled, times_of
from .trace import WORKER as TRACED
from .trace import warm_up
from .worker import TRACE_FILE

LAUNCHES = 4
_BLOCK_S = 0.025
_LARGEST_BLOCK, _FEWEST_ROUNDS = 200, 5
_NAMED = 3


def explain(
    control: Model,
    treatment: Model,
    *,
    requests: Requests | Path | str | None = None,
    instance: str = LOCAL,
    seconds: float = 12.0,
    launches: int = LAUNCHES,
    seed: int = 0,
    threads: int | None = None,
    store: Store | Path | str | None = None,
    progress: Progress = silent,
) -> Explanation:
    """Both models under their profiler and without one, in rounds of the same requests and in random order, over about `seconds`.

    Raises InputError for whatever the user gave wrong and for a runtime that tells no node times, RunFailed when a worker dies.
    """
    started_at = datetime.now(UTC)
    check_duration(seconds, launches)
    store = Store.of(store)
    placement = load_placements([instance], threads)[0]
    if placement.device != "cpu":
        fix = "explain it on another instance, or use the GPU's own profiler"
        found = "a GPU, whose node times here would be those of starting its kernels"
        raise InputError.mismatch(f"--instance {instance}", expected="an instance whose models run on CPU", found=found, fix=fix)
    subjects = load_subjects([control, treatment], store)
    for subject in subjects:
        if subject.ref.runtime == "openvino":
            fix = "node times come from ONNX Runtime and PyTorch; `profile flame` works for every runtime"
            raise InputError.mismatch(subject.ref.name, expected="a runtime that tells node times", found="OpenVINO", fix=fix)
    asked = load_requests(requests, subjects, seed)
    rng = np.random.default_rng(seed)
    pool = pool_of(subjects, asked, rng)
    told = []
    before = read_counters(placement.cpus)
    with aside(placement.cpus):
        for number in range(launches):
            told.append(_launch(subjects, placement, store, pool, seconds=seconds / launches, rng=rng))
            progress("explaining", number + 1, launches)
    seen = disturbances(before, read_counters(placement.cpus), [wait for launch in told for wait in launch.waits])
    paired, plain = _pair(told), [np.concatenate([launch.plain[model] for launch in told]) for model in (0, 1)]
    parts = attribute(paired, rng)
    return Explanation(
        control=subjects[0].ref,
        treatment=subjects[1].ref,
        instance=placement.instance.name,
        label=placement.label,
        standing=placement.note,
        threads=placement.threads,
        requests=asked.ref,
        machine=this_machine(),
        tools=tool_versions(),
        seed=seed,
        started_at=started_at.isoformat(timespec="seconds"),
        launches=launches,
        resolution_us=(paired.control.resolution_us, paired.treatment.resolution_us),
        conclusion=conclusion(parts, subjects[0].ref.name, subjects[1].ref.name),
        unprofiled=_unprofiled(plain, [launch.plain_round for launch in told], rng),
        invalid=seen.fatal,
        unsteady=seen.shared,
        notes=_notes(parts, paired, asked),
        **{field: getattr(parts, field) for field in Attribution.__struct_fields__},
    )


class _Told(msgspec.Struct, frozen=True):
    """One launch: node times of both models, and nanosecond-clock times without a profiler with the round of each.

    `waits` are nanoseconds waited for a CPU and run, per block; None where the kernel does not tell.
    """

    profiled: tuple[Times, Times]
    plain: tuple[Floats, Floats]
    plain_round: Integers
    waits: tuple[tuple[int, int] | None, ...]


def _launch(subjects: Sequence[Subject], at: Placement, store: Store, pool: Requests, *, seconds: float, rng: np.random.Generator) -> _Told:
    """Four fresh processes: each model with and without its profiler."""
    with TemporaryDirectory(prefix="liftgate-") as folder, ExitStack() as living:
        workers: dict[tuple[int, bool], WorkerHandle] = {}
        confinement = living.enter_context(confined(at))
        speeds, warm = [], [0, 0]
        for model, profiled in _shuffled([(m, p) for m in (0, 1) for p in (False, True)], rng):
            subject, file = subjects[model], Path(folder) / f"{model}{profiled:d}" / "requests.parquet"
            file.parent.mkdir()
            pool.write(file)
            module = TRACED if profiled else WORKER
            worker = WorkerHandle(subject.ref.name, at.cpus, at.threads, module=module, confinement=confinement)
            living.callback(worker.kill)
            worker.open(subject.path, store.root, file, at.threads)
            if profiled:
                warmed = warm_up(worker, len(pool))
                warm[model] = warmed.blocks
                speeds.append(warmed.request_s)
            else:
                speeds.append(pilot(worker, len(pool)))
            workers[model, profiled] = worker
        size = max(1, min(_LARGEST_BLOCK, int(_BLOCK_S / max(*speeds, 1e-7))))
        rounds = max(_FEWEST_ROUNDS, int(seconds / (size * max(sum(speeds), 1e-7))))
        positions = Positions(len(pool), rng)
        plain: tuple[list[Floats], list[Floats]] = ([], [])
        waits = []
        for _ in range(rounds):
            indices = tuple(positions.draw(size).tolist())
            for model, profiled in _shuffled(list(workers), rng):
                done = workers[model, profiled].block(indices, 1)
                waits.append(done.wait)
                if not profiled:
                    plain[model].append(np.frombuffer(done.samples, dtype="<i8") / 1e3)
        for worker in workers.values():
            worker.stop()
        traces = [read_worker_trace(Path(folder) / f"{model}1" / TRACE_FILE) for model in (0, 1)]
    times = [times_of(trace) for trace in traces]
    first, second = (t.within(t.block >= w) for t, w in zip(times, warm, strict=True))
    # The profiler may have been full before the end: then both are looked at up to there.
    both = min(len(first.infer), len(second.infer))
    cut = np.arange(both)
    return _Told(
        (_from_zero(first.within(cut), warm[0]), _from_zero(second.within(cut), warm[1])),
        (np.concatenate(plain[0]), np.concatenate(plain[1])),
        np.repeat(np.arange(rounds), size),
        tuple(waits),
    )


def _shuffled(items: list[tuple[int, bool]], rng: np.random.Generator) -> list[tuple[int, bool]]:
    return [items[i] for i in rng.permutation(len(items)).tolist()]


def _from_zero(times: Times, warm: int) -> Times:
    return msgspec.structs.replace(times, block=times.block - warm)


def _rounds(parts: Sequence[Integers]) -> Integers:
    """Rounds of several launches numbered on."""
    ends = np.cumsum([0, *(int(part.max(initial=-1)) + 1 for part in parts)])
    return np.concatenate([part + end for part, end in zip(parts, ends[:-1], strict=True)])


def _pair(told: Sequence[_Told]) -> Paired:
    control, treatment = (join([launch.profiled[model] for launch in told]) for model in (0, 1))
    if not np.array_equal(control.request, treatment.request):
        raise AssertionError("both models answer the same requests in the same order")
    blocks = [launch.profiled[0].block for launch in told]
    launch = np.repeat(np.arange(len(told)), [len(block) for block in blocks])
    return Paired(control=control, treatment=treatment, round=_rounds(blocks), launch=launch)


def join(parts: Sequence[Times]) -> Times:
    """Times of several launches of one model; a node may have been seen in some of them only."""
    nodes = list(parts[0].nodes)
    owns = []
    for part in parts:
        column = {(node.name, node.op): i for i, node in reversed(list(enumerate(nodes)))}
        taken: list[int] = []
        for node in part.nodes:
            at = column.get((node.name, node.op), -1)
            if at < 0 or at in taken:
                at = next((i for i, n in enumerate(nodes) if (n.name, n.op) == (node.name, node.op) and i not in taken), len(nodes))
            if at == len(nodes):
                nodes.append(node)
            taken.append(at)
        owns.append((taken, part.own))
    own = np.zeros((sum(len(values) for _, values in owns), len(nodes)))
    row = 0
    for taken, values in owns:
        own[row : row + len(values), taken] = values
        row += len(values)
    return msgspec.structs.replace(
        parts[0],
        nodes=tuple(nodes),
        own=own,
        infer=np.concatenate([part.infer for part in parts]),
        request=np.concatenate([part.request for part in parts]),
        block=np.concatenate([part.block for part in parts]),
        lost=sum(part.lost for part in parts),
    )


def _unprofiled(plain: Sequence[Floats], of_launches: Sequence[Integers], rng: np.random.Generator) -> Unprofiled:
    """Means of the middle 80 % of the pairs, as under the profiler."""
    control, treatment = plain
    rounds = _rounds(of_launches)
    launches = np.repeat(np.arange(len(of_launches)), [len(part) for part in of_launches])
    kept = middle(treatment - control, launches)
    values = np.column_stack([control, treatment, treatment - control])[kept]
    _, position, counts = np.unique(rounds[kept], return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), 3))
    np.add.at(sums, position, values)
    of_round = np.zeros(len(counts), dtype=np.int64)
    of_round[position] = launches[kept]
    draws = resampled(sums, counts.astype(float), rng, of_round)
    found: tuple[Estimate, ...] = estimates(values.mean(axis=0), draws, len(counts))
    return Unprofiled(control_us=found[0], treatment_us=found[1], difference_us=found[2])


def conclusion(found: Attribution, control: str, treatment: str) -> str:
    """One sentence: what makes it slower, or that nothing stands out."""
    change = found.difference_us.text(1)
    if found.direction == "no difference":
        low, high = found.difference_us.low, found.difference_us.high
        apart = low is not None and high is not None and not low <= 0 <= high
        vague = "; too few launches agree to name one: raise --launches and --seconds" if apart else ""
        return f"no operator stands out: {treatment} against {control} {change} µs per request under the profiler{vague}"
    sure = [c for c in (*found.nodes, found.outside) if c.stands_out]
    sure.sort(key=lambda c: -abs(c.difference_us.value or 0.0))
    size = abs(found.difference_us.value or 0.0)
    head = f"{treatment} is {found.direction} than {control} by {size:.1f} µs per request under the profiler"
    if not sure:
        return f"{head}; no operator stands out: it is spread over {len(found.nodes)} nodes"
    more = f", and {len(sure) - _NAMED} more" if len(sure) > _NAMED else ""
    return f"{head}: {', '.join(_named(c) for c in sure[:_NAMED])}{more}"


def _named(change: Change) -> str:
    share = "" if change.share is None else f" {change.share.text(0, 100)} % of it"
    kind = "" if change.name == OUTSIDE else f" ({change.op}{'' if change.status == 'both' else f', {change.status}'})"
    return f"{change.name}{kind}{share}"


def _notes(found: Attribution, paired: Paired, asked: Requests) -> tuple[str, ...]:
    notes = ["a profiler slows models down: this explains, and no gate is judged by it"]
    if asked.ref.generated:
        notes.append(f"no requests were given: {asked.ref.note}; real traffic will differ")
    if max(paired.control.resolution_us, paired.treatment.resolution_us) >= 1:
        notes.append("ONNX Runtime cuts times to whole µs: a node loses up to 1 µs per request to 'outside nodes'")
    if len({paired.control.resolution_us, paired.treatment.resolution_us}) > 1:
        notes.append("the models run in different runtimes, whose operators have different names: compare the whole, not the parts")
    lost = paired.control.lost + paired.treatment.lost
    if lost:
        notes.append(f"a profiler was full: {lost} requests have no node times")
    if len(np.unique(paired.launch)) < FEWEST_LAUNCHES:
        why = "cannot tell a slower model from a slower process"
        notes.append(f"fewer than {FEWEST_LAUNCHES} launches {why}: nothing is named; raise --launches")
    if found.rounds < 20:
        notes.append(f"only {found.rounds} rounds: raise the seconds for narrower intervals")
    return tuple(notes)
