"""The garbage collector rests while tests are collected."""

import gc

import pytest

# Collecting imports torch, transformers and vLLM, and rewrites every assertion: nearly all of it stays, and looking
# through it for garbage again and again took two fifths of the time.
gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Set aside what is there for good, and collect what tests leave."""
    gc.freeze()
    gc.enable()
