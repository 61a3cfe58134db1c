"""Constructs that are one call or one attribute: packed sequences, devices, gradients, random numbers, printing and the like."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from .finding import Clue, Finding
from .rewriting import aliases, arguments, assigned, calls, dotted, kept, name_of, receiver, renamed, replaced, shown

if TYPE_CHECKING:
    pass

_LOGS = frozenset({"debug", "info", "warning", "error", "exception", "log"})
_CONSTANT_LIST = "fake tensor in the exported program constant's list"


def printing(clue: Clue) -> Finding | None:
    """print or logging of tensor values."""
    statement = clue.site.statement
    call = statement.value if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) else None
    if call is None or not (dotted(call.func) == "print" or (name_of(call) in _LOGS and isinstance(call.func, ast.Attribute))):
        return None
    return Finding("printing in forward", "remove this line, or print outside of forward")


def hook(clue: Clue) -> Finding | None:
    """A forward hook."""
    function = clue.site.function
    for name, module in clue.module.named_modules():
        for registered in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            code = getattr(registered, "__code__", None)
            if code is None or code.co_filename != clue.site.place.path:
                continue
            first = min([function.lineno, *[d.lineno for d in function.decorator_list]]) if function is not None else clue.site.place.line
            if code.co_firstlineno in {first, clue.site.place.line}:
                where = f"self.{name}" if name else "the model"
                return Finding(f"a forward hook on {where}", "remove the hook before the export: `handle.remove()`")
    return None


def packed(clue: Clue) -> Finding | None:
    """pack_padded_sequence and what works on packed sequences."""
    site = clue.site
    packing = calls(site.nodes(), "pack_padded_sequence") or _packed_above(clue)
    others = calls(site.nodes(), "pad_packed_sequence", "pack_sequence", "PackedSequence")
    if not packing and not others and not clue.says("pack_padded_sequence", "PackedSequence"):
        return None
    construct = "a packed sequence (pack_padded_sequence)"
    if not packing:
        change = "work on the padded sequence and mask what lies behind each row's length"
        return Finding(construct, change, "trace")
    call = packing[0]
    padded = shown(call.args[0], 40) if call.args else "x"
    given = [*call.args[1:2], *(k.value for k in call.keywords if k.arg == "lengths")]
    lengths = shown(kept(given[0])) if given else "lengths"
    network = _network(site.function, call)
    if any(getattr(m, "bidirectional", False) for m in clue.module.modules()):
        change = f"run {network} on the padded sequence twice, once on each row reversed within its length, and take position {lengths} - 1"
        return Finding(construct, change, "trace")
    if calls(ast.walk(site.function) if site.function else iter(()), "pad_packed_sequence"):
        mask = f"(torch.arange(out.shape[1], device=out.device)[None, :] < {lengths}[:, None]).unsqueeze(-1)"
        return Finding(
            construct, f"run it on the padded sequence and mask the rest: `out, _ = {network}({padded}); out = out * {mask}`", "trace"
        )
    last = f"out.gather(1, ({lengths} - 1).view(-1, 1, 1).expand(-1, 1, out.shape[-1])).squeeze(1)"
    change = f"run it on the padded sequence and take the output at each row's last step: `out, _ = {network}({padded}); last = {last}`"
    return Finding(construct, change, "trace")


def _packed_above(clue: Clue) -> list[ast.Call]:
    """The calls that packed what this line uses."""
    names = [node.id for node in clue.site.nodes() if isinstance(node, ast.Name)]
    values = [assigned(clue.site.function, name, clue.site.place.line) for name in names]
    return [v for v in values if isinstance(v, ast.Call) and name_of(v) == "pack_padded_sequence"]


def _network(function: ast.FunctionDef | None, packing: ast.Call) -> str:
    """What a packed sequence is given to: `self.gru`."""
    nodes = list(ast.walk(function)) if function is not None else []
    holders = [n for n in nodes if isinstance(n, ast.Assign) and n.value is packing and isinstance(n.targets[0], ast.Name)]
    names = {target.id for holder in holders for target in holder.targets if isinstance(target, ast.Name)}
    for node in nodes:
        given = node.args if isinstance(node, ast.Call) and dotted(node.func).startswith("self.") else []
        if isinstance(node, ast.Call) and any(a is packing or (isinstance(a, ast.Name) and a.id in names) for a in given):
            return shown(node.func)
    return "the network"


def scripted(clue: Clue) -> Finding | None:
    """A TorchScript module inside the model."""
    import torch  # noqa: PLC0415 - takes seconds

    if isinstance(clue.module, torch.jit.ScriptModule):
        return None
    inner = {name: m for name, m in clue.module.named_modules() if isinstance(m, torch.jit.ScriptModule)}
    here = [name for name in inner if f"self.{name.rpartition('.')[2]}(" in clue.site.code]
    if not inner or not (here or clue.says("jit.script", "ScriptModule", "positional arguments")):
        return None
    name = here[0] if here else next(iter(inner))
    original = getattr(inner[name], "original_name", "the module")
    change = f"build `self.{name}` from {original} itself, without torch.jit around it"
    return Finding("a TorchScript module inside the model", change, "script")


def device(clue: Clue) -> Finding | None:
    """Tensors put on a device by name."""
    named = [n for n in clue.site.nodes() if _names_cuda(n)]
    if not named and not clue.says("support for cuda", "same device", "expected device", "CUDA"):
        return None
    rows = clue.rows.removesuffix(".shape[0]")
    given = arguments(clue.site.function)

    def change(part: ast.expr) -> ast.expr | None:
        moved = receiver(part)
        if isinstance(part, ast.Call) and name_of(part) == "cuda" and moved is not None:
            follows = ast.Call(ast.Attribute(moved, "to"), [ast.Attribute(ast.Name(rows), "device")], [])
            return moved if isinstance(moved, ast.Name) and moved.id in given else follows
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.startswith("cuda"):
            return ast.Attribute(ast.Name(rows), "device")
        return None

    if named and clue.site.statement is not None and clue.site.header == (clue.site.statement,):
        rewritten = replaced(clue.site.statement, change)
        if not any(_names_cuda(n) for n in ast.walk(rewritten)):
            return Finding("a device named in forward", f"follow the input's device: `{shown(rewritten)}`")
    return Finding("a device named in forward", f"make tensors where the input is: `torch.zeros(..., device={rows}.device)`")


def _names_cuda(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and node.value.startswith("cuda")
    return isinstance(node, ast.Attribute) and node.attr == "cuda"


def tensor_of_tensors(clue: Clue) -> Finding | None:
    """torch.tensor and its kin on tensors or lists of them."""
    makers = calls(clue.site.nodes(), "tensor", "LongTensor", "FloatTensor", "Tensor", "as_tensor", "BoolTensor", "IntTensor")
    if not makers or not clue.says("data is not allocated yet", "registered as constants", "only one element tensors"):
        return None
    call, given = makers[0], makers[0].args[0] if makers[0].args else None
    construct = f"torch.{name_of(call)} of tensors"
    if isinstance(given, ast.ListComp) and len(given.generators) == 1 and not given.generators[0].ifs:
        loop = given.generators[0]
        if isinstance(loop.target, ast.Name):
            return Finding(construct, f"compute it without a list: `{shown(renamed(kept(given.elt), {loop.target.id: loop.iter}))}`")
    if isinstance(given, ast.List):
        return Finding(construct, f"use `torch.stack([{', '.join(shown(kept(e)) for e in given.elts)}])`")
    return Finding(
        construct,
        f"use `{shown(given)}` itself" if isinstance(given, ast.Name | ast.Attribute) else "use the tensor itself, or torch.stack",
    )


def sparse(clue: Clue) -> Finding | None:
    """Sparse tensors."""
    if not (clue.says("aten._to_sparse", "aten._sparse", "aten.sparse", "SparseTensor") or "sparse." in clue.site.code):
        return None
    held = [n for n in clue.site.nodes() if isinstance(n, ast.Attribute) and getattr(clue.attribute(n), "is_sparse", False)]
    if held:
        name = shown(held[0])
        change = f"make it dense once in __init__ (`{name}.to_dense()`) and multiply with torch.matmul"
    else:
        change = "work on the dense tensor: drop .to_sparse() and use torch.matmul for torch.sparse.mm"
    return Finding("a sparse tensor", change)


def gradient(clue: Clue) -> Finding | None:
    """Derivatives taken in forward."""
    used = calls(clue.site.nodes(), "backward", "requires_grad_") or [
        c for c in calls(clue.site.nodes(), "grad") if "autograd" in dotted(c.func)
    ]
    if not used or not clue.says(_CONSTANT_LIST, "requires_grad", "backward", "grad"):
        return None
    change = f"write the derivative out, or compute it outside of the model: `{shown(used[0], 50)}` cannot be part of what is served"
    return Finding("a gradient computed in forward", change)


def detached(clue: Clue) -> Finding | None:
    """`.data`, which hides a tensor from the recorder."""
    if not clue.says(_CONSTANT_LIST, "metadata mutating"):
        return None
    statement = clue.site.statement
    data = [n for n in clue.site.nodes() if isinstance(n, ast.Attribute) and n.attr == "data"]
    if not data or statement is None:
        return None
    if any(isinstance(n.ctx, ast.Store) for n in data):
        value = shown(statement.value) if isinstance(statement, ast.Assign) else "the new value"
        change = f"use the new value without storing it: `{value.replace('.data', '')}`"
        return Finding("a weight changed in forward", change)
    rewritten = replaced(statement, lambda n: n.value if isinstance(n, ast.Attribute) and n.attr == "data" else None)
    call = statement.value if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) else None
    if call is not None and name_of(call).endswith("_"):
        target = receiver(rewritten.value) if isinstance(rewritten, ast.Expr) else None
        return Finding("an input changed in place", f"make a new tensor: `{shown(target)} = {shown(rewritten).replace('_(', '(', 1)}`")
    return Finding("a tensor's .data", f"use the tensor, or .detach(): `{shown(rewritten)}`")


def random_numbers(clue: Clue) -> Finding | None:
    """Python's or NumPy's random numbers."""
    names = {f"{alias}.random" for alias in aliases(clue.site.tree, "numpy")} | aliases(clue.site.tree, "random")
    found = [c for c in clue.site.nodes() if isinstance(c, ast.Call) and any(dotted(c.func).startswith(f"{name}.") for name in names)]
    if not found:
        return None
    change = f"draw only while training (`if self.training:`), or pass what `{shown(found[0], 50)}` gives as an input"
    return Finding("random numbers in forward", change)


def one_hot(clue: Clue) -> Finding | None:
    """F.one_hot that looks for the largest value."""
    for call in calls(clue.site.nodes(), "one_hot"):
        if len(call.args) == 1 and not call.keywords:
            return Finding("one_hot without a number of classes", f"say how many there are: `{shown(call)[:-1]}, num_classes=N)`")
    return None


def parallel(clue: Clue) -> Finding | None:
    """A module in DataParallel."""
    import torch  # noqa: PLC0415 - takes seconds

    for name, module in clue.module.named_modules():
        if isinstance(module, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel) and clue.says(
            "device", "parallel", "replica"
        ):
            where = f"self.{name}" if name else "the model"
            return Finding("a module in DataParallel", f"export what is inside: `{where}.module`")
    return None


def caught(clue: Clue) -> Finding | None:
    """try/except that decides by whether PyTorch fails."""
    if not any(isinstance(node, ast.Try) for node in (*clue.site.around, clue.site.statement)):
        return None
    return Finding(
        "try/except around tensors", "decide by shapes or types, which are known before; an exported graph cannot catch an error"
    )


def unsupported(clue: Clue) -> Finding | None:
    """An operator without a rule for shapes."""
    if not clue.says("unsupported operator", "aten.") or clue.says("data-dependent"):
        return None
    name = clue.message.partition("aten.")[2].split(".")[0].split()[0].strip("_ \n") if "aten." in clue.message else "it"
    return Finding(f"the operator {name}, which torch.export does not know", f"replace {name} by operators that it knows")
