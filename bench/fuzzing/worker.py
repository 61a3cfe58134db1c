"""The process that reads damaged files: `python -m liftgate.bench.fuzzing.worker FOLDER SEED FIRST STOP STEP`.

It writes a line before each file and one after it. FOLDER holds the seeds, written by the same command with FOLDER alone (and with
PYTHONHASHSEED=0 in the environment, for the same bytes every time).
A file that ends this process, by a signal, by its time or by its memory, is the one whose index was printed last.
"""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import signal
import sys
import traceback
from pathlib import Path

import torch

from ...core.errors import InputError
from ...optimize.loading import Graph, Program, load_source
from ...runtime.archive import quiet
from ...runtime.onnx_file import load
from ...runtime.onnx_session import load_onnx
from ...runtime.onnx_signature import signature_from_graph
from ...runtime.onnx_trial import one_helper
from ...runtime.program import signature_of
from ...runtime.session import SessionSettings
from .chance import Chance
from .damage import Damage
from .seeds import Flat, Seed, make_seeds

LIMIT_S = 20
MEMORY_BYTES = 6 * 2**30
SEEDS = "seeds.pickle"


def write_case(seeds: list[Seed], seed: int, index: int, folder: Path) -> tuple[Seed, Path]:
    """Write the file number `index` of the run `seed` into `folder`, and return what to name as the model."""
    chosen = seeds[index % len(seeds)]
    chance = Chance([seed, index])
    damage = Damage(chance, folder.parent / "ran", [content for other in seeds for content in other.files.values()])
    damaged = chance.pick(sorted(chosen.files))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in chosen.files.items():
        (folder / name).write_bytes(damage.file(content) if name == damaged else content)
    return chosen, folder / chosen.main


def judge(seed: Seed, path: Path) -> str:
    """`loaded`, `refused <reason>` or `crash <what>`: what becomes of one file in the real loader."""
    try:
        if seed.as_weights:
            load_source(Flat(), weights=path)
            return "loaded"
        source = load_source(path)
        if isinstance(source, Program):
            signature_of(source.program, "fuzz")
        if isinstance(source, Graph):
            load_onnx(source.path, SessionSettings())
            signature_from_graph(load(source.path), "fuzz")
    except InputError as error:
        if "\n" in str(error):
            return f"crash an error of several lines: {str(error).splitlines()[0][:200]}"
        # What could not be had was asked for: nothing may ask for memory that a small file does not need.
        greedy = "can't allocate memory" in str(error) or "bad_alloc" in str(error)
        return f"crash allocates: {error}"[:300] if greedy else f"refused {error}"[:300]
    except Exception as error:  # whatever else comes out of the loader is what this looks for
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"crash {type(error).__name__}: {str(error)[:160]!r} at {place.filename.rpartition('/')[2]}:{place.lineno}"
    return "loaded"


def run(folder: Path, seed: int, indices: range) -> None:
    """Judge the files with these indices, a line before and after each."""
    seeds: list[Seed] = pickle.loads((folder / SEEDS).read_bytes())
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    case = folder / f"case-{indices.start}-{indices.step}" / "file"
    case.parent.mkdir(exist_ok=True)
    with one_helper(), quiet():
        for index in indices:
            print(index, flush=True)
            signal.alarm(LIMIT_S)
            chosen, path = write_case(seeds, seed, index, case)
            outcome = judge(chosen, path)
            if (case.parent / "ran").exists():
                outcome = "crash a payload ran"
                (case.parent / "ran").unlink()
            print(f"{chosen.name}\t{outcome}".replace("\n", " "), flush=True)
    signal.alarm(0)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    if len(sys.argv) == 2:
        (place / SEEDS).write_bytes(pickle.dumps(make_seeds()))
    else:
        # Children of PyTorch and ONNX Runtime write to the terminal; lines of this process are all that may come out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        run(place, int(sys.argv[2]), range(*map(int, sys.argv[3:6])))
