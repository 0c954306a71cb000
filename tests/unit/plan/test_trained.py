"""What is trained under freeze patterns and adapters, as the learner sorts it."""

from pathlib import Path

import pytest

from learner.config import LoraConfig
from orchestration.models.shapes import read_shape
from orchestration.plan.trained import changing_tensors, trained_tensors
from orchestration.settings.errors import ConfigError
from tests.benchmarks.memory_cases import Case, shape_in, trainer_of, write_model
from tests.unit.plan.published import PUBLISHED

SHAPE = read_shape(PUBLISHED["qwen2_5_vl_3b"])


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_adapters_and_patterns_give_the_learners_own_parameters(family: str, tmp_path: Path) -> None:
    lora = LoraConfig(rank=4, target_modules=("q_proj", "down_proj" if family == "qwen2_5_vl" else "fc1"))
    case = Case(family=family, learner={"lora": lora, "freeze": ("*layers.1.*",)})
    write_model(case, tmp_path)
    with trainer_of(case, tmp_path) as trainer:
        real = {n: tuple(p.shape) for n, p in trainer._backend.policy.hf_model.named_parameters() if p.requires_grad}
        travelling = [shape for name, shape in trainer.full_shapes().items() if name in trainer.changing_names()]

    split = trained_tensors(shape_in(tmp_path), ("*layers.1.*",), lora)

    assert {tensor.name: tensor.shape for tensor in split.trained} == real
    changing = changing_tensors(shape_in(tmp_path), ("*layers.1.*",), lora)
    assert sorted(tensor.shape for tensor in changing) == sorted(travelling)


def test_parts_and_patterns_leave_the_rest_to_train() -> None:
    split = trained_tensors(SHAPE, ("vision_tower", "*.norm.weight"), None)

    assert not split.trains("vision_tower")
    assert split.trains("projector")
    assert [tensor.name for tensor in split.fixed if tensor.part == "language_model"] == [
        "model.language_model.norm.weight"
    ]


@pytest.mark.parametrize(
    ("freeze", "lora", "message"),
    [
        (("vision",), None, "pattern 'vision' matches no parameter"),
        (("vision_tower", "projector", "language_model"), None, "freezes every parameter"),
        ((), LoraConfig(target_modules=("query",)), "names 'query', which is no trainable linear layer"),
        (("vision_tower",), LoraConfig(target_modules=("qkv",)), "names 'qkv'"),
    ],
)
def test_what_matches_nothing_is_refused(freeze: tuple[str, ...], lora: LoraConfig | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trained_tensors(SHAPE, freeze, lora)
