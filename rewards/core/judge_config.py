"""JudgeConfig: a reward function that asks a language model; what it is asked, how its reply becomes a number, limits.

Whatever shapes a reply is a setting of its own: prompt, model, pictures, sampling. The rest (address, time limits,
requests at once) only says how the judge is reached, and may differ when a run is continued.
"""

import math
import re
import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen

from rewards.core.base import GoldError, RewardError, RewardRequest

PLACEHOLDERS = ("question", "history", "reference", "options", "answer", "response", "task", "source", "metadata.KEY")
"""What a prompt may hold in braces; KEY is a key of the row's metadata."""
FILE_PREFIX = "file:"
OWN_FIELDS = ("model", "messages", "n", "stream")
"""Fields of a request that `body` may not change: the judge reads one whole reply to its own prompt."""
THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)")
_OUT_OF = re.compile(rf"({_NUMBER.pattern})[\s*]*(?:/|out of)[\s*]*({_NUMBER.pattern})", re.IGNORECASE)
_WORD = r"(?<!\w)(?:{})(?!\w)"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeScale:
    r"""How a reply becomes a number in [0, 1]; the part behind a think block is read.

    Example:
        >>> JudgeScale(low=0, high=10).value("Concise and right.\nScore: 7")
        0.7
        >>> JudgeScale(words={"yes": 1.0, "no": 0.0}).value("It names the dog. Verdict: Yes.")
        1.0
        >>> JudgeScale(low=0, high=10).value("Score: 7/10"), JudgeScale(low=0, high=10).value("I give it 11")
        (0.7, None)
    """

    low: float = 0.0
    """Number that is worth 0. A number below it is no reply."""
    high: float = 10.0
    """Number that is worth 1. A number above it is no reply."""
    pattern: Annotated[str, MinLen(1)] | None = None
    """Regular expression of which the last match is read, its first group where it has one; null reads all."""
    words: dict[str, float] = field(default_factory=dict, hash=False)
    """Words or phrases, and what each is worth in [0, 1]; the last one in the reply counts, in any case. Empty takes
    the last number instead. In YAML, quote "yes" and "no"."""

    def __post_init__(self) -> None:
        if not (self.low < self.high and math.isfinite(self.high - self.low)):
            raise RewardError(
                f"a judge's scale.low is {self.low:g} and scale.high {self.high:g}; low must be below high, and both "
                "finite"
            )
        try:
            found = re.compile(self.pattern or "")
        except re.error as error:
            raise RewardError(
                f"a judge's scale.pattern is {self.pattern!r}: {error}; correct the expression"
            ) from error
        if found.groups > 1:
            raise RewardError(
                f"a judge's scale.pattern is {self.pattern!r} with {found.groups} groups; use one, and (?:..) elsewhere"
            )
        for word, worth in self.words.items():
            if not word.strip() or not 0.0 <= worth <= 1.0:
                raise RewardError(f"a judge's scale.words gives {word!r} {worth:g}; give a word a value in [0, 1]")

    def value(self, reply: str) -> float | None:
        """Return what a reply is worth, in [0, 1]; None where it says nothing, or a number out of range."""
        text = reply.rpartition(THINK_CLOSE)[2]
        if THINK_OPEN in text:
            return None  # cut while it thought
        if self.pattern is not None:
            matches = list(re.finditer(self.pattern, text))
            if not matches:
                return None
            text = matches[-1][matches[-1].re.groups] or ""
        if self.words:
            longest_first = sorted(self.words, key=len, reverse=True)
            said = re.findall(_WORD.format("|".join(map(re.escape, longest_first))), text, re.IGNORECASE)
            worth = {word.casefold(): value for word, value in self.words.items()}
            return worth[said[-1].casefold()] if said else None
        text = _OUT_OF.sub(lambda found: found[1] if float(found[2]) == self.high else found[0], text)
        numbers = _NUMBER.findall(text)
        if not numbers:
            return None
        number = float(numbers[-1])
        if not math.isfinite(number) or not self.low <= number <= self.high:
            return None
        return (number - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeConfig:
    r"""A model that judges answers, asked over the chat endpoint of OpenAI's API.

    Example:
        >>> judge = JudgeConfig(model="gpt-4o-mini", address="https://api.openai.com/v1",
        ...                     prompt="Question: {question}\nAnswer: {answer}\nGrade it from 0 to 10.")
        >>> judge.fill(RewardRequest(task="open", question="Why?", response="", answer=""), "So.", "")
        'Question: Why?\nAnswer: So.\nGrade it from 0 to 10.'
    """

    model: Annotated[str, MinLen(1)]
    """With `address`, the name by which the server knows the model. Without, a Hugging Face folder: the run starts a
    vLLM server of its own for it, on what cluster.judges reserves."""
    prompt: Annotated[str, MinLen(1)]
    """The text that the judge is asked, or file:PATH, of which the text is read when settings are composed.
    Placeholders: {question}, {history} (earlier turns, each in lines that begin with user: or assistant:), {reference},
    {options}, {answer}, {response} (the whole completion), {task}, {source}, {metadata.KEY}. A literal brace is
    doubled."""
    address: str = ""
    """Where a server answers, up to and with /v1; or file:PATH, a file with the address in its first line, which is
    read again whenever nothing answers."""
    key_variable: str = ""
    """Name of the environment variable with the API key, such as OPENAI_API_KEY; every actor gets it from the driver.
    Empty sends no key."""
    system: str = ""
    """System message; empty for none."""
    images: bool = False
    """Show the row's pictures, as data URLs before the prompt."""
    votes: Annotated[int, Ge(1), Le(1000)] = 1
    """Replies to one answer, each sampled with a seed of its own."""
    aggregate: Literal["mean", "median", "majority"] = "mean"
    """How the votes that hold a number become the reward; of equal majorities the lower one counts."""
    temperature: Annotated[float, Ge(0), Le(10)] = 0.0
    max_tokens: Annotated[int, Ge(1)] = 512
    """Of one reply."""
    seed: Annotated[int, Ge(0)] = 0
    """Of the first vote; the next one adds 1."""
    body: dict[str, Any] = field(default_factory=dict, hash=False)
    """Further fields of a request, such as {top_p: 0.9}; null leaves out one that is sent otherwise, as where a server
    knows max_completion_tokens instead of max_tokens."""
    scale: JudgeScale = field(default_factory=JudgeScale)
    max_chars: Annotated[int, Ge(1)] = 20_000
    """Longer answers score 0 and are not asked about."""
    timeout_s: Annotated[float, Gt(0), Le(10**6)] = 60.0
    """Time for one reply."""
    retries: Annotated[int, Ge(0), Le(100)] = 4
    """Further tries after a time-out, a status of 429 or 5xx, or a reply that is no chat completion; each waits twice
    as long. Other statuses are final."""
    wait_s: Annotated[float, Ge(0), Le(10**6)] = 600.0
    """How long requests wait where nothing answers at the address, as while a server is replaced."""
    max_in_flight: Annotated[int, Ge(1), Le(10_000)] = 16
    """Requests at once of one reward actor; there are cluster.reward_pool.num_actors of them."""
    cache: bool = True
    """Keep every reply, by all that the judge was asked: nothing is asked twice, and a resumed run gets the same
    scores."""
    cache_dir: Annotated[str, "path", MinLen(1)] | None = None
    """Folder of the replies, which several runs may share; null is judges/NAME in the run folder, or the memory of
    `mixed-r1 score`."""
    arguments: tuple[str, ...] = ()
    """Further arguments of `vllm serve`, where the run starts the server: [--max-model-len, "8192"]."""

    def __post_init__(self) -> None:
        if self.prompt.startswith(FILE_PREFIX):
            path = Path(self.prompt.removeprefix(FILE_PREFIX)).expanduser()
            try:
                object.__setattr__(self, "prompt", path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise RewardError(f"a judge's prompt is {self.prompt}, which cannot be read: {error}") from error
        _check_prompt(self.prompt)
        if self.address and not self.address.startswith(("http://", "https://", FILE_PREFIX)):
            raise RewardError(
                f"a judge's address is {self.address!r}; begin it with http:// or https://, and end it with /v1"
            )
        if self.votes > 1 and self.temperature == 0.0 and "temperature" not in self.body:
            raise RewardError(
                f"a judge has votes={self.votes} at temperature 0, which are {self.votes} times the same reply; raise "
                "temperature, or set votes to 1"
            )
        if taken := [name for name in OWN_FIELDS if name in self.body]:
            raise RewardError(
                f"a judge's body sets {', '.join(taken)}; these follow from other settings: leave them out"
            )

    @property
    def needs_server(self) -> bool:
        """Whether the run starts the server itself."""
        return not self.address

    def longest_s(self, num_answers: int) -> float:
        """Return the longest time that the answers of one group may take, in seconds, before they are given up."""
        rounds = math.ceil(num_answers * self.votes / self.max_in_flight)
        pauses = sum(backoff_s(number) for number in range(self.retries))
        return rounds * ((self.retries + 1) * self.timeout_s + pauses) + self.wait_s

    def fill(self, request: RewardRequest, answer: str, response: str) -> str:
        """Return the prompt for one answer; what stands in the answer is never read as a placeholder.

        Raises:
            GoldError: The row lacks a key of metadata that the prompt holds.
        """
        values = {
            "question": request.question,
            "history": "\n".join(f"{role}: {text}" for role, text in request.history),
            "reference": request.answer,
            "options": "\n".join(f"{_label(index)}. {text}" for index, text in enumerate(request.options)),
            "answer": answer,
            "response": response,
            "task": request.task,
            "source": request.source,
        }
        metadata = request.metadata
        parts = []
        for literal, name in _parse(self.prompt):
            parts.append(literal)
            if name is not None:
                key = name.partition(".")[2]
                if key and key not in metadata:
                    raise GoldError(
                        f"the row has no metadata.{key}, which the judge's prompt holds; add it, or take it out"
                    )
                parts.append(str(metadata[key]) if key else values[name])
        return "".join(parts)

    def shows(self, placeholder: str) -> bool:
        """Return whether the prompt holds a placeholder."""
        return any(name == placeholder for _, name in _parse(self.prompt))


MOST_BACKOFF_S = 30.0


def backoff_s(number: int) -> float:
    """Return the pause before retry `number`, counted from 0: 1, 2, 4, .. seconds, at most 30."""
    return min(MOST_BACKOFF_S, 2.0**number)


def _label(index: int) -> str:
    letters = string.ascii_uppercase
    return letters[index] if index < len(letters) else str(index + 1)


def _parse(prompt: str) -> list[tuple[str, str | None]]:
    """Return pairs of literal text and the placeholder behind it, None at the end."""
    return [(literal, name) for literal, name, _, _ in string.Formatter().parse(prompt)]


def _check_prompt(prompt: str) -> None:
    known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    try:
        parsed = list(string.Formatter().parse(prompt))
    except ValueError as error:
        raise RewardError(
            f"a judge's prompt has a single brace ({error}); double literal braces: {{{{ and }}}}"
        ) from error
    names = [name for _, name, _, _ in parsed if name is not None]
    for _, name, form, conversion in parsed:
        if name is None:
            continue
        is_metadata = re.fullmatch(r"metadata\.[\w-]+", name) is not None
        if (name not in PLACEHOLDERS[:-1] and not is_metadata) or form or conversion:
            shown = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            raise RewardError(
                f"a judge's prompt holds {{{shown}}}; placeholders are {known}, and a literal brace is doubled"
            )
    if "answer" not in names and "response" not in names:
        raise RewardError("a judge's prompt holds neither {answer} nor {response}, so all answers would earn the same")
