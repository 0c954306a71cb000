"""PlanConfig: what `mixed-r1 plan` assumes."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuConfig:
    """What one kind of GPU can do."""

    memory_gib: float
    bf16_tflops: float
    """Dense, without sparsity."""
    memory_gb_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanConfig:
    """Assumptions of `mixed-r1 plan`."""

    gpus: Mapping[str, GpuConfig]
    """Kinds of GPU, by the names that `cluster.nodes` uses."""
