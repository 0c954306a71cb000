"""Supervised warm start of a tiny model on demonstrations of mixed quality.

Most demonstrations are right, a known share has a fault. The policy imitates the faults too, which reinforcement
learning can then remove.

Several questions about one picture share a row, so that the picture is encoded once. A row is a tree: the beginning of
the prompt with the picture is the stem, each question with its completion a branch. By mask and positions each branch
attends only to the stem and itself, as it would alone in a rollout.

Axes: B pictures, L row length, K completion tokens of the whole batch.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.demo.drawn.questions import DemoSample
from orchestration.demo.tiny_model import TinyFamily
from orchestration.settings.demo import DemoSettings
from rewards.core.config import DEFAULT_FORMAT, FormatConfig

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MUON_LR_FACTOR = 5.0
"""Learning rate of Muon in multiples of AdamW's, because its update has unit spectral norm."""
WARM_UP_FRAC = 0.04
ADAM_BETAS = (0.9, 0.95)
MAX_GRADIENT_NORM = 1.0


def warm_start(
    folder_in: Path,
    folder_out: Path,
    family: TinyFamily,
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
        family: Family of the model in `folder_in`.
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
    from transformers import AutoModelForImageTextToText, AutoProcessor

    pictures = pictures_of(samples)
    if len(pictures) < settings.warm_start_batch_size:
        raise ValueError(
            f"warm start got {len(pictures)} pictures, fewer than batch_size={settings.warm_start_batch_size}"
        )
    processor = AutoProcessor.from_pretrained(folder_in)
    model = AutoModelForImageTextToText.from_pretrained(folder_in).train()
    _train(model, _batches(pictures, TreeCollator(processor, family), settings, seed, form), settings, progress)
    model.save_pretrained(folder_out)
    processor.save_pretrained(folder_out)


def _train(
    model: "PreTrainedModel",
    batches: Iterator["TreeBatch"],
    settings: DemoSettings,
    progress: Callable[[int, float], None],
) -> None:
    import torch

    optimizers = _make_optimizers(model, learning_rate=settings.warm_start_learning_rate)
    for step in range(settings.warm_start_steps):
        for optimizer, peak in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * schedule(step, settings.warm_start_steps)
        loss = _completion_loss(model, next(batches))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
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


def _make_optimizers(model: "PreTrainedModel", *, learning_rate: float) -> list[tuple["torch.optim.Optimizer", float]]:
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


def _completion_loss(model: "PreTrainedModel", batch: "TreeBatch") -> "torch.Tensor":
    """Return the mean cross-entropy of the batch's completion tokens, in nats."""
    import torch

    hidden = model.model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask={"full_attention": batch.mask},
        **batch.vision,
        use_cache=False,
    ).last_hidden_state
    logits = model.lm_head(hidden.flatten(0, 1)[batch.target_positions])
    return torch.nn.functional.cross_entropy(logits, batch.target_ids)


def pictures_of(samples: Iterable[DemoSample]) -> list[list[DemoSample]]:
    """Group consecutive samples of the same picture."""
    return [list(group) for _, group in itertools.groupby(samples, key=lambda sample: sample.scene_digest)]


def _batches(
    pictures: Sequence[Sequence[DemoSample]],
    collator: "TreeCollator",
    settings: DemoSettings,
    seed: int,
    form: FormatConfig,
) -> Iterator["TreeBatch"]:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeBatch:
    """One batch of rows."""

    input_ids: "torch.Tensor"
    """[B, L], padded on the right."""
    position_ids: "torch.Tensor"
    """[B, L], or [3, B, L] for M-RoPE: time, height and width."""
    mask: "torch.Tensor"
    """[B, 1, L, L] bool: whether a query (row) attends to a key (column)."""
    target_positions: "torch.Tensor"
    """[K] flat positions in [B * L] whose next token belongs to a completion."""
    target_ids: "torch.Tensor"
    """[K] the tokens to predict there."""
    vision: "dict[str, torch.Tensor]"
    """Keyword arguments of the forward pass with the pictures, one per row."""


class TreeCollator:
    """Makes batches with the processor of one model folder; caches the tokens of questions."""

    def __init__(self, processor: Any, family: TinyFamily) -> None:
        self._processor = processor
        self._family = family
        self._tokenizer = processor.tokenizer
        self._image_id = int(self._tokenizer.convert_tokens_to_ids(family.image_token))
        self._prompts: dict[str, tuple[list[int], list[int]]] = {}

    def collate(self, rows: Sequence[Sequence[tuple[DemoSample, str]]]) -> TreeBatch:
        """Join rows of (sample, demonstration), each row about one drawing."""
        import torch

        stem, _ = self._split(rows[0][0][0].question)
        branches = [self._branches(row) for row in rows]
        length = len(stem) + max(sum(len(prompt) + len(ids) - 1 for prompt, ids in row) for row in branches)
        input_ids = torch.full((len(rows), length), self._tokenizer.pad_token_id)
        segments = torch.full((len(rows), length), -1)
        stem_positions = self._family.image_positions(stem.index(self._image_id), len(stem))
        positions = torch.zeros((len(stem_positions), len(rows), length), dtype=torch.long)
        targets, target_ids = [], []
        for index, row in enumerate(branches):
            input_ids[index, : len(stem)] = torch.tensor(stem)
            segments[index, : len(stem)] = 0
            positions[:, index, : len(stem)] = stem_positions
            start = len(stem)
            for number, (prompt, ids) in enumerate(row, start=1):
                fed = prompt + ids[:-1]
                here = slice(start, start + len(fed))
                input_ids[index, here] = torch.tensor(fed)
                segments[index, here] = number
                positions[:, index, here] = stem_positions.max() + 1 + torch.arange(len(fed))
                targets.append(torch.arange(len(ids)) + index * length + start + len(prompt) - 1)
                target_ids += ids
                start += len(fed)
        return TreeBatch(
            input_ids=input_ids,
            position_ids=positions.squeeze(0),  # a single axis has no dimension
            mask=_tree_mask(segments),
            target_positions=torch.cat(targets),
            target_ids=torch.tensor(target_ids),
            vision=self._family.vision_inputs([row[0][0].image_png for row in rows]),
        )

    def _branches(self, row: Sequence[tuple[DemoSample, str]]) -> list[tuple[list[int], list[int]]]:
        completions = self._tokenizer([text for _, text in row], add_special_tokens=False).input_ids
        return [(self._split(sample.question)[1], ids) for (sample, _), ids in zip(row, completions, strict=True)]

    def _split(self, question: str) -> tuple[list[int], list[int]]:
        """Return the tokens of a prompt up to the end of its picture, image tokens expanded, and those after it."""
        if question not in self._prompts:
            head, _, tail = prompt_text(self._processor, question).partition(self._family.image_markup)
            texts = [head + self._family.drawing_markup, tail]
            stem, branch = self._tokenizer(texts, add_special_tokens=False).input_ids
            self._prompts[question] = (stem, branch)
        return self._prompts[question]


def prompt_text(processor: Any, question: str) -> str:
    """Return the text of a prompt as in a rollout, with one placeholder for the image."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    text: str = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return text


def _tree_mask(segments: "torch.Tensor") -> "torch.Tensor":
    """Return the mask [B, 1, L, L] of segments [B, L]: 0 stem, 1, 2, ... branches, -1 padding.

    A token attends to earlier tokens of the stem and of its own segment.
    """
    import torch

    length = segments.shape[1]
    is_earlier = torch.ones(length, length, dtype=torch.bool).tril()
    is_visible = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    return (is_visible & is_earlier)[:, None]
