"""Every tensor of a model, and which are trained, against transformers and a real learner."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from learner.config import LoraConfig
from learner.families.registry import FAMILIES
from orchestration.models.shapes import ModelShape, read_saved_shape, read_shape, shape_of
from orchestration.models.tensors import (
    ParameterCounts,
    changing_tensors,
    count_elements,
    count_parameters,
    sent_tensors,
    trained_tensors,
)
from orchestration.settings.errors import ConfigError
from orchestration.settings.model import ModelConfig
from tests.benchmarks.memory_cases import Case, shape_in, trainer_of, write_model
from tests.tiny_models import make_tiny_model, tiny_config
from tests.unit.plan.published import PUBLISHED


def meta_model(config: Any) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    if isinstance(config, dict):
        values = copy.deepcopy(config)
        config = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def assert_same(shape: ModelShape, model: Any) -> None:
    named = dict(model.named_parameters())
    assert {tensor.name: tensor.shape for tensor in shape.tensors} == {n: tuple(p.shape) for n, p in named.items()}
    parts = FAMILIES[shape.family](model.config).parts
    assert all(tensor.name.startswith(parts[tensor.part]) for tensor in shape.tensors)
    counts = count_parameters(shape)
    assert counts.total == sum(parameter.numel() for parameter in named.values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_tensor_of_a_published_model_has_its_name_shape_and_part(name: str) -> None:
    assert_same(read_shape(PUBLISHED[name]), meta_model(PUBLISHED[name]))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_the_demo_models_are_counted_without_their_folder(family: Any, tmp_path: Path) -> None:
    from transformers import AutoConfig

    make_tiny_model(tmp_path, family, corpus=["red circle"] * 9)
    config = AutoConfig.from_pretrained(tmp_path)

    assert_same(shape_of(tiny_config(family)), meta_model(config))
    assert_same(shape_of(replace(tiny_config(family), path=str(tmp_path))), meta_model(config))


def test_parts_of_the_7b_model_are_counted_by_hand() -> None:
    # Block of the language model: q, k, v with biases, o, three MLP matrices, two norms.
    attention = 3584 * 3584 + 3584 + 2 * (3584 * 512 + 512) + 3584 * 3584
    block = attention + 3 * 3584 * 18944 + 2 * 3584
    # Block of the tower: qkv and proj with biases, three MLP matrices with biases, two norms.
    tower_block = 1280 * 3840 + 3840 + 1280 * 1280 + 1280 + 3 * 1280 * 3420 + 2 * 3420 + 1280 + 2 * 1280

    counts = count_parameters(read_shape(PUBLISHED["qwen2_5_vl_7b"]))

    assert counts == ParameterCounts(
        vision_tower=32 * tower_block + 1280 * 3 * 2 * 14 * 14,
        projector=1280 + 5120 * 5120 + 5120 + 5120 * 3584 + 3584,
        language_model=28 * block + 152064 * 3584 + 3584,
        lm_head=152064 * 3584,
    )
    assert counts.total == 8_292_166_656


def test_both_layouts_of_qwen_are_read_alike() -> None:
    flat = PUBLISHED["qwen2_5_vl_3b"]
    text = {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
            "vocab_size", "rope_theta", "use_sliding_window"}  # fmt: skip
    nested = {key: value for key, value in flat.items() if key not in text}
    nested["text_config"] = {key: flat[key] for key in text}

    assert read_shape(nested) == read_shape(flat)


@pytest.mark.parametrize("name", ["qwen2_5_vl_3b", "internvl3_38b"])
def test_a_folder_written_by_transformers_is_read_as_what_was_published(name: str, tmp_path: Path) -> None:
    meta_model(PUBLISHED[name]).config.save_pretrained(tmp_path)

    assert read_saved_shape(json.loads((tmp_path / "config.json").read_text())) == read_shape(PUBLISHED[name])


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        ((), {"model_type": "lava"}, r"no model_type 'lava'"),
        ((), {"hidden_size": None}, r"hf_config.hidden_size is missing; copy it from"),
        ((), {"tie_word_embeddings": None}, r"tie_word_embeddings is missing"),
        ((), {"hiden_size": 2}, r"hf_config.hiden_size is not known .* did you mean hidden_size\?"),
        ((), {"num_hidden_layers": 0}, r"num_hidden_layers is 0; it must be a whole number"),
        ((), {"use_sliding_window": True}, r"use_sliding_window is true"),
        (("vision_config",), {"depth": None}, r"hf_config.vision_config.depth is missing"),
        (("vision_config",), {"out_hidden_size": 7}, r"out_hidden_size is 7, but hidden_size .* is 2048"),
        (("vision_config",), {"patch_size": [14, 16]}, r"patch_size is \[14, 16\]"),
    ],
)
def test_what_is_missing_or_unknown_is_named(place: tuple[str, ...], change: dict[str, Any], message: str) -> None:
    values = copy.deepcopy(PUBLISHED["qwen2_5_vl_3b"])
    inner = values
    for key in place:
        inner = inner[key]
    inner |= change

    with pytest.raises(ConfigError, match=message):
        read_shape(values)


def test_a_path_without_a_folder_falls_back_to_the_stated_sizes(tmp_path: Path) -> None:
    absent = str(tmp_path / "nowhere")
    stated = ModelConfig(path=absent, family=None, coord_mode="pixel_resized", hf_config=PUBLISHED["qwen2_5_vl_3b"])

    assert shape_of(stated) == read_shape(PUBLISHED["qwen2_5_vl_3b"])
    with pytest.raises(ConfigError, match=r"holds no config.json and model.hf_config is null"):
        shape_of(ModelConfig(path=absent, family=None, coord_mode="pixel_resized"))


SHAPE = read_shape(PUBLISHED["qwen2_5_vl_3b"])


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_adapters_and_patterns_give_the_learners_own_parameters(family: str, tmp_path: Path) -> None:
    lora = LoraConfig(rank=4, target_modules=("q_proj", "down_proj" if family == "qwen2_5_vl" else "fc1"))
    case = Case(family=family, learner={"lora": lora, "freeze": ("*layers.1.*",)})
    write_model(case, tmp_path)
    with trainer_of(case, tmp_path) as trainer:
        real = {n: tuple(p.shape) for n, p in trainer.backend.policy.hf_model.named_parameters() if p.requires_grad}
        travelling = [
            shape for name, shape in trainer.backend.full_shapes().items() if name in trainer.backend.changing_names()
        ]

    split = trained_tensors(shape_in(tmp_path), ("*layers.1.*",), lora)

    assert {tensor.name: tensor.shape for tensor in split.trained} == real
    changing = changing_tensors(shape_in(tmp_path), ("*layers.1.*",), lora)
    assert sorted(tensor.shape for tensor in changing) == sorted(travelling)


def test_adapters_of_a_7b_model_are_a_hundredth_of_its_bytes_up_to_rank_32() -> None:
    shape, freeze = read_shape(PUBLISHED["qwen2_5_vl_7b"]), ("vision_tower", "projector")
    # Both factors of a layer have the rank times the sum of its sides.
    sides = 2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944)  # q and o, k and v, the MLP
    for rank, share in ((16, 0.0049), (32, 0.0097), (64, 0.0195)):
        sent = count_elements(sent_tensors(shape, freeze, LoraConfig(rank=rank, publish="adapter")))
        assert sent == 28 * rank * sides
        assert sent / count_elements(shape.tensors) == pytest.approx(share, abs=5e-5)


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
