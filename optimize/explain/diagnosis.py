"""What a user is told when PyTorch cannot export a model: the line of their code, the construct on it, and the smallest change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .constructs import recognise, search
from .finding import Clue, Finding
from .places import Place, Site, chain, in_guards, in_stack, in_text, in_traceback, look

if TYPE_CHECKING:
    import torch

_SENTENCE_LIMIT = 300
_NOISE = re.compile(r"File |Hint:|Developer debug|For |from user code|Caused by|User [Ss]tack|\^|consider using|class |def |#")
_UNHELPFUL = re.compile(
    r"https?://\S+|\(unhinted: .*?\)|\(Size-like symbols: .*?\)|<[^<>]* at 0x[0-9a-f]+>|For more information, .*|^\w+: (?=\S)|Explanation: "
)
# The sentence inside the sentence: what an operator said when torch.compile's tracer ran it, or what became of the number of rows.
_TELLING = (
    re.compile(r"got \w+\([\"'](.+)[\"']\)"),
    re.compile(r"raised exception \w+\([\"'](.+)[\"']\)"),
    re.compile(r"(your code specialized it to be a constant \(\d+\))"),
    re.compile(r"(Not all values of .+)"),
)
_FALLBACK = "or export it with `--fallback torchscript`, which keeps its meaning and is checked the same way"


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """Why a model cannot be exported.

    `file` is without folders, `name` is class and method, `code` the source of the line; `file` is None where the error points to no code
    of the user's, `construct` is empty where it is not known. `reason` is PyTorch's own sentence. `sound_with_torchscript` says that
    TorchScript represents this construct truthfully for every input, not that it can do so for the rest of the model.
    """

    file: str | None
    line: int | None
    name: str = ""
    code: str
    construct: str
    change: str
    sound_with_torchscript: bool
    reason: str


def diagnose(error: BaseException, module: torch.nn.Module) -> Diagnosis:
    """Explain what torch.export raised for `module`, strict or not; an error that was raised while another was handled explains both."""
    found = _located(error)
    if found is not None:
        site, message = found
        finding = recognise(Clue(site, message, module))
        if finding is not None or "Constraints violated" not in message:
            return _diagnosis(site, finding, message, module)
    message = "\n".join(str(part) for part in chain(error))
    searched = search(Clue(Site(Place("", 0), "", ""), message, module))
    if searched is not None:
        return _diagnosis(*searched, message, module)
    return _diagnosis(found[0], None, found[1], module) if found is not None else _without_line(error)


def text(diagnosis: Diagnosis, where: str) -> tuple[str, str, str]:
    """Where, problem and fix of an InputError; `where` names the model in case there is no line."""
    place = f"{diagnosis.file}:{diagnosis.line}" + (f" in {diagnosis.name}" if diagnosis.name else "") if diagnosis.file else where
    at = f": `{diagnosis.code}`" if diagnosis.code else ""
    if diagnosis.construct:
        problem = f"torch.export cannot record {diagnosis.construct}{at}"
    else:
        problem = f"torch.export stops here{at} ({diagnosis.reason})" if at else f"torch.export cannot export it ({diagnosis.reason})"
    fix = f"{diagnosis.change}; {_FALLBACK}" if diagnosis.sound_with_torchscript else diagnosis.change
    return place, problem, fix


def _located(error: BaseException) -> tuple[Site, str] | None:
    """The line and the text of the error that names it: a line that was run goes before one that is only quoted."""
    for find in (in_traceback, lambda part: in_text(str(part)), in_stack, in_guards):
        for part in chain(error):
            place = find(part)
            if place is not None:
                below = "\n".join(f"{type(p).__name__}: {p}" for p in chain(part))
                return look(place), below
    return None


def _diagnosis(site: Site, finding: Finding | None, message: str, module: torch.nn.Module) -> Diagnosis:
    reason = sentence(message)
    known = finding or Finding("", "see that the line runs in plain PyTorch on these inputs, and write it with tensor operations alone")
    return Diagnosis(
        file=Path(site.place.path).name,
        line=site.place.line,
        name=site.name,
        code=site.code,
        construct=known.construct,
        change=known.change,
        sound_with_torchscript=known.keeps == "trace" or (known.keeps == "script" and _scripts(module)),
        reason=reason,
    )


def _scripts(module: torch.nn.Module) -> bool:
    from ..convert.torchscript import can_script  # noqa: PLC0415 - compiles the model

    return can_script(module)


def _without_line(error: BaseException) -> Diagnosis:
    message = str(error)
    construct, change = "", "see that forward takes and returns tensors only, and works for any number of rows"
    if "Unsupported input type" in message or "pytree-flattenable" in message:
        construct = "an argument that is no tensor"
        change = "give forward tensors (or lists, tuples and dicts of them); set anything else in __init__"
    elif "in output, which is not a known type" in message:
        construct, change = "an output that is no tensor", "return a tensor, or a tuple or dict of tensors"
    return Diagnosis(
        file=None, line=None, code="", construct=construct, change=change, sound_with_torchscript=False, reason=sentence(message)
    )


def sentence(message: str) -> str:
    """PyTorch's own first useful sentence, at most 300 characters."""
    inner = next((m for m in (pattern.search(message) for pattern in _TELLING) if m is not None), None)
    for line in (inner[1] if inner else "", *message.splitlines()):
        cleaned = _UNHELPFUL.sub("", line).strip(" -\t")
        if len(cleaned) > 8 and not _NOISE.match(cleaned):
            return cleaned if len(cleaned) <= _SENTENCE_LIMIT else f"{cleaned[: _SENTENCE_LIMIT - 3]}..."
    return message.strip()[:_SENTENCE_LIMIT] or "no reason given"
