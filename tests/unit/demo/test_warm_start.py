"""The warm start: its schedule, its loss, and that equal arguments give equal weights."""

from pathlib import Path

import pytest
from transformers import AutoProcessor

from orchestration.demo.drawn.questions import DemoSample
from orchestration.demo.warm_start import schedule, warm_start
from orchestration.settings.demo import DemoSettings
from orchestration.settings.model import TinyModel

SETTINGS = DemoSettings(
    seed=0, warm_start_steps=2, warm_start_batch_size=2, warm_start_learning_rate=2e-3, fault_frac=0.25
)


def train(
    folder_in: Path, folder_out: Path, tiny_model: TinyModel, samples: list[DemoSample], *, seed: int = 0
) -> list[tuple[int, float]]:
    seen: list[tuple[int, float]] = []
    warm_start(
        folder_in,
        folder_out,
        tiny_model,
        samples=samples,
        settings=SETTINGS,
        seed=seed,
        progress=lambda step, loss: seen.append((step, loss)),
    )
    return seen


def test_equal_arguments_give_equal_weights(
    model_folder: Path, tmp_path: Path, tiny_model: TinyModel, samples: list[DemoSample]
) -> None:
    losses = [
        [loss for _, loss in train(model_folder, tmp_path / name, tiny_model, samples[:30], seed=seed)]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    first, second, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")

    assert losses[0] == losses[1] != losses[2]
    assert first == second
    assert first != other


def test_the_result_is_a_whole_folder_with_its_processor(
    model_folder: Path, tmp_path: Path, tiny_model: TinyModel, samples: list[DemoSample]
) -> None:
    seen = train(model_folder, tmp_path / "out", tiny_model, samples[:30])

    assert [step for step, _ in seen] == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert AutoProcessor.from_pretrained(tmp_path / "out").tokenizer.eos_token == "<|im_end|>"


def test_fewer_pictures_than_a_step_needs_are_refused(
    model_folder: Path, tmp_path: Path, tiny_model: TinyModel, samples: list[DemoSample]
) -> None:
    with pytest.raises(ValueError, match="fewer than batch_size=2"):
        train(model_folder, tmp_path / "out", tiny_model, samples[:1])


def test_the_rate_rises_shortly_and_then_falls_to_almost_nothing() -> None:
    rates = [schedule(step, 100) for step in range(100)]

    assert max(rates) == 1.0
    assert rates.index(1.0) == 3
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0.0 < rates[-1] < 0.02
