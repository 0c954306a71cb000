"""An engine that dies in any call of a transfer: rank 0 raises, and no other rank is left in a gather."""

from pathlib import Path

import pytest
from sender_scenarios import CALLS, break_in_every_call
from tiny_learner import run_ranks

pytest.importorskip("vllm", reason="the weight wire is vLLM's")


def test_ranks_keep_in_step_whichever_call_to_an_engine_fails(tmp_path: Path) -> None:
    first, other = run_ranks(2, break_in_every_call, tmp_path)

    assert set(other.values()) == {"nothing"}
    for (backend, fails_in), raised in first.items():
        assert raised == ("nothing" if fails_in is None else f"engine 3 died in {fails_in}"), (backend, fails_in)
    assert len(first) == 3 * (len(CALLS) + 1)
