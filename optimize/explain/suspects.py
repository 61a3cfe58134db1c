"""Lines that PyTorch records without complaint although what they do depends on more than the inputs, or on one row being one row.

They explain an exported model that says something else than the original.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

from .construct_calls import random_numbers
from .construct_values import calls_of
from .constructs import sites_of
from .diagnosis import Diagnosis
from .finding import Clue, Finding, Rule
from .rewriting import calls, dotted, is_zero, kept, name_of, receiver, replaced, shown

if TYPE_CHECKING:
    import torch

_DRAWS = (
    "rand",
    "randn",
    "randint",
    "randperm",
    "rand_like",
    "randn_like",
    "randint_like",
    "bernoulli",
    "multinomial",
    "normal",
    "normal_",
)
_DROPS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
_CHANGES = "it may say something else for other inputs"


def suspects(module: torch.nn.Module) -> tuple[Diagnosis, ...]:
    """The suspicious lines that forward reaches in the user's own classes, the likeliest reasons first."""
    sites = list(sites_of(module))
    found: dict[tuple[str, int], Diagnosis] = {}
    for rule in _RULES:
        for site in sites:
            finding = rule(Clue(site, "", module))
            if finding is not None:
                found.setdefault((site.place.path, site.place.line), _diagnosis(Clue(site, "", module), finding))
    return tuple(found.values())


def _diagnosis(clue: Clue, finding: Finding) -> Diagnosis:
    site = clue.site
    return Diagnosis(
        file=Path(site.place.path).name,
        line=site.place.line,
        name=site.name,
        code=site.code,
        construct=finding.construct,
        change=finding.change,
        sound_with_torchscript=False,
        reason=_CHANGES,
    )


def always_dropped(clue: Clue) -> Finding | None:
    """F.dropout that does not ask whether the model is being trained."""
    for call in calls(clue.site.nodes(), *_DROPS):
        asked = [k for k in call.keywords if k.arg == "training"] or call.args[2:3]
        functional = "functional" in dotted(call.func) or dotted(call.func).startswith("F.")
        if functional and not asked:
            return Finding("dropout that is always on", f"say when: `{shown(call)[:-1]}, training=self.training)`")
    return None


def drawn(clue: Clue) -> Finding | None:
    """Random numbers of PyTorch's."""
    for call in calls(clue.site.nodes(), *_DRAWS):
        if dotted(call.func).startswith("torch.") or name_of(call).endswith("_"):
            return Finding("random numbers in forward", f"draw only while training (`if self.training:`): `{shown(call, 60)}`")
    return None


def hidden(clue: Clue) -> Finding | None:
    """`.data`, which torch.export may record as a constant."""
    statement = clue.site.statement
    if statement is None or not any(isinstance(n, ast.Attribute) and n.attr == "data" for n in clue.site.nodes()):
        return None
    rewritten = replaced(statement, lambda n: n.value if isinstance(n, ast.Attribute) and n.attr == "data" else None)
    return Finding("a tensor's .data", f"use the tensor, or .detach(): `{shown(rewritten)}`")


def remembered(clue: Clue) -> Finding | None:
    """An attribute that one call leaves to the next."""
    for node in clue.site.nodes():
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and dotted(node).startswith("self."):
            return Finding(f"state kept in {shown(node)} from one call to the next", f"keep it in a variable instead of {shown(node)}")
    return None


def one_row(clue: Clue) -> Finding | None:
    """A branch on whether there is one row."""
    for node in clue.site.nodes():
        sizes = [n for n in ast.walk(node) if isinstance(n, ast.Subscript) and dotted(n.value).endswith(".shape") and is_zero(n.slice)]
        if isinstance(node, ast.Compare) and (sizes or calls(ast.walk(node), "size", "len")):
            return Finding("a Python branch on the number of rows", "write one expression that holds for any number of rows")
    return None


def squeezed(clue: Clue) -> Finding | None:
    """squeeze() of every dimension of size 1, of the rows too when there is one."""
    for call in calls_of(clue.site):
        if name_of(call) != "squeeze" or call.keywords:
            continue
        inner = receiver(call)
        if inner is not None and dotted(inner) == "torch" and len(call.args) == 1:
            inner = call.args[0]
        elif call.args or inner is None:
            continue
        return Finding("squeeze() without a dimension", f"say which dimension: `{shown(kept(inner), 60)}.squeeze(-1)`")
    return None


def switched(clue: Clue) -> Finding | None:
    """Modes switched in forward."""
    for call in calls_of(clue.site):
        if name_of(call) in {"train", "eval"} and dotted(call.func).startswith("self"):
            return Finding(f".{name_of(call)}() called in forward", "switch modes before forward is called, not in it")
    return None


_RULES: tuple[Rule, ...] = (always_dropped, drawn, random_numbers, hidden, remembered, one_row, squeezed, switched)
