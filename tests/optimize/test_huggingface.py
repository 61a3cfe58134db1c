from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from liftgate.core.errors import InputError, UntrustedError
from liftgate.optimize.export import export
from liftgate.optimize.huggingface import convert
from liftgate.optimize.loading import Pretrained, load_source
from liftgate.runtime.kinds import kind_of
from safetensors.torch import load_file, save_file

CONFIG = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "num_labels": 1,
    "pad_token_id": 0,
}


def folder(path: Path, **changes: object) -> Path:
    """A model folder whose weights no model fits; for what is checked before they matter."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    save_file({"w": torch.ones(1)}, path / "model.safetensors")
    return path


def test_a_model_folder_is_told_by_its_config(tmp_path: Path) -> None:
    place = folder(tmp_path / "ranker")
    assert kind_of(place) == "Hugging Face model folder"
    assert load_source(place) == Pretrained(folder=place, source="ranker")


def test_a_folder_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    place = folder(tmp_path / "m", auto_map={"AutoModel": "modeling.Custom"})
    (place / "modeling.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UntrustedError, match=r"config\.json: names code of its own \(auto_map\)"):
        load_source(place)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "found GPT2LMHeadModel"),
        ({"architectures": None}, "found no architecture"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "found a quantized model"),
        ({"num_hidden_layers": 10**9}, "'num_hidden_layers' of at most 1,000, found 1,000,000,000"),
        ({"num_labels": 10**9}, "'num_labels' of at most 100,000"),
    ],
)
def test_what_cannot_be_a_ranker_says_why(tmp_path: Path, changes: dict[str, object], found: str) -> None:
    with pytest.raises(InputError, match=found):
        load_source(folder(tmp_path / "m", **changes))


def test_a_folder_without_weights_or_with_shards_elsewhere_is_refused(tmp_path: Path) -> None:
    place = folder(tmp_path / "m")
    (place / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"expected its weights .* found none"):
        load_source(place)
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "../../secret.safetensors"}}))
    with pytest.raises(InputError, match="expected files of weights beside it"):
        load_source(place)


def test_without_the_extra_the_error_says_what_to_install(tmp_path: Path) -> None:
    try:
        import optimum.exporters.onnx  # noqa: F401, PLC0415
    except ImportError:
        with pytest.raises(InputError, match=r"pip install 'liftgate\[hf\]'"):
            convert(folder(tmp_path / "m"), tmp_path / "model.onnx")
    else:
        pytest.skip("the extra is installed")


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("optimum.exporters.onnx")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("hf") / "ranker"
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**{k: v for k, v in CONFIG.items() if k != "model_type"}))
    model.save_pretrained(place)
    return place


def test_a_cross_encoder_becomes_onnx_with_the_same_scores(ranker: Path, tmp_path: Path) -> None:
    found = convert(ranker, tmp_path / "model.onnx")
    assert list(found.examples) == ["input_ids", "attention_mask", "token_type_ids"]
    with torch.no_grad():
        expected = found.module(*found.examples.values()).numpy()
    session = ort.InferenceSession(found.onnx, providers=["CPUExecutionProvider"])
    scores = session.run(None, {name: tensor.numpy() for name, tensor in found.examples.items()})[0]
    assert scores.shape == (8, 1)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_pickled_weights_are_read_without_unpickling(ranker: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.write_text, (tmp_path / "ran", "ran"))

    place = tmp_path / "pickled"
    place.mkdir()
    (place / "config.json").write_bytes((ranker / "config.json").read_bytes())
    state = load_file(ranker / "model.safetensors")
    torch.save(state, place / "pytorch_model.bin")
    assert convert(place, tmp_path / "model.onnx").onnx.is_file()
    torch.save({**state, "x": Bomb()}, place / "pytorch_model.bin")
    with pytest.raises(InputError, match="expected a state_dict"):
        convert(place, tmp_path / "bad.onnx")
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_not_there_are_no_random_numbers(ranker: Path, tmp_path: Path) -> None:
    place = tmp_path / "base"
    place.mkdir()
    (place / "config.json").write_bytes((ranker / "config.json").read_bytes())
    state = load_file(ranker / "model.safetensors")
    save_file({name: tensor for name, tensor in state.items() if not name.startswith("classifier")}, place / "model.safetensors")
    with pytest.raises(InputError, match=r"holds no weights for classifier\.bias, classifier\.weight"):
        convert(place, tmp_path / "model.onnx")


def test_a_config_of_another_size_is_refused_before_it_takes_memory(ranker: Path, tmp_path: Path) -> None:
    place = tmp_path / "large"
    place.mkdir()
    config = json.loads((ranker / "config.json").read_bytes())
    (place / "config.json").write_text(json.dumps({**config, "vocab_size": 2**30}))
    (place / "model.safetensors").write_bytes((ranker / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"its config describes 17,\d{3},\d{3},\d{3} parameters, its weights hold \d+,\d{3}"):
        convert(place, tmp_path / "model.onnx")


def test_a_folder_is_exported_and_compared_with_the_transformer(ranker: Path, tmp_path: Path) -> None:
    artifact = export(ranker, name="cross-encoder", store=tmp_path)
    signature = artifact.manifest.signature
    assert [(spec.name, spec.dtype, spec.shape) for spec in signature.inputs] == [
        ("input_ids", "int64", ("rows", "input_ids_1")),
        ("attention_mask", "int64", ("rows", "input_ids_1")),
        ("token_type_ids", "int64", ("rows", "input_ids_1")),
    ]
    assert signature.score is not None
    assert signature.score.text == "logits"
    names = [check.name for check in artifact.manifest.checks]
    assert "ONNX Runtime agrees with PyTorch at 256 rows" in names
    assert "ONNX Runtime agrees with PyTorch at input_ids_1 = 11" in names
