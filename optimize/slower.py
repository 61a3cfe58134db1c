"""A step that promises speed and makes the model slower is refused, with the numbers."""

from __future__ import annotations

import time

from ..core.errors import RefusedStep
from ..recipes.steps import Step, promises
from ..runtime.session import Session
from .context import StepContext
from .timing import LOOK_LEVEL, Clock, Contender, Race, race

# A step that costs less than this is noise, or not worth an error: 5 %, and the cost of about one call from Python.
TOLERATED = 1.05
TOLERATED_US = 20.0
_REQUESTS = 64
_SECONDS = 1.0
_FIX = {
    "quantize_dynamic": "the matrices are too small, or this CPU lacks fast int8; exclude nodes, or prune or hoist_request instead",
    "quantize_static": "the matrices are too small, or this CPU lacks fast int8; exclude layers, or prune or hoist_request instead",
}
_USUAL_FIX = "leave this step out, or apply it to fewer nodes"


def refuse_slower(
    step: Step, before: Session, after: Session, context: StepContext, *, clock: Clock = time.process_time_ns
) -> dict[str, float]:
    """Numbers for the step's record: how long a request takes before and after it, and their ratio; empty where nothing was timed.

    Only steps that promise speed are timed, and only on real requests: nobody knows how many candidates others would have. Each model gets
    the requests in its own layout. Raises RefusedStep when the 99.9 % interval of the ratio lies above 1.05 and a request takes more than
    20 microseconds longer.
    """
    if promises(step) != "speed" or context.requests is None:
        return {}
    few = context.requests.take(range(min(_REQUESTS, len(context.requests))))
    sides = [Contender(name=name, run=s.run, feeds=list(few.feeds(s.signature))) for name, s in (("before", before), ("after", after))]
    found = race(sides, seconds=_SECONDS, clear=_is_clear, clock=clock)
    ratio = found.ratio(level=LOOK_LEVEL)
    us_before, us_after = found.median_us(0), found.median_us(1)
    if ratio.low is not None and ratio.low > TOLERATED and us_after - us_before > TOLERATED_US:
        kind = str(step.__struct_config__.tag)
        problem = f"makes the model slower: {us_before / 1e3:.3g} -> {us_after / 1e3:.3g} ms per request, ratio {ratio.text(2)} at 99.9 %"
        raise RefusedStep(f"{kind} {context.where}", problem, fix=_FIX.get(kind, _USUAL_FIX))
    bounds = {"latency_ratio_low": ratio.low, "latency_ratio_high": ratio.high}
    known = {name: bound for name, bound in bounds.items() if bound is not None}
    return {"request_us_before": us_before, "request_us_after": us_after, "latency_ratio": ratio.value or 1.0, **known}


def _is_clear(found: Race) -> bool:
    ratio = found.ratio(level=LOOK_LEVEL)
    if ratio.low is None or ratio.high is None:
        return False
    small = found.median_us(1) - found.median_us(0) <= TOLERATED_US
    return ratio.high < TOLERATED or ratio.low > TOLERATED or small
