"""How old a completion is, by the weights that sampled its tokens and those that may have computed its prompt."""

from types import SimpleNamespace
from typing import Any

import pytest

from rollout.translation import generations


def ended(*versions: str) -> Any:
    """What vLLM gives of a request with one completion, a token for each of these weights."""
    completion = SimpleNamespace(
        token_ids=list(range(len(versions))),
        logprobs=SimpleNamespace(logprobs=[-0.5] * len(versions), start_indices=list(range(len(versions)))),
        weight_versions=[SimpleNamespace(version=version) for version in versions],
        finish_reason="stop",
    )
    return SimpleNamespace(outputs=[completion])


@pytest.mark.parametrize(
    ("versions", "cached_since", "span"),
    [
        (("3",), None, (3, 3)),
        (("3", "4"), None, (3, 4)),
        (("default", "1"), None, (0, 1)),
        (("4",), 3, (3, 4)),
        (("3", "4"), 3, (3, 4)),
        ((), None, (0, 0)),
    ],
)
def test_a_completion_is_as_old_as_whatever_it_was_sampled_from(
    versions: tuple[str, ...], cached_since: int | None, span: tuple[int, int]
) -> None:
    [generation] = generations(ended(*versions), cached_since=cached_since)
    assert (generation.weight_version_start, generation.weight_version_end) == span
