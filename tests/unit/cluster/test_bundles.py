"""What Ray is asked to reserve together."""

from pathlib import Path

import pytest

from orchestration.cluster.layout import RankDevices, colocated_devices, lay_out, ranks_under
from orchestration.cluster.machines import needs_of
from orchestration.cluster.reservations import bundles_of, further_engine
from orchestration.settings.errors import InfrastructureError
from tests.unit.cluster.machines import colocated, machine, run_on_gpus


def test_ranks_of_a_machine_come_together_and_every_other_actor_alone(tmp_path: Path) -> None:
    config = run_on_gpus(tmp_path, ranks=4, engines=1, width=4)
    layout = lay_out(config, [machine(0, gpus=2), machine(1, gpus=2), machine(2, gpus=4)])
    groups = bundles_of(layout, needs_of(config))
    assert [(group.machine, group.actors, group.resources) for group in groups[:3]] == [
        (0, (("learner", 0), ("learner", 1)), ({"CPU": 1, "GPU": 1.0},) * 2),
        (1, (("learner", 2), ("learner", 3)), ({"CPU": 1, "GPU": 1.0},) * 2),
        (2, (("engine", 0),), ({"CPU": 1, "GPU": 4.0},)),
    ]
    assert [group.actors for group in groups[3:]] == [(("reward", 0),), (("reward", 1),)]


def test_colocated_engines_come_with_their_ranks_and_reserve_no_gpu(tmp_path: Path) -> None:
    config = colocated(run_on_gpus(tmp_path, ranks=4, engines=2, width=2))
    layout = lay_out(config, [machine(0, gpus=2), machine(1, gpus=2)])
    groups = bundles_of(layout, needs_of(config))
    assert groups[1].actors == (("learner", 2), ("learner", 3), ("engine", 1))
    assert groups[1].resources[2] == {"CPU": 1}
    assert ranks_under(layout, 1) == (2, 3)


def test_bundles_take_the_resource_of_their_machines(tmp_path: Path) -> None:
    config = run_on_gpus(tmp_path, ranks=4, engines=1)
    machines = [
        machine(0, roles=("learner",), resource="fast"),
        machine(1, roles=("engine", "reward"), resource="slow"),
    ]
    layout = lay_out(config, machines)
    groups = bundles_of(layout, needs_of(config))
    assert [set(group.resources[0]) - {"CPU", "GPU"} for group in groups] == [{"fast"}, {"slow"}, {"slow"}, {"slow"}]


@pytest.mark.parametrize(("resource", "mark"), [("slow", {"slow": 0.001}), (None, {})])
def test_further_engine_goes_wherever_engines_may(tmp_path: Path, resource: str | None, mark: dict[str, float]) -> None:
    config = run_on_gpus(tmp_path, ranks=4, engines=1)
    others = [] if resource else [machine(1)]
    layout = lay_out(config, [machine(0, resource="slow"), *others])
    found = further_engine(layout, needs_of(config), 1)
    assert (found.machine, found.actors) == (None, (("engine", 1),))
    assert found.resources == ({"CPU": 1, "GPU": 1.0, **mark},)


def test_ranks_on_several_nodes_hold_no_engine() -> None:
    with pytest.raises(InfrastructureError, match="2 learner ranks, which are on 2 nodes"):
        colocated_devices([RankDevices(node_id="a", visible="0"), RankDevices(node_id="b", visible="0")])
