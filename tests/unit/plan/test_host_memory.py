"""Host memory of machines, and sizes of checkpoints and exports against the files that a real learner writes."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from learner.config import LoraConfig
from orchestration.cluster.layout import Layout, PlacedActor
from orchestration.cluster.machines import Machine
from orchestration.models.shapes import read_shape
from orchestration.plan.host_memory import (
    ENGINE_FRONT_BYTES,
    LEARNER_BYTES,
    VOCABULARY_BYTES,
    checkpoint_bytes,
    export_bytes,
    host_memory,
    share_bytes,
)
from orchestration.plan.learner_memory import learner_parts
from orchestration.plan.records import MemoryUse
from orchestration.settings.experiment import ExperimentConfig
from tests.benchmarks.memory_cases import Case, shape_in, trainer_of, write_model
from tests.unit.plan.published import PUBLISHED
from tests.unit.plan.runs import cpu_config, gpu_config

GIB = 2**30
SHAPE = read_shape(PUBLISHED["qwen2_5_vl_7b"])
MACHINES = tuple(Machine(name=f"node {i}", gpus=4, gpu="h100_80gb", cpus=64, memory_bytes=512 * GIB) for i in range(2))
LAYOUT = Layout(
    machines=MACHINES,
    actors=(
        *(PlacedActor(role="engine", index=i, machine=0, gpus=(i,)) for i in range(4)),
        *(PlacedActor(role="learner", index=i, machine=1, gpus=(i,)) for i in range(4)),
        *(PlacedActor(role="reward", index=i, machine=0, gpus=()) for i in range(3)),
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

    assert named(second)["learner: staged checkpoint"] == 4 * share_bytes(config, SHAPE)


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
    parked = named(host_memory(config, SHAPE, LAYOUT)[1])["learner: state offloaded during rollout"]

    assert parked == 4 * sum(item.bytes for item in learner_parts(config, SHAPE).kept)


def test_on_a_cpu_the_ranks_hold_their_tensors_themselves(tmp_path: Path) -> None:
    machine = Machine(name="laptop", gpus=0, gpu=None, cpus=2, memory_bytes=24 * GIB)
    seats = tuple(PlacedActor(role=role, index=0, machine=0, gpus=()) for role in ("engine", "learner", "reward"))  # type: ignore[arg-type]
    config = cpu_config(tmp_path)
    from orchestration.models.shapes import shape_of

    (use,) = host_memory(config, shape_of(config.model), Layout(machines=(machine,), actors=seats))

    assert named(use)["engines: key-value cache"] == config.rollout.engine.kv_cache_bytes
    assert named(use)["object store"] == config.cluster.object_store_bytes
    assert "learner: optimiser state (AdamW)" in named(use)
    assert use.excess_bytes == 0


def test_counting_memory_imports_neither_torch_nor_transformers_nor_ray() -> None:
    names = "models.shapes models.tensors models.image_tokens plan.memory"
    code = "; ".join(
        [f"import orchestration.{name}" for name in names.split()]
        + ["import sys", "print([name for name in ('torch', 'transformers', 'ray', 'vllm') if name in sys.modules])"]
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert found.strip() == "[]"


CASES = {
    "qwen": Case(),
    "internvl, frozen tower, bfloat16": Case(
        family="internvl", learner={"freeze": ("vision_tower",), "dtype": "bfloat16"}
    ),
    "adapters": Case(learner={"lora": LoraConfig(rank=8), "freeze": ("vision_tower",)}),
}


def experiment(case: Case, folder: Path, tmp_path: Path, num_ranks: int = 1) -> ExperimentConfig:
    learner = case.learner_config(folder, num_ranks)
    config = cpu_config(tmp_path)
    return replace(config, learner=learner, algorithm=learner.algorithm, model=replace(config.model, path=str(folder)))


def files_in(folder: Path, pattern: str = "*") -> int:
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file())


@pytest.fixture(scope="module", params=CASES)
def written(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Path, int, int]:
    """(case, its model, bytes of the staged checkpoint, bytes of the exported weights)."""
    case, place = CASES[request.param], tmp_path_factory.mktemp("written")
    write_model(case, place / "model")
    with trainer_of(case, place / "model") as trainer:
        trainer.stage(step=0)
        share = trainer._staging.path("share")
        staged = files_in(share)
        trainer.export(place / "exported")
    return case, place / "model", staged, files_in(place / "exported", "*.safetensors")


def test_a_checkpoint_is_as_large_as_planned(written: tuple[Case, Path, int, int], tmp_path: Path) -> None:
    case, folder, staged, _ = written

    planned = checkpoint_bytes(experiment(case, folder, tmp_path), shape_in(folder))

    assert planned == pytest.approx(staged, rel=0.01)


def test_an_export_is_as_large_as_planned(written: tuple[Case, Path, int, int], tmp_path: Path) -> None:
    case, folder, _, exported = written

    assert export_bytes(experiment(case, folder, tmp_path), shape_in(folder)) == pytest.approx(exported, rel=0.01)


def test_ranks_share_a_checkpoint(tmp_path: Path) -> None:
    case = Case()
    write_model(case, tmp_path / "model")
    two = experiment(case, tmp_path / "model", tmp_path, 2)
    shape = shape_in(tmp_path / "model")

    assert share_bytes(two, shape) == pytest.approx(checkpoint_bytes(two, shape) / 2, abs=1)
