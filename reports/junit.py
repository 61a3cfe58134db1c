"""A gate's verdict as JUnit XML, which GitLab, Jenkins and most CI systems show as a list of tests.

FAIL is a failure, INVALID an error, UNDECIDED skipped; a gate of level "warn" that does not pass is skipped, because a red test would
contradict the exit code. Elements and attributes are those of Jenkins' junit-10.xsd.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from ..core.verdict import Finding, Outcome
from .document import headline, sentence
from .gate import GateResult

# What XML 1.0 cannot hold, however it is escaped.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ELEMENT = {Outcome.FAIL: "failure", Outcome.INVALID: "error", Outcome.UNDECIDED: "skipped"}


def junit(result: GateResult) -> bytes:
    """One test per gate, in the budget's order."""
    findings, comparison = result.verdict.findings, result.comparison
    kinds = [_kind(f) for f in findings]
    counts = {"tests": str(len(findings)), "failures": str(kinds.count("failure")), "errors": str(kinds.count("error"))}
    name = f"{result.judged.subject} {result.judged.against}"
    root = ET.Element("testsuites", {"name": "liftgate", "time": f"{comparison.seconds:.3f}", **counts})
    about = {"name": _legal(name), **counts, "skipped": str(kinds.count("skipped")), "time": f"{comparison.seconds:.3f}"}
    suite = ET.SubElement(root, "testsuite", {**about, "timestamp": comparison.started_at[:19], "hostname": comparison.machine.fingerprint})
    properties = ET.SubElement(suite, "properties")
    for key, value in _properties(result):
        ET.SubElement(properties, "property", {"name": key, "value": _legal(value)})
    # Dots would make Jenkins cut the names of models into packages.
    group = f"liftgate.{_legal(name).replace('.', '_').replace(' ', '-')}"
    for finding, kind in zip(findings, kinds, strict=True):
        _case(suite, finding, kind, group)
    ET.SubElement(suite, "system-out").text = _legal("\n".join((f"{result.verdict.outcome}: {headline(result.judged)}", *result.advice())))
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _kind(finding: Finding) -> str | None:
    """The element that says how a gate ended; None for PASS."""
    kind = _ELEMENT.get(finding.outcome)
    return "skipped" if kind is not None and finding.level == "warn" else kind


def _case(suite: ET.Element, finding: Finding, kind: str | None, group: str) -> None:
    case = ET.SubElement(suite, "testcase", {"name": _legal(finding.gate), "classname": group})
    warned = " (warning only)" if finding.level == "warn" else ""
    if kind is not None:
        message = _legal(f"{finding.outcome}{warned}: {finding.reason}")
        ET.SubElement(case, kind, {"type": finding.outcome.value, "message": message}).text = _legal(sentence(finding) + warned)
    else:
        ET.SubElement(case, "system-out").text = _legal(f"{finding.outcome} {sentence(finding)}{warned}")


def _properties(result: GateResult) -> list[tuple[str, str]]:
    comparison = result.comparison
    found = [
        ("verdict", result.verdict.outcome.value),
        ("exit_code", str(result.exit_code)),
        ("control", f"{comparison.control.name} {comparison.control.digest}"),
        ("treatment", f"{result.candidate.model.name} {result.candidate.model.digest}"),
        ("machine", f"{comparison.machine.cpu} ({comparison.machine.fingerprint})"),
        *((f"label.{i.name}", i.label) for i in comparison.instances),
        ("seed", str(comparison.seed)),
        ("samples_sha256", comparison.samples_sha256 or ""),
        ("command", result.command),
    ]
    return [(key, value) for key, value in found if value]


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
