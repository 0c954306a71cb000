"""The math grader's own process: JSON questions on stdin, JSON verdicts on stdout. Run as a script, never imported.

It imports nothing of this repository. An alarm without a handler ends it even where its parent has died meanwhile.
"""

import json
import logging
import math
import os
import signal
import sys
from typing import Any


def main() -> None:
    """Answer questions until stdin closes."""
    # Verdicts need a stdout of their own: whatever a library prints goes to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    from math_verify import LatexExtractionConfig, parse, verify

    latex = [LatexExtractionConfig(boxed_match_priority=0)]

    def read(expression: str) -> Any:
        # Limits are the parent's: the library's own needs signals, which cannot stop a long integer power.
        boxed = "\\boxed{" + expression + "}"
        return parse(boxed, latex, fallback_mode="no_fallback", parsing_timeout=None, raise_on_error=True)

    answers.write("{}\n")
    for line in sys.stdin:
        question = json.loads(line)
        signal.alarm(math.ceil(question["timeout_s"]) + 5)
        try:
            gold, reply = read(question["gold"]), read(question["reply"])
            equal = bool(gold) and bool(reply) and verify(gold, reply, timeout_seconds=None)
            answer: dict[str, object] = {"readable": bool(reply), "equal": bool(equal)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        signal.alarm(0)
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
