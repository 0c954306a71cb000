"""Prompts of a language model, whose folder has a tokenizer and no processor."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rollout.conversation import PromptSpec
from rollout.errors import RolloutError
from rollout.prompt import PromptBuilder
from rollout.records import ImageBytes, Sample

TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] + ':' + m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)


@pytest.fixture
def builder(tmp_path):
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
    )
    wrapped.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    return PromptBuilder(tmp_path, spec=PromptSpec(system_prompt="Be brief."), max_images=4)


def sample(*images: ImageBytes) -> Sample:
    return Sample(sample_id="row", source="own", task="match_text", question="Why?", images=images, answer="So.")


def test_a_question_is_a_text_and_no_list_of_parts(builder):
    expected = "<s>system:Be brief.</s><s>user:Why?</s><s>assistant:"
    num_tokens = len(expected.replace("<s>", "1").replace("</s>", "2"))

    prompt = builder.build(sample())

    assert len(prompt.token_ids) == num_tokens
    assert prompt.token_ids == builder.expanded_ids(sample())
    assert prompt.images == []
    assert builder.measure("Why?", [], "row").num_tokens == num_tokens
    assert builder.measure("Why?", [], "row").num_image_tokens == 0


def test_images_are_refused_by_row(builder):
    with pytest.raises(RolloutError, match=r"sample row has 1 images, and the model is a language model"):
        builder.measure("Why?", [(28, 28)], "row")
