"""The process of a reward function of the user's: JSON questions on stdin, JSON verdicts on stdout. Run as a script.

The first line that it reads says what to load, the first that it writes how the function wants to be called. Then each
question is a group of completions: one line answers each completion, or one line the whole group if the function takes
groups. A watchdog without Python ends the process when a value is late, and a thread ends it when its parent is gone.
"""

import asyncio
import base64
import faulthandler
import inspect
import json
import math
import numbers
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

REQUEST, REQUESTS, IMAGES = "request", "requests", "images"
MAX_EXPLANATION = 2_000
MAX_TRACEBACK = 4_000
WATCHDOG_MARGIN_S = 1.0
"""A coroutine is cancelled at its limit; the process is ended this much later, if it does not let itself be."""


def main() -> NoReturn:
    """Load the function, then answer questions until stdin closes."""
    # The verdicts need a stdout of their own: whatever the function prints goes to stderr, and it reads nothing.
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    notes = int(sys.argv[1])

    def say(answer: Mapping[str, object]) -> None:
        answers.write(json.dumps(answer) + "\n")

    greeting = json.loads(questions.readline())
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(questions, waiting), daemon=True).start()
    sys.path[:] = greeting["sys_path"]
    try:
        function = OwnFunction(greeting["key"], greeting["path"], greeting["parameters"], notes)
    except BaseException as error:
        own = isinstance(error, ValueError)
        say({"error": _encodable(_said(error) if own else f"{type(error).__name__}: {_said(error)}")})
        os._exit(1)
    say({"takes_group": function.takes_group, "is_async": function.is_async, "takes_images": function.takes_images})
    with asyncio.Runner() as runner:
        while True:
            function.answer(json.loads(waiting.get()), runner, say)


def _read(questions: Any, waiting: "queue.SimpleQueue[bytes]") -> None:
    """Pass questions on; when there is no parent any more, end this process and what it has started."""
    for line in questions:
        waiting.put(line)
    os.killpg(os.getpgrp(), signal.SIGKILL)


class OwnFunction:
    """A loaded function with the way in which it is called."""

    def __init__(self, key: str, path: str, parameters: Mapping[str, Any], notes: int) -> None:
        """Load the function and read its signature.

        Args:
            key: The setting that names it, for messages.
            path: FILE.py:NAME or MODULE:NAME.
            parameters: Keyword arguments of every call.
            notes: Descriptor of a file for where it hung, if it did.

        Raises:
            ValueError: It cannot be loaded, cannot be called, or does not say what it takes.
        """
        from conf.own_code import load_own

        self._function: Callable[..., Any] = load_own(key, path)
        self._parameters = dict(parameters)
        self._notes = notes
        if not callable(self._function) or isinstance(self._function, type):
            raise ValueError(f"{key}={path} is no function; name one: def score(request) -> float")
        called = self._function if inspect.isroutine(self._function) else type(self._function).__call__
        self.is_async = inspect.iscoroutinefunction(called)
        signature = inspect.signature(self._function)
        names = list(signature.parameters)
        first = names[0] if names else ""
        self.takes_group = _takes_group(f"{key}={path}", first, signature)
        self.takes_images = IMAGES in names[1:]
        images = {IMAGES: ()} if self.takes_images else {}
        try:
            signature.bind(None, **images, **self._parameters)
        except TypeError as error:
            raise ValueError(
                f"{key}={path} cannot be called with reward.functions' parameters {sorted(self._parameters)}: {error}"
            ) from error

    def answer(
        self, question: Mapping[str, Any], runner: asyncio.Runner, say: Callable[[Mapping[str, object]], None]
    ) -> None:
        """Judge the completions of a group, in order; coroutines of single completions run at the same time."""
        from rewards.core.own import RewardInput

        rows = [RewardInput.from_json({**question["shared"], **row}) for row in question["rows"]]
        limit_s = question["timeout_s"]
        keywords = dict(self._parameters)
        if self.takes_images:
            keywords[IMAGES] = tuple(base64.b64decode(image) for image in question["images"])
        if self.takes_group:
            say({"verdicts": self._of_group(rows, keywords, runner, limit_s)})
        elif self.is_async:
            self._watch(limit_s + WATCHDOG_MARGIN_S)
            runner.run(self._all_at_once(rows, keywords, limit_s, say))
            faulthandler.cancel_dump_traceback_later()
        else:
            for index, row in enumerate(rows):
                self._watch(limit_s)
                verdict = _judged(lambda row=row: _finished(self._function(row, **keywords), runner))  # type: ignore[misc]
                faulthandler.cancel_dump_traceback_later()
                say({"index": index, **verdict})

    def _of_group(
        self, rows: Sequence[Any], keywords: Mapping[str, Any], runner: asyncio.Runner, limit_s: float
    ) -> list[dict[str, object]]:
        self._watch(limit_s)
        found: list[Any] = []

        def call() -> float:
            found.append(_finished(self._function(list(rows), **keywords), runner))
            return 0.0

        failed = _judged(call)
        faulthandler.cancel_dump_traceback_later()
        if not found:
            return [failed] * len(rows)
        values = found[0]
        if not isinstance(values, (list, tuple)) or len(values) != len(rows):
            what = f"{len(values)} values" if isinstance(values, (list, tuple)) else f"a {type(values).__name__}"
            said = f"returned {what} for {len(rows)} completions; return a list with one for each"
            return [{"fault": "wrong_type", "detail": said}] * len(rows)
        return [_judged(lambda value=value: value) for value in values]  # type: ignore[misc]

    async def _all_at_once(
        self,
        rows: Sequence[Any],
        keywords: Mapping[str, Any],
        limit_s: float,
        say: Callable[[Mapping[str, object]], None],
    ) -> None:
        async def one(index: int, row: Any) -> None:
            try:
                async with asyncio.timeout(limit_s) as limit:
                    value = await self._function(row, **keywords)
            except BaseException as error:
                # An exception of its own time limit is its own.
                is_late = isinstance(error, TimeoutError) and limit.expired()
                say({"index": index, **({"fault": "function_timeout", "detail": ""} if is_late else _raised(error))})
            else:
                say({"index": index, **_judged(lambda: value)})

        await asyncio.gather(*(one(index, row) for index, row in enumerate(rows)))

    def _watch(self, limit_s: float) -> None:
        """Have the process ended when the limit is over, with a note of where it was; no Python is needed for it."""
        os.ftruncate(self._notes, 0)
        os.lseek(self._notes, 0, os.SEEK_SET)
        faulthandler.dump_traceback_later(limit_s, exit=True, file=self._notes)


def _takes_group(setting: str, first: str, signature: inspect.Signature) -> bool:
    """Return whether a function takes all completions of a group at once, by the name or type of its first parameter.

    Raises:
        ValueError: Neither says it.
    """
    if first in (REQUEST, REQUESTS):
        return first == REQUESTS
    hint = signature.parameters[first].annotation if first else inspect.Parameter.empty
    spelled = hint if isinstance(hint, str) else getattr(hint, "__name__", "") if isinstance(hint, type) else str(hint)
    if "RewardInput" in spelled:
        return "[" in spelled
    raise ValueError(
        f"{setting} takes {signature}; call its first parameter `request` for one completion or `requests` for a "
        "group, or annotate it with RewardInput or list[RewardInput]"
    )


def _finished(value: Any, runner: asyncio.Runner) -> Any:
    """Return what a function returned, or what its coroutine does."""

    async def wait() -> Any:
        return await value

    return runner.run(wait()) if inspect.isawaitable(value) else value


def _judged(call: Callable[[], Any]) -> dict[str, object]:
    try:
        return _verdict(call())
    except BaseException as error:
        return _raised(error)


def _raised(error: BaseException) -> dict[str, object]:
    """Return an exception with the place in the user's code and its traceback, without our own frames."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    lines = [*traceback.format_list(frames), *traceback.format_exception_only(error)]
    detail = f"{type(error).__name__}{place}: {_said(error)}".replace("\n", " ")
    return {
        "fault": "function_raised",
        "detail": _encodable(detail[:MAX_EXPLANATION]),
        "traceback": _encodable("".join(lines)[-MAX_TRACEBACK:]),
    }


def _verdict(returned: Any) -> dict[str, object]:
    """Return a checked value with its explanation, or what is wrong with it."""
    value, explanation = returned, None
    if isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], str | None):
        value, explanation = returned
    if not isinstance(value, numbers.Real):
        said = f"returned {_shown(returned)}, a {type(returned).__name__}; return a number, or (number, text)"
        return {"fault": "wrong_type", "detail": said}
    try:
        number = float(value) + 0.0  # -0.0 is 0.0
    except OverflowError:  # of a whole number or a fraction
        number = math.inf
    if not math.isfinite(number):
        return {"fault": "not_finite", "detail": f"returned {number}; return a number in [0, 1]"}
    if not 0.0 <= number <= 1.0:
        return {"fault": "out_of_range", "detail": f"returned {number!r}; return a number in [0, 1]"}
    return {"value": number, "explanation": explanation and _encodable(explanation[:MAX_EXPLANATION])}


def _shown(value: object) -> str:
    try:
        return repr(value)[:80]
    except BaseException:
        return "what cannot be shown"


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return "what cannot be shown"


def _encodable(text: str) -> str:
    """Return a text with `?` for what no file can hold: half of a surrogate pair."""
    return text.encode(errors="replace").decode()


if __name__ == "__main__":
    main()
