"""Artifacts, models and recipes as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.artifact import Manifest, ModelArtifact
from ..core.signature import InputSpec
from ..recipes.recipe import Recipe
from .describe_cost import cost_text, tables_text
from .drawing import WIDTH, shape_text, size_text, table_text, wrapped, wrapped_items
from .inspection import Inspection

_COLUMNS_SHOWN = 3


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
            moved = f"largest change of an output {numbers['max_abs_difference']:.3g}{ranks} on {numbers['rows_compared']:.0f} sample rows"
            lines.append(f"    {size_text(before)} -> {size_text(after)}; {moved}")
    if manifest.checks:
        lines.append(f"  ok: {_checks_text([check.name for check in manifest.checks])}")
    lines.extend(f"  warning: {warning}" for warning in manifest.warnings)
    lines.append(f"next: optimize inspect {manifest.name}   or   profile compare BASE {manifest.name}")
    return "\n".join(lines)


def _checks_text(names: Sequence[str]) -> str:
    """Names of checks in one line; those that begin alike, up to ` at `, are said once."""
    groups: dict[str, list[str]] = {}
    for name in names:
        what, _, at = name.partition(" at ")
        groups.setdefault(what, []).extend([at] if at else [])
    return "; ".join(f"{what} at {', '.join(places)}" if places else what for what, places in groups.items())


def inspection_text(seen: Inspection, width: int = WIDTH) -> str:
    """Everything that is known about a model, at most `width` columns wide."""
    manifest = seen.manifest
    origin = f"from {seen.source}, " if manifest is not None else ""
    roles = seen.roles_from if seen.cost.roles_known else "roles unknown"
    facts = f"{origin}layout {seen.signature.layout}, {roles}, opset {seen.opset}"
    lines = [
        f"{seen.name}  {manifest.digest[:12]}" if manifest is not None and seen.stored else f"{seen.name}, not in the store",
        wrapped(facts, width),
        f"{size_text(seen.size_bytes)}, {seen.parameters:,} parameters",
        "",
        _signature_table(seen, width),
        "",
    ]
    if seen.cost.tables:
        lines += [tables_text(seen.cost.tables, width), ""]
    lines += [cost_text(seen.cost, width), ""]
    lines.append(wrapped_items("operators", [f"{name} {count}" for name, count in seen.operators.items()], width))
    if manifest is not None:
        lines += ["", _history_text(manifest, seen.lineage, width)]
    return "\n".join(lines)


def _signature_table(seen: Inspection, width: int) -> str:
    rows = list[tuple[str, ...]]()
    for spec in seen.signature.inputs:
        rows.append((spec.name, spec.dtype, shape_text(spec.shape), spec.role, _table_rows_text(spec)))
    score = seen.signature.score
    for output in seen.signature.outputs:
        ranked = score is not None and score.output == output.name
        role = "output" if not ranked else "score" if score is None or score.column is None else f"score: column {score.column}"
        rows.append((output.name, output.dtype, shape_text(output.shape), role, "-"))
    header = ("name", "dtype", "shape", "role", "rows of its table")
    return table_text(header, rows, width, title="Inputs and outputs", right=header[-1:], flexible=("name", "shape"))


def _table_rows_text(spec: InputSpec) -> str:
    """`50`, `50, 30, ? in 3 columns`, `-` for an input without ids."""
    if spec.rows_of_table is not None:
        return f"{spec.rows_of_table:,}"
    columns = [column for column in spec.id_columns if column.column is not None]
    if not columns:
        return "?" if spec.id_columns else "-"
    sizes = ["?" if column.rows_of_table is None else f"{column.rows_of_table:,}" for column in columns]
    shown = [*sizes[:_COLUMNS_SHOWN], *(["…"] if len(sizes) > _COLUMNS_SHOWN else [])]
    return f"{', '.join(shown)} in {len(columns)} column{'s' * (len(columns) != 1)}"


def _history_text(manifest: Manifest, lineage: Sequence[Manifest], width: int) -> str:
    """Lineage, steps, checks and warnings of an artifact."""
    lines = ["lineage:"] if lineage else []
    lines.extend(f"  {one.name}  {one.digest[:12]}  {one.recipe or 'export'}" for one in reversed(lineage))
    if lineage and lineage[-1].parent is not None:
        lines.append(f"  (its parent {lineage[-1].parent[:12]} is no longer in the store)")
    lines.append("steps:")
    lines.extend(
        wrapped(f"{number}. {step.kind}: {step.summary}", width, indent="  ") for number, step in enumerate(manifest.steps, start=1)
    )
    if manifest.checks:
        lines.append("checks:")
        lines.extend(
            wrapped(f"{'ok' if check.passed else 'FAILED'}: {check.name} ({check.detail})", width, indent="  ") for check in manifest.checks
        )
    if manifest.warnings:
        lines.append("notes:")
        lines.extend(wrapped(warning, width, indent="  ") for warning in manifest.warnings)
    lines.append(wrapped_items("made with", [f"{tool} {version}" for tool, version in manifest.tools.items()], width))
    return "\n".join(lines)


def recipes_table(recipes: Sequence[Recipe]) -> str:
    """One line per recipe."""
    steps = [", ".join(str(step.__struct_config__.tag) for step in recipe.steps) for recipe in recipes]
    rows = [(recipe.label, names, recipe.description) for recipe, names in zip(recipes, steps, strict=True)]
    return table_text(("recipe", "steps", "what it does"), rows)
