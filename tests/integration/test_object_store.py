"""An object store that is smaller than what a run keeps in it."""

import os
from collections.abc import Iterator

import numpy as np
import pytest
import ray

from orchestration.cluster.session import leave_ray
from rollout.records import Generation, ImageBytes, RolloutGroup, Sample

STORE_BYTES = 80 << 20  # about the least that Ray accepts
NUM_GROUPS = 120
IMAGE_BYTES = 1 << 20


@pytest.fixture
def small_store() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=STORE_BYTES)
    yield
    leave_ray()


def make_group(index: int) -> RolloutGroup:
    generator = np.random.default_rng(index)
    image = ImageBytes(data=generator.bytes(IMAGE_BYTES), width=8, height=8)
    return RolloutGroup(
        group_id=f"0-{index}",
        sample=Sample(sample_id=f"s{index}", source="t", task="chart", question="?", answer="4", images=(image,)),
        prompt_token_ids=np.arange(4, dtype=np.int32),
        image_input_sizes=((8, 8),),
        generations=(
            Generation(
                token_ids=np.full(16, index, np.int32),
                logprobs=np.zeros(16, np.float32),
                finish_reason="stop",
                weight_version_start=0,
                weight_version_end=0,
            ),
        ),
        seconds=0.1,
    )


@ray.remote
class Maker:
    """Stands where an engine stands: what it makes stays in the object store."""

    def make(self, index: int) -> RolloutGroup:
        return make_group(index)


@ray.remote
class Reader:
    """Stands where a learner rank stands."""

    def is_whole(self, index: int, group: RolloutGroup) -> bool:
        made = make_group(index)
        return group.sample == made.sample and bool(np.all(group.generations[0].token_ids == index))


def test_groups_beyond_the_store_travel_over_the_disk_and_come_back_whole(small_store: None) -> None:
    assert 1.4 * ray.cluster_resources()["object_store_memory"] < NUM_GROUPS * IMAGE_BYTES
    maker, reader = Maker.remote(), Reader.remote()
    groups = [maker.make.remote(index) for index in range(NUM_GROUPS)]
    ray.wait(groups, num_returns=NUM_GROUPS, fetch_local=False)
    assert all(ray.get([reader.is_whole.remote(index, group) for index, group in enumerate(groups)]))
