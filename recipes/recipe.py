"""A recipe: named steps that make a model faster, as frozen types read from TOML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec

from ..core.config import explain, read_toml
from ..core.errors import InputError, UnknownName
from ..core.session_defaults import SessionDefaults
from .steps import Step

OnRefusal = Literal["stop", "skip"]
_SHIPPED = Path(__file__).parent / "shipped"


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Steps to apply in order, and how to run the result (one of both may be missing); `name@version` is what a manifest says made it.

    `on_refusal = "skip"` leaves out a step that refuses (it finds nothing to do, or does not fit the model), as long as another one works;
    the artifact's warnings say which and why. Otherwise, and for the kinds in `required`, a refusal ends the recipe: a model that is called
    int8 has to be int8.
    """

    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._+-]{0,60}$")]
    version: Annotated[int, msgspec.Meta(ge=1)]
    description: str
    steps: tuple[Step, ...] = ()
    on_refusal: OnRefusal = "stop"
    required: tuple[str, ...] = ()
    session: SessionDefaults | None = None

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}"


class _Written(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recipe as it stands in the file, its steps not looked at yet, so that an error can say which one it is about."""

    name: str
    version: int
    description: str
    steps: tuple[dict[str, object], ...] = ()
    on_refusal: str = "stop"
    required: tuple[str, ...] = ()
    session: SessionDefaults | None = None


_KINDS: dict[str, type[Step]] = {str(kind.__struct_config__.tag): kind for kind in get_args(Step)}


def shipped_recipes() -> list[Recipe]:
    """The recipes that come with liftgate, by name."""
    return [_read(path) for path in sorted(_SHIPPED.glob("*.toml"))]


def read_recipe(name_or_path: str | Path) -> Recipe:
    """A shipped recipe by name, or one from a TOML file.

    Raises UnknownName for a name that is neither, and for a key that the format lacks: `int8.toml: step 2: unknown key 'wieghts'`.
    """
    text = str(name_or_path)
    shipped = {path.stem: path for path in _SHIPPED.glob("*.toml")}
    if text in shipped:
        return _read(shipped[text])
    if text.endswith(".toml") or _is_file(text):
        return _read(Path(text))
    raise UnknownName("recipes", "recipe", text, shipped, fix="or give the path of a .toml file")


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # longer than the system lets a name be
        return False


def _read(path: Path) -> Recipe:
    where = path.name if path.parent == _SHIPPED else str(path)
    written = read_toml(path, _Written)
    for kind in written.required:
        if kind not in {raw.get("kind") for raw in written.steps}:
            raise UnknownName(f"{where}: required", "kind of its steps", kind, [str(raw.get("kind")) for raw in written.steps])
    steps = tuple(_step(raw, f"{where}: step {number}") for number, raw in enumerate(written.steps, start=1))
    body = {
        "name": written.name,
        "version": written.version,
        "description": written.description,
        "on_refusal": written.on_refusal,
        "required": written.required,
    }
    try:
        msgspec.convert({**body, "steps": written.steps}, Recipe)
    except msgspec.ValidationError as error:
        raise explain(str(error), Recipe, where) from None
    if not steps and written.session is None:
        raise InputError.mismatch(f"{where}: steps", expected="a step (length >= 1), or a [session]", found="neither")
    return Recipe(**body, steps=steps, session=written.session)  # type: ignore[arg-type]  # converted above


def recipe_text(recipe: Recipe) -> str:
    """`recipe` as TOML that `read_recipe` reads back to an equal value."""
    lines = [f"{key} = {_literal(value)}" for key, value in (("name", recipe.name), ("version", recipe.version))]
    lines.append(f"description = {_literal(recipe.description)}")
    if recipe.on_refusal != "stop":
        lines.append(f"on_refusal = {_literal(recipe.on_refusal)}")
    if recipe.required:
        lines.append(f"required = {_literal(list(recipe.required))}")
    for step in recipe.steps:
        plain = msgspec.to_builtins(step)
        lines += ["", "[[steps]]", *(f"{key} = {_literal(value)}" for key, value in plain.items() if value is not None)]
    if recipe.session is not None:
        plain = msgspec.to_builtins(recipe.session)
        lines += ["", "[session]", *(f"{key} = {_literal(value)}" for key, value in plain.items() if value is not None)]
    return "\n".join([*lines, ""])


def _literal(value: object) -> str:
    # JSON and TOML differ in two things: TOML has no surrogate pairs, and wants the delete character escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _step(raw: dict[str, object], where: str) -> Step:
    kind = raw.get("kind")
    if kind is None:
        raise InputError.mismatch(where, expected=f"a kind ({', '.join(_KINDS)})", found="none")
    if not isinstance(kind, str):
        raise InputError.mismatch(f"{where}: kind", expected=f"one of {', '.join(_KINDS)}", found=repr(kind))
    if kind not in _KINDS:
        raise UnknownName(where, "kind", kind, _KINDS)
    step_type = _KINDS[kind]
    try:
        return msgspec.convert(raw, step_type)
    except msgspec.ValidationError as error:
        raise explain(str(error), step_type, where) from None
