"""A tiny model folder of each family, made once for the tests that need one, and a few samples."""

import random
from pathlib import Path

import pytest

from orchestration.demo.drawn.questions import DemoSample, with_boxes_in
from orchestration.demo.drawn.tasks import generate_samples
from orchestration.demo.tiny_model import FAMILIES, TinyFamily, make_tiny_model
from orchestration.settings.demo import FAMILY_FRAMES, FamilyName


@pytest.fixture(scope="session")
def samples() -> list[DemoSample]:
    return list(generate_samples(seed=3, split="train", num_samples=400, questions_per_picture=3))


@pytest.fixture(scope="session", params=list(FAMILIES))
def family_name(request: pytest.FixtureRequest) -> FamilyName:
    return request.param


@pytest.fixture(scope="session")
def family(family_name: FamilyName) -> TinyFamily:
    return FAMILIES[family_name]


@pytest.fixture(scope="session")
def family_samples(family_name: FamilyName, samples: list[DemoSample]) -> list[DemoSample]:
    """As the warm start of the family imitates them."""
    return [with_boxes_in(FAMILY_FRAMES[family_name], sample) for sample in samples]


@pytest.fixture(scope="session")
def model_folder(
    tmp_path_factory: pytest.TempPathFactory, family: TinyFamily, family_samples: list[DemoSample]
) -> Path:
    rng = random.Random(0)
    folder = tmp_path_factory.mktemp("demo") / "model"
    corpus = [
        text for sample in family_samples for text in (sample.question, sample.demonstration(rng), "user\nassistant\n")
    ]
    make_tiny_model(folder, family, corpus=corpus, seed=0)
    return folder
