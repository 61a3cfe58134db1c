"""What the report says around the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from .case import Case
from .choice import RULE, Choice
from .clicks import SENTENCE
from .replay import Replayed
from .scale import Scale

TITLE = "v1.0 against its fine-tuned successor"

BUDGET = """\
# What the demo asks of v1.1, the same in every run: at most twice the time of v1.0, and no group of users worse off by more than 2 %.
version = 1

[[gate]]
metric = "latency_p95"
instance = "m5.large"
max_regress = "100%"
allow = "emulated"

[[gate]]
metric = "ndcg@10"
max_drop = "2%"

[[gate]]
metric = "ndcg@10"
segment = "casual"
max_drop = "2%"

[[gate]]
metric = "ndcg@10"
segment = "power"
max_drop = "2%"
"""

_EXPERIMENT = """\
# Half of the users see v1.0, half the chosen model; the salt decides who.
version = 1
name = "{name}"
salt = "{name}-{seed}"
control = "control"
item = "item"
slate = 10

[[arms]]
name = "control"
model = "v1.0"
weight = 1

[[arms]]
name = "treatment"
model = "{model}"
weight = 1
"""

SPLIT = (
    "Every user's ratings are cut in that user's own time order: the first are trained on, the next choose among candidates, the last "
    "judge and are replayed live. A cut at one calendar time would leave almost no user with both history and holdout. So v1.0 and v1.1 "
    "may have learned from what other users did at a later date; no rating they are asked about was trained on, and histories hold only "
    "the past. While training, an item that a user rated only later may be drawn as one not rated yet. Segments (power: the most "
    "active fifth) are counted on the training part alone. A request asks about 100 items: up to 6 "
    "that the user really rated next, the others drawn by popularity from what this user never rates; an item is relevant when it was "
    "rated 4 or more."
)


def experiment(name: str, choice: Choice, *, seed: int) -> str:
    """The experiment.toml of the live test."""
    return _EXPERIMENT.format(name=name, seed=seed, model=choice.name)


def models(scale: Scale) -> str:
    """What the two models are."""
    base, grown = "-".join(map(str, scale.hidden)), "-".join(map(str, scale.grown))
    return (
        f"v1.0: embeddings ({scale.dim}) of user and item, mean of the last 50 items, an MLP {base}, trained on everyone. v1.1: v1.0's "
        f"weights plus attention over the history and an MLP {grown}, giving v1.0's scores at first (to rounding), then fine-tuned on the "
        "recent half of the power users' ratings only, as in the story this demo retells."
    )


def live(replayed: Replayed, choice: Choice) -> str:
    """What happened on loopback."""
    return (
        f"Live test: v1.0 and {choice.name} behind the router, half of the users each; {replayed.users} users sent "
        f"{replayed.requests:,} requests and clicked {replayed.clicks:,} times in {replayed.seconds:.0f} s. Each user is one unit of "
        "chance. The latency of a live request was taken while the replaying client used the same machine."
    )


def paragraphs(
    case: Case, scale: Scale, choice: Choice, *, refused: Sequence[str], replayed: Replayed, seed: int, store: str
) -> tuple[str, ...]:
    """The story from data to live test, in order."""
    left_out = (f"Recipes that could not be applied: {'; '.join(refused)}.",) if refused else ()
    judged = "The numbers on this page are on the holdout requests, which had no part in the choice."
    return (
        case.summary + ".",
        SPLIT,
        models(scale),
        f"{RULE} Chosen: {choice.reason}. {judged}",
        *left_out,
        SENTENCE,
        live(replayed, choice),
        f"Seed {seed}, scale {scale.name}. To repeat a command on these models, set LIFTGATE_STORE={store}.",
    )
