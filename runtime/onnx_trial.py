"""Loading an ONNX file in another process first.

ONNX Runtime ends the whole process on some damaged graphs (a failed assertion of ONNX's shape inference, for one), and constants it folds
while loading can take any time and memory. So a child process loads the file and runs it once on zeros; what happens there decides. The
helper process imports the libraries once and forks a child per file, so that more files cost milliseconds each.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..core.errors import InputError, RunFailed

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime as ort

LIMIT_S = 60
_MEMORY_BYTES = 4 * 2**30
_MEMORY_PER_BYTE = 6
_ROWS = 2
_FINE = "fine"
_DTYPES = {name: name for name in ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool", "float16")}
_DTYPES |= {"float": "float32", "double": "float64", "string": "object"}


class _Helper:
    """The process that tries files; one request is a line with a path, its answer a line of JSON."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-P", "-m", __name__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, path: Path) -> str:
        """Why the file cannot be used, empty when it can."""
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        if pipe_in is None or pipe_out is None:
            raise AssertionError("the helper is always started with pipes")
        pipe_in.write(json.dumps(str(path.absolute())) + "\n")
        pipe_in.flush()
        line = pipe_out.readline()
        if not line:
            raise RunFailed("trying an ONNX file", f"the helper process died (exit code {self._process.wait()})")
        return str(json.loads(line))


_kept: ContextVar[_Helper | None] = ContextVar("kept", default=None)


@contextmanager
def one_helper() -> Iterator[None]:
    """Try all files inside the block with one helper process."""
    with _Helper() as helper:
        token = _kept.set(helper)
        try:
            yield
        finally:
            _kept.reset(token)


def try_onnx(path: Path) -> None:
    """Raise InputError when loading the file fails, crashes, hangs or takes absurd memory."""
    helper = _kept.get()
    if helper is None:
        with _Helper() as new:
            reason = new.ask(path)
    else:
        reason = helper.ask(path)
    if reason:
        raise InputError(str(path), reason, fix="export the model again")


def _serve() -> None:
    """Answer one path per line until standard input ends."""
    import onnx  # noqa: F401, PLC0415 - imported once, for all children
    import onnxruntime  # noqa: F401, PLC0415

    for line in sys.stdin:
        sys.stdout.write(json.dumps(_try_in_child(json.loads(line))) + "\n")
        sys.stdout.flush()


def _try_in_child(path: str) -> str:
    out_of, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out_of)
        signal.alarm(LIMIT_S)
        try:
            os.write(into, (_try(path, into) or _FINE).encode()[:1000])
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out_of, "rb") as pipe:
        reason = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        return "" if reason == _FINE else reason or "cannot be tried under limits of memory here"
    killer = os.WTERMSIG(status)
    return (
        f"takes ONNX Runtime longer than {LIMIT_S} s to load and run"
        if killer == signal.SIGALRM
        else f"crashes ONNX Runtime (signal {killer})"
    )


def _try(path: str, keep: int) -> str:
    """Load and run the file under limits; the reason why that fails, or nothing."""
    import onnx.checker  # noqa: PLC0415 - as above
    import onnxruntime as ort  # noqa: PLC0415

    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    memory = _MEMORY_BYTES + _MEMORY_PER_BYTE * _bytes_of(Path(path))
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    memory = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    loaded = False
    try:
        onnx.checker.check_model(path)
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        loaded = True
        session.run(None, _zeros(session))
    except Exception as error:  # both raise their own types, which share no public base class
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, MemoryError) or "bad_alloc" in reason or "Failed to allocate" in reason:
            return f"takes more than {memory / 2**30:.0f} GiB to load and run"
        # What a run refuses may be the zeros; only what ends the process is the file's fault.
        return "" if loaded else f"cannot be loaded ({reason[:240]})"
    return ""


def _bytes_of(path: Path) -> int:
    """Bytes of the model with the weights beside it."""
    import onnx  # noqa: PLC0415 - as above

    model = onnx.load(path, load_external_data=False)
    names = {entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"}
    return sum((path.parent / name).stat().st_size for name in {path.name, *names})


def _zeros(session: ort.InferenceSession) -> dict[str, np.ndarray]:
    """A zero for every element of every input; dimensions that vary are 2."""
    import numpy as np  # noqa: PLC0415 - only the child needs it

    dtypes = {f"tensor({name})": dtype for name, dtype in _DTYPES.items()}
    return {
        value.name: np.zeros([dim if isinstance(dim, int) else _ROWS for dim in value.shape], dtypes.get(value.type, "float32"))
        for value in session.get_inputs()
    }


if __name__ == "__main__":
    _serve()
