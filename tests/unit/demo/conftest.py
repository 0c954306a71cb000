"""A folder of each tiny model, made once for the tests that need one, and a few samples."""

import random
from pathlib import Path

import pytest

from orchestration.demo.drawn.questions import DemoSample, with_boxes_in
from orchestration.demo.drawn.tasks import generate_samples
from orchestration.settings.model import TinyModel
from tests.tiny_models import TINY_MODELS, make_tiny_model, tiny, tiny_config

LEARNED = [name for name in TINY_MODELS if tiny(name).hf_processor is not None]
"""Tiny models that see pictures."""


@pytest.fixture(scope="session")
def samples() -> list[DemoSample]:
    return list(generate_samples(seed=3, split="train", num_samples=400, questions_per_picture=3))


@pytest.fixture(scope="session", params=LEARNED)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def tiny_model(name: str) -> TinyModel:
    return tiny(name)


@pytest.fixture(scope="session")
def model_samples(name: str, samples: list[DemoSample]) -> list[DemoSample]:
    """As the warm start of the model imitates them."""
    return [with_boxes_in(tiny_config(name).coord_mode, sample) for sample in samples]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, name: str, model_samples: list[DemoSample]) -> Path:
    rng = random.Random(0)
    folder = tmp_path_factory.mktemp("demo") / "model"
    corpus = [
        text for sample in model_samples for text in (sample.question, sample.demonstration(rng), "user\nassistant\n")
    ]
    make_tiny_model(folder, name, corpus=corpus)
    return folder
