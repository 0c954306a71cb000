"""An algorithm of the user's own: an advantage function or an objective, named in the settings.

Every rank calls both, so they must return the same for the same input on every rank: no random numbers, no clock, no
state kept between calls (a checkpoint would not hold it), no collectives of torch.distributed.
Axes: G unmasked completions of a group, C completion tokens of a micro-batch, sequence by sequence.
"""

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from conf.own_code import OwnCodeError, load_own
from learner.errors import LearnerError


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardGroup:
    """The unmasked completions of one prompt, as an advantage function gets them; at least one.

    Example:
        >>> group = RewardGroup(group_id="0-17", task="chart", rewards=torch.tensor([1.0, 0.0], dtype=torch.float64),
        ...                     lengths=torch.tensor([5, 9]), parts={}, weights={})
        >>> (group.rewards - group.rewards.mean()).tolist()
        [0.5, -0.5]
    """

    group_id: str
    task: str
    rewards: torch.Tensor
    """float64 [G], with the penalty for length, and less the KL of the whole completion where `kl_in` is reward."""
    lengths: torch.Tensor
    """int64 [G] completion tokens."""
    parts: Mapping[str, torch.Tensor]
    """Name of a part of the reward -> float64 [G], unweighted; empty where parts are not kept."""
    weights: Mapping[str, float]
    """Name of a part -> its weight in the reward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveTokens:
    """The completion tokens of one micro-batch, as an objective gets them; all of them count."""

    logprobs: torch.Tensor
    """float32 [C] of the current policy, nats, with gradient."""
    old_logprobs: torch.Tensor
    """float32 [C] what a ratio divides by: the engine's, or the learner's own; see `algorithm.old_logprobs`."""
    behaviour_logprobs: torch.Tensor
    """float32 [C] the engine's."""
    ref_logprobs: torch.Tensor | None
    """float32 [C] of the frozen start model; None where no KL term loads it."""
    entropy: torch.Tensor
    """float32 [C] of the next-token distribution, nats, with gradient."""
    advantages: torch.Tensor
    """float32 [C]"""
    lengths: tuple[int, ...]
    """Tokens of each sequence; they add up to C. Sequences are whole."""
    clip_low: float
    """`algorithm.clip_low`"""
    clip_high: float
    """`algorithm.clip_high`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnAdvantage:
    """A user's function from the groups of a step to advantages; takes the place of baseline and scale."""

    setting: str
    """For messages."""
    function: Callable[[Sequence[RewardGroup]], Sequence[torch.Tensor]]

    def __call__(self, groups: Sequence[RewardGroup]) -> list[torch.Tensor]:
        """Return the advantage of each completion of each group: for each of `groups` float64 [G].

        Raises:
            LearnerError: the function raises, or returns something else.
        """
        found = _call(self.setting, self.function, groups)
        if not isinstance(found, list | tuple) or len(found) != len(groups):
            raise LearnerError(
                f"{self.setting} returned {_what(found)}; return a list of one tensor for each of the {len(groups)} "
                "groups"
            )
        for group, values in zip(groups, found, strict=True):
            _check(f"{self.setting}, group {group.group_id},", values, len(group.rewards), torch.float64)
            # As float32, in which they enter the loss.
            if not bool(torch.isfinite(values.float()).all()):
                raise LearnerError(
                    f"{self.setting}, group {group.group_id}, returned {values.tolist()} for rewards "
                    f"{group.rewards.tolist()}; return finite numbers, 0 where there is nothing to compare"
                )
        return [values.detach() for values in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnObjective:
    """A user's function from the tokens of a micro-batch to their losses; takes the place of the clipped ratio."""

    setting: str
    """For messages."""
    function: Callable[[ObjectiveTokens], torch.Tensor]

    def __call__(self, tokens: ObjectiveTokens) -> torch.Tensor:
        """Return the loss of each token, float32 [C], with gradient.

        Whether it is finite is seen with the whole update, on all ranks together.

        Raises:
            LearnerError: the function raises, or returns something else.
        """
        found = _call(self.setting, self.function, tokens)
        _check(self.setting, found, len(tokens.logprobs), torch.float32)
        if not found.requires_grad:
            raise LearnerError(
                f"{self.setting} returned a loss without a gradient, so nothing would be learned; compute it from "
                "tokens.logprobs, without detach() on all of it"
            )
        loss: torch.Tensor = found
        return loss


def load_advantage(text: str) -> OwnAdvantage:
    """Load the function that `algorithm.advantage` names.

    Raises:
        LearnerError: it cannot be loaded, or takes other arguments.
    """
    setting = f"algorithm.advantage={text}"
    return OwnAdvantage(setting=setting, function=_load("algorithm.advantage", text, "groups"))


def load_objective(text: str, *, has_reference: bool) -> OwnObjective:
    """Load the function that `algorithm.objective` names, and try it on three tokens.

    Args:
        text: the setting.
        has_reference: whether a KL term loads the frozen start model, so that there are logprobs of it.

    Raises:
        LearnerError: it cannot be loaded, takes other arguments, or fails on three ordinary tokens.
    """
    setting = f"algorithm.objective={text}"
    objective = OwnObjective(setting=setting, function=_load("algorithm.objective", text, "tokens"))
    logprobs = torch.tensor([-0.5, -1.0, -2.0], requires_grad=True)
    before = torch.tensor([-0.6, -0.9, -2.0])
    # Before the first rollout, and on every rank alike: what fails here would fail a step later, perhaps on one rank.
    loss = objective(
        ObjectiveTokens(
            logprobs=logprobs,
            old_logprobs=before,
            behaviour_logprobs=before,
            ref_logprobs=before if has_reference else None,
            entropy=torch.tensor([1.0, 2.0, 3.0], requires_grad=True),
            advantages=torch.tensor([1.0, 1.0, -1.0]),
            lengths=(2, 1),
            clip_low=0.2,
            clip_high=0.2,
        )
    )
    if not bool(torch.isfinite(loss).all()):
        raise LearnerError(f"{setting} returned {loss.tolist()} for three ordinary tokens; return finite numbers")
    return objective


def _load(key: str, text: str, argument: str) -> Callable[[Any], Any]:
    try:
        function = load_own(key, text)
    except OwnCodeError as error:
        raise LearnerError(str(error)) from error
    if not callable(function):
        raise LearnerError(f"{key}={text} is {_what(function)}; name a function of one argument: def f({argument})")
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise LearnerError(f"{key}={text} does not take one argument ({error}); write def f({argument})") from error
    return function  # type: ignore[no-any-return]


def _call(setting: str, function: Callable[[Any], Any], argument: Any) -> Any:
    try:
        return function(argument)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[1:]  # without this one
        own = [frame for frame in frames if frame.filename == frames[0].filename]  # not those of what it calls
        where = f" at {own[-1].filename}:{own[-1].lineno}" if own else ""
        raise LearnerError(f"{setting} raised {type(error).__name__}{where}: {error}") from error


def _check(who: str, found: Any, length: int, dtype: torch.dtype) -> None:
    if not isinstance(found, torch.Tensor) or found.shape != (length,) or found.dtype != dtype:
        name = str(dtype).removeprefix("torch.")
        raise LearnerError(f"{who} returned {_what(found)}; return a {name} tensor of shape [{length}]")


def _what(found: Any) -> str:
    if isinstance(found, torch.Tensor):
        return f"a {str(found.dtype).removeprefix('torch.')} tensor of shape {list(found.shape)}"
    size = f" of {len(found)}" if isinstance(found, list | tuple) else ""
    return f"{type(found).__name__}{size}"
