"""`optimize`: export a model, make it faster, look at it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import JsonOption, StoreOption, door, progress_bar, say, write_json

if TYPE_CHECKING:
    from ..core.artifact import ModelArtifact
    from ..core.store import Store
    from ..recipes.recipe import Recipe

app = typer.Typer(
    name="optimize",
    help="Export a PyTorch ranker and make it faster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A name in the store, or what `export` takes: model.pt, model.onnx, train.py:make_model.")
]
NameOption = Annotated[str | None, typer.Option("--name", help="Name of the result in the store.")]
RequestsOption = Annotated[Path | None, typer.Option("--requests", metavar="FILE", help="requests.parquet to check and calibrate on.")]


@app.command("export")
@door
def export_command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="model.pt (torch.export), model.onnx, package.module:factory or train.py:factory.")
    ],
    name: NameOption = None,
    weights: Annotated[Path | None, typer.Option("--weights", metavar="FILE", help="A state_dict for the factory's model.")] = None,
    requests: RequestsOption = None,
    request_inputs: Annotated[
        str | None, typer.Option("--request-inputs", metavar="A,B", help="Inputs with one value per request (user, context, history).")
    ] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Unpickle the file: it may run any code. Only for files you made.")
    ] = False,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """Turn a PyTorch ranker into an artifact, checked against PyTorch at 1, 2 and 256 rows."""
    from .export import export  # noqa: PLC0415 - --help must not wait for torch

    chosen = name or _default_name(model)
    inputs = [part.strip() for part in request_inputs.split(",") if part.strip()] if request_inputs is not None else None
    with progress_bar() as progress:
        artifact = export(
            model,
            name=chosen,
            store=_store(store),
            requests=requests,
            weights=weights,
            request_inputs=inputs,
            trust_pickle=trust_pickle,
            progress=progress,
        )
    _tell(artifact, json_path)


@app.command()
@door
def quantize(
    model: ModelArgument,
    int8: Annotated[bool, typer.Option("--int8", help="8-bit weights and activations (the only kind so far).")] = False,
    static: Annotated[bool, typer.Option("--static", help="Calibrate activation ranges on --requests; needs the PyTorch model.")] = False,
    per_channel: Annotated[bool, typer.Option("--per-channel/--per-tensor", help="One weight scale per output, or per matrix.")] = True,
    reduce_range: Annotated[bool, typer.Option("--reduce-range/--full-range", help="7-bit weights: safe on CPUs without VNNI.")] = True,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", metavar="NODE", help="Leave this node alone (repeatable).")] = None,
    name: NameOption = None,
    requests: RequestsOption = None,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """Quantize MatMul and Gemm to int8; embedding tables are left alone."""
    from ..core.errors import InputError  # noqa: PLC0415 - msgspec and friends only when something is done
    from ..recipes.recipe import QuantizeDynamic, QuantizeStatic, Recipe  # noqa: PLC0415

    if not int8:
        raise InputError.mismatch("optimize quantize", expected="a precision", found="none", fix="add --int8")
    if static and requests is None:
        raise InputError.mismatch(
            "optimize quantize --static", expected="requests to calibrate on", found="none", fix="add --requests FILE"
        )
    if static and not per_channel:
        fix = "leave --per-tensor out: only dynamic quantization has this choice"
        raise InputError.mismatch("optimize quantize --static", expected="no granularity", found="--per-tensor", fix=fix)
    left_alone = tuple(exclude or ())
    step = (
        QuantizeStatic(reduce_range=reduce_range, exclude=left_alone)
        if static
        else QuantizeDynamic(per_channel=per_channel, reduce_range=reduce_range, exclude=left_alone)
    )
    recipe = Recipe(name="int8-static" if static else "int8", version=1, description="from the command line", steps=(step,))
    _apply(recipe, model, name=name, requests=requests, store=store, json_path=json_path)


@app.command()
@door
def prune(
    model: ModelArgument,
    keep: Annotated[float, typer.Option("--keep", metavar="SHARE", help="Share of each hidden layer's units to keep, between 0 and 1.")],
    multiple_of: Annotated[int, typer.Option("--multiple-of", help="Round the units kept up to a multiple of this.")] = 8,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", metavar="LAYER", help="Leave this layer alone (repeatable).")] = None,
    name: NameOption = None,
    requests: RequestsOption = None,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """Remove the least important hidden units, so that the matrices really become smaller."""
    from ..recipes.recipe import Prune, Recipe  # noqa: PLC0415

    step = Prune(keep=keep, multiple_of=multiple_of, exclude=tuple(exclude or ()))
    recipe = Recipe(name=f"prune-{keep:g}", version=1, description="from the command line", steps=(step,))
    _apply(recipe, model, name=name, requests=requests, store=store, json_path=json_path)


@app.command("apply")
@door
def apply_command(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe (see `optimize recipes`) or a .toml file.")],
    model: ModelArgument,
    name: NameOption = None,
    requests: RequestsOption = None,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """Apply a recipe and write the result as a new artifact."""
    from ..recipes.recipe import read_recipe  # noqa: PLC0415 - as above

    _apply(read_recipe(recipe), model, name=name, requests=requests, store=store, json_path=json_path)


@app.command()
@door
def recipes(json_path: JsonOption = None) -> None:
    """List the shipped recipes."""
    from ..recipes.recipe import shipped_recipes  # noqa: PLC0415 - as above
    from .describe import recipes_table  # noqa: PLC0415

    found = shipped_recipes()
    say(recipes_table(found), json_path=json_path)
    write_json(found, json_path)


@app.command()
@door
def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name in the store or an artifact's path.")], store: StoreOption = None
) -> None:
    """Show a model's inputs with roles, size, operators, lineage and checks."""
    from .describe import artifact_text  # noqa: PLC0415 - as above
    from .onnx_graph import histogram_of, load  # noqa: PLC0415

    place = _store(store)
    artifact = place.resolve(model)
    say(artifact_text(artifact, histogram_of(load(artifact.model_path)), place.lineage(artifact)))


def _apply(recipe: Recipe, model: str, *, name: str | None, requests: Path | None, store: Path | None, json_path: str | None) -> None:
    from .apply import apply  # noqa: PLC0415 - as above

    with progress_bar() as progress:
        artifact = apply(recipe, model, name=name, requests=requests, store=_store(store), progress=progress)
    _tell(artifact, json_path)


def _tell(artifact: ModelArtifact, json_path: str | None) -> None:
    from .describe import result_text  # noqa: PLC0415 - as above

    say(result_text(artifact), json_path=json_path)
    write_json(artifact.manifest, json_path)


def _store(path: Path | None) -> Store:
    from ..core.store import Store  # noqa: PLC0415 - as above

    return Store.of(path)


def _default_name(model: str) -> str:
    """`v1.1` of `runs/v1.1.pt`, `make_model` of `train.py:make_model`."""
    file, colon, factory = model.rpartition(":")
    return factory if colon and file and factory.isidentifier() else Path(model).stem
