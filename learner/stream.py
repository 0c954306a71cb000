"""The order of tokens in a micro-batch: prompts and whole sequences first, then the completions that share a prompt.

    stream   | prompt 0 | prompt 1 + completion 1.0 | c 0.0 | c 0.1 |      c g.i: completion i of group g
    fed      | all P    | P + T - 1                 | T - 1 tokens each    the last token is only predicted
    predicts | the first token of c 0.0 and of c 0.1 (last row) | the next token of its completion

Group 0 is shared, group 1 has one completion and stands whole. Positions continue from the prompt in every completion,
as if it stood behind it alone.

Axes: C completion tokens (predicted), P prompt tokens, T completion tokens of a sequence, A position axes, S sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from learner.attention.layout import StreamLayout
from learner.batching import Piece, TrainSequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A stem or a branch."""

    token_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    """[A, tokens]"""
    stem: int = 0
    """Of a branch: which stem it grows from."""


@dataclass
class Stream:
    """Stems and branches as they are added, and where each sequence and each image token comes to stand."""

    stems: list[Run] = field(default_factory=list)
    branches: list[Run] = field(default_factory=list)
    prompt_ends: list[int] = field(default_factory=list)
    """[S] stream row of the last prompt token before each sequence."""
    own_branches: list[int | None] = field(default_factory=list)
    """[S] branch of each sequence; None where it stands behind its prompt in one stem."""
    _image_rows: list[NDArray[np.int64]] = field(default_factory=list)
    _feature_rows: list[NDArray[np.int64]] = field(default_factory=list)
    _num_stem_tokens: int = 0
    _num_features: int = 0

    def add(self, piece: Piece, prompt: NDArray[np.int64], following: int, is_image: NDArray[np.bool_]) -> None:
        """Append a piece; `prompt` are its positions [A, P], `following` is the one behind."""
        prompt_ids = piece.group.prompt_token_ids.astype(np.int64)
        completions = [
            piece.group.sequences[sequence.index].completion_token_ids[:-1].astype(np.int64)
            for sequence in piece.sequences
        ]
        behind = [np.broadcast_to(following + np.arange(len(ids)), (len(prompt), len(ids))) for ids in completions]
        if piece.is_shared:
            self._add_stem(Run(token_ids=prompt_ids, positions=prompt), is_image)
            self.prompt_ends += [self._num_stem_tokens - 1] * len(completions)
            for ids, positions in zip(completions, behind, strict=True):
                self.own_branches.append(len(self.branches))
                self.branches.append(Run(token_ids=ids, positions=positions, stem=len(self.stems) - 1))
        else:
            for ids, positions in zip(completions, behind, strict=True):
                self.prompt_ends.append(self._num_stem_tokens + len(prompt_ids) - 1)
                self.own_branches.append(None)
                self._add_stem(
                    Run(
                        token_ids=np.concatenate([prompt_ids, ids]),
                        positions=np.concatenate([prompt, positions], axis=1),
                    ),
                    is_image,
                )
        self._num_features += int(is_image.sum())

    def _add_stem(self, stem: Run, is_image: NDArray[np.bool_]) -> None:
        rows = np.flatnonzero(is_image)
        self._image_rows.append(self._num_stem_tokens + rows)
        self._feature_rows.append(self._num_features + np.arange(len(rows)))
        self.stems.append(stem)
        self._num_stem_tokens += len(stem.token_ids)

    def layout(self) -> StreamLayout:
        """Give lengths and parentage."""
        return StreamLayout(
            stem_lengths=np.array([len(stem.token_ids) for stem in self.stems], dtype=np.int64),
            branch_lengths=np.array([len(branch.token_ids) for branch in self.branches], dtype=np.int64),
            stem_of=np.array([branch.stem for branch in self.branches], dtype=np.int64),
        )

    def predicting_rows(self, sequences: Sequence[tuple[Piece, TrainSequence]]) -> NDArray[np.int64]:
        """[C] The prompt's last row for a first token, the row of the token before it for every other."""
        branch_lengths = np.array([len(branch.token_ids) for branch in self.branches], dtype=np.int64)
        branch_starts = self._num_stem_tokens + np.cumsum(branch_lengths) - branch_lengths
        rows = []
        for (piece, sequence), prompt_end, branch in zip(sequences, self.prompt_ends, self.own_branches, strict=True):
            num_fed = piece.group.sequences[sequence.index].num_tokens - 1
            first = prompt_end + 1 if branch is None else branch_starts[branch]
            rows += [np.array([prompt_end]), first + np.arange(num_fed)]
        return np.concatenate(rows)

    def image_rows(self) -> NDArray[np.int64]:
        """[image tokens] stream rows."""
        return np.concatenate(self._image_rows)

    def feature_rows(self) -> NDArray[np.int64]:
        """[image tokens] features."""
        return np.concatenate(self._feature_rows)
