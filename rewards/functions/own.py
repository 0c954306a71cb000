"""Reward functions of the user's, by file or module, each in a process of its own that is killed when it hangs.

Whatever goes wrong in one (an exception, no value in time, NaN, a value outside of [0, 1], no number, a crash) leaves
the completion without a reward, with a reason of its own and the traceback as failure; it is never a zero.
"""

import base64
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from conf.own_code import files_of
from rewards.core.base import CompletionFunction, Grade, Reason, RewardError, RewardRequest
from rewards.core.own import RewardInput
from rewards.core.parts import OwnFunctionConfig
from rewards.functions.grader_process import GraderCrashError, GraderProcess, GraderTimeoutError

logger = logging.getLogger(__name__)

OF_COMPLETION = ("response", "parsed_answer", "truncated")
"""Fields in which the completions of a group differ."""
GRACE_S = 5.0
"""The process ends itself when a value is late; one that was stopped, or is not given a processor, is killed after
this much more."""
_REASONS = {reason.value: reason for reason in Reason}
_WORKER = Path(__file__).with_name("own_worker.py")


class OwnReward(CompletionFunction):
    """Grades completions with a function of the user's; owns its process.

    Example:
        >>> reward = OwnReward("mine", OwnFunctionConfig(path="my_rewards.py:score"))  # doctest: +SKIP
        >>> [grade.value for grade in reward.grade_completions([request], ["45"])]  # doctest: +SKIP
        [1.0]
    """

    def __init__(self, name: str, config: OwnFunctionConfig) -> None:
        """Keep what to load; its process starts when it is first needed.

        Raises:
            RewardError: There is no such file or module.
        """
        self._name = name
        self._key = f"reward.functions.{name}"
        self._config = config
        self._signature: Mapping[str, Any] = {}
        self._warned: set[str] = set()
        try:
            files_of(self._key, config.path)
        except ValueError as error:
            raise RewardError(str(error)) from error
        self._process = GraderProcess(
            _WORKER,
            name=self._key,
            greeting={
                "key": self._key,
                "path": config.path,
                "parameters": config.parameters,
                "sys_path": sys.path,
            },
            start_limit_s=config.start_timeout_s,
        )

    def start(self) -> None:
        """Load the function, if it is not loaded.

        Raises:
            RewardError: It cannot be imported, in time or at all, or is not a function that can be called.
        """
        try:
            self._start()
        except (GraderTimeoutError, GraderCrashError) as error:
            named, why = f"{self._key}={self._config.path}", str(error)
            raise RewardError(why if why.startswith(named) else f"{named} cannot be used: {why}") from error

    @property
    def takes_images(self) -> bool:
        """Whether the function has a parameter `images`."""
        self.start()
        return bool(self._signature["takes_images"])

    def grade_completions(self, requests: Sequence[RewardRequest], answers: Sequence[str | None]) -> list[Grade]:
        """Grade each completion; see CompletionFunction."""
        rows = [asdict(RewardInput.of(request, answer)) for request, answer in zip(requests, answers, strict=True)]
        question = {
            "shared": {name: value for name, value in rows[0].items() if name not in OF_COMPLETION},
            "timeout_s": self._config.timeout_s,
            "images": [base64.b64encode(image).decode() for image in requests[0].images],
        }
        of_rows = [{name: row[name] for name in OF_COMPLETION} for row in rows]
        grades: dict[int, Grade] = {}
        waiting = list(range(len(rows)))
        while waiting:
            self._grade_some(question, of_rows, waiting, grades)
            waiting = [index for index in waiting if index not in grades]
        return [
            grades[index]._replace(parsed=answer) if grades[index].value is not None else grades[index]
            for index, answer in enumerate(answers)
        ]

    def explain_completion(self, request: RewardRequest, answer: str | None) -> list[str]:
        return []  # how it reads is its own; what it says is in the grade

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def _start(self) -> None:
        ready = self._process.start()
        if ready is not None and "error" in ready:
            self._process.close()
            raise GraderCrashError(str(ready["error"]))
        if ready is not None:
            self._signature = ready

    def _grade_some(
        self,
        question: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
        waiting: Sequence[int],
        grades: dict[int, Grade],
    ) -> None:
        """Grade completions until all are, or until one ends the process; at least one is graded in any case."""
        try:
            self._start()
        except (GraderTimeoutError, GraderCrashError) as error:
            grades |= dict.fromkeys(waiting, self._failed(Reason.FUNCTION_DIED, f"it cannot be started again: {error}"))
            return
        limit_s = self._config.timeout_s + GRACE_S
        try:
            self._process.send({**question, "rows": [rows[index] for index in waiting]}, limit_s)
            if self._signature["takes_group"]:
                verdicts = self._process.receive(limit_s)["verdicts"]
                grades |= {index: self._grade(verdict) for index, verdict in zip(waiting, verdicts, strict=True)}
                return
            for _ in waiting:
                verdict = self._process.receive(limit_s)
                grades[waiting[verdict["index"]]] = self._grade(verdict)
        except (GraderTimeoutError, GraderCrashError) as error:
            failed = self._ended(error)
            left = [index for index in waiting if index not in grades]
            if self._signature["takes_group"]:
                grades |= dict.fromkeys(left, failed)
            elif self._signature["is_async"] and len(left) > 1:
                for index in left:  # any of those that ran may have done it
                    self._grade_some(question, rows, [index], grades)
            else:
                grades[left[0]] = failed

    def _grade(self, verdict: Mapping[str, Any]) -> Grade:
        if "fault" not in verdict:
            return Grade(verdict["value"], explanation=verdict["explanation"])
        reason = _REASONS[verdict["fault"]]
        detail = verdict["detail"] or f"gave no value within {self._config.timeout_s:g} s ({self._key}.timeout_s)"
        return self._failed(reason, detail, verdict.get("traceback", ""))

    def _ended(self, error: GraderTimeoutError | GraderCrashError) -> Grade:
        """Return the grade of a completion over which the process ended: it was late, or it died."""
        late = f"gave no value within {self._config.timeout_s:g} s ({self._key}.timeout_s)"
        if isinstance(error, GraderTimeoutError):
            return self._failed(Reason.FUNCTION_TIMEOUT, f"{late}; its process was killed")
        frames = _own_frames(self._process.last_words)
        if error.exit_code == 1 and frames:
            return self._failed(Reason.FUNCTION_TIMEOUT, f"{late}; its process was ended", "\n".join(frames))
        code = error.exit_code or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return self._failed(Reason.FUNCTION_DIED, f"its process ended with {how}; its messages are in the log")

    def _failed(self, reason: Reason, detail: str, trace: str = "") -> Grade:
        failure = f"{self._name}: {detail}" + (f"\n{trace.rstrip()}" if trace else "")
        seen = trace or detail
        if seen not in self._warned and len(self._warned) < 100:
            self._warned.add(seen)
            logger.warning("a completion has no reward (%s): %s", reason, failure)
        return Grade(None, reason, failure=failure)


def _own_frames(dump: str) -> list[str]:
    """Return the user's frames from what faulthandler wrote of the main thread, the innermost last."""
    lines = [line.strip() for line in dump.rpartition("(most recent call first):")[2].splitlines()]
    frames = [line for line in lines if line.startswith("File ")]
    worker = next((place for place, line in enumerate(frames) if _WORKER.name in line), len(frames))
    return [f"  {frame}" for frame in reversed(frames[:worker] or frames)]
