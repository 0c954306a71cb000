"""Whether a row's own reward can be earned: a candidate's reference is proved by the rewards of the run."""

from typing import Self

from orchestration.data.rows.reasons import Refused, RejectReason
from orchestration.data.rows.records import Candidate
from rewards.base import RewardRequest
from rewards.config import RewardConfig
from rewards.proof import ReferenceProof

REASONS = {
    "unusable": RejectReason.REFERENCE_UNUSABLE,
    "not_right": RejectReason.REFERENCE_NOT_RIGHT,
    "unearned": RejectReason.REFERENCE_UNEARNED,
}


class ReferenceCheck:
    """The rewards of a run, asked about candidates."""

    def __init__(self, config: RewardConfig) -> None:
        """Build the rewards that the run will use."""
        self._config = config
        self._proof = ReferenceProof(config)

    def check(self, candidate: Candidate) -> None:
        """Accept a candidate whose reference its reward can use.

        Raises:
            Refused: UNKNOWN_TASK, REFERENCE_UNUSABLE, REFERENCE_NOT_RIGHT or REFERENCE_UNEARNED.
        """
        if not self._config.is_routed(candidate.task, candidate.source):
            raise Refused(
                RejectReason.UNKNOWN_TASK,
                f"task {candidate.task!r} of source {candidate.source!r} is routed to no reward function",
            )
        sizes = tuple(image.size for image in candidate.images)
        fault = self._proof.fault(
            RewardRequest(
                task=candidate.task,
                source=candidate.source,
                question=candidate.question,
                response="",
                answer=candidate.answer,
                options=candidate.options,
                answer_type=candidate.answer_type,
                image_sizes=sizes,
                image_input_sizes=sizes,
            )
        )
        if fault is not None:
            raise Refused(REASONS[fault.kind], fault.detail)

    def close(self) -> None:
        """End the grader process, if one was started."""
        self._proof.close()

    def __enter__(self) -> Self:
        """Return the check itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()
