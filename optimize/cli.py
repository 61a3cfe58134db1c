"""`optimize`: export a model, make it faster, look at it."""

from __future__ import annotations

import enum
import shutil
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


class FallbackChoice(enum.StrEnum):
    """Ways to convert what torch.export cannot."""

    TORCHSCRIPT = "torchscript"


@app.command("export")
@door
def export_command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model file, package.module:factory, train.py:factory, or a Hugging Face folder.")
    ],
    name: NameOption = None,
    weights: Annotated[Path | None, typer.Option("--weights", metavar="FILE", help="A state_dict for the factory's model.")] = None,
    requests: RequestsOption = None,
    examples: Annotated[
        Path | None, typer.Option("--examples", metavar="FILE", help="inputs.npz with an array per input, where there are no requests.")
    ] = None,
    request_inputs: Annotated[
        str | None, typer.Option("--request-inputs", metavar="A,B", help="Inputs with one value per request (user, context, history).")
    ] = None,
    score: Annotated[
        str | None, typer.Option("--score", metavar="OUTPUT", help="What to rank by when a model has several outputs: ctr, or 'output[1]'.")
    ] = None,
    fallback: Annotated[
        FallbackChoice | None, typer.Option("--fallback", help="Convert through TorchScript what torch.export cannot, where that is sound.")
    ] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Unpickle the file: it may run any code. Only for files you made.")
    ] = False,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """Turn a recommender into an artifact, checked against the original at 1, 2, 7 and 256 rows.

    MODEL is a torch.export archive, a TorchScript archive, an ONNX file, a Hugging Face folder, or code that builds a module
    (with --weights, a state_dict or safetensors file). What a file is follows from its content, not its name.
    """
    from .export import export  # noqa: PLC0415 - --help must not wait for torch
    from .naming import default_name  # noqa: PLC0415

    chosen = name or default_name(model)
    inputs = [part.strip() for part in request_inputs.split(",") if part.strip()] if request_inputs is not None else None
    with progress_bar() as progress:
        artifact = export(
            model,
            name=chosen,
            store=_store(store),
            requests=requests,
            weights=weights,
            request_inputs=inputs,
            example_inputs=examples,
            score=score,
            fallback="torchscript" if fallback is FallbackChoice.TORCHSCRIPT else None,
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
    from ..recipes.recipe import Recipe  # noqa: PLC0415
    from ..recipes.steps import QuantizeDynamic, QuantizeStatic  # noqa: PLC0415

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
    from ..recipes.recipe import Recipe  # noqa: PLC0415
    from ..recipes.steps import Prune  # noqa: PLC0415

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
    model: ModelArgument,
    candidates: Annotated[int, typer.Option("--candidates", metavar="N", help="Candidates of the request whose work is counted.")] = 256,
    dim: Annotated[
        list[str] | None, typer.Option("--dim", metavar="NAME=SIZE", help="Size of another dimension that varies (50 without; repeatable).")
    ] = None,
    requests: Annotated[
        Path | None, typer.Option("--requests", metavar="FILE", help="requests.parquet that says which inputs have which role.")
    ] = None,
    request_inputs: Annotated[
        str | None, typer.Option("--request-inputs", metavar="A,B", help="Inputs with one value per request (user, context, history).")
    ] = None,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """Show a model's inputs with roles, tables, work per request, operators and lineage; stores nothing."""
    from .cost.sizes import read_dims  # noqa: PLC0415
    from .describe import inspection_text  # noqa: PLC0415 - as above
    from .inspection import inspect as look  # noqa: PLC0415

    inputs = [part.strip() for part in request_inputs.split(",") if part.strip()] if request_inputs is not None else None
    with progress_bar() as progress:
        seen = look(
            model,
            requests=requests,
            request_inputs=inputs,
            candidates=candidates,
            dims=read_dims(dim or []),
            store=_store(store),
            progress=progress,
        )
    say(inspection_text(seen, min(120, shutil.get_terminal_size((120, 24)).columns)), json_path=json_path)
    write_json(seen, json_path)


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
