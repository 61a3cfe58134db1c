"""`calibrate`: the same model twice, many times over, so that a machine's noise and the margins it can judge are known beforehand."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from ..core.errors import InputError, RunFailed
from ..core.files import write_atomically
from ..core.machine import Machine, this_machine, tool_versions
from ..core.progress import Progress, silent
from ..core.requests import Requests, RequestsRef
from ..core.store import Store
from .budget import LATENCY, Budget, Conditions, Gate, MaxRegress
from .inputs import Model, check_duration, load_placements, load_requests, load_subjects
from .launch import Subject
from .machines.instance import LOCAL
from .measure import LAUNCHES, Run, measure
from .result import QUANTILES, Label
from .sequential import PairedRounds, detectable, direction, paired_rounds

COMPARISONS = 10
# A comparison that is spoiled is made again, until more than this many are, and more than are good.
_SPOILED = 2
# Twice the measuring time is tried this often before a margin counts as out of reach: 1024 times.
_DOUBLINGS = 10


class QuantileNoise(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one quantile of equal models did: log ratios of all comparisons, and in how many the second was called slower or faster."""

    quantile: str
    paired: PairedRounds
    alarms: int


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`comparisons` of `model` with itself on one machine, each of `seconds` of measuring.

    `unsteady` says what happened to the machine meanwhile: calibrating beside noise is fine when gates are to be judged beside it.
    `spoiled` has the reasons of further ones that were INVALID; they are not in the noise.
    """

    schema_version: Literal[1] = 1
    kind: Literal["calibration"] = "calibration"
    machine: Machine
    tools: dict[str, str]
    instance: str
    label: Label
    threads: int
    model: str
    digest: str
    requests: RequestsRef
    comparisons: int
    seconds: float
    noise: tuple[QuantileNoise, ...]
    spoiled: tuple[str, ...] = ()
    unsteady: tuple[str, ...]
    at: str

    def tightest(self, quantile: str, alpha: float, seconds: float, *, launches: int = LAUNCHES) -> float | None:
        """The smallest margin that a gate with `alpha` could pass within `seconds` of measuring, as a share; None when none."""
        found = next(n for n in self.noise if n.quantile == quantile)
        return detectable(found.paired, alpha, times=seconds / (self.seconds * self.comparisons), launches=launches)

    def seconds_for(self, quantile: str, alpha: float, margin: float, *, least: float, launches: int = LAUNCHES) -> float | None:
        """Seconds of measuring, `least` times a power of two, that let equal models keep to `margin`; None when none would."""
        for doubling in range(_DOUBLINGS + 1):
            seconds = least * 2.0**doubling
            if (self.tightest(quantile, alpha, seconds, launches=launches) or math.inf) <= margin:
                return seconds
        return None


def calibrate(
    model: Model,
    *,
    requests: Requests | Path | str | None = None,
    instance: str = LOCAL,
    comparisons: int = COMPARISONS,
    seconds: float = 10.0,
    launches: int = LAUNCHES,
    seed: int = 0,
    store: Store | Path | str | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> Calibration:
    """Compare `model` with itself `comparisons` times and remember in the store what that showed.

    Comparisons that are INVALID are made again. Raises InputError for wrong input, and RunFailed when most of them are.
    """
    check_duration(seconds, launches)
    if not 2 <= comparisons <= 1000:
        raise InputError.mismatch("--comparisons", expected="2 to 1000", found=str(comparisons))
    store = Store.of(store)
    placement = load_placements([instance], threads)[0]
    subjects = load_subjects([model, model], store)
    asked = load_requests(requests, subjects, seed)
    runs: list[Run] = []
    spoiled: list[str] = []
    while len(runs) < comparisons:
        run = measure(subjects, asked, placement, seconds=seconds, launches=launches, seed=seed + len(runs) + len(spoiled), store=store)
        if run.invalid:
            spoiled.append("; ".join(run.invalid))
            if len(spoiled) > max(_SPOILED, len(runs)):
                reasons = "; ".join(dict.fromkeys(spoiled))
                problem = f"{len(spoiled)} of {len(spoiled) + len(runs)} comparisons cannot be trusted: {reasons}"
                fix = "gates beside this would be INVALID as well: remove the cause, then calibrate"
                raise RunFailed("profile calibrate", problem, fix=fix)
        else:
            runs.append(run)
        progress(f"calibrating ({len(spoiled)} made again)" if spoiled else "calibrating", len(runs), comparisons)
    found = Calibration(
        machine=this_machine(),
        tools=tool_versions(),
        instance=placement.instance.name,
        label=placement.label,
        threads=placement.threads,
        model=subjects[0].ref.name,
        digest=subjects[0].ref.digest,
        requests=asked.ref,
        comparisons=comparisons,
        seconds=seconds,
        noise=tuple(noise_of(name, p, runs) for name, p in QUANTILES.items()),
        spoiled=tuple(spoiled),
        unsteady=tuple(dict.fromkeys(reason for run in runs for reason in run.unsteady)),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    remember(found, store)
    return found


def remember(found: Calibration, store: Store) -> None:
    """Keep it in the store; the newest of a machine, instance, thread count and model is the one that counts."""
    write_atomically(_file(store, found.instance, found.threads, found.digest), msgspec.json.encode(found) + b"\n")


def noise_of(quantile: str, p: float, runs: Sequence[Run]) -> QuantileNoise:
    """Pool what comparisons of a model with itself showed at one quantile."""
    each = [paired_rounds(run.samples.of(0), run.samples.of(1), p) for run in runs]
    pooled = PairedRounds(
        rounds=tuple(launch for one in each for launch in one.rounds), launches=tuple(d for one in each for d in one.launches)
    )
    return QuantileNoise(quantile=quantile, paired=pooled, alarms=sum(direction(one) != "unclear" for one in each))


def _file(store: Store, instance: str, threads: int, digest: str) -> Path:
    """One file per machine, instance, thread count and model."""
    key = "|".join((this_machine().fingerprint, instance, str(threads), digest))
    return store.root / "calibrations" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def find_calibration(store: Store, instance: str, threads: int, control: Subject) -> Calibration | None:
    """What was learned about this machine with this control; None when nothing was. Raises InputError for a file that is none of ours."""
    file = _file(store, instance, threads, control.ref.digest)
    try:
        return msgspec.json.decode(file.read_bytes(), type=Calibration)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(str(file), f"is no calibration of this version ({error})", fix="delete it and calibrate again") from None


def check_margins(budget: Budget, calibration: Calibration, seconds: float, launches: int = LAUNCHES) -> None:
    """Raise InputError for a relative latency gate that is tighter than what the machine can tell in `seconds` over `launches`."""
    at = Conditions(instance=calibration.instance)
    for number, gate in enumerate(budget.gates, start=1):
        if gate.at != at or gate.metric not in LATENCY or not isinstance(gate.limit, MaxRegress):
            continue
        quantile, margin = gate.metric.removeprefix("latency_"), gate.limit.value
        smallest = calibration.tightest(quantile, gate.alpha, seconds, launches=launches)
        if smallest is None or margin < smallest:
            longer = calibration.seconds_for(quantile, gate.alpha, margin, least=seconds, launches=launches)
            raise _too_tight(f"{budget.source}: gate {number}", gate, calibration, smallest=smallest, seconds=seconds, longer=longer)


def _too_tight(
    where: str, gate: Gate, calibration: Calibration, *, smallest: float | None, seconds: float, longer: float | None
) -> InputError:
    apart = "no margin at all" if smallest is None else f"a margin of {smallest:.1%}"
    time = f"--seconds {longer:g} would do, or " if longer is not None else ""
    return InputError(
        where,
        f"{gate.name} is tighter than this machine can judge: within {seconds:g} s of measuring equal models keep to {apart} "
        f"(calibrated with {calibration.model} at {calibration.at})",
        fix=f"{time}a wider max_regress, or a quieter machine (then calibrate again)",
    )
