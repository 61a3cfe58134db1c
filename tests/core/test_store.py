from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from liftgate.core.artifact import ModelArtifact, read_artifact
from liftgate.core.errors import InputError, UnknownName
from liftgate.core.signature import InputSpec, OutputSpec, Signature
from liftgate.core.store import Store

SIGNATURE = Signature(
    inputs=(InputSpec(name="item", dtype="int64", shape=("rows",), role="candidate"),),
    outputs=(OutputSpec(name="score", dtype="float32", shape=("rows",)),),
)


def put(store: Store, name: str, content: bytes, parent: str | None = None) -> ModelArtifact:
    with store.draft(name) as draft:
        draft.model_path.write_bytes(content)
        draft.signature = SIGNATURE
        draft.parent = parent
        return store.commit(draft)


def test_a_name_resolves_to_what_was_committed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = put(store, "v1.0", b"weights")
    for key in ("v1.0", made.manifest.digest, made.manifest.digest[:12], made.path):
        assert store.resolve(key).manifest.digest == made.manifest.digest
    assert store.names() == ["v1.0"]


def test_equal_content_is_kept_once_under_both_names(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = put(store, "a", b"same"), put(store, "b", b"same")
    assert first.manifest.digest == second.manifest.digest
    assert len(list((tmp_path / "objects").iterdir())) == 1
    assert store.resolve("b").manifest.name == "b"


def test_reusing_a_name_moves_it_and_keeps_the_old_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old = put(store, "v1.1", b"old")
    new = put(store, "v1.1", b"new")
    assert store.resolve("v1.1").manifest.digest == new.manifest.digest
    assert read_artifact(old.path).manifest.digest == old.manifest.digest


def test_lineage_walks_back_to_the_export(tmp_path: Path) -> None:
    store = Store(tmp_path)
    export = put(store, "v1.1", b"fp32")
    pruned = put(store, "v1.1-small", b"small", parent=export.manifest.digest)
    int8 = put(store, "v1.1-small-int8", b"int8", parent=pruned.manifest.digest)
    assert [m.name for m in store.lineage(int8)] == ["v1.1-small-int8", "v1.1-small", "v1.1"]


def test_an_unknown_name_suggests_the_nearest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, "v1.1-int8", b"x")
    with pytest.raises(UnknownName, match=r"unknown model 'v1.1-int'; did you mean 'v1.1-int8'\?"):
        store.resolve("v1.1-int")


def test_a_failed_step_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.draft("v2") as draft:
        draft.model_path.write_bytes(b"half")
        raise RuntimeError
    assert store.names() == []
    assert list((tmp_path / "objects").iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "", ".hidden", "a/b", "x" * 101])
def test_a_name_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="--name"), Store(tmp_path).draft(name):
        pass


def damage_model(path: Path) -> None:
    (path / "model.onnx").write_bytes(b"other")


def damage_signature(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"candidate"', '"request"'))


def add_key(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"name"', '"nmae": 1, "name"', 1))


def cut_manifest(path: Path) -> None:
    os.truncate(path / "manifest.json", 40)


def remove_model(path: Path) -> None:
    (path / "model.onnx").unlink()


def point_outside(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"model.onnx"', '"../../elsewhere.onnx"'))


@pytest.mark.parametrize("damage", [damage_model, damage_signature, add_key, cut_manifest, remove_model, point_outside])
def test_a_damaged_artifact_is_refused(tmp_path: Path, damage: object) -> None:
    made = put(Store(tmp_path), "v1.0", b"weights")
    assert callable(damage)
    damage(made.path)
    with pytest.raises(InputError):
        read_artifact(made.path)


def test_writing_the_same_content_again_repairs_a_damaged_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = put(store, "v1.0", b"weights")
    damage_model(made.path)
    assert put(store, "v1.0", b"weights").manifest.digest == made.manifest.digest
    assert store.resolve("v1.0").model_path.read_bytes() == b"weights"


def test_the_same_content_from_another_parent_keeps_its_own_lineage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = put(store, "a", b"same", parent="1" * 64), put(store, "b", b"same", parent="2" * 64)
    assert (store.resolve("a").manifest.parent, store.resolve("b").manifest.parent) == ("1" * 64, "2" * 64)
    assert first.manifest.digest != second.manifest.digest


def test_a_store_can_be_moved(tmp_path: Path) -> None:
    put(Store(tmp_path / "here"), "v1.0", b"weights")
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert Store(tmp_path / "there").resolve("v1.0").manifest.name == "v1.0"
