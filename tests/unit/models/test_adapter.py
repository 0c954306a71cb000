"""An adapter is compared with settings and model before anything starts, by its settings and the header of its file."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from learner.adapter import CONFIG_FILE, WEIGHTS_FILE, settings_of, stored_name
from orchestration.cli import compose
from orchestration.models.adapter import check_adapter
from orchestration.models.shapes import shape_of
from orchestration.models.tensors import trained_tensors
from orchestration.plan.command import checked_plan
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig, build_settings

OLDER_NAMES = {
    "tiny_qwen2_5_vl": ("model.language_model.layers", "model.layers"),
    "tiny_internvl": ("model.language_model.layers", "language_model.model.layers"),
}
"""Names of layers with transformers before 4.52."""


def settings(folder: Path, *overrides: str) -> ExperimentConfig:
    chosen = ("+learner/lora=default", "learner.freeze=[vision_tower]", f"learner.lora.start={folder}", *overrides)
    return build_settings(compose([f"run_dir={folder.parent / 'run'}", f"cache_dir={folder.parent}", *chosen]))


def write_adapter(config: ExperimentConfig, renamed: tuple[str, str] = ("", "")) -> None:
    lora = config.learner.lora
    assert lora is not None
    assert lora.start is not None
    folder = Path(lora.start)
    trained = trained_tensors(shape_of(config.model), config.learner.freeze, lora).trained
    tensors = {stored_name(tensor.name.replace(*renamed)): np.zeros(tensor.shape, np.float32) for tensor in trained}
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(settings_of(tensors, config=lora, base="base")))


@pytest.mark.parametrize("model", OLDER_NAMES)
@pytest.mark.parametrize("is_old", [False, True])
def test_an_adapter_of_the_model_is_taken_by_names_of_today_and_of_older_versions(
    model: str, is_old: bool, tmp_path: Path
) -> None:
    config = settings(tmp_path / "adapter", f"model={model}")
    write_adapter(config, OLDER_NAMES[model] if is_old else ("", ""))

    check_adapter(config)


def test_a_plan_refuses_an_adapter_that_is_not_there_or_is_another_one(tmp_path: Path) -> None:
    config = settings(tmp_path / "adapter")
    with pytest.raises(ConfigError, match=r"learner\.lora\.start=.*adapter is no folder; point it at the folder of an"):
        checked_plan(config)

    write_adapter(config)
    assert checked_plan(config).model.name
    with pytest.raises(
        ConfigError, match=r"has rank 16 and alpha 32, .*set learner\.lora\.rank=16 learner\.lora\.alpha=32"
    ):
        checked_plan(settings(tmp_path / "adapter", "learner.lora.rank=8"))
    with pytest.raises(
        ConfigError, match=r"the adapter has \d+ that they do not: .*k_proj.*make learner\.lora\.target_m"
    ):
        checked_plan(settings(tmp_path / "adapter", "learner.lora.target_modules=[q_proj]"))
    for export, count in (("adapter", 0), ("both", 1)):
        planned = checked_plan(settings(tmp_path / "adapter", f"learner.lora.export={export}")).memory.export_bytes
        written = (tmp_path / "adapter" / WEIGHTS_FILE).stat().st_size
        assert planned - count * checked_plan(config).memory.export_bytes == pytest.approx(written, rel=0.1)


def test_without_an_adapter_to_go_on_from_nothing_is_looked_for(tmp_path: Path) -> None:
    config = settings(tmp_path / "adapter")
    assert config.learner.lora is not None
    new = replace(config, learner=replace(config.learner, lora=replace(config.learner.lora, start=None)))

    check_adapter(new)
    check_adapter(replace(config, learner=replace(config.learner, lora=None)))


@pytest.mark.parametrize(
    ("freeze", "targets", "refused"),
    [
        ("[vision_tower]", "[q_proj,down_proj]", None),
        ("[]", "[q_proj]", None),  # the tower of Qwen2.5-VL has no layer of this name
        (
            "[]",
            "[q_proj,down_proj]",
            r"model\.visual\.blocks\.0\.mlp\.down_proj.*: add vision_tower to learner\.freeze",
        ),
        ("[]", "[q_proj,qkv]", r"attn\.qkv and others of vision_tower .*or set learner\.lora\.publish=merged"),
    ],
)
def test_engines_that_take_adapters_alone_are_refused_those_of_the_tower(
    freeze: str, targets: str, refused: str | None, tmp_path: Path
) -> None:
    chosen = ("learner.lora.start=null", f"learner.freeze={freeze}", f"learner.lora.target_modules={targets}")
    check_adapter(settings(tmp_path / "adapter", *chosen, "learner.lora.publish=merged"))
    config = settings(tmp_path / "adapter", *chosen, "learner.lora.publish=adapter")
    if refused is None:
        check_adapter(config)
    else:
        with pytest.raises(ConfigError, match=refused):
            check_adapter(config)
