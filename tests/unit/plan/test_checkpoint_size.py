"""Sizes of checkpoints and exports against the files that a real learner writes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from learner.config import LoraConfig
from orchestration.plan.checkpoint_size import checkpoint_bytes, export_bytes, share_bytes
from orchestration.settings.experiment import ExperimentConfig
from tests.benchmarks.memory_cases import Case, shape_in, trainer_of, write_model
from tests.unit.plan.configs import cpu_config

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
