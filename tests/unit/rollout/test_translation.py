"""A group's settings as vLLM takes them; how old a completion is, and which text ended it."""

from types import SimpleNamespace
from typing import Any

import pytest

from rollout.records import SamplingSpec
from rollout.translation import generations, sampling_params


def ended(*versions: str, stop: str | int | None = None) -> Any:
    """What vLLM gives of a request with one completion, a token for each of these weights."""
    completion = SimpleNamespace(
        token_ids=list(range(len(versions))),
        logprobs=SimpleNamespace(logprobs=[-0.5] * len(versions), start_indices=list(range(len(versions)))),
        weight_versions=[SimpleNamespace(version=version) for version in versions],
        finish_reason="stop",
        stop_reason=stop,
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


def test_settings_of_a_group_reach_vllm_under_its_names() -> None:
    spec = SamplingSpec(
        group_size=4, temperature=0.6, max_completion_tokens=32, top_p=0.9, top_k=20, min_p=0.05, stop=("\n\n",), seed=7
    )
    params = sampling_params(spec, {3: -1e9})
    assert (params.n, params.temperature, params.max_tokens, params.seed) == (4, 0.6, 32, 7)
    assert (params.top_p, params.top_k, params.min_p, params.stop) == (0.9, 20, 0.05, ["\n\n"])
    assert params.detokenize
    assert not params.skip_special_tokens


def test_a_group_without_stops_is_asked_for_as_ever() -> None:
    params = sampling_params(SamplingSpec(group_size=4, temperature=1.0, max_completion_tokens=32), {})
    assert (params.top_p, params.top_k, params.min_p, params.stop) == (1.0, 0, 0.0, [])
    assert (params.detokenize, params.skip_special_tokens) == (False, True)


@pytest.mark.parametrize(
    ("reason", "keeps_stop", "stop"), [("END", False, "END"), ("END", True, ""), (151645, False, ""), (None, False, "")]
)
def test_a_completion_knows_the_text_that_ended_it_and_is_cut_from_it(
    reason: str | int | None, keeps_stop: bool, stop: str
) -> None:
    [generation] = generations(ended("1", stop=reason), keeps_stop=keeps_stop)
    assert generation.stop == stop
    assert generation.without_stop("END of an END!") == ("END of an " if stop else "END of an END!")
