"""Every variant of a case, built once and kept until what it is made from changes."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from ...core.files import sha256_of
from ...core.store import Store
from .environment import CHECKOUT, REQUIREMENTS
from .folder import CaseFolder
from .process import interpreter, one_thread
from .variants import Built, Job, Variant
from .wire import decode, encode

_LONGEST_S = 900


def job_of(place: CaseFolder, variant: Variant) -> Job:
    """What the variant's builder needs."""
    trained = place.trained
    if trained is None:
        raise AssertionError(f"{place.name} is trained before anything is built from it")
    return Job(
        case=place.name,
        variant=variant.name,
        folder=place.variant(variant.name),
        base=Store(place.store).resolve(place.name).path.resolve(),
        store=place.store,
        calibration=place.requests("validation"),
        weights=place.weights,
        users=trained.users,
        items=trained.items,
    )


def build(place: CaseFolder, variant: Variant) -> Built:
    """The variant, from what an earlier run kept where nothing it depends on has changed."""
    job = job_of(place, variant)
    key = _key(job, variant)
    kept = job.folder / "built.json"
    if kept.is_file():
        built: Built = decode(kept.read_bytes(), Built)
        if built.key == key and (built.path is None or built.path.exists()):
            return built
    job.folder.mkdir(parents=True, exist_ok=True)
    written = job.folder / f"{key}.json"
    written.write_bytes(encode(job))
    command = [str(interpreter(variant.environment)), "-m", "liftgate.bench.optimize.build", str(written)]
    with (job.folder / "build.log").open("wb") as log:
        try:
            code = subprocess.run(
                command, check=False, stdout=log, stderr=log, env=one_thread(place.root / "inductor"), timeout=_LONGEST_S
            ).returncode
            reason = f"its builder ended with code {code}"
        except subprocess.TimeoutExpired:
            code, reason = 1, f"not built after {_LONGEST_S} s"
    written.unlink()
    if code:
        kept.write_bytes(encode(Built(key=key, path=None, settings="", seconds=0.0, failure=reason)))
    made: Built = decode(kept.read_bytes(), Built)
    return made


def _key(job: Job, variant: Variant) -> str:
    """Digest of what the variant is made from: the export, the requests, and the code that builds it."""
    digest = hashlib.sha256(f"{variant.name} {job.base.name} {sha256_of(job.calibration)}".encode())
    builders = CHECKOUT / "bench" / "optimize" / "build"
    tool = {"ort": "onnxruntime", "olive": "olive", "nncf": "nncf", "inc": "inc"}.get(variant.name.split("-")[0])
    made_by = _sources("optimize", "recipes") if variant.ours else [builders / "calibration.py", REQUIREMENTS]
    for path in [*made_by, *([builders / f"{tool}.py"] if tool else [])]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _sources(*rooms: str) -> list[Path]:
    return [path for room in rooms for path in sorted((CHECKOUT / room).rglob("*")) if path.suffix in {".py", ".toml"}]
