"""A folder of a language model: a tokenizer and no processor, its own names of tensors, rows without images."""

import json
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from learner.config import LoraConfig
from orchestration.models.chat_template import ChatTemplate
from orchestration.models.files import stored_tensors
from orchestration.models.image_tokens import images_fault
from orchestration.models.model_folder import STACKS, _check_tensors, check_model_folder, parameter_name
from orchestration.models.shapes import ModelShape, read_saved_shape, read_shape
from orchestration.models.tensors import trained_tensors
from orchestration.plan.findings import image_findings
from orchestration.settings.errors import ConfigError
from rollout.conversation import PromptSpec
from rollout.errors import RolloutError
from rollout.prompt import PromptBuilder
from rollout.records import Sample, Turn
from tests.tiny_models import make_tiny_model
from tests.unit.plan.runs import dataset, row

TEXT_SIZES = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
AS_PUBLISHED = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""It begins with the first token, and takes the contents of turns for texts."""
HISTORY = (Turn(role="user", text="Are 2 and 2 four?"), Turn(role="assistant", text="They are."))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "qwen3"
    make_tiny_model(folder, "qwen3", corpus=["how many are there?"] * 3)
    (folder / "chat_template.jinja").write_text(AS_PUBLISHED)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"bos_token": "<|endoftext|>"}))
    return folder


@pytest.fixture(scope="module")
def shape(made: Path) -> ModelShape:
    return read_saved_shape(json.loads((made / "config.json").read_text()))


def test_the_folder_is_whole_and_takes_no_images(made: Path, shape: ModelShape) -> None:
    assert check_model_folder(made) == shape
    assert shape.image_kind == "none"


def test_names_of_the_model_stay_and_others_are_renamed(shape: ModelShape) -> None:
    own = {tensor.name for tensor in shape.tensors}

    assert parameter_name("model.embed_tokens.weight", own) == "model.embed_tokens.weight"
    assert parameter_name("model.embed_tokens.weight", set()) == "model.language_model.embed_tokens.weight"


def test_both_readers_of_the_template_give_it_texts_and_named_tokens(made: Path) -> None:
    asked = Sample(sample_id="a", source="unit", task="math", question="What is 2 + 2?", answer="4", history=HISTORY)
    builder = PromptBuilder(made, max_images=1)

    text = ChatTemplate(made).prompt(asked.question, num_images=0, spec=PromptSpec(), history=HISTORY)

    assert text == (
        "<|endoftext|><|im_start|>user\nAre 2 and 2 four?<|im_end|>\n<|im_start|>assistant\nThey are.<|im_end|>\n"
        "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert builder._tokenizer.decode(builder.build(asked).token_ids) == text
    assert builder.expanded_ids(asked) == builder.build(asked).token_ids


def test_a_prompt_with_an_image_is_refused_by_name(made: Path) -> None:
    with pytest.raises(RolloutError, match="sample a has 1 images, and the model is a language model that takes none"):
        PromptBuilder(made, max_images=1).measure("What is this?", [(64, 64)], "a")


def test_rows_with_images_are_refused_and_counted(shape: ModelShape, tmp_path: Path) -> None:
    mixed = dataset(tmp_path / "mixed.parquet", [row(0, sizes=()), row(1), row(2)])
    texts = dataset(tmp_path / "texts.parquet", [row(0, sizes=()), row(1, sizes=())])

    assert images_fault(shape, texts) == ""
    assert images_fault(shape, mixed).startswith(f"2 of the 3 rows of {mixed} have images, such as row-1, and a qwen3")
    [finding] = image_findings(shape, [texts, mixed])
    assert finding.severity == "error"


@pytest.mark.parametrize("lora", [None, LoraConfig(target_modules=("q_proj",))])
def test_to_freeze_a_tower_that_is_not_there_is_refused(shape: ModelShape, lora: LoraConfig | None) -> None:
    with pytest.raises(ConfigError, match="names vision_tower, and a qwen3 model has none; leave it out"):
        trained_tensors(shape, ("vision_tower",), lora)


def test_a_folder_without_a_template_is_refused_by_what_is_missing(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made, tmp_path / "copied")
    (folder / "chat_template.jinja").unlink()

    with pytest.raises(ConfigError, match="has no chat template; copy chat_template"):
        ChatTemplate(folder)


def test_experts_in_tensors_of_their_own_are_those_of_the_model(tmp_path: Path) -> None:
    """Qwen3-MoE as published: three matrices an expert, which transformers joins while it loads."""
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    config = {**TEXT_SIZES, **sizes, "model_type": "qwen3_moe", "tie_word_embeddings": True, "head_dim": 16}
    shape = read_saved_shape(config)
    tensors = {}
    for tensor in shape.tensors:
        place, _, last = tensor.name.rpartition(".")
        if last not in STACKS:
            tensors[tensor.name] = np.zeros(tensor.shape, np.float32)
            continue
        layers, (count, rows, columns) = STACKS[last], tensor.shape
        for expert, layer in product(range(count), layers):
            matrix = np.zeros((rows // len(layers), columns), np.float32)
            tensors[f"{place}.{expert}.{layer}.weight"] = matrix
    save_file(tensors, tmp_path / "model.safetensors")

    _check_tensors(tmp_path, config, shape, stored_tensors(tmp_path))
    del tensors["model.layers.0.mlp.experts.3.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(
        ConfigError, match=r"experts.gate_up_proj of shape \[3, 48, 64\], and config.json asks for \[4, 48"
    ):
        _check_tensors(tmp_path, config, shape, stored_tensors(tmp_path))


def test_a_heads_width_may_be_stated_where_a_class_reads_it_beside_its_fields() -> None:
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "tie_word_embeddings": False}
    shape = read_shape({**TEXT_SIZES, **sizes, "model_type": "qwen3_moe", "head_dim": 24})
    assert shape.text.head_dim == 24
    assert next(tensor.shape for tensor in shape.tensors if tensor.name.endswith("q_proj.weight")) == (96, 64)
