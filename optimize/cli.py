"""`optimize`: export a model, make it faster, look at it."""

from __future__ import annotations

import enum
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import JsonOption, StoreOption, door, open_store, progress_bar, say, write_json
from .blend.cli import blend_command
from .search.cli import search_command

if TYPE_CHECKING:
    from ..core.artifact import ModelArtifact
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


class CalibrationChoice(enum.StrEnum):
    """How activation ranges are found."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"


class FormatChoice(enum.StrEnum):
    """How int8 weights are stored."""

    AUTO = "auto"
    NATIVE = "native"
    S8 = "s8"
    U8 = "u8"


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
            store=open_store(store),
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
    int8: Annotated[bool, typer.Option("--int8", help="8-bit weights and activations: for speed.")] = False,
    static: Annotated[bool, typer.Option("--static", help="With --int8: activation ranges from --requests, not found anew.")] = False,
    calibration: Annotated[
        CalibrationChoice | None, typer.Option("--calibration", help="With --static: how ranges are found (minmax without).")
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="With --static: neural-compressor tries until every segment keeps its NDCG@10; needs model.pt.")
    ] = False,
    tolerance: Annotated[
        float | None, typer.Option("--tolerance", metavar="SHARE", help="With --tune: how much NDCG@10 a segment may lose (0.005 without).")
    ] = None,
    weights_only: Annotated[bool, typer.Option("--weights-only", help="Weights in --bits bits, activations in float: for memory.")] = False,
    bits: Annotated[int | None, typer.Option("--bits", metavar="8|4", help="With --weights-only: bits per weight (8 without).")] = None,
    block_size: Annotated[
        int | None, typer.Option("--block-size", metavar="N", help="With --weights-only: weights that share a scale (32 without).")
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="16-bit floats: for GPUs, with --gpu.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="16-bit floats with the range of 32-bit ones: for GPUs, with --gpu.")] = False,
    gpu: Annotated[bool, typer.Option("--gpu", help="With --fp16 and --bf16: the model will run on a GPU.")] = False,
    per_channel: Annotated[
        bool | None, typer.Option("--per-channel/--per-tensor", help="One weight scale per output (without), or per matrix.")
    ] = None,
    number_format: Annotated[
        FormatChoice | None,
        typer.Option("--format", help="Weights: auto is right on every CPU, native fits this one, s8 needs VNNI, u8 is exact and slower."),
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", metavar="NODE", help="Leave this node alone (repeatable).")] = None,
    name: NameOption = None,
    requests: RequestsOption = None,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """Quantize MatMul and Gemm; embedding tables are left alone by all but --fp16 and --bf16."""
    from ..recipes.recipe import Recipe  # noqa: PLC0415 - msgspec and friends only when something is done
    from .quantize_options import QuantizeOptions, quantize_step  # noqa: PLC0415

    options = QuantizeOptions(
        int8=int8,
        static=static,
        calibration=None if calibration is None else calibration.value,
        tune=tune,
        tolerance=tolerance,
        weights_only=weights_only,
        bits=bits,
        block_size=block_size,
        fp16=fp16,
        bf16=bf16,
        gpu=gpu,
        per_channel=per_channel,
        format=None if number_format is None else number_format.value,
        exclude=tuple(exclude or ()),
        requests=requests is not None,
    )
    suffix, step = quantize_step(options)
    recipe = Recipe(name=suffix, version=1, description="from the command line", steps=(step,))
    _apply(recipe, model, name=name, requests=requests, store=store, json_path=json_path)


@app.command()
@door
def prune(
    model: ModelArgument,
    keep: Annotated[float | None, typer.Option("--keep", metavar="SHARE", help="Share of each hidden layer's units to keep.")] = None,
    max_error: Annotated[
        float | None, typer.Option("--max-error", metavar="SHARE", help="Or as few as change what the layers behind give by at most this.")
    ] = None,
    heads: Annotated[float | None, typer.Option("--heads", metavar="SHARE", help="Share of each attention's heads to keep.")] = None,
    low_rank: Annotated[
        float | None, typer.Option("--low-rank", metavar="SHARE", help="Split large weights in two thin ones within this error.")
    ] = None,
    refit: Annotated[bool, typer.Option("--refit/--no-refit", help="Fit the weights behind removed units anew on --requests.")] = True,
    multiple_of: Annotated[int, typer.Option("--multiple-of", help="Round the units kept up to a multiple of this.")] = 8,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="LAYER", help="Leave this hidden layer alone (repeatable).")
    ] = None,
    name: NameOption = None,
    requests: RequestsOption = None,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """Remove the hidden units and attention heads that are missed least, so that the matrices really become smaller."""
    from ..core.errors import InputError  # noqa: PLC0415 - as above
    from ..recipes.recipe import Recipe  # noqa: PLC0415
    from ..recipes.steps import LowRank, Prune, PruneHeads, Step  # noqa: PLC0415

    steps: dict[str, Step] = {}
    if heads is not None:
        steps[f"heads-{heads:g}"] = PruneHeads(keep=heads)
    if keep is not None or max_error is not None:
        label = f"prune-{keep:g}" if keep is not None else f"prune-error-{max_error:g}"
        steps[label] = Prune(keep=keep, max_error=max_error, refit=refit, multiple_of=multiple_of, exclude=tuple(exclude or ()))
    elif exclude:
        raise InputError.mismatch("optimize prune --exclude", expected="hidden layers to prune", found="none", fix="add --max-error 0.01")
    if low_rank is not None:
        steps[f"low-rank-{low_rank:g}"] = LowRank(max_error=low_rank, multiple_of=multiple_of)
    if not steps:
        fix = "add --max-error 0.01 (with --requests) or --keep 0.7"
        raise InputError.mismatch("optimize prune", expected="what to remove", found="nothing", fix=fix)
    recipe = Recipe(name="-".join(steps), version=1, description="from the command line", steps=tuple(steps.values()))
    _apply(recipe, model, name=name, requests=requests, store=store, json_path=json_path)


@app.command("apply")
@door
def apply_command(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe (see `optimize recipes`) or a .toml file.")],
    model: ModelArgument,
    name: NameOption = None,
    requests: RequestsOption = None,
    base: Annotated[str | None, typer.Option("--base", metavar="MODEL", help="The version before, for steps that need both.")] = None,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """Apply a recipe and write the result as a new artifact."""
    from ..recipes.recipe import read_recipe  # noqa: PLC0415 - as above

    _apply(read_recipe(recipe), model, name=name, requests=requests, base=base, store=store, json_path=json_path)


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
            store=open_store(store),
            progress=progress,
        )
    say(inspection_text(seen, min(120, shutil.get_terminal_size((120, 24)).columns)), json_path=json_path)
    write_json(seen, json_path)


app.command("search")(search_command)
app.command("blend")(blend_command)


def _apply(
    recipe: Recipe,
    model: str,
    *,
    name: str | None,
    requests: Path | None,
    store: Path | None,
    json_path: str | None,
    base: str | None = None,
) -> None:
    from .apply import apply  # noqa: PLC0415 - as above

    with progress_bar() as progress:
        artifact = apply(recipe, model, name=name, requests=requests, base=base, store=open_store(store), progress=progress)
    _tell(artifact, json_path)


def _tell(artifact: ModelArtifact, json_path: str | None) -> None:
    from .describe import result_text  # noqa: PLC0415 - as above

    say(result_text(artifact), json_path=json_path)
    write_json(artifact.manifest, json_path)
