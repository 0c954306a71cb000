"""Which kinds of GPU a role stands on."""

from orchestration.cluster.machines import Layout
from orchestration.settings.cluster import ActorRole
from orchestration.settings.commands import GpuConfig
from orchestration.settings.experiment import ExperimentConfig


def kinds_under(config: ExperimentConfig, layout: Layout | None, role: ActorRole) -> tuple[GpuConfig, ...]:
    """Give the kinds of GPU under a role's actors; none where one of them is not known, or there are no GPUs."""
    if layout is None:
        return ()
    names = {layout.machines[seat.machine].gpu for seat in layout.of(role) if seat.gpus}
    kinds = [config.plan.gpus[name] for name in sorted(filter(None, names)) if name in config.plan.gpus]
    return tuple(kinds) if len(kinds) == len(names) else ()


def memory_limit(config: ExperimentConfig, layout: Layout | None, role: ActorRole) -> int | None:
    """Give the bytes of the smallest GPU under a role's actors; None where that is not known."""
    kinds = kinds_under(config, layout, role)
    return min((round(kind.memory_gib * (1 << 30)) for kind in kinds), default=None)
