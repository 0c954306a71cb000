"""The generic path and language models against transformers' own forward pass, each sequence alone and unpadded."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from generic_models import IDS, VISION, write_text, write_vision
from PIL import Image
from plain_model import whole_policy
from tiny_learner import make_image

from learner.attention.sdpa import SdpaKernel
from learner.batching import TrainSequence, make_pieces
from learner.config import STREAMED_TEXT
from learner.families.causal_lm import CausalLM
from learner.families.generic import Generic
from learner.policy.padding import load_encoder, make_builder
from learner.records import ScoredGroup, ScoredSequence

CPU = torch.device("cpu")
TEMPERATURE = 0.7


def group_of(group_id: str, prompt: list[int], images: tuple[bytes, ...], lengths: tuple[int, ...]) -> ScoredGroup:
    rng = np.random.default_rng([7, *group_id.encode()])
    return ScoredGroup(
        group_id=group_id,
        task="match_text",
        prompt_token_ids=prompt,
        images=images,
        sequences=tuple(
            ScoredSequence(
                completion_token_ids=rng.integers(len(IDS), 270, length).tolist(),
                behaviour_logprobs=rng.normal(-6.0, 0.5, length),
                reward=float(place % 2),
                truncated=False,
            )
            for place, length in enumerate(lengths)
        ),
    )


def text_group(group_id: str = "text", lengths: tuple[int, ...] = (3, 8), num_prompt: int = 9) -> ScoredGroup:
    prompt = np.random.default_rng(len(group_id)).integers(len(IDS), 270, num_prompt).tolist()
    return group_of(group_id, prompt, (), lengths)


def processed(processor: Any, images: tuple[bytes, ...]) -> Any:
    """What the folder's processor makes of a user turn with these images."""
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": "What is it?"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    pictures = [Image.open(io.BytesIO(image)) for image in images]
    return processor(text=[text], images=pictures, add_special_tokens=False, return_tensors="pt")


def vision_groups(processor: Any) -> list[ScoredGroup]:
    """One image, a wide one, two images, no image, one completion."""
    sizes = {"square": ((84, 84),), "wide": ((112, 56),), "pair": ((56, 84), (112, 28)), "single": ((84, 56),)}
    lengths = {"square": (5, 3, 1), "wide": (2, 9), "pair": (1, 6), "single": (5,)}
    groups = [text_group()]
    for name, own in sizes.items():
        images = tuple(make_image(*size, seed=place) for place, size in enumerate(own))
        groups.append(group_of(name, processed(processor, images)["input_ids"][0].tolist(), images, lengths[name]))
    return groups


def build(policy: Any, folder: Any, groups: list[ScoredGroup], sharing: str = "auto") -> Any:
    family = policy.family
    encoder = load_encoder(folder, family)
    pieces, images = [], []
    for group, image in zip(groups, encoder.encode(groups), strict=True):
        sequences = [
            TrainSequence(
                index=i, advantages=np.full(s.num_tokens, (-1.0) ** i * (0.5 + i), dtype=np.float32), token_weight=0.025
            )
            for i, s in enumerate(group.sequences)
        ]
        own = make_pieces(
            group,
            sequences,
            micro_batch_tokens=100_000,
            prefix_sharing="never" if family.is_padded else sharing,
            is_padded=family.is_padded,
        )
        pieces += own
        images += [image] * len(own)
    return make_builder(family, encoder, SdpaKernel(), device=CPU, dtype=torch.float32).build(pieces, images)


def plain_logprobs(model: Any, groups: list[ScoredGroup], processor: Any = None) -> torch.Tensor:
    """Logprobs [C] of all completion tokens: one sequence at a time, all logits, log-softmax written out."""
    found = []
    for group in groups:
        extra: dict[str, Any] = {}
        if group.images:
            extra = dict(processed(processor, group.images))
            prompt_types = {name: extra.pop(name) for name in list(extra) if name.endswith("token_type_ids")}
            assert extra.pop("input_ids")[0].tolist() == group.prompt_token_ids.tolist()
            del extra["attention_mask"]
        for sequence in group.sequences:
            ids = torch.tensor([*group.prompt_token_ids.tolist(), *sequence.completion_token_ids.tolist()])[None]
            if group.images:
                for name, types in prompt_types.items():
                    extra[name] = torch.cat([types, torch.zeros(1, sequence.num_tokens, dtype=torch.int64)], dim=1)
            logits = model(input_ids=ids, use_cache=False, **extra).logits[0] / TEMPERATURE
            logprobs = logits - logits.exp().sum(-1, keepdim=True).log()
            own = logprobs[:-1].gather(-1, ids[0, 1:, None])[:, 0]
            found.append(own[-sequence.num_tokens :])
    return torch.cat(found)


def load(folder: Any, auto: Any) -> Any:
    return auto.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).train()


def compare(policy: Any, plain: Any, batch: Any, expected: torch.Tensor, differences: Any, family: str) -> None:
    """Logprobs and all gradients of a loss that tells every token from every other."""
    weights = batch.advantages * batch.token_weights * (1.0 + torch.arange(len(expected)) % 7)
    logprobs, _ = policy(batch)
    (logprobs * weights).sum().backward()
    (expected * weights).sum().backward()
    wanted = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in plain.named_parameters()}
    scale = max(1.0, *(float(gradient.abs().max()) for gradient in wanted.values()))
    differences.check("logprobs", family, logprobs, expected, atol=1e-5)
    for name, parameter in policy.hf_model.named_parameters():
        if parameter.grad is None:
            assert not wanted[name].any(), name
        else:
            differences.check("gradients", family, parameter.grad / scale, wanted[name] / scale, atol=1e-5)


@pytest.mark.parametrize("name", VISION)
def test_any_vision_language_model_equals_its_own_forward_in_logprobs_and_gradients(name, tmp_path, differences):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    write_vision(tmp_path, name)
    policy = whole_policy(tmp_path, temperature=TEMPERATURE)
    plain = load(tmp_path, AutoModelForImageTextToText)
    processor = AutoProcessor.from_pretrained(tmp_path)
    groups = vision_groups(processor)
    assert isinstance(policy.family, Generic)

    batch = build(policy, tmp_path, groups)
    expected = plain_logprobs(plain, groups, processor)

    compare(policy, plain, batch, expected, differences, f"generic: {name}")


FULL = {"sliding_window": None}
STREAMS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": FULL,
    "olmo2": {},
    "phi3": FULL,
    "qwen2": {},
    "qwen3": {},
    "smollm3": {"no_rope_layers": [1, 0]},
}
WINDOWS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 6}
PADDED: dict[str, dict[str, Any]] = {
    "gemma2": {**WINDOWS, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 16},
    "gemma3_text": {**WINDOWS, "query_pre_attn_scalar": 16},
    "cohere2": {**WINDOWS, "logit_scale": 0.25},
    "granite": {"logits_scaling": 4.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5},
    "mistral": {"sliding_window": 6},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
}


def text_groups() -> list[ScoredGroup]:
    return [text_group("text"), text_group("long", (4, 1, 9, 2), 30), text_group("single", (6,), 14)]


def test_every_streamed_language_model_is_among_those_that_are_proved():
    assert set(STREAMS) == set(STREAMED_TEXT)


@pytest.mark.parametrize("sharing", ["always", "never"])
@pytest.mark.parametrize("kind", STREAMS)
def test_a_language_model_in_a_stream_equals_its_own_forward(kind, sharing, tmp_path, differences):
    from transformers import AutoModelForCausalLM

    write_text(tmp_path, kind, **STREAMS[kind])
    policy = whole_policy(tmp_path, temperature=TEMPERATURE)
    plain = load(tmp_path, AutoModelForCausalLM)
    assert isinstance(policy.family, CausalLM)

    batch = build(policy, tmp_path, text_groups(), sharing)
    expected = plain_logprobs(plain, text_groups())

    compare(policy, plain, batch, expected, differences, f"stream: {kind}")


@pytest.mark.parametrize("kind", PADDED)
def test_a_language_model_that_no_stream_computes_equals_its_own_forward(kind, tmp_path, differences):
    from transformers import AutoModelForCausalLM

    write_text(tmp_path, kind, **PADDED[kind])
    policy = whole_policy(tmp_path, temperature=TEMPERATURE)
    plain = load(tmp_path, AutoModelForCausalLM)
    assert isinstance(policy.family, Generic)

    batch = build(policy, tmp_path, text_groups())
    expected = plain_logprobs(plain, text_groups())

    compare(policy, plain, batch, expected, differences, f"generic: {kind}")
