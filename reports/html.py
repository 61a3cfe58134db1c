"""A report as one HTML page that loads nothing: style, script and charts are inside it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from . import document
from .result import Report
from .table import outcome_tone

_TEMPLATES = Path(__file__).parent / "templates"


@cache
def _environment() -> Environment:
    loader = FileSystemLoader(_TEMPLATES)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(
        headline=document.headline,
        ordered=document.ordered,
        tone_of=outcome_tone,
        style=Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup((_TEMPLATES / "page.js").read_text(encoding="utf-8")),
    )
    return environment


def html(report: Report) -> str:
    """The whole page; every value is escaped, whatever a model is called."""
    return _environment().get_template("report.html.j2").render(report=report, sections=document.sections(report))
