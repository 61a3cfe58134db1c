from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from liftgate.core.artifact import ModelArtifact
from liftgate.core.errors import InputError, RunFailed
from liftgate.core.store import Store
from liftgate.profile.trace.flame import block_size, flame

MakeModel = Callable[..., ModelArtifact]


def test_an_unknown_format_is_refused(make_model: MakeModel, store: Store, tmp_path: Path) -> None:
    make_model("v1.0")
    with pytest.raises(InputError, match=r"expected a file ending in \.svg, \.speedscope\.json, \.json or \.txt, found 'flame\.png'"):
        flame("v1.0", tmp_path / "flame.png", store=store)


@pytest.mark.parametrize(("request_s", "size"), [(0.0, 256), (0.0001, 256), (0.01, 20), (0.15, 1), (3.0, 1)])
def test_slow_models_are_asked_little_at_a_time(request_s: float, size: int) -> None:
    # 0.2 s of requests, so that the sampler's end is seen soon.
    assert block_size(request_s, 256) == size


def test_a_refused_sampler_is_reported_in_its_own_words(
    make_model: MakeModel, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = tmp_path / "py-spy"
    sampler.write_text("#!/bin/sh\necho 'Error: Permission Denied' >&2\nexit 1\n")
    sampler.chmod(0o755)
    monkeypatch.setattr("liftgate.profile.trace.sampler.shutil.which", lambda *_, **__: str(sampler))
    make_model("v1.0")
    with pytest.raises(RunFailed, match=r"could not sample the process: Permission Denied; sampling needs ptrace"):
        flame("v1.0", tmp_path / "flame.svg", store=store, seconds=1)
    assert not (tmp_path / "flame.svg").exists()
