"""Why a run does not fit its machines, in the words of its settings: pure."""

from collections import Counter
from collections.abc import Mapping, Sequence

from orchestration.cluster.machines import Machine
from orchestration.cluster.needs import Need, Needs
from orchestration.settings.errors import ConfigError

COUNTED = {"learner": "learner ranks", "engine": "engines", "reward": "reward actors"}
KEYS = {
    "learner": "learner.num_ranks",
    "engine": "rollout.engines or rollout.engine.tensor_parallel_size",
    "reward": "cluster.reward_pool.num_actors",
}


def check_sizes(needs: Needs, machines: Sequence[Machine]) -> None:
    """Refuse what no number of such machines would hold.

    Raises:
        ConfigError: an engine wider than a machine; engines that do not cover the ranks' GPUs when colocated.
    """
    if not machines:
        raise ConfigError("there is no machine to stand on; describe some in cluster.nodes, or start Ray on them")
    for need in (needs.learner, needs.engine, needs.reward):
        if need.count and not any(need.role in machine.roles for machine in machines):
            raise ConfigError(
                f"no machine may hold {COUNTED[need.role]}: {describe(machines)}; add {need.role} to the roles of one "
                f"kind in cluster.nodes ({KEYS[need.role]} says how many there are)"
            )
    if needs.engine.count == 0:
        return
    width = needs.engine.gpus
    widest = max(machine.gpus for machine in machines if "engine" in machine.roles)
    if width > 1 and width > widest:
        raise ConfigError(
            f"rollout.engine.tensor_parallel_size={width} does not fit a machine with {widest} GPUs: an engine stands "
            f"on one machine; use {widest} or less" + (", or larger machines" if widest else "")
        )
    ranks, engines = needs.learner.count, needs.engine.count
    if needs.is_colocated and width and engines * width != ranks:
        raise ConfigError(
            f"cluster.layout is colocated, where engines cover the GPUs of the ranks, but rollout.engines={engines} x "
            f"rollout.engine.tensor_parallel_size={width} is not learner.num_ranks={ranks}; "
            + (f"set rollout.engines={ranks // width}" if ranks % width == 0 else f"use ranks in multiples of {width}")
        )


def shortage(needs: Needs, machines: Sequence[Machine], missing: Mapping[str, int]) -> str:
    """Say what found no room, what is needed and what is there.

    Args:
        needs: Of the run.
        machines: All there are.
        missing: Actors that found no room once the learner was seated, by role; empty if the learner did not.
    """
    every = [need for need in (needs.learner, needs.engine, needs.reward) if need.count]
    if missing:
        counts = {need.role: need.count for need in every}
        lead = " and ".join(f"{left} of {counts[role]} {COUNTED[role]}" for role, left in missing.items())  # type: ignore[index]
    else:
        lead = f"the {needs.learner.count} learner ranks"
    keys = ", ".join(KEYS[role] for role in (missing or ("learner",)))
    asked = "; ".join(_ask(need, needs) for need in every)
    return (
        f"no room for {lead}. Needed: {asked}; each actor reserves a core as well. There is: {describe(machines)}. "
        f"Lower {keys}, or add machines (cluster.nodes, or nodes of the Ray cluster)"
    )


def _ask(need: Need, needs: Needs) -> str:
    ask = f"{need.count} {COUNTED[need.role]}"
    if need.gpus == 0:
        return ask
    if need.role == "engine" and needs.is_colocated:
        return f"{ask} on {need.gpus} GPUs of the ranks each"
    size = f"{need.gpus * need.share:g} GPU" + ("s" if need.gpus > 1 else "")
    on_one = ", on one machine each" if need.gpus > 1 else ""
    return f"{ask} of {size} (together {need.total_gpus:g}{on_one})"


def describe(machines: Sequence[Machine]) -> str:
    """Machines in few words, like ones together.

    Example:
        >>> kind = dict(gpus=8, gpu="h100_80gb", cpus=96, memory_bytes=1 << 40)
        >>> describe([Machine(name="node 0", **kind), Machine(name="node 1", **kind)])
        'node 0, node 1 with 8 GPUs and 96 cores each'
    """
    kinds: dict[tuple[object, ...], list[str]] = {}
    for machine in machines:
        only = "" if len(machine.roles) == len(KEYS) else f" for {', '.join(machine.roles) or 'nothing'} alone"
        kinds.setdefault((machine.gpus, machine.cpus, only), []).append(machine.name)
    return "; ".join(
        f"{_names(names)} with {gpus} GPUs and {cpus} cores" + (" each" if len(names) > 1 else "") + str(only)
        for (gpus, cpus, only), names in kinds.items()
    )


def _names(names: Sequence[str]) -> str:
    shown = [name if count == 1 else f"{count} x {name}" for name, count in Counter(names).items()]
    return ", ".join(shown) if len(shown) <= 4 else f"{shown[0]} to {shown[-1]} ({len(names)} machines)"
