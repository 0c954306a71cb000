"""What autograd keeps of one row in a transformer block, counted from the block's modules in transformers.

With s bytes per element in forward and backward, a row keeps 4 * float32 + s * narrow bytes:

    norm                what its own forward pass saves, and its output where a layer behind it keeps that
    attention           queries, keys, values, the output, and the output as the last projection takes it
    rotary, fused qkv   queries and keys twice: before their rotation they are views of one tensor with the values
    gated MLP           gate, its activation, up, their product
    plain MLP           before and after the activation
    experts             the same of each expert of a token, its input and its output
    linear attention    inputs and outputs of the convolution, the gated norm, and a row of a chunk of the delta rule

A chunk of torch's delta rule in transformers has C rows, with padding; a row keeps in float32, of each head, 8 times
its keys (queries and keys as they come; queries, keys, keys times beta; queries and keys decayed, and the keys that the
triangular system gives), 3 times its values (values, those of the system, those less what the state predicts), a row of
5 matrices [C, C] (decays, two products, both decayed), and its share of the chunk's state. Kernels of
flash-linear-attention keep less.
"""

import copy
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

OUTPUTS = ("o_proj", "out_proj", "proj", "projection_layer")
"""Names of the last layer of an attention."""
CHUNK = 64
"""Rows of a chunk of the gated delta rule in transformers."""


class _Count:
    """Elements that a row keeps."""

    def __init__(self) -> None:
        self.float32 = 0
        self.narrow = 0
        self.chunked = 0
        self.inner = 0
        self.mlp = 0

    def norm(self, module: Any, width: int, *, feeds_linear: bool) -> None:
        """Add a norm over `width` elements of a row, or over parts of them."""
        float32, narrow = _saved_by(module, width)
        self.float32 += float32 * width
        self.narrow += (narrow + feeds_linear) * width


def _saved_by(norm: Any, width: int) -> tuple[int, int]:
    """Return how often a norm saves a row in float32 and in bfloat16, when its input is of bfloat16."""
    import torch

    own = copy.deepcopy(norm).to(torch.bfloat16)
    weights = {id(parameter) for parameter in own.parameters()}
    num_elements = max((parameter.numel() for parameter in own.parameters()), default=width)
    row = torch.empty(1, num_elements, dtype=torch.bfloat16, device="meta", requires_grad=True)
    saved: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        if id(tensor) not in weights and tensor.shape == row.shape:
            saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        own(row)
    narrow = sum(tensor.dtype == torch.bfloat16 for tensor in saved.values())
    return len(saved) - narrow, narrow


def block_facts(
    block: Any, width: int, *, experts_per_token: int = 0, has_rotary: bool = False
) -> tuple[int, int, int, int, int, int, int]:
    """Return (float32, narrow, chunked, queries, keys, inner, mlp) of a block.

    Args:
        block: Module on the meta device.
        width: Of the residual stream.
        experts_per_token: Of a mixture.
        has_rotary: Whether a fused projection of queries, keys and values is rotated.

    Returns:
        Elements that a row keeps in float32 and in the type of forward and backward, and a row of a chunk in float32;
        elements of a row's queries and of its keys, 0 for linear attention; the widest gradient inside of the MLP;
        columns of its last layer.
    """
    count = _Count()
    linears: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    num_norms = 0
    for name, module in block.named_modules():
        parent, _, own = name.rpartition(".")
        if type(module).__name__ == "Linear":
            if own == "linear":  # within a layer of its own class, such as one that clips
                parent, _, own = parent.rpartition(".")
                is_clipped = getattr(block.get_submodule(f"{parent}.{own}"), "use_clipped_linears", False)
                count.narrow += is_clipped * (module.in_features + module.out_features)
            linears[parent].append((own, module))
        elif "Norm" in type(module).__name__ and "attn" not in name and "attention." not in name:
            # Of more than two, the others stand behind attention and MLP, and their outputs are added up.
            num_norms += 1
            count.norm(module, width, feeds_linear=num_norms <= 2)
        elif getattr(module, "gate_up_proj", None) is not None and hasattr(module.gate_up_proj, "shape"):
            inner = module.gate_up_proj.numel() // (module.gate_up_proj.shape[0] * width)
            count.narrow += experts_per_token * (2 * inner + 2 * width)
            count.inner, count.mlp = max(count.inner, experts_per_token * inner), max(count.mlp, inner // 2)
    count.narrow += sum(width for _, scale in block.named_parameters(recurse=False) if scale.dim() == 1)
    queries = keys = 0
    for parent, layers in linears.items():
        if "attn" in parent or "attention" in parent:
            queries, keys = _attention(count, block.get_submodule(parent), layers, has_rotary=has_rotary)
        else:
            _mlp(count, layers, width)
    return count.float32, count.narrow, count.chunked, queries, keys, count.inner, count.mlp


def _attention(count: _Count, module: Any, layers: list[tuple[str, Any]], *, has_rotary: bool) -> tuple[int, int]:
    """Add an attention; return elements of a row's queries and keys, 0 for linear attention."""
    named = dict(layers)
    last = next((named[name] for name in OUTPUTS if name in named), layers[-1][1])
    others = [layer for layer in named.values() if layer is not last]
    inside = last.in_features
    if (convolution := getattr(module, "conv1d", None)) is not None:
        channels, heads = convolution.weight.shape[0], module.num_v_heads
        keys, values = module.head_k_dim, inside // heads
        # Input and output of the convolution; of the gated norm its input, normed, scaled, its gate twice, its output.
        count.narrow += 2 * channels + 3 * inside
        count.float32 += 3 * inside
        count.chunked += heads * (8 * keys + 3 * values + 5 * CHUNK + keys * values // CHUNK)
        return 0, 0
    count.narrow += sum(layer.out_features for layer in others) + 2 * inside
    for name, norm in module.named_children():
        if "Norm" in type(norm).__name__:
            is_of_keys = ("k" in name or "v" in name) and "k_proj" in named
            count.norm(norm, named["k_proj"].out_features if is_of_keys else inside, feeds_linear=False)
    if len(others) == 1:
        count.narrow += 2 * inside if has_rotary else 0
        return inside, inside
    keys = named["k_proj"].out_features if "k_proj" in named else inside
    if "q_proj" in named and named["q_proj"].out_features > inside:  # queries with a gate on the output
        count.narrow += inside
    return inside, keys


def _mlp(count: _Count, layers: list[tuple[str, Any]], width: int) -> None:
    """Add an MLP of two or three linear layers, or a single one, such as a router."""
    last = layers[-1][1]
    others = [layer for _, layer in layers[:-1]]
    if not others:
        count.narrow += last.out_features
        return
    inner = sum(layer.out_features for layer in others)
    count.narrow += inner + last.in_features * (inner // last.in_features)
    count.inner, count.mlp = max(count.inner, inner), max(count.mlp, last.in_features)


def kept_outside(modules: Mapping[str, Any], starts: list[str], width: int, patches: int) -> tuple[int, int]:
    """Return the (float32, narrow) elements that a projector keeps of one image token.

    Args:
        modules: Of the model, by name.
        starts: Beginnings of the names of the projector.
        width: Of the vision tower.
        patches: Rows of the tower that become one token.
    """
    count = _Count()
    for start in starts:
        inside = [(name, module) for name, module in modules.items() if f"{name}.".startswith(start)]
        for _, module in inside:
            if "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None:
                rows = patches if module.weight.numel() == width else 1
                count.norm(module, rows * module.weight.numel(), feeds_linear=True)
        linears = [module for _, module in inside if type(module).__name__ == "Linear"]
        count.narrow += sum(2 * module.out_features for module in linears[:-1])
    return count.float32, count.narrow
