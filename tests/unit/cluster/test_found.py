"""Which kind of machine a node of the cluster is."""

from orchestration.cluster.found import kind_of
from orchestration.settings.cluster import NodesConfig


def kind(resource: str | None, **more: object) -> NodesConfig:
    return NodesConfig(count=1, gpus=8, gpu=None, cpus=8, memory_gib=1.0, resource=resource, **more)  # type: ignore[arg-type]


def test_node_is_of_the_kind_whose_resource_it_has() -> None:
    kinds = [kind(None), kind("fast", roles=("learner",)), kind("cheap", roles=("engine",))]
    assert kind_of({"CPU": 8.0, "cheap": 1.0}, kinds) is kinds[2]
    assert kind_of({"CPU": 8.0}, kinds) is kinds[0]


def test_node_of_no_kind_is_left_alone() -> None:
    assert kind_of({"CPU": 8.0, "other": 1.0}, [kind("fast")]) is None
