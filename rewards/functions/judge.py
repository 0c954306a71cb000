"""Judge reward: a language model grades each answer; several votes, a cache by content, and a count of its cost."""

import base64
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

from rewards.core.base import CompletionFunction, GoldError, Grade, Reason, RewardRequest
from rewards.core.judge_config import JudgeConfig
from rewards.functions.judge_cache import KEY_HEX, ReplyCache, ReplyMemory
from rewards.functions.judge_client import ChatClient, JudgeError, Reply

logger = logging.getLogger(__name__)

SHOWN_CHARS = 200
_IMAGE_TYPES = ((b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF8", "gif"), (b"BM", "bmp"))


class Vote(NamedTuple):
    """One reply of the judge to one answer."""

    value: float | None
    """In [0, 1]; None where the reply holds no number, or there is none."""
    told: str
    """The reply, or why there is none."""


class JudgeReward(CompletionFunction):
    """Grades answers by asking a model; answers of one group are asked about at once, `max_in_flight` at most.

    Consumes: answers. Produces: grades; one whose votes all fail is None with the reply as its failure, never a zero.
    Waits for: the judge, within the limits of its settings.
    """

    def __init__(
        self, config: JudgeConfig, name: str = "judge", *, pause: Callable[[float], None] | None = None
    ) -> None:
        """Open the cache; the judge is first asked with the first answer. `pause` is that of `ChatClient`."""
        self._config = config
        self._name = name
        self._client = ChatClient(config, pause=pause)
        self._threads: ThreadPoolExecutor | None = None
        self._cache: ReplyCache | ReplyMemory | None = None
        if config.cache:
            self._cache = ReplyMemory() if config.cache_dir is None else ReplyCache(Path(config.cache_dir))
        self._counts: Counter[str] = Counter()

    def grade_completions(self, requests: Sequence[RewardRequest], answers: Sequence[str | None]) -> list[Grade]:
        """Grade each completion in [0, 1]; one without an answer earns 0 where the prompt holds {answer}."""
        grades: dict[int, Grade] = {}
        asked: dict[int, tuple[str, Sequence[bytes]]] = {}
        for index, (request, answer) in enumerate(zip(requests, answers, strict=True)):
            refused = self._refused(request, answer)
            if refused is not None:
                grades[index] = refused
                continue
            try:
                asked[index] = self._question(request, answer)
            except GoldError as error:
                grades[index] = Grade(None, Reason.BAD_GOLD, failure=f"judge {self._name}: {error}")
        for index, votes in zip(asked, self._votes(list(asked.values())), strict=True):
            grades[index] = self._grade_of(votes, answers[index])
        return [grades[index] for index in range(len(answers))]

    def ask_ahead(self, requests: Sequence[RewardRequest], answers: Sequence[str | None]) -> None:
        """Ask about completions of many groups at once, so that what grades them one by one finds the replies known."""
        if self._cache is not None:
            counts = self._counts.copy()
            self.grade_completions(requests, answers)
            self._counts = counts  # a vote is counted where it is graded, and then as cached

    def explain_completion(self, request: RewardRequest, answer: str | None) -> list[str]:
        """Return the judge's replies, asked again where they are not cached."""
        if (refused := self._refused(request, answer)) is not None:
            return [f"judge {self._name} is not asked{f': {refused.failure}' if refused.failure else ''}"]
        [votes] = self._votes([self._question(request, answer)])
        return [
            f"judge {self._name}: vote {number} is {'none' if vote.value is None else f'{vote.value:g}'}: "
            f"{_shortened(vote.told)}"
            for number, vote in enumerate(votes, start=1)
        ]

    def take_counts(self) -> dict[str, float]:
        """Return what was asked, and what it cost, since the last call, as metrics."""
        counts = self._counts + self._client.take_counts()
        self._counts = Counter()
        return {f"judge/{self._name}/{key}": float(count) for key, count in sorted(counts.items())}

    def close(self) -> None:
        """End requests that wait, and close the cache; both are opened again if the judge is asked again."""
        if self._threads is not None:
            with self._client.interrupted():
                self._threads.shutdown(wait=True, cancel_futures=True)
            self._threads = None
        if self._cache is not None:
            self._cache.close()

    def _refused(self, request: RewardRequest, answer: str | None) -> Grade | None:
        """Return the grade of a completion that the judge is not asked about; None where it is asked."""
        if answer is None and self._config.shows("answer"):
            return Grade(0.0)  # MixedReward knows why there is none
        read = request.response if answer is None or self._config.shows("response") else answer
        if len(read) > self._config.max_chars:
            return Grade(0.0, Reason.TOO_LONG)
        if self._config.images and request.image_sizes and not request.images:
            failure = f"judge {self._name}: the row has pictures, which are not at hand here"
            return Grade(None, Reason.GRADER_FAILED, failure=failure)
        return None

    def _question(self, request: RewardRequest, answer: str | None) -> tuple[str, Sequence[bytes]]:
        """Return the prompt and the pictures that the judge is shown."""
        images = request.images if self._config.images else ()
        return self._config.fill(request, answer or "", request.response), images

    def _votes(self, prompts: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[Vote]]:
        """Ask about each prompt with its pictures; equal questions are asked once."""
        if self._cache is not None:
            self._cache.refresh()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._config.max_in_flight, thread_name_prefix=f"judge-{self._name}")
        shown: dict[tuple[bytes, ...], list[str]] = {}
        asked: dict[str, Future[Reply]] = {}
        known: dict[str, Reply] = {}
        keys: list[list[str]] = []
        for text, images in prompts:
            pictures = tuple(images)
            if pictures not in shown:
                shown[pictures] = [hashlib.blake2b(image).hexdigest() for image in pictures]
            of_prompt = []
            for vote in range(self._config.votes):
                key = self._key(text, shown[pictures], vote)
                of_prompt.append(key)
                if key in known or key in asked:
                    self._counts["num_cached"] += 1
                elif self._cache is not None and (reply := self._cache.get(key)) is not None:
                    known[key] = reply
                    self._counts["num_cached"] += 1
                else:
                    asked[key] = self._threads.submit(self._ask, key, text, pictures, vote)
            keys.append(of_prompt)
        told = {key: self._read(reply) for key, reply in known.items()}
        for key, future in asked.items():
            try:
                told[key] = self._read(future.result())
            except JudgeError as error:
                told[key] = Vote(None, str(error))
        votes = [[told[key] for key in of_prompt] for of_prompt in keys]
        self._counts["num_votes"] += sum(map(len, votes))
        self._counts["num_failed_votes"] += sum(vote.value is None for cast in votes for vote in cast)
        return votes

    def _ask(self, key: str, text: str, images: Sequence[bytes], vote: int) -> Reply:
        """Ask for one vote, in a thread, and keep the reply."""
        reply = self._client.ask(request_body(self._config, text, images, vote))
        if self._cache is not None:
            try:
                self._cache.add(key, reply)
            except OSError as error:  # the reply is worth more than its copy
                logger.warning("judge %s: a reply is not cached: %s", self._name, error)
        return reply

    def _read(self, reply: Reply) -> Vote:
        self._counts["num_cut"] += reply.is_cut
        return Vote(self._config.scale.value(reply.text), reply.text)

    def _grade_of(self, votes: Sequence[Vote], answer: str | None) -> Grade:
        told = "; ".join(dict.fromkeys(_shortened(vote.told) for vote in votes))
        values = [vote.value for vote in votes if vote.value is not None]
        if values:
            return Grade(aggregate(values, self._config.aggregate), parsed=answer, explanation=told)
        self._counts["num_failed"] += 1
        pattern = self._config.scale.pattern
        how = "" if pattern is None else f" by scale.pattern {pattern!r}"
        failure = f"judge {self._name}: none of {len(votes)} votes has a value{how}: {told}"
        return Grade(None, Reason.GRADER_FAILED, failure=failure)

    def _key(self, text: str, images: Sequence[str], vote: int) -> str:
        """Return the digest of all that decides a reply; how it is read and counted may change without asking again."""
        seen = [request_body(self._config, text, (), vote), list(images)]
        digest = hashlib.blake2b(json.dumps(seen, sort_keys=True).encode(), digest_size=KEY_HEX // 2)
        return digest.hexdigest()


def request_body(config: JudgeConfig, text: str, images: Sequence[bytes], vote: int) -> dict[str, Any]:
    """Return the body of a chat request for one vote; pictures come before the text, in their order.

    Raises:
        JudgeError: a picture is of a kind that no data URL names.
    """
    content: Any = text
    if images:
        urls = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
        content = [*urls, {"type": "text", "text": text}]
    messages = [{"role": "user", "content": content}]
    if config.system:
        messages.insert(0, {"role": "system", "content": config.system})
    body: Mapping[str, Any] = {
        "model": config.model,
        "messages": messages,
        "temperature": config.temperature,
        "max_tokens": config.max_tokens,
        "seed": config.seed + vote,
        **config.body,
    }
    return {name: value for name, value in body.items() if value is not None}


def data_url(image: bytes) -> str:
    r"""Return an encoded picture as a data URL.

    Example:
        >>> data_url(b"\xff\xd8\xff\xe0")
        'data:image/jpeg;base64,/9j/4A=='

    Raises:
        JudgeError: it is neither PNG, JPEG, GIF, BMP nor WebP.
    """
    kind = next((kind for start, kind in _IMAGE_TYPES if image.startswith(start)), None)
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        kind = "webp"
    if kind is None:
        raise JudgeError(f"a picture that begins with {image[:8]!r} is neither PNG, JPEG, GIF, BMP nor WebP")
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def aggregate(values: Sequence[float], how: str) -> float:
    """Return the mean, the median or the most frequent of some votes; of equally frequent ones the lowest.

    Example:
        >>> aggregate([0.0, 1.0, 1.0], "majority"), aggregate([0.0, 1.0], "majority")
        (1.0, 0.0)
    """
    if how == "mean":
        return fmean(values)
    if how == "median":
        return median(values)
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))


def _shortened(text: str) -> str:
    return repr(text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]} ..")
