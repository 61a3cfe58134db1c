"""Artifacts and recipes as text for the terminal."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..core.artifact import Manifest, ModelArtifact
from ..recipes.recipe import Recipe

_WIDTH = 120


def result_text(artifact: ModelArtifact) -> str:
    """What a command made: name, size, what the last step did, and how the scores moved."""
    manifest = artifact.manifest
    lines = [f"{manifest.name}  {manifest.digest[:12]}  {size_text(artifact.size_bytes)}, {manifest.parameters:,} parameters"]
    steps = [step for step in manifest.steps if step.kind != "export"] or list(manifest.steps)
    for step in steps:
        lines.append(f"  {step.kind}: {step.summary}")
        numbers = step.numbers
        if "max_abs_difference" in numbers:
            ranks = f", rank correlation {numbers['spearman']:.4f}" if "spearman" in numbers else ""
            before, after = numbers["size_bytes_before"], numbers["size_bytes_after"]
            moved = f"scores moved by at most {numbers['max_abs_difference']:.3g}{ranks} on {numbers['rows_compared']:.0f} rows"
            lines.append(f"    {size_text(before)} -> {size_text(after)}; {moved}")
    lines.extend(f"  ok: {check.name} ({check.detail})" for check in manifest.checks)
    lines.append(f"next: optimize inspect {manifest.name}   or   profile compare BASE {manifest.name}")
    return "\n".join(lines)


def artifact_text(artifact: ModelArtifact, operators: Mapping[str, int], lineage: Sequence[Manifest]) -> str:
    """Everything a manifest says, and which operators the graph holds."""
    manifest = artifact.manifest
    inputs = Table(title="Inputs and outputs", title_justify="left")
    for column in ("name", "dtype", "shape", "role", "rows of its table"):
        inputs.add_column(column)
    for spec in manifest.signature.inputs:
        rows = f"{spec.rows_of_table:,}" if spec.rows_of_table is not None else "-"
        inputs.add_row(spec.name, spec.dtype, _shape(spec.shape), spec.role, rows)
    for output in manifest.signature.outputs:
        inputs.add_row(output.name, output.dtype, _shape(output.shape), "output", "-")
    lines = [
        f"{manifest.name}  {manifest.digest}",
        f"from {manifest.source}, layout {manifest.signature.layout}, opset {manifest.opset}",
        f"{size_text(artifact.size_bytes)}, {manifest.parameters:,} parameters",
        "",
        _drawn(inputs),
        "operators: " + ", ".join(f"{name} {count}" for name, count in operators.items()),
        "",
        "lineage:",
    ]
    lines.extend(f"  {one.name}  {one.digest[:12]}  {one.recipe or 'export'}" for one in reversed(lineage))
    if lineage and lineage[-1].parent is not None:
        lines.append(f"  (its parent {lineage[-1].parent[:12]} is no longer in the store)")
    lines.append("steps:")
    lines.extend(f"  {number}. {step.kind}: {step.summary}" for number, step in enumerate(manifest.steps, start=1))
    if manifest.checks:
        lines.append("checks:")
        lines.extend(f"  {'ok' if check.passed else 'FAILED'}: {check.name} ({check.detail})" for check in manifest.checks)
    lines.append("made with " + ", ".join(f"{tool} {version}" for tool, version in manifest.tools.items()))
    return "\n".join(lines)


def recipes_table(recipes: Sequence[Recipe]) -> str:
    """One line per recipe."""
    table = Table()
    for column in ("recipe", "steps", "what it does"):
        table.add_column(column)
    for recipe in recipes:
        table.add_row(recipe.label, ", ".join(str(step.__struct_config__.tag) for step in recipe.steps), recipe.description)
    return _drawn(table)


def size_text(size_bytes: float) -> str:
    """`45.3 KiB`, `1.20 MiB`."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.3g} {unit}"
    return f"{size_bytes:.0f} B"


def _shape(shape: Sequence[int | str]) -> str:
    return escape("[" + ", ".join(str(dim) for dim in shape) + "]")


def _drawn(table: Table) -> str:
    console = Console(file=io.StringIO(), width=_WIDTH, no_color=True)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip("\n")
