"""Several questions about one picture in one row, each blind to the others: the picture is encoded once for all.

A row is a tree: the prompt's opening with the picture is the stem, every question with its completion is a branch.
Mask and positions make each branch see exactly what it would see alone, as a rollout does; only the work is shared.

Axes: B pictures, L row length, K completion tokens of the whole batch.
"""

import io
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestration.demo.samples import DemoSample
from orchestration.demo.tiny_model import MERGE_SIZE, PATCH_SIZE

if TYPE_CHECKING:
    import torch

TEMPORAL_PATCH = 2
"""Qwen2.5-VL's patches span two video frames; a still image is shown twice."""

VISION_END = "<|vision_end|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeBatch:
    """One batch of rows in tensors."""

    input_ids: "torch.Tensor"
    """[B, L], padded on the right."""
    position_ids: "torch.Tensor"
    """[3, B, L] M-RoPE positions in time, height and width."""
    mask: "torch.Tensor"
    """[B, 1, L, L] bool: who attends to whom."""
    target_positions: "torch.Tensor"
    """[K] flat positions in [B * L] whose next token belongs to a completion."""
    target_ids: "torch.Tensor"
    """[K] the tokens to predict there."""
    pixel_values: "torch.Tensor"
    """[num patches, patch values]."""
    grid: "torch.Tensor"
    """[B, 3] patches in time, height and width."""


def pictures_of(samples: Iterable[DemoSample]) -> list[list[DemoSample]]:
    """Group samples that follow one another with the same picture."""
    return [list(group) for _, group in itertools.groupby(samples, key=lambda sample: sample.scene_digest)]


def prompt_text(processor: Any, question: str) -> str:
    """Give the text of a prompt exactly as rollouts see it, with one placeholder for the image."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    text: str = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return text


class TreeCollator:
    """Makes batches for one processor; remembers the tokens of questions that it has met."""

    def __init__(self, processor: Any) -> None:
        """Keep the processor."""
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._prompts: dict[str, tuple[list[int], list[int]]] = {}

    def collate(self, rows: Sequence[Sequence[tuple[DemoSample, str]]]) -> TreeBatch:
        """Join rows of (sample, demonstration), each row about one picture, all pictures of one size."""
        import torch

        first = rows[0][0][0]
        grid = (1, first.image_size[1] // PATCH_SIZE, first.image_size[0] // PATCH_SIZE)
        stem = self._stem(first.question, grid)
        branches = [self._branches(row) for row in rows]
        length = len(stem) + max(sum(len(prompt) + len(ids) - 1 for prompt, ids in row) for row in branches)
        input_ids = torch.full((len(rows), length), self._tokenizer.pad_token_id)
        segments = torch.full((len(rows), length), -1)
        positions = torch.zeros((3, len(rows), length), dtype=torch.long)
        stem_positions = _stem_positions(stem.index(self._image_id), len(stem), grid)
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
            position_ids=positions,
            mask=tree_mask(segments),
            target_positions=torch.cat(targets),
            target_ids=torch.tensor(target_ids),
            pixel_values=torch.from_numpy(patches([row[0][0].image_png for row in rows])),
            grid=torch.tensor([grid] * len(rows)),
        )

    @property
    def _image_id(self) -> int:
        return int(self._processor.image_token_id)

    def _branches(self, row: Sequence[tuple[DemoSample, str]]) -> list[tuple[list[int], list[int]]]:
        completions = self._tokenizer([text for _, text in row], add_special_tokens=False).input_ids
        return [(self._split(sample.question)[1], ids) for (sample, _), ids in zip(row, completions, strict=True)]

    def _stem(self, question: str, grid: tuple[int, int, int]) -> list[int]:
        stem, _ = self._split(question)
        spot = stem.index(self._image_id)
        return stem[:spot] + [self._image_id] * (grid[1] * grid[2] // MERGE_SIZE**2) + stem[spot + 1 :]

    def _split(self, question: str) -> tuple[list[int], list[int]]:
        """Give the tokens of a prompt up to the end of its picture, and those behind it."""
        if question not in self._prompts:
            head, mark, tail = prompt_text(self._processor, question).partition(VISION_END)
            stem, branch = self._tokenizer([head + mark, tail], add_special_tokens=False).input_ids
            self._prompts[question] = (stem, branch)
        return self._prompts[question]


def tree_mask(segments: "torch.Tensor") -> "torch.Tensor":
    """Give the mask [B, 1, L, L] of segments [B, L]: 0 stem, 1, 2, ... branches, -1 padding.

    A token attends to the stem and to its own segment, never forwards.
    """
    import torch

    length = segments.shape[1]
    is_earlier = torch.ones(length, length, dtype=torch.bool).tril()
    is_visible = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    return (is_visible & is_earlier)[:, None]


def _stem_positions(image_start: int, length: int, grid: tuple[int, int, int]) -> "torch.Tensor":
    """Give the M-RoPE positions [3, length] of the stem; the image's cells share one time."""
    import torch

    height, width = grid[1] // MERGE_SIZE, grid[2] // MERGE_SIZE
    cells = torch.arange(height * width)
    head = torch.arange(image_start)
    tail = torch.arange(length - image_start - height * width) + image_start + max(height, width)
    axes = (torch.zeros_like(cells), cells // width, cells % width)
    return torch.stack([torch.cat([head, axis + image_start, tail]) for axis in axes])


def patches(images_png: Sequence[bytes]) -> NDArray[np.float32]:
    """Give the patches [num patches, patch values] that Qwen2.5-VL's image processor gives for unresized pictures.

    Args:
        images_png: Files of pictures of one size, whose sides divide by the side of an image token.
    """
    from PIL import Image
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    pictures = np.stack([np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in images_png])
    num_pictures, height, width, num_channels = pictures.shape
    rows, columns = height // (MERGE_SIZE * PATCH_SIZE), width // (MERGE_SIZE * PATCH_SIZE)
    blocks = pictures.reshape(num_pictures, rows, MERGE_SIZE, PATCH_SIZE, columns, MERGE_SIZE, PATCH_SIZE, num_channels)
    blocks = blocks.transpose(0, 1, 4, 2, 5, 7, 3, 6).reshape(-1, num_channels, 1, PATCH_SIZE * PATCH_SIZE)
    mean, std = (np.asarray(v, np.float32).reshape(1, -1, 1, 1) for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    values = blocks * np.float32(1 / 255.0) / std - mean / std
    return values.repeat(TEMPORAL_PATCH, axis=2).reshape(len(blocks), -1)
