from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from liftgate.core.artifact import ModelArtifact
from liftgate.core.errors import InputError
from liftgate.core.requests import Requests
from liftgate.core.store import Store
from liftgate.profile.load.coldstart import coldstart, median_estimate, steady_after
from liftgate.profile.load.page_cache import cached_share, drop, files_of
from liftgate.profile.load.result import ColdStart

MakeModel = Callable[..., ModelArtifact]


def test_a_process_is_steady_once_five_requests_are_as_fast_as_the_last_half() -> None:
    assert steady_after(np.array([900, 300, 150, *[100] * 20])) == 3
    assert steady_after(np.array([900, 100, 300, 300, 300, 100, *[100] * 20])) == 5
    assert steady_after(np.array([100] * 20)) == 0


def test_the_median_of_ten_processes_lies_between_the_second_and_the_ninth() -> None:
    # P(X < 2) for X ~ binomial(10, 1/2) is 11/1024: twice that is 2.1 %, and twice P(X < 3) is 10.9 %.
    found = median_estimate([10, 1, 9, 2, 8, 3, 7, 4, 6, 5])
    assert (found.value, found.low, found.high, found.n) == (5.5, 2, 9, 10)


def test_five_processes_give_no_interval_at_95_percent() -> None:
    # All above the median has probability 1/32, on either side 6.3 %.
    found = median_estimate([1, 2, 3, 4, 5])
    assert (found.value, found.low, found.high) == (3, None, None)
    assert median_estimate([1, 2, 3, 4, 5, 6]).low == 1


@pytest.fixture
def file_on_disk(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\1" * 2**20)
    try:
        drop([path])
    except InputError:
        pytest.skip("files of this folder cannot leave the page cache")
    return path


def test_a_dropped_file_is_out_of_the_page_cache_until_it_is_read(file_on_disk: Path) -> None:
    assert cached_share([file_on_disk]) == 0.0
    file_on_disk.read_bytes()
    assert cached_share([file_on_disk]) == 1.0
    drop([file_on_disk])
    assert cached_share([file_on_disk]) == 0.0


def test_files_that_stay_in_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\1" * 2**16)
    monkeypatch.setattr("os.posix_fadvise", lambda *arguments: None)
    path.read_bytes()
    with pytest.raises(InputError, match="expected the model's files out of the page cache, found 100% of them still in memory"):
        drop([path])


def test_an_empty_file_has_no_pages(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert cached_share([tmp_path / "empty"]) is None


def test_fresh_processes_tell_what_their_first_requests_wait_for(make_model: MakeModel, requests: Requests, store: Store) -> None:
    models = [make_model("v1.0"), make_model("v1.1", noise=0.1)]
    found = coldstart(models, requests=requests, launches=1, seed=1, store=store)
    assert msgspec.json.decode(msgspec.json.encode(found), type=ColdStart) == found
    for model in found.models:
        assert len(model.launches) == 1
        for launch in model.launches:
            assert min(launch.import_ms, launch.load_ms, launch.first_request_ms, launch.steady_ms) > 0
            assert launch.until_steady_ms >= launch.load_ms
            assert launch.cached_share in (None, 1.0)
        assert (model.memory_bytes or 0) > 10 * 2**20


def test_a_models_files_are_all_of_its_folder(make_model: MakeModel) -> None:
    assert [path.name for path in files_of(make_model("v1.0").path)] == ["manifest.json", "model.onnx"]
