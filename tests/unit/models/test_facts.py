"""Facts of models: computed by a child process, kept for later processes, the same for every family."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestration.models import facts
from orchestration.models.facts import FactsError, facts_of
from orchestration.models.meta_model import describe
from orchestration.models.shapes import ModelShape, read_saved_shape, read_shape
from orchestration.models.tensors import active_elements, count_parameters
from orchestration.settings.errors import ConfigError
from tests.unit.plan.published import PUBLISHED

TINY_TEXT = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
TINY_TOWER = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
}
SIGLIP = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2,
          "image_size": 56, "patch_size": 14}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "qwen3_vl": {"text_config": TINY_TEXT, "vision_config": {**TINY_TOWER, "deepstack_visual_indexes": [0, 1]}},
    "qwen3_vl_moe": {
        "text_config": {**TINY_TEXT, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
        "vision_config": {**TINY_TOWER, "deepstack_visual_indexes": [0]},
    },
    "qwen3_5": {"text_config": {**TINY_TEXT, **LINEAR}, "vision_config": TINY_TOWER},
    "gemma3": {"text_config": {**TINY_TEXT, "sliding_window": 8}, "vision_config": SIGLIP, "mm_tokens_per_image": 4},
    "qwen3": TINY_TEXT,
}


def shape(name: str, **changes: Any) -> ModelShape:
    return read_saved_shape({"model_type": name, "tie_word_embeddings": False, **MODELS[name], **changes})


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own, and nothing known yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(facts, "_KNOWN", {})
    return facts.cache_folder()


def in_child(config: dict[str, Any]) -> Any:
    """What a fresh process says, which has no part in this one's stand-in."""
    code = "import json, sys; from orchestration.models.facts import facts_of; facts_of(json.load(sys.stdin)); " \
           "print([name for name in ('torch', 'transformers') if name in sys.modules])"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], input=json.dumps(config), capture_output=True, text=True,
                          check=True)  # fmt: skip
    return done.stdout.strip()


def test_a_process_without_torch_has_a_child_compute_and_keeps_what_it_says(cache_folder: Path) -> None:
    config = {"model_type": "qwen3", "tie_word_embeddings": True, **TINY_TEXT}

    assert in_child(config) == "[]"
    [kept] = cache_folder.iterdir()
    assert json.loads(kept.read_text()) == json.loads(json.dumps(describe(config)))
    kept.write_text(json.dumps({"read": "from the cache"}))
    assert facts_of(config) == {"read": "from the cache"}


def test_a_folder_that_cannot_be_written_costs_the_time_and_nothing_else(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_folder.parent.write_text("a file in the place of the folder")

    assert facts_of({"model_type": "qwen3", **TINY_TEXT})["text"]["width"] == 64


def test_without_transformers_the_message_says_what_to_install(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compute(configs: list[Any]) -> list[Any]:
        raise FactsError("torch and transformers are not installed here; install mixed-r1[train]")

    monkeypatch.setattr(facts, "compute", compute)

    with pytest.raises(ConfigError, match=r"model.hf_config: .*install mixed-r1\[train\]"):
        read_shape({"model_type": "qwen3", "tie_word_embeddings": True, **TINY_TEXT})


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_of_any_family_has_a_part_and_a_block(name: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    config = AutoConfig.for_model(name, **copy.deepcopy(MODELS[name]), tie_word_embeddings=False)
    model = (AutoModelForCausalLM if name == "qwen3" else AutoModelForImageTextToText).from_config(config)
    found = shape(name)

    assert {tensor.name: tensor.shape for tensor in found.tensors} == {
        parameter: tuple(tensor.shape) for parameter, tensor in model.named_parameters()
    }
    blocks = {tensor.block for tensor in found.tensors if tensor.block}
    assert len(blocks) == found.text.num_layers + found.tower.num_layers
    parts = {tensor.part for tensor in found.tensors}
    assert parts == ({"language_model"} if name == "qwen3" else {"language_model", "vision_tower", "projector"})
    assert found.text.mlp_width == (24 if name == "qwen3_vl_moe" else 96)


def test_a_token_is_computed_with_its_own_experts_alone() -> None:
    mixture = shape("qwen3_vl_moe")
    experts = sum(tensor.numel for tensor in mixture.tensors if tensor.is_expert)

    assert experts == 4 * 8 * 3 * 24 * 64  # blocks, experts, matrices of 24 x 64
    assert active_elements(mixture, mixture.tensors) == count_parameters(mixture).total - experts * 6 // 8


def test_a_family_that_the_learner_does_not_know_is_divided_by_its_modules() -> None:
    names = {tensor.name.split(".")[1]: tensor.part for tensor in shape("gemma3").tensors if tensor.name[0] == "m"}

    assert names == {
        "language_model": "language_model", "vision_tower": "vision_tower", "multi_modal_projector": "projector"
    }  # fmt: skip


def test_a_tower_of_sound_larger_than_that_of_pictures_is_not_taken_for_it() -> None:
    from transformers import Gemma4Config

    text = {**TINY_TEXT, "layer_types": ["sliding_attention", "full_attention"] * 2, "vocab_size_per_layer_input": 512}
    tower = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 16,
    }
    config = Gemma4Config(text_config=text, vision_config=tower, audio_config={"num_hidden_layers": 2})
    found = describe(config.to_dict())
    assert found["tower"]["width"] == 32
    assert {part for name, _, part, *_ in found["tensors"] if "vision_tower." in name} == {"vision_tower"}


def test_layers_of_linear_attention_have_a_state_and_no_keys() -> None:
    text = shape("qwen3_5").text

    assert [block.kind for block in text.blocks] == ["linear_attention"] * 3 + ["full_attention"]
    assert text.num_cached == 1
    assert text.state == (4 * 16 * 16, (2 * 2 * 16 + 4 * 16) * 3)
    assert [block.keys for block in text.blocks] == [0, 0, 0, 32]


@pytest.mark.parametrize(
    ("model", "kept32", "kept"),
    [
        # Two norms; queries, keys, values, two outputs; gate, activation, up, product.
        ("qwen2_5_vl_7b", 2 * 3584, 4 * 3584 + 3 * 3584 + 2 * 512 + 4 * 18944),
        ("internvl3_1b", 2 * 896, 4 * 896 + 3 * 896 + 2 * 128 + 4 * 4864),
    ],
)
def test_what_a_block_keeps_is_what_its_modules_say(model: str, kept32: int, kept: int) -> None:
    found = read_shape(PUBLISHED[model])

    assert {(block.float32, block.narrow) for block in found.text.blocks} == {(kept32, kept)}


def test_a_configuration_of_no_known_architecture_is_named() -> None:
    with pytest.raises(ConfigError, match=r"transformers knows no model_type 'my_own'"):
        read_shape({"model_type": "my_own"})


def test_a_key_of_another_kind_than_its_class_takes_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model.hf_config: transformers makes no model of it .*rms_norm_eps"):
        read_shape({"model_type": "qwen3", "tie_word_embeddings": True, **TINY_TEXT, "rms_norm_eps": "small"})
