"""Host memory of machines: who stands where decides what each must hold."""

import subprocess
import sys
from pathlib import Path

from orchestration.cluster.machines import Layout, Machine, Seating
from orchestration.models.shapes import read_shape
from orchestration.plan.checkpoint_size import share_bytes
from orchestration.plan.host_memory import ENGINE_FRONT_BYTES, LEARNER_BYTES, VOCABULARY_BYTES, host_memory
from orchestration.plan.learner_memory import learner_parts
from orchestration.plan.records import MemoryUse
from tests.unit.plan.configs import cpu_config, gpu_config
from tests.unit.plan.published import PUBLISHED

GIB = 2**30
SHAPE = read_shape(PUBLISHED["qwen2_5_vl_7b"])
MACHINES = tuple(Machine(name=f"node {i}", gpus=4, gpu="h100_80gb", cpus=64, memory_bytes=512 * GIB) for i in range(2))
LAYOUT = Layout(
    machines=MACHINES,
    seats=(
        *(Seating(role="engine", index=i, machine=0, gpus=(i,)) for i in range(4)),
        *(Seating(role="learner", index=i, machine=1, gpus=(i,)) for i in range(4)),
        *(Seating(role="reward", index=i, machine=0, gpus=()) for i in range(3)),
    ),
)


def named(use: MemoryUse) -> dict[str, int]:
    return {item.name: item.bytes for item in use.items}


def test_each_machine_holds_the_processes_that_stand_there(tmp_path: Path) -> None:
    first, second = host_memory(gpu_config(tmp_path), SHAPE, LAYOUT)

    assert named(first)["engines: front ends"] == 4 * (ENGINE_FRONT_BYTES + VOCABULARY_BYTES * 152064)
    assert named(first)["rewards: embedding table"] == 2 * 152064 * 3584
    assert "driver" in named(first)
    assert not any(name.startswith("learner") for name in named(first))
    assert named(second)["learner: processes"] == 4 * LEARNER_BYTES["cuda"]
    assert not any(name.startswith(("engines", "rewards", "driver")) for name in named(second))
    assert (first.limit_bytes, first.place) == (512 * GIB, "host memory of node 0")


def test_a_checkpoint_on_its_way_is_counted_for_every_rank(tmp_path: Path) -> None:
    config = gpu_config(tmp_path)
    _, second = host_memory(config, SHAPE, LAYOUT)

    assert named(second)["learner: checkpoint on its way"] == 4 * share_bytes(config, SHAPE)


def test_what_is_offloaded_lies_on_the_host(tmp_path: Path) -> None:
    plain = host_memory(gpu_config(tmp_path), SHAPE, LAYOUT)[1]
    offloaded = host_memory(gpu_config(tmp_path, "learner.fsdp.cpu_offload=true"), SHAPE, LAYOUT)[1]

    # All four ranks together: weights and averages of the whole model, gradients for a step.
    trained, total = 7_660_190_976, 8_292_166_656
    expected = 4 * trained + 2 * (total - trained) + 8 * trained + 4 * trained
    assert abs(offloaded.total_bytes - plain.total_bytes - expected) < 1e-4 * total


def test_a_sleeping_learner_of_a_shared_gpu_waits_in_host_memory(tmp_path: Path) -> None:
    turns = ("training.max_staleness=0", "rollout.weight_channel.backend=ipc")
    config = gpu_config(tmp_path, "cluster.layout=colocated", *turns)
    parked = named(host_memory(config, SHAPE, LAYOUT)[1])["learner: state parked for the engines' turn"]

    assert parked == 4 * sum(item.bytes for item in learner_parts(config, SHAPE).kept)


def test_on_a_cpu_the_ranks_hold_their_tensors_themselves(tmp_path: Path) -> None:
    machine = Machine(name="laptop", gpus=0, gpu=None, cpus=2, memory_bytes=24 * GIB)
    seats = tuple(Seating(role=role, index=0, machine=0, gpus=()) for role in ("engine", "learner", "reward"))  # type: ignore[arg-type]
    config = cpu_config(tmp_path)
    from orchestration.models.shapes import shape_of

    (use,) = host_memory(config, shape_of(config.model), Layout(machines=(machine,), seats=seats))

    assert named(use)["engines: key-value cache"] == config.rollout.engine.kv_cache_bytes
    assert named(use)["object store"] == config.cluster.object_store_bytes
    assert "learner: optimiser state (AdamW)" in named(use)
    assert use.excess_bytes == 0


def test_counting_memory_imports_neither_torch_nor_transformers_nor_ray() -> None:
    names = "shapes parameters image_tokens learner_memory engine_memory colocated host_memory checkpoint_size"
    code = "; ".join(
        [f"import orchestration.plan.{name}" for name in names.split()]
        + ["import sys", "print([name for name in ('torch', 'transformers', 'ray', 'vllm') if name in sys.modules])"]
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert found.strip() == "[]"
