"""Several questions about one picture in one row, hidden from each other: the picture is encoded once for all.

A row is a tree: the prompt's opening with the picture is the stem, every question with its completion is a branch.
Mask and positions make each branch see exactly what it would see alone, as a rollout does; only the work is shared.

Axes: B pictures, L row length, K completion tokens of the whole batch.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestration.demo.drawn.samples import DemoSample
from orchestration.demo.family import TinyFamily

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeBatch:
    """One batch of rows in tensors."""

    input_ids: "torch.Tensor"
    """[B, L], padded on the right."""
    position_ids: "torch.Tensor"
    """[B, L], or [3, B, L] for M-RoPE: time, height and width."""
    mask: "torch.Tensor"
    """[B, 1, L, L] bool: who attends to whom."""
    target_positions: "torch.Tensor"
    """[K] flat positions in [B * L] whose next token belongs to a completion."""
    target_ids: "torch.Tensor"
    """[K] the tokens to predict there."""
    vision: "dict[str, torch.Tensor]"
    """Keyword arguments of the forward pass that hold the pictures, one a row."""


def pictures_of(samples: Iterable[DemoSample]) -> list[list[DemoSample]]:
    """Group samples that follow one another with the same picture."""
    return [list(group) for _, group in itertools.groupby(samples, key=lambda sample: sample.scene_digest)]


def prompt_text(processor: Any, question: str) -> str:
    """Return the text of a prompt exactly as rollouts see it, with one placeholder for the image."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    text: str = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return text


class TreeCollator:
    """Makes batches for one model folder; caches the tokens of questions."""

    def __init__(self, processor: Any, family: TinyFamily) -> None:
        self._processor = processor
        self._family = family
        self._tokenizer = processor.tokenizer
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
                input_ids[index, start : start + len(fed)] = torch.tensor(fed)
                segments[index, start : start + len(fed)] = number
                positions[:, index, start : start + len(fed)] = stem_positions.max() + 1 + torch.arange(len(fed))
                targets.append(torch.arange(len(ids)) + index * length + start + len(prompt) - 1)
                target_ids += ids
                start += len(fed)
        return TreeBatch(
            input_ids=input_ids,
            position_ids=positions.squeeze(0),  # a single axis goes without one
            mask=tree_mask(segments),
            target_positions=torch.cat(targets),
            target_ids=torch.tensor(target_ids),
            vision=self._family.vision_inputs([row[0][0].image_png for row in rows]),
        )

    @property
    def _image_id(self) -> int:
        return int(self._tokenizer.convert_tokens_to_ids(self._family.image_token))

    def _branches(self, row: Sequence[tuple[DemoSample, str]]) -> list[tuple[list[int], list[int]]]:
        completions = self._tokenizer([text for _, text in row], add_special_tokens=False).input_ids
        return [(self._split(sample.question)[1], ids) for (sample, _), ids in zip(row, completions, strict=True)]

    def _split(self, question: str) -> tuple[list[int], list[int]]:
        """Return the tokens of a prompt up to the end of its picture, image tokens expanded, and those behind it."""
        if question not in self._prompts:
            head, _, tail = prompt_text(self._processor, question).partition(self._family.image_markup)
            texts = [head + self._family.drawing_markup, tail]
            stem, branch = self._tokenizer(texts, add_special_tokens=False).input_ids
            self._prompts[question] = (stem, branch)
        return self._prompts[question]


def tree_mask(segments: "torch.Tensor") -> "torch.Tensor":
    """Return the mask [B, 1, L, L] of segments [B, L]: 0 stem, 1, 2, ... branches, -1 padding.

    A token attends to the stem and to its own segment, never forwards.
    """
    import torch

    length = segments.shape[1]
    is_earlier = torch.ones(length, length, dtype=torch.bool).tril()
    is_visible = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    return (is_visible & is_earlier)[:, None]
