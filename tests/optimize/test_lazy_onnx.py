from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from liftgate.core.errors import InputError
from liftgate.optimize.cost.lazy_onnx import read_lazily

ROWS, WIDTH = 3000, 8  # 96 kB, above what is read at once
TABLE = np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)


def write(path: Path, *, external: bool = False) -> Path:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> m (int64[rows] item) => (float[rows,8] score) <float[1] one = {1}>'
        "{ rows = Gather(table, item)  score = Add(rows, one) }"
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(TABLE, "table"))
    onnx.save(proto, path, save_as_external_data=external, location="weights.bin")
    return path


@pytest.mark.parametrize("external", [False, True])
def test_large_weights_stay_in_their_file_until_they_are_asked_for(tmp_path: Path, external: bool) -> None:
    model = read_lazily(write(tmp_path / "m.onnx", external=external))
    table = model.graph.initializers["table"].const_value
    assert isinstance(table, ir.ExternalTensor)
    assert table.shape.numpy() == (ROWS, WIDTH)
    np.testing.assert_array_equal(table.numpy(), TABLE)


def test_everything_but_the_weights_is_as_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    assert ir.to_onnx_text(read_lazily(path), exclude_initializers=True) == ir.to_onnx_text(ir.load(path), exclude_initializers=True)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = write(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match=r"truncated|empty file"):
        read_lazily(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\xff" * 200_000)
    with pytest.raises(InputError, match="is no valid ONNX model"):
        read_lazily(tmp_path / "m.onnx")


def test_missing_or_short_weights_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", external=True)
    (tmp_path / "weights.bin").write_bytes(b"\0" * 1000)
    with pytest.raises(InputError, match=r"weight 'table': expected 96000 bytes in weights\.bin, found 1000"):
        read_lazily(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError, match=r"weight 'table': expected a file weights\.bin beside the model, found nothing"):
        read_lazily(path)


def test_weights_outside_the_model_s_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    path = write(tmp_path / "inner" / "m.onnx", external=True)
    (tmp_path / "inner" / "weights.bin").rename(tmp_path / "weights.bin")
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[1].external_data[0].value = "../weights.bin"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match="expected weights beside the model"):
        read_lazily(path)


def test_a_graph_that_breaks_onnx_s_rules_is_refused(tmp_path: Path) -> None:
    proto = onnx.load(write(tmp_path / "m.onnx"))
    proto.graph.node[0].input[1] = "nothing"
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(InputError, match="is no valid ONNX model"):
        read_lazily(tmp_path / "m.onnx")
