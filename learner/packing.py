"""Pieces -> MicroBatch: one token stream in which each prompt and its images stand once.

    stream   | prompt 0 | prompt 1 | c 0.0 | c 0.1 | c 1.0 | c 1.1 |      c g.i: completion i of group g
    fed      | all P    | all P    | T - 1 tokens each             |      the last token is only predicted
    predicts | 1st token of each of its completions (last row) | the next token of its completion

Positions continue from the prompt in every completion, as if it stood behind it alone.

Source of the rotary positions: Qwen2-VL, arXiv:2409.12191, section 2.1 (M-RoPE).
Axes: L tokens of the stream, C completion tokens (predicted), N prompts, P prompt tokens, S completions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learner.attention import PrefixLayout, build_layout
from learner.batching import Piece
from learner.errors import LearnerError
from learner.images import ImageInputs
from learner.records import ScoredGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """One forward pass: tensors on the rank's device."""

    input_ids: torch.Tensor
    """int64 [1, L]"""
    position_ids: torch.Tensor
    """int64 [3, 1, L]: time, row and column positions of M-RoPE."""
    layout: PrefixLayout
    predicting_rows: torch.Tensor
    """int64 [C] stream row whose hidden state predicts each completion token."""
    target_ids: torch.Tensor
    """int64 [C] the completion tokens, sequence by sequence."""
    completion_mask: torch.Tensor
    """bool [C]; False everywhere in a dummy, True otherwise: padding does not exist here."""
    advantages: torch.Tensor
    """float32 [C]"""
    behaviour_logprobs: torch.Tensor
    """float32 [C]"""
    pixel_values: torch.Tensor
    """float32 [patches, values]; a dummy image when no group has one, see `dummy_micro_batch`."""
    image_grid_thw: torch.Tensor
    """int64 [images, 3]"""
    image_rows: torch.Tensor
    """int64 [image tokens] stream rows that take image features; empty with a dummy image."""
    group_ids: tuple[str, ...]
    """[S] group of each completion."""
    lengths: tuple[int, ...]
    """[S] completion tokens; they add up to C."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIds:
    """What packing must know of the model."""

    image: int
    """Placeholder token id of image features."""
    merge_size: int
    """Patches are merged merge_size x merge_size into one token."""


def build_micro_batch(
    pieces: Sequence[Piece],
    images: Sequence[ImageInputs | None],
    *,
    dummy_image: ImageInputs,
    token_ids: TokenIds,
    device: torch.device,
    dtype: torch.dtype,
) -> MicroBatch:
    """Lay pieces out in one stream.

    Args:
        pieces: with at least one completion in all.
        images: of each piece.
        dummy_image: taken when no piece has an image, so that the vision tower runs on every rank alike.
        token_ids: of the model.
        device: where the tensors go.
        dtype: of forward and backward.
    """
    present = [image for image in images if image is not None]
    used = present or [dummy_image]
    streams = [_piece_stream(piece, image, token_ids) for piece, image in zip(pieces, images, strict=True)]
    prompt_lengths = np.array([len(piece.group.prompt_token_ids) for piece in pieces])
    sequences = [(n, piece.group.sequences[i]) for n, piece in enumerate(pieces) for i in piece.sequence_indices]
    prompt_of = np.array([n for n, _ in sequences])
    lengths = np.array([sequence.num_tokens for _, sequence in sequences])
    input_ids = np.concatenate(
        [piece.group.prompt_token_ids for piece in pieces]
        + [sequence.completion_token_ids[:-1] for _, sequence in sequences]
    ).astype(np.int64)
    positions = np.concatenate([prompt for prompt, _ in streams] + [own for _, own in streams], axis=1)
    targets = np.concatenate([sequence.completion_token_ids for _, sequence in sequences]).astype(np.int64)
    advantages = np.array([a for piece in pieces for a in piece.advantages], dtype=np.float32)
    behaviour = np.concatenate([sequence.behaviour_logprobs for _, sequence in sequences])
    num_prompt_tokens = int(prompt_lengths.sum())
    is_image = input_ids[:num_prompt_tokens] == token_ids.image if present else np.zeros(0, dtype=bool)

    def to_device(array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return MicroBatch(
        input_ids=to_device(input_ids[None]),
        position_ids=to_device(positions[:, None]),
        layout=build_layout(prompt_lengths, lengths - 1, prompt_of, device=device, dtype=dtype),
        predicting_rows=to_device(_predicting_rows(prompt_lengths, lengths, prompt_of)),
        target_ids=to_device(targets),
        completion_mask=torch.ones(len(targets), dtype=torch.bool, device=device),
        advantages=to_device(np.repeat(advantages, lengths)),
        behaviour_logprobs=to_device(behaviour),
        pixel_values=torch.cat([image.pixel_values for image in used]).to(device),
        image_grid_thw=torch.cat([image.image_grid_thw for image in used]).to(device),
        image_rows=to_device(np.flatnonzero(is_image)),
        group_ids=tuple(pieces[n].group.group_id for n in prompt_of),
        lengths=tuple(lengths.tolist()),
    )


def _predicting_rows(
    prompt_lengths: NDArray[np.int64], lengths: NDArray[np.int64], prompt_of: NDArray[np.int64]
) -> NDArray[np.int64]:
    """[C] The prompt's last row for a first token, the row of the token before it for every other."""
    last_prompt_rows = np.cumsum(prompt_lengths)[prompt_of] - 1
    first_targets = np.cumsum(lengths) - lengths
    # Without its last token, completion s starts s rows earlier than its targets do.
    first_rows = prompt_lengths.sum() + first_targets - np.arange(len(lengths))
    rows = np.arange(lengths.sum()) + np.repeat(first_rows - first_targets - 1, lengths)
    rows[first_targets] = last_prompt_rows
    return rows


def _piece_stream(
    piece: Piece, image: ImageInputs | None, token_ids: TokenIds
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions [3, P] of the prompt and [3, tokens fed] of the completions."""
    grids = [] if image is None else image.image_grid_thw.tolist()
    prompt, following = prompt_positions(piece.group, grids, token_ids)
    fed = [np.arange(piece.group.sequences[i].num_tokens - 1) for i in piece.sequence_indices]
    completions = following + np.concatenate([*fed, np.zeros(0, dtype=np.int64)])
    return prompt, np.broadcast_to(completions, (3, len(completions)))


def prompt_positions(
    group: ScoredGroup, grids: Sequence[Sequence[int]], token_ids: TokenIds
) -> tuple[NDArray[np.int64], int]:
    """Give the M-RoPE positions of a prompt with still images.

    Text counts up in all three rows alike. An image's tokens share the time position at which it begins and count
    rows and columns from there; the text behind it goes on at the larger of the two sides.

    Args:
        group: its prompt and, for messages, its id.
        grids: (frames, patch rows, patch columns) of each image, in order.
        token_ids: of the model.

    Returns:
        (positions int64 [3, P], first position behind the prompt)

    Raises:
        LearnerError: an image's tokens do not stand together, or are not as many as its grid implies.
    """
    is_image = group.prompt_token_ids == token_ids.image
    parts: list[NDArray[np.int64]] = []
    row = position = 0
    for grid in grids:
        start = row + int(np.argmax(is_image[row:]))
        frames, height, width = grid[0], grid[1] // token_ids.merge_size, grid[2] // token_ids.merge_size
        end = start + frames * height * width
        if not is_image[start:end].all() or end > len(is_image):
            raise LearnerError(
                f"group {group.group_id}: an image of {height} x {width} tokens does not stand as one run in the "
                "prompt; send the prompt as the engine expanded it"
            )
        parts.append(np.broadcast_to(np.arange(position, position + start - row), (3, start - row)))
        position += start - row
        parts.append(np.indices((frames, height, width)).reshape(3, -1) + position)
        position += max(height, width)
        row = end
    parts.append(np.broadcast_to(np.arange(position, position + len(is_image) - row), (3, len(is_image) - row)))
    return np.concatenate(parts, axis=1), position + len(is_image) - row


def dummy_micro_batch(
    dummy_image: ImageInputs, *, token_ids: TokenIds, device: torch.device, dtype: torch.dtype
) -> MicroBatch:
    """Give a micro-batch that computes everything and changes nothing.

    A rank with fewer micro-batches than the others runs these, because sharded weights are gathered by all ranks
    together; its completion mask is False.
    """
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    layout = build_layout(np.array([1]), np.array([0]), np.array([0]), device=device, dtype=dtype)
    return MicroBatch(
        input_ids=zero[None],
        position_ids=zero.expand(3, 1, 1),
        layout=layout,
        predicting_rows=zero,
        target_ids=zero,
        completion_mask=zero.bool(),
        advantages=zero.float(),
        behaviour_logprobs=zero.float(),
        pixel_values=dummy_image.pixel_values.to(device),
        image_grid_thw=dummy_image.image_grid_thw.to(device),
        image_rows=torch.zeros(0, dtype=torch.int64, device=device),
        group_ids=("dummy",),
        lengths=(1,),
    )
