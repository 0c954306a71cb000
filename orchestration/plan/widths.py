"""Into how many workers an engine can cut a model, as vLLM 0.32 does it."""

from orchestration.models.shapes import ModelShape, PatchTower

KV_HEADS = "key-value heads"
MOST_WORKERS = 16


def undivided(shape: ModelShape, workers: int) -> dict[str, int]:
    """Give what cannot be shared by so many workers: name and number; empty where all can."""
    return {name: number for name, number in _parts(shape).items() if not _divides(name, number, workers)}


def widths(shape: ModelShape, most: int = MOST_WORKERS) -> list[int]:
    """Give the tensor-parallel sizes by which a model can be cut, `most` at most."""
    return [workers for workers in range(1, most + 1) if not undivided(shape, workers)]


def _parts(shape: ModelShape) -> dict[str, int]:
    text, tower = shape.text, shape.tower
    parts = {
        "attention heads": text.num_heads,
        KV_HEADS: text.num_kv_heads,
        "columns of the MLP": text.mlp_width,
        "columns of the vision MLP": tower.mlp_width,
    }
    if isinstance(tower, PatchTower):  # the heads of Qwen2.5-VL's tower are cut, InternVL's are not
        parts["vision heads"] = tower.num_heads
    return parts


def _divides(name: str, number: int, workers: int) -> bool:
    """Key-value heads may also be fewer than the workers: then several hold the same one."""
    return number % workers == 0 or (name == KV_HEADS and workers % number == 0)
