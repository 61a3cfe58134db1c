"""The path of a search: which combination is tried next.

Optuna's TPE sampler (Bergstra et al. 2011; several objectives: Ozaki et al. 2022, JAIR 73; constraints: Watanabe and Hutter 2023,
arXiv:2211.14411) proposes. Every proposal is a pure function of the seed, the trial's number and the results so far, so a search that was
killed walks the same path again over its cached trials, at once, and goes on where it was.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import optuna

from .result import Trial
from .space import RUNTIME, Slot, searched

_STARTUP_TRIALS = 8
# After this many proposals of what was tried already, a combination that was not is drawn at random.
_PATIENCE = 5

Combination = tuple[str, ...]


class Study:
    """Proposes a label for every searched slot, and a runtime; learns from what the trial gave."""

    def __init__(self, space: Sequence[Slot], runtimes: Sequence[str], *, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._seed = seed
        self._values = {**{slot.name: list(slot.labels) for slot in searched(space)}, RUNTIME: list(runtimes)}
        self._study = optuna.create_study(directions=["minimize", "maximize"], sampler=self._sampler(0))
        self._tried: dict[Combination, Trial] = {}
        self._running: tuple[optuna.Trial, Combination] | None = None
        for start in self._starts():
            self._study.enqueue_trial(start)

    @property
    def combinations(self) -> int:
        """How many there are."""
        return math.prod(map(len, self._values.values()))

    def propose(self) -> dict[str, str] | None:
        """The next combination that was not tried before; None when there is none left."""
        for attempt in range(_PATIENCE + 1):
            if len(self._tried) == self.combinations:
                return None
            if attempt == _PATIENCE:
                self._study.enqueue_trial(self._untried())
            self._study.sampler = self._sampler(len(self._study.trials))
            trial = self._study.ask()
            chosen = {name: str(trial.suggest_categorical(name, values)) for name, values in self._values.items()}
            combination = tuple(chosen.values())
            self._running = (trial, combination)
            if combination not in self._tried:
                return chosen
            self.learn(self._tried[combination])
        raise AssertionError("an enqueued combination is proposed next")

    def learn(self, found: Trial) -> None:
        """Say what the proposed combination gave; a trial that was not measured to the end counts as one that breaks its floors."""
        if self._running is None:
            raise AssertionError("nothing was proposed")
        trial, combination = self._running
        self._running, self._tried[combination] = None, found
        latency = found.latency.value if found.latency is not None and found.latency.value else 2.0
        overall = found.overall.value if found.overall is not None and found.overall.value is not None else 0.0
        trial.set_constraint("floors", 1.0 if found.margin is None else max(-found.margin, 0.0 if found.holds else 1e-6))
        self._study.tell(trial, [math.log(latency), overall])

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.TPESampler(
            seed=self._seed * 1_000_003 + number, n_startup_trials=_STARTUP_TRIALS, multivariate=True, constant_liar=False
        )

    def _starts(self) -> list[dict[str, str]]:
        """Nothing but the exact steps, then each slot's first choice alone, then all of these together, on the first runtime."""
        nothing = {name: values[0] for name, values in self._values.items()}
        firsts = {name: values[1] for name, values in self._values.items() if name != RUNTIME and len(values) > 1}
        singles = [{**nothing, name: first} for name, first in firsts.items()]
        others = [{**nothing, RUNTIME: runtime} for runtime in self._values[RUNTIME][1:]]
        together = [{**nothing, **firsts}] if len(firsts) > 1 else []
        return [nothing, *others, *singles, *together]

    def _untried(self) -> dict[str, str]:
        rng = np.random.default_rng([self._seed, len(self._study.trials)])
        left = [c for c in itertools.product(*self._values.values()) if c not in self._tried]
        return dict(zip(self._values, left[int(rng.integers(len(left)))], strict=True))
