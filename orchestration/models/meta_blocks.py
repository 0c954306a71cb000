"""What autograd keeps of one row in a transformer block, counted from the block's modules in transformers.

With s bytes per element in forward and backward, a row keeps 4 * float32 + s * narrow bytes:

    RMS norm            its input in float32; normalised, and its output, which the layers after it keep
    layer norm          input and output
    attention           queries, keys, values, the output, and the output as the last projection takes it
    rotary, fused qkv   queries and keys twice: before their rotation they are views of one tensor with the values
    gated MLP           gate, its activation, up, their product
    plain MLP           before and after the activation
    experts             the same of each expert of a token, its input and its output
    linear attention    inputs and outputs of the convolution, and what the chunks of the delta rule hold in float32

These counts are exact for the dense layers; `orchestration.plan.activations` has one measured factor for each part.
"""

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
        self.inner = 0
        self.mlp = 0

    def norm(self, module: Any, width: int, *, feeds_linear: bool) -> None:
        """Add a norm over `width` elements of a row."""
        if "RMS" in type(module).__name__ or getattr(module, "bias", None) is None:
            self.float32 += width
            self.narrow += width * (2 if feeds_linear else 1)
        else:
            self.narrow += 2 * width


def block_facts(
    block: Any, width: int, *, experts_per_token: int = 0, has_rotary: bool = False
) -> tuple[int, int, int, int, int, int]:
    """Return (float32, narrow, queries, keys, inner, mlp) of a block.

    Args:
        block: Module on the meta device.
        width: Of the residual stream.
        experts_per_token: Of a mixture.
        has_rotary: Whether a fused projection of queries, keys and values is rotated.

    Returns:
        Elements that a row keeps in float32 and in the type of forward and backward; elements of a row's queries and
        of its keys, 0 for linear attention; the widest gradient inside of the MLP; columns of its last layer.
    """
    count = _Count()
    linears: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    for name, module in block.named_modules():
        parent, _, own = name.rpartition(".")
        if type(module).__name__ == "Linear":
            linears[parent].append((own, module))
        elif "Norm" in type(module).__name__ and "attn" not in name and "attention." not in name:
            count.norm(module, width, feeds_linear=True)
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
    return count.float32, count.narrow, queries, keys, count.inner, count.mlp


def _attention(count: _Count, module: Any, layers: list[tuple[str, Any]], *, has_rotary: bool) -> tuple[int, int]:
    """Add an attention; return elements of a row's queries and keys, 0 for linear attention."""
    named = dict(layers)
    last = next((named[name] for name in OUTPUTS if name in named), layers[-1][1])
    others = [layer for layer in named.values() if layer is not last]
    inside = last.in_features
    count.narrow += sum(layer.out_features for layer in others) + 2 * inside
    for name, norm in module.named_children():
        if "Norm" in type(norm).__name__:
            count.norm(norm, named["k_proj"].out_features if "k" in name and "k_proj" in named else inside,
                       feeds_linear=False)  # fmt: skip
    if (convolution := getattr(module, "conv1d", None)) is not None:
        channels, heads = convolution.weight.shape[0], getattr(module, "num_v_heads", 1)
        count.narrow += 2 * channels
        keys, values = getattr(module, "head_k_dim", 0), inside // heads
        # Queries, keys and values of all heads, twice scaled, a row of each chunk's three matrices and of its state.
        count.float32 += heads * (3 * keys + 3 * values + 3 * CHUNK + keys * values // CHUNK)
        return 0, 0
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
