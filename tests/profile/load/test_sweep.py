from __future__ import annotations

import datetime
from collections.abc import Callable
from xml.etree import ElementTree

import msgspec
import pytest
from liftgate.core.artifact import ModelArtifact, ModelRef
from liftgate.core.estimate import Estimate
from liftgate.core.requests import Requests
from liftgate.core.store import Store
from liftgate.profile.arrivals import Poisson, ref_of
from liftgate.profile.load.limits import LatencyLimit
from liftgate.profile.load.result import ModelSweep, RatePoint, Sweep
from liftgate.profile.load.sweep import cost, sweep, usd_per_million
from liftgate.profile.load.view import sweep_view
from liftgate.profile.machines.instance import Instance, Placement, Price
from liftgate.profile.result import Label
from liftgate.reports.sweep_figure import sweep_svg
from rich.console import Console

from .queues import provenance

MakeModel = Callable[..., ModelArtifact]
PRICE = Price(usd_per_hour=0.096, region="us-east-1", date=datetime.date(2025, 3, 2), source="the list")
INSTANCE = Instance(
    name="m5.large",
    provider="aws",
    vcpu=2,
    threads_per_core=2,
    memory_gib=8,
    cpu="Xeon",
    architecture="x86_64",
    features=(),
    price=PRICE,
)


def placed_on(instance: Instance, label: Label) -> Placement:
    return Placement(instance=instance, cpus=(0,), threads=1, label=label, standing="")


def test_a_million_requests_cost_the_hours_they_take() -> None:
    # 100 per second are 360,000 an hour, so a million take 2.7778 hours.
    assert usd_per_million(0.36, 100) == pytest.approx(1.0)


def test_cost_is_an_interval_like_the_rate_and_carries_the_label() -> None:
    found = cost(placed_on(INSTANCE, "emulated"), 200.0, 240.0)
    assert found is not None
    assert [found.high, found.low] == pytest.approx([0.096 / 3600 / 200 * 1e6, 0.096 / 3600 / 240 * 1e6])
    assert (found.label, found.price) == ("emulated", "us-east-1, 2025-03-02, the list")


def test_there_is_no_cost_without_a_price_or_a_rate() -> None:
    assert cost(placed_on(INSTANCE, "emulated"), None, 10.0) is None
    assert cost(placed_on(msgspec.structs.replace(INSTANCE, price="owned"), "measured"), 10.0, 20.0) is None


def shown(result: Sweep) -> str:
    console = Console(width=200)
    with console.capture() as text:
        console.print(sweep_view(result))
    return text.get()


def test_a_sweep_tries_rates_with_fresh_seeds(make_model: MakeModel, requests: Requests, store: Store) -> None:
    found = sweep([make_model("v1.0")], "p95 1 s", requests=requests, seconds=0.2, seed=1, store=store)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Sweep) == found
    (model,) = found.models
    assert model.points
    assert model.capacity_per_s > 0
    assert len({point.seed for point in model.points}) == len(model.points)
    assert model.cost is None
    assert "highest rate that keeps p95 1000 ms" in shown(found)


def swept(name: str, meets: float, misses: float, *, why: str = "") -> ModelSweep:
    points = tuple(
        RatePoint(
            rate_per_s=rate,
            seed=number,
            found_ms=(Estimate(value=ms, low=ms - 1, high=ms + 1, n=10),),
            utilisation=rate / 500,
            requests=800,
            lag_p99_ms=0.1,
            overload=None,
            unsettled=None,
            answer="misses" if number else "meets",
        )
        for number, (rate, ms) in enumerate([(meets, 10.0), (misses, 30.0)])
    )
    return ModelSweep(
        model=ModelRef(name=name, digest="0" * 64, runtime="onnxruntime", size_bytes=1),
        meets_per_s=meets,
        misses_per_s=misses,
        confirmed=True,
        capacity_per_s=500,
        points=points,
        cost=cost(placed_on(INSTANCE, "emulated"), meets, misses),
        why=why,
    )


def test_the_plot_stands_alone_and_shows_every_trial_the_limit_and_the_bands() -> None:
    models = (swept("v1.0", 100, 110), swept("v1.1", 200, 220))
    limits = (LatencyLimit(quantile="p95", p=0.95, limit_ms=20),)
    drawn = sweep_svg(Sweep(provenance=provenance(), arrivals=ref_of(Poisson(rate_per_s=1)), limits=limits, models=models, invalid=()))
    root = ElementTree.fromstring(drawn)
    titles = {node.text for node in root.iter("{http://www.w3.org/2000/svg}title")}
    assert "p95 of latency against rate on m5.large (emulated)" in titles
    assert "v1.1 at 220.0/s: 30.000 [29.000, 31.000] ms, misses" in titles
    assert "v1.0: keeps up to 100.0 requests/s, misses from 110.0" in titles
    assert "p95 20 ms" in {node.text for node in root.iter("{http://www.w3.org/2000/svg}text")}
    assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "")


def test_models_are_compared_side_by_side_with_rates_and_costs() -> None:
    models = (swept("v1.0", 100, 110), swept("v1.1", 200, 220, why="rates between were unclear"))
    limits = (LatencyLimit(quantile="p95", p=0.95, limit_ms=20),)
    arrivals = ref_of(Poisson(rate_per_s=1))
    text = shown(Sweep(provenance=provenance(), arrivals=arrivals, limits=limits, models=models, invalid=()))
    # Twice the rate: from 200/110 to 220/100 times the base's.
    assert "x [1.82, 2.20] the rate" in text
    assert "[0.1212, 0.1333]" in text
    assert "price (emulated rate): 0.096 USD/h, us-east-1, 2025-03-02, the list" in text
    assert "v1.1: rates between were unclear" in text
    # 10 of 20 ms fill half the way to the mark, 30 ms half of the rest.
    assert "######      |           " in text
    assert "############|#####      " in text
