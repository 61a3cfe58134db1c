"""Which of PyTorch's operators TorchScript code may call."""

from __future__ import annotations

from functools import cache

# Private operators that PyTorch's own modules print; most others skip checks of their arguments.
_PRIVATE_OPS = {
    *("_convolution", "_shape_as_tensor", "_unwrap_optional", "_set_item", "_infer_size", "_size_if_not_equal", "_pack_padded_sequence"),
    *("_pad_packed_sequence", "_native_multi_head_attention", "_transformer_encoder_layer_fwd", "_nested_tensor_from_mask"),
    *("_nested_tensor_from_mask_left_aligned", "_weight_norm", "_softmax", "_log_softmax", "_tensor_to_list", "_list_to_tensor"),
    *(
        "_upsample_nearest_exact1d",
        "_upsample_nearest_exact2d",
        "_upsample_nearest_exact3d",
        "_upsample_bilinear2d_aa",
        "_upsample_bicubic2d_aa",
        "_upsample_lanczos2d_aa",
        "_unique2",
    ),
    *("_assert_tensor_metadata", "_adaptive_avg_pool2d"),
    *("__and__", "__or__", "__xor__", "__not__", "__is__", "__isnot__", "__contains__", "__getitem__", "__lshift__", "__rshift__"),
    *("__range_length", "__derive_index", "__interpolate", "__round_to_zero_floordiv"),
}
_DENIED_OPS = {"from_file", "save", "set_data", "set_", "backward", "grad"}
PRIM_OPS = {
    *("RaiseException", "NumToTensor", "min", "max", "abs", "data", "device", "dtype", "layout", "type", "requires_grad", "itemsize"),
    *("nbytes", "rangelist", "StringIndex", "is_cpu", "is_cuda", "is_nested", "is_quantized", "is_sparse", "is_sparse_csr", "is_mkldnn"),
    *("is_meta", "is_mps", "is_xla", "is_xpu", "is_mtia", "is_ipu", "is_maia", "is_vulkan"),
}


@cache
def is_operator(name: str) -> bool:
    """Whether PyTorch has an operator of this name, as `torch.<name>` or as a method of tensors."""
    import torch  # noqa: PLC0415 - takes seconds

    return bool(torch._C._jit_get_schemas_for_operator(f"aten::{name}"))


def is_allowed(name: str) -> bool:
    """Whether the operator only computes with tensors, and checks what it is given."""
    return name in _PRIVATE_OPS or (not name.startswith("_") and name not in _DENIED_OPS)
