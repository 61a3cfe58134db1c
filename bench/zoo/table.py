"""Outcomes as the page `docs/compatibility.md`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from .outcome import VERDICTS, Outcome

_LONGEST = 300
_INTRODUCTION = """\
# Compatibility

Which third-party recommenders `liftgate.export` takes as they are, and whether the ONNX file it writes says what PyTorch says.
This page is written by the command below; do not edit it.

Every model has random weights and is exported by `liftgate.export(module, example_inputs=...)` with seven example rows, in a
process of its own. Then the file is opened in ONNX Runtime without liftgate and compared with the eager module on rows drawn
afresh: 1, 2, 7 and 64 of them, three times each, and with shorter histories where the file says that their length varies. Every
output is compared, element by element: |onnx - torch| <= 1e-4 + 1e-3 |torch| (where an output spreads by less than 0.01, 1 % of
its spread takes the place of 1e-4).

- **equal**: the file agrees on every one of those calls. What the usual way refuses is tried once more with `fallback="torchscript"`,
  and says so where only that wrote a file.
- **refused**: export raised an error that says what is in the way; no file was written.
- **wrong**: a file was written that disagrees or does not run. There must be none.
- **crashed**: export raised something else, died, or took more than three minutes.
"""


def render(outcomes: Sequence[Outcome], versions: Sequence[str], command: str) -> str:
    """The whole page as Markdown."""
    packages = list(dict.fromkeys(outcome.package for outcome in outcomes))
    parts = [
        _INTRODUCTION,
        "```console",
        f"$ {command}",
        "```",
        "",
        "; ".join(versions),
        "",
        "## Summary",
        "",
        *_summary(outcomes, packages),
    ]
    for package in packages:
        parts += ["", f"## {package}", "", *_table([outcome for outcome in outcomes if outcome.package == package])]
    return "\n".join(parts) + "\n"


def _summary(outcomes: Sequence[Outcome], packages: Sequence[str]) -> list[str]:
    lines = [f"| package | models | {' | '.join(VERDICTS)} | share equal | of these by fallback |", f"|---|{'---|' * (len(VERDICTS) + 3)}"]
    for package in packages:
        lines.append(_counts(package, [outcome for outcome in outcomes if outcome.package == package]))
    return [*lines, _counts("all", outcomes)]


def _counts(name: str, outcomes: Sequence[Outcome]) -> str:
    counts = Counter(outcome.verdict for outcome in outcomes)
    numbers = " | ".join(str(counts[verdict]) for verdict in VERDICTS)
    share = f"{100 * counts['equal'] / len(outcomes):.0f} %"
    fallbacks = sum(outcome.fallback and outcome.verdict == "equal" for outcome in outcomes)
    return f"| {name} | {len(outcomes)} | {numbers} | {share} | {fallbacks} |"


def _table(outcomes: Sequence[Outcome]) -> list[str]:
    lines = ["| model | kind | outcome | checked, or why not | nodes | export s |", "|---|---|---|---|---|---|"]
    for outcome in outcomes:
        nodes = str(outcome.nodes) if outcome.nodes else ""
        seconds = f"{outcome.export_seconds:.1f}" if outcome.export_seconds else ""
        lines.append(f"| {outcome.name} | {outcome.kind} | {outcome.verdict} | {_cell(_said(outcome))} | {nodes} | {seconds} |")
    return lines


def _said(outcome: Outcome) -> str:
    by = "through TorchScript only: " if outcome.fallback else ""
    if outcome.verdict != "equal":
        return by + outcome.reason
    histories = sorted({c.history for c in outcome.compared}, reverse=True)
    rows = ", ".join(str(n) for n in sorted({c.rows for c in outcome.compared}))
    worst = max(c.difference for c in outcome.compared)
    lengths = f"; histories of {', '.join(str(n) for n in histories)}" if len(histories) > 1 else ""
    notes = [_shortened(note, 110) for note in (*dict.fromkeys(c.against for c in outcome.compared if c.against), *outcome.warnings)]
    return "; ".join([f"{by}{rows} rows{lengths}; differs by at most {worst:.1g}", *notes])


def _cell(text: str) -> str:
    """One line without what would end a table's cell or begin a tag."""
    return _shortened(text, _LONGEST).replace("|", "\\|").replace("<", "&lt;")


def _shortened(text: str, longest: int) -> str:
    """One line, cut at a word."""
    line = re.sub(r"\s+", " ", text).strip()
    return line if len(line) <= longest else line[:longest].rsplit(" ", 1)[0] + " …"
