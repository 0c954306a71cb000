"""A tiny model folder, made once for the tests that need one, and a few samples."""

import random
from pathlib import Path

import pytest

from orchestration.demo.samples import DemoSample
from orchestration.demo.tasks import generate_samples
from orchestration.demo.tiny_model import make_tiny_model


@pytest.fixture(scope="session")
def samples() -> list[DemoSample]:
    return list(generate_samples(seed=3, split="train", num_samples=400, questions_per_picture=3))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, samples: list[DemoSample]) -> Path:
    rng = random.Random(0)
    folder = tmp_path_factory.mktemp("demo") / "model"
    corpus = [text for sample in samples for text in (sample.question, sample.demonstration(rng), "user\nassistant\n")]
    make_tiny_model(folder, corpus=corpus, seed=0)
    return folder
