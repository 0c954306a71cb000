"""Pieces -> MicroBatch: one token stream without padding, in which a shared prompt and its images occur once.

Prompts and whole sequences come first, then the completions that share a prompt.

    stream   | prompt 0 | prompt 1 + completion 1.0 | c 0.0 | c 0.1 |      c g.i: completion i of group g
    fed      | all P    | P + T - 1                 | T - 1 tokens each    the last token is only predicted
    predicts | the first token of c 0.0 and of c 0.1 (last row) | the next token of its completion

Group 0 shares its prompt, group 1 has one completion, which follows its prompt. Positions continue from the prompt in
every completion, as if it followed alone.

Axes: L tokens of the stream, C completion tokens (predicted), P prompt tokens, T completion tokens of a sequence,
A position axes, S sequences.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from learner.attention.kernel import PREPARED_KEY, AttentionKernel, StreamLayout
from learner.batching import Piece, TrainSequence
from learner.errors import LearnerError
from learner.families.base import ImageInputs, ModelFamily, PaddedInputs, StreamInputs, join_images
from learner.records import ScoredGroup, ScoredSequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stem or a branch of the stream."""

    token_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    """[A, tokens]"""
    stem: int = 0
    """Of a branch: which stem it grows from."""


class Stream:
    """Stems and branches as they are added, and the stream row of each sequence and each image token."""

    def __init__(self) -> None:
        self.stems: list[Segment] = []
        self.branches: list[Segment] = []
        self.image_rows: list[NDArray[np.int64]] = []
        """Stream rows of image tokens, stem by stem."""
        self.feature_rows: list[NDArray[np.int64]] = []
        """Which feature each of them takes."""
        self._ends: list[tuple[int, int | None]] = []
        """[S] stream row of the last prompt token before a sequence, and its branch; None where it is in the stem."""
        self._num_stem_tokens = 0
        self._num_features = 0

    def add(self, piece: Piece, prompt: NDArray[np.int64], following: int, is_image: NDArray[np.bool_]) -> None:
        """Append a piece; `prompt` has the positions [A, P] of its prompt, `following` is the position after it."""
        prompt_ids = piece.group.prompt_token_ids.astype(np.int64)
        if piece.is_shared:
            self._add_stem(prompt_ids, prompt, is_image)
        for sequence in piece.sequences:
            ids = piece.group.sequences[sequence.index].completion_token_ids[:-1].astype(np.int64)
            positions = np.broadcast_to(following + np.arange(len(ids)), (len(prompt), len(ids)))
            if piece.is_shared:
                self._ends.append((self._num_stem_tokens - 1, len(self.branches)))
                self.branches.append(Segment(token_ids=ids, positions=positions, stem=len(self.stems) - 1))
            else:
                self._ends.append((self._num_stem_tokens + len(prompt_ids) - 1, None))
                self._add_stem(np.concatenate([prompt_ids, ids]), np.concatenate([prompt, positions], axis=1), is_image)
        self._num_features += int(is_image.sum())

    def _add_stem(
        self, token_ids: NDArray[np.int64], positions: NDArray[np.int64], is_image: NDArray[np.bool_]
    ) -> None:
        rows = np.flatnonzero(is_image)
        self.image_rows.append(self._num_stem_tokens + rows)
        self.feature_rows.append(self._num_features + np.arange(len(rows)))
        self.stems.append(Segment(token_ids=token_ids, positions=positions))
        self._num_stem_tokens += len(token_ids)

    def layout(self) -> StreamLayout:
        """Return the lengths of stems and branches, and the stem of each branch."""
        return StreamLayout(
            stem_lengths=np.array([len(stem.token_ids) for stem in self.stems], dtype=np.int64),
            branch_lengths=np.array([len(branch.token_ids) for branch in self.branches], dtype=np.int64),
            stem_of=np.array([branch.stem for branch in self.branches], dtype=np.int64),
        )

    def predicting_rows(self, lengths: Sequence[int]) -> NDArray[np.int64]:
        """Return the stream row that predicts each completion token, [C].

        That is the prompt's last row for a first token, and the row of the previous token for every other.

        Args:
            lengths: [S] completion tokens of each sequence.
        """
        branch_lengths = np.array([len(branch.token_ids) for branch in self.branches], dtype=np.int64)
        branch_starts = self._num_stem_tokens + np.cumsum(branch_lengths) - branch_lengths
        rows = []
        for length, (prompt_end, branch) in zip(lengths, self._ends, strict=True):
            first = prompt_end + 1 if branch is None else branch_starts[branch]
            rows += [np.array([prompt_end]), first + np.arange(length - 1)]
        return np.concatenate(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """One forward pass: tensors on the rank's device."""

    inputs: StreamInputs | PaddedInputs
    """As the family reads them."""
    predicting_rows: torch.Tensor
    """int64 [C] row of the hidden states whose hidden state predicts each completion token."""
    target_ids: torch.Tensor
    """int64 [C] the completion tokens, sequence by sequence."""
    token_weights: torch.Tensor
    """float32 [C] share of each token in the step's loss; 0 everywhere in a dummy."""
    advantages: torch.Tensor
    """float32 [C]"""
    behaviour_logprobs: torch.Tensor
    """float32 [C]"""
    old_logprobs: torch.Tensor | None
    """float32 [C], or None where the current logprobs are used."""
    ref_logprobs: torch.Tensor | None
    """float32 [C], or None without a KL term."""
    kl_coefs: torch.Tensor | None
    """float32 [C] weight of the KL, or None where it is the same for all tasks."""
    temperatures: torch.Tensor | None
    """float32 [C] at which each token was sampled; None where that is the policy's own for all."""
    group_ids: tuple[str, ...]
    """[S] group of each completion."""
    sequence_indices: tuple[int, ...]
    """[S] its place in the group."""
    lengths: tuple[int, ...]
    """[S] completion tokens; they add up to C."""
    is_dummy: bool = False


DUMMY = Piece(
    group=ScoredGroup(
        group_id="",
        task="",
        prompt_token_ids=np.zeros(1, dtype=np.int32),
        images=(),
        sequences=(
            ScoredSequence(
                completion_token_ids=np.zeros(1, dtype=np.int32),
                behaviour_logprobs=np.zeros(1, dtype=np.float32),
                reward=0.0,
                truncated=False,
            ),
        ),
    ),
    sequences=(TrainSequence(index=0, advantages=np.zeros(1, dtype=np.float32), token_weight=0.0),),
    is_shared=False,
)
"""One prompt token and one completion token of weight 0."""


class BatchBuilder(ABC):
    """Makes micro-batches for one model on one device."""

    is_padded: bool
    """Whether sequences are rows padded to the longest one."""

    def __init__(
        self, *, device: torch.device, temperature: float = 1.0, task_temperatures: Mapping[str, float] | None = None
    ) -> None:
        """Make them for a policy that samples at a temperature, and some tasks at others."""
        self._temperature = temperature
        self._task_temperatures = task_temperatures or {}
        self._device = device

    @abstractmethod
    def _lay_out(
        self, pieces: Sequence[Piece], images: Sequence[Any], lengths: Sequence[int]
    ) -> tuple[StreamInputs | PaddedInputs, torch.Tensor]:
        """Return what the family reads, and which of its rows predict; `lengths` [S] as in `MicroBatch`."""

    def build(self, pieces: Sequence[Piece], images: Sequence[Any]) -> MicroBatch:
        """Return a micro-batch of all pieces.

        Args:
            pieces: at least one.
            images: of each piece, as the encoder of the family's images makes them; None without.

        Raises:
            LearnerError: an image's tokens are not contiguous; names the group.
        """
        sequences = [(piece, sequence) for piece in pieces for sequence in piece.sequences]
        scored = [piece.group.sequences[sequence.index] for piece, sequence in sequences]
        lengths = [sequence.num_tokens for sequence in scored]
        inputs, predicting_rows = self._lay_out(pieces, images, lengths)
        return MicroBatch(
            inputs=inputs,
            predicting_rows=predicting_rows,
            target_ids=self._tensor(np.concatenate([s.completion_token_ids for s in scored]).astype(np.int64)),
            token_weights=self._tensor(
                np.repeat(np.array([s.token_weight for _, s in sequences], dtype=np.float32), lengths)
            ),
            advantages=self._tensor(np.concatenate([s.advantages for _, s in sequences])),
            behaviour_logprobs=self._tensor(np.concatenate([s.behaviour_logprobs for s in scored])),
            old_logprobs=self._optional([s.old_logprobs for _, s in sequences]),
            ref_logprobs=self._optional([s.ref_logprobs for _, s in sequences]),
            kl_coefs=self._optional(
                [
                    None if s.kl_coef is None else np.full(length, s.kl_coef, dtype=np.float32)
                    for (_, s), length in zip(sequences, lengths, strict=True)
                ]
            ),
            temperatures=self._temperatures([piece.group.task for piece, _ in sequences], lengths),
            group_ids=tuple(piece.group.group_id for piece, _ in sequences),
            sequence_indices=tuple(sequence.index for _, sequence in sequences),
            lengths=tuple(lengths),
        )

    def dummy(self) -> MicroBatch:
        """Return a micro-batch that computes everything and changes nothing.

        A rank with fewer micro-batches than the others runs these, because sharded weights are gathered by all ranks
        together.
        """
        return replace(self.build([DUMMY], [None]), is_dummy=True)

    def _temperatures(self, tasks: Sequence[str], lengths: Sequence[int]) -> torch.Tensor | None:
        """Return the temperature of each completion token, given the task and length of each sequence."""
        if not any(task in self._task_temperatures for task in tasks):
            return None
        own = [self._task_temperatures.get(task, self._temperature) for task in tasks]
        return self._tensor(np.repeat(np.array(own, dtype=np.float32), lengths))

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def _optional(self, arrays: Sequence[NDArray[np.float32] | None]) -> torch.Tensor | None:
        present = [array for array in arrays if array is not None]
        return self._tensor(np.concatenate(present)) if len(present) == len(arrays) else None


class MicroBatchBuilder(BatchBuilder):
    """Lays out streams."""

    is_padded = False

    def __init__(
        self, family: ModelFamily, kernel: AttentionKernel, *, device: torch.device, dtype: torch.dtype, **settings: Any
    ) -> None:
        """Lay out for a model; `settings` as in the base."""
        super().__init__(device=device, **settings)
        self._family = family
        self._kernel = kernel
        self._dtype = dtype

    def _lay_out(
        self, pieces: Sequence[Piece], images: Sequence[Any], lengths: Sequence[int]
    ) -> tuple[StreamInputs, torch.Tensor]:
        stream = Stream()
        for piece, image in zip(pieces, images, strict=True):
            prompt, following = self._positions(piece, image)
            stream.add(piece, prompt, following, piece.group.prompt_token_ids == self._family.image_token_id)
        return self._inputs(stream, images), self._tensor(stream.predicting_rows(lengths))

    def _inputs(self, stream: Stream, images: Sequence[ImageInputs | None]) -> StreamInputs:
        present = [image for image in images if image is not None]
        used = join_images(present) if present else self._family.dummy_image()
        segments = [*stream.stems, *stream.branches]
        layout = stream.layout()
        prepared = self._kernel.prepare(layout, device=self._device, dtype=self._dtype)
        return StreamInputs(
            input_ids=self._tensor(np.concatenate([segment.token_ids for segment in segments]))[None],
            position_ids=self._family.position_ids(
                self._tensor(np.concatenate([segment.positions for segment in segments], axis=1))
            ),
            pixel_values=used.pixel_values.to(self._device),
            grids=used.grids.to(self._device),
            image_rows=self._tensor(np.concatenate(stream.image_rows)),
            feature_rows=self._tensor(np.concatenate(stream.feature_rows)),
            arguments={PREPARED_KEY: prepared, **self._family.stream_arguments(layout, self._device)},
        )

    def _positions(self, piece: Piece, image: ImageInputs | None) -> tuple[NDArray[np.int64], int]:
        group = piece.group
        grids = [] if image is None else image.grids.tolist()
        try:
            return self._family.prompt_positions(group.prompt_token_ids == self._family.image_token_id, grids)
        except ValueError as error:
            raise LearnerError(f"group {group.group_id}: {error}; send the prompt as the engine expanded it") from error
