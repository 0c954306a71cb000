"""Supervised warm start of a tiny model on demonstrations of mixed quality.

Most demonstrations are right, a known share has a fault. The policy imitates the faults too, which reinforcement
learning can then remove.

A step is one micro-batch of the learner, as in reinforcement learning. In a stream the beginning of the prompt with the
picture is fed once, each question with its completion is a branch that sees it and itself alone, as in a rollout.

Axes: K completion tokens of a whole batch.
"""

import io
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orchestration.demo.drawn.questions import DemoSample
from orchestration.demo.tiny_model import model_class
from orchestration.settings.demo import DemoSettings
from orchestration.settings.model import TinyModel
from rewards.core.config import DEFAULT_FORMAT, FormatConfig

if TYPE_CHECKING:
    import torch

    from learner.attention.sdpa import SdpaKernel
    from learner.families.base import BaseFamily
    from learner.policy.model import Policy
    from learner.policy.packing import MicroBatch
    from learner.records import ScoredGroup

MUON_LR_FACTOR = 5.0
"""Learning rate of Muon in multiples of AdamW's, because its update has unit spectral norm."""
WARM_UP_FRAC = 0.04
ADAM_BETAS = (0.9, 0.95)
MAX_GRADIENT_NORM = 1.0


def warm_start(
    folder_in: Path,
    folder_out: Path,
    tiny: TinyModel,
    *,
    samples: Iterable[DemoSample],
    settings: DemoSettings,
    seed: int,
    progress: Callable[[int, float], None],
    form: FormatConfig = DEFAULT_FORMAT,
) -> None:
    """Train a model folder on demonstrations of the samples and write the result into another folder.

    The number of steps is fixed, so the same arguments give the same weights on the same machine and thread count.

    Args:
        folder_in: Hugging Face folder to start from.
        folder_out: Created if it does not exist.
        tiny: What the model in `folder_in` is made of.
        samples: Consecutive samples of the same picture share a row. All are repeated, with new faults, as often as
            needed.
        settings: Steps, pictures a step, share of faults, and AdamW's peak learning rate.
        seed: Seed of order and faults.
        progress: Called after every step with the number of steps done and the mean cross-entropy of a completion
            token in its batch, in nats.
        form: Form in which demonstrations answer.

    Raises:
        ValueError: If there are fewer pictures than one step needs.
    """
    from learner.policy.conversion import save_as_published

    pictures = pictures_of(samples)
    if len(pictures) < settings.warm_start_batch_size:
        raise ValueError(
            f"warm start got {len(pictures)} pictures, fewer than batch_size={settings.warm_start_batch_size}"
        )
    policy, collator = load(folder_in, tiny)
    _train(policy, _batches(pictures, collator, settings, seed, form), settings, progress)
    save_as_published(policy.hf_model, folder_out)
    collator.processor.save_pretrained(folder_out)


def load(folder: Path, tiny: TinyModel) -> tuple["Policy", "Collator"]:
    """Return the learner's policy of a tiny model, and what makes its batches."""
    from transformers import AutoProcessor

    from learner.attention.kernel import register_kernel
    from learner.attention.sdpa import SdpaKernel
    from learner.families.registry import get_family
    from learner.policy.model import Policy

    kernel, model = SdpaKernel(), model_class(tiny).from_pretrained(folder)
    family = get_family(model.config)
    family.set_attention(model, text=register_kernel(kernel), tower="sdpa")
    family.prepare(model)
    collator = Collator(AutoProcessor.from_pretrained(folder), family, kernel, tiny.image_markup)
    return Policy(model, family, temperature=1.0).train(), collator


def _train(
    policy: "Policy",
    batches: Iterator["MicroBatch"],
    settings: DemoSettings,
    progress: Callable[[int, float], None],
) -> None:
    import torch

    optimizers = _make_optimizers(policy, learning_rate=settings.warm_start_learning_rate)
    for step in range(settings.warm_start_steps):
        for optimizer, peak in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * schedule(step, settings.warm_start_steps)
        logprobs, _ = policy(next(batches))
        loss = -logprobs.mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), MAX_GRADIENT_NORM)
        for optimizer, _ in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        progress(step + 1, float(loss.detach()))


def schedule(step: int, num_steps: int) -> float:
    """Return the share of the peak learning rate: a short linear rise, then a linear fall to nearly zero.

    Example:
        >>> [round(schedule(step, 100), 2) for step in (0, 3, 52, 99)]
        [0.25, 1.0, 0.5, 0.01]
    """
    rise = max(1, round(WARM_UP_FRAC * num_steps))
    return min((step + 1) / rise, (num_steps - step) / max(1, num_steps - rise))


def _make_optimizers(model: "torch.nn.Module", *, learning_rate: float) -> list[tuple["torch.optim.Optimizer", float]]:
    """Return Muon for the matrices inside the network and AdamW for the rest, each with its peak learning rate.

    Source: Jordan et al., Muon (2024). On these tasks it needs a third to a fifth of the steps of AdamW.
    """
    import torch

    hidden: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_hidden = parameter.ndim == 2 and "embed_tokens" not in name and "lm_head" not in name
        (hidden if is_hidden else rest).append(parameter)
    muon_peak = MUON_LR_FACTOR * learning_rate
    return [
        (torch.optim.Muon(hidden, lr=muon_peak, weight_decay=0.0), muon_peak),
        (torch.optim.AdamW(rest, lr=learning_rate, betas=ADAM_BETAS, weight_decay=0.0), learning_rate),
    ]


def pictures_of(samples: Iterable[DemoSample]) -> list[list[DemoSample]]:
    """Group consecutive samples of the same picture."""
    return [list(group) for _, group in itertools.groupby(samples, key=lambda sample: sample.scene_digest)]


def _batches(
    pictures: Sequence[Sequence[DemoSample]],
    collator: "Collator",
    settings: DemoSettings,
    seed: int,
    form: FormatConfig,
) -> Iterator["MicroBatch"]:
    """Yield batches endlessly; each epoch has its own order and faults."""
    rng = random.Random(f"mixed-r1/demo/warm-start/{seed}")
    size, fault_frac = settings.warm_start_batch_size, settings.fault_frac
    while True:
        order = rng.sample(range(len(pictures)), len(pictures))
        for start in range(0, len(order) - size + 1, size):
            yield collator.collate(
                [
                    [
                        (sample, sample.demonstration(rng, fault_frac=fault_frac, form=form))
                        for sample in pictures[index]
                    ]
                    for index in order[start : start + size]
                ]
            )


class Collator:
    """Makes streams of demonstrations with the processor of one model folder; caches the tokens of questions."""

    def __init__(self, processor: Any, family: "BaseFamily", kernel: "SdpaKernel", image_markup: str | None) -> None:
        import torch

        from learner.policy.padding import encoder_of, make_builder

        self.processor = processor
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._image_markup = image_markup
        self._encoder = encoder_of(processor, family)
        settings = {"device": torch.device("cpu"), "dtype": torch.float32}
        self._builder = make_builder(family, self._encoder, kernel, **settings)
        self._stems: dict[str, list[int]] = {}
        self._prompts: dict[str, tuple[list[int], list[int]]] = {}

    def collate(self, pictures: Sequence[Sequence[tuple[DemoSample, str]]]) -> "MicroBatch":
        """Join pictures, each with its samples and their demonstrations, in one stream that predicts [K] tokens."""
        import torch

        from learner.batching import Piece, TrainSequence

        pieces: list[Piece] = []
        is_completion: list[NDArray[np.bool_]] = []
        for rows in pictures:
            completions = self._tokenizer([text for _, text in rows], add_special_tokens=False).input_ids
            prompts = [self._split(sample) for sample, _ in rows]
            pairs = [(tail, ids) for (_, tail), ids in zip(prompts, completions, strict=True)]
            group = _group(prompts[0][0], rows[0][0], [tail + ids for tail, ids in pairs])
            sequences = tuple(
                TrainSequence(index=index, advantages=sequence.behaviour_logprobs, token_weight=1.0)
                for index, sequence in enumerate(group.sequences)
            )
            pieces.append(Piece(group=group, sequences=sequences, is_shared=True))
            is_completion += [np.arange(len(tail) + len(ids)) >= len(tail) for tail, ids in pairs]
        batch = self._builder.build(pieces, self._encoder.encode([piece.group for piece in pieces]))
        # The end of the prompt is only fed: without its rows the policy predicts the completions alone.
        kept = torch.from_numpy(np.concatenate(is_completion))
        return replace(batch, predicting_rows=batch.predicting_rows[kept], target_ids=batch.target_ids[kept])

    def _split(self, sample: DemoSample) -> tuple[list[int], list[int]]:
        """Return the tokens of a prompt up to the end of its picture, image tokens expanded, and those after it.

        Without a picture, those before the question and the others.
        """
        if sample.question not in self._prompts:
            text = prompt_text(self.processor, sample)
            if sample.image_png is None:
                head, question, tail = text.partition(sample.question)
                stem, rest = self._tokenized(head), question + tail
            else:
                assert self._image_markup is not None, "a model without one gets questions in words (check_demo)"
                head, markup, rest = text.partition(self._image_markup)
                if head not in self._stems:  # drawings are of one size: the picture's tokens are the same for all
                    picture = Image.open(io.BytesIO(sample.image_png))
                    self._stems[head] = self.processor(text=[head + markup], images=[picture]).input_ids[0]
                stem = self._stems[head]
            self._prompts[sample.question] = stem, self._tokenized(rest)
        return self._prompts[sample.question]

    def _tokenized(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        return ids


def _group(stem: Sequence[int], sample: DemoSample, sequences: Sequence[Sequence[int]]) -> "ScoredGroup":
    """Return the questions about the sample's picture as completions of the stem; rewards and logprobs are not read."""
    from learner.records import ScoredGroup, ScoredSequence

    return ScoredGroup(
        group_id=sample.scene_digest,
        task=sample.task,
        prompt_token_ids=np.array(stem, dtype=np.int32),
        images=() if sample.image_png is None else (sample.image_png,),
        sequences=tuple(
            ScoredSequence(
                completion_token_ids=np.array(ids, dtype=np.int32),
                behaviour_logprobs=np.zeros(len(ids), dtype=np.float32),
                reward=0.0,
                truncated=False,
            )
            for ids in sequences
        ),
    )


def prompt_text(processor: Any, sample: DemoSample) -> str:
    """Return the text of a prompt as in a rollout, with one placeholder for the picture."""
    image = [] if sample.image_png is None else [{"type": "image"}]
    messages = [{"role": "user", "content": [*image, {"type": "text", "text": sample.question}]}]
    text: str = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return text
