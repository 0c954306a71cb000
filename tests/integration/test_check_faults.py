"""A real engine and a real learner rank under `mixed-r1 check`: nothing is reported, until something is planted."""

import shutil
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.check.facts import Facts, Row
from orchestration.check.prompts import check_prompts
from tests.integration.local_run import LocalEngine, LocalLearner, LocalRun, local_run

BLANK = {prompt.name: prompt.blank for prompt in check_prompts()}
NORM = "model.language_model.norm.weight"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRun]:
    with local_run(tmp_path_factory.mktemp("check"), "qwen2_5_vl") as made:
        yield made


def wrong(checked: tuple[Facts, dict[str, Row]]) -> dict[str, str]:
    """What is found, by what it is about, of rows that are not in order."""
    facts, rows = checked
    assert rows or facts
    return {what: row.found for what, row in rows.items() if row.verdict != "ok"}


def test_a_healthy_engine_and_rank_are_all_right(run: LocalRun, tmp_path: Path) -> None:
    facts, rows = run.check(tmp_path)
    assert {what: row for what, row in rows.items() if row.verdict != "ok"} == {}
    assert rows["first weights"].found.startswith(f"{facts.weights[0].compared[0]} of each")
    assert facts.weights[1].num_moved == facts.weights[1].num_sent
    assert {one.prompt for one in facts.scores} == {"text", "one picture", "another picture", "two pictures"}
    assert all(median < 1e-5 for one in facts.scores for median in one.difference)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []  # the checkpoint is gone


class StaleSource(LocalLearner):
    """Sends its first weights for ever."""

    def tensors(self, names: Collection[str]) -> Any:
        if not hasattr(self, "kept"):
            self.kept = [(name, tensor.clone()) for name, tensor in super().tensors(names)]
        yield from ((name, tensor) for name, tensor in self.kept if name in names)


class ForgetfulSender(LocalLearner):
    """One tensor is never sent."""

    def tensors(self, names: Collection[str]) -> Any:
        yield from ((name, tensor) for name, tensor in super().tensors(names) if name not in FORGOTTEN)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: shape for name, shape in super().shapes().items() if name not in FORGOTTEN}


FORGOTTEN = (NORM, "model.norm.weight")


class SpoiltTensor(LocalLearner):
    """One value of one tensor changes on its way."""

    def send_weights(self, version: int) -> None:
        self.is_sending = True
        super().send_weights(version)
        self.is_sending = False

    def tensors(self, names: Collection[str]) -> Any:
        for name, tensor in super().tensors(names):
            if name in FORGOTTEN and getattr(self, "is_sending", False):
                tensor = tensor.clone()
                tensor[0] += 1.0
            yield name, tensor


class SwapsPictures(LocalEngine):
    """The last picture is taken for the first."""

    async def score_completion(self, group: Any, sample: Any, index: int) -> Any:
        return await super().score_completion(group, replace(sample, images=sample.images[::-1]), index)


class EncodesSwappedPictures(SwapsPictures):
    async def encode(self, sample: Any) -> Any:
        return await super().encode(replace(sample, images=sample.images[::-1]))


class DropsPixels(LocalEngine):
    """Of a picture only its size arrives."""

    async def score_completion(self, group: Any, sample: Any, index: int) -> Any:
        return await super().score_completion(group, BLANK[sample.sample_id] or sample, index)


@pytest.mark.slow
def test_a_sender_that_keeps_its_first_weights_is_named(run: LocalRun, tmp_path: Path) -> None:
    found = wrong(run.check(tmp_path, learner=StaleSource))
    assert "0 moved by the step" in found["weights after a step"]
    assert {what for what, words in found.items() if "stale weights" in words} == {
        "logprobs, text", "logprobs, one picture", "logprobs, another picture", "logprobs, two pictures"
    }  # fmt: skip


@pytest.mark.slow
def test_a_tensor_that_is_never_sent_is_named(run: LocalRun, tmp_path: Path) -> None:
    found = wrong(run.check(tmp_path, learner=ForgetfulSender))
    assert "engine 0 never gets 1 tensor: " in found["first weights"]
    assert "norm.weight" in found["first weights"]


@pytest.mark.slow
def test_a_tensor_that_arrives_changed_is_named(run: LocalRun, tmp_path: Path) -> None:
    found = wrong(run.check(tmp_path, learner=SpoiltTensor))
    assert "engine 0 holds other values in 1 tensor: " in found["first weights"]
    assert all(words.endswith("see the rows above") for what, words in found.items() if what.startswith("logprobs"))


@pytest.mark.slow
def test_swapped_pictures_are_named_wherever_they_change_places(run: LocalRun, tmp_path: Path) -> None:
    found = wrong(run.check(tmp_path, engine=SwapsPictures))
    assert list(found) == ["logprobs, two pictures"]
    assert "swapped pictures" in found["logprobs, two pictures"]

    found = wrong(run.check(tmp_path, engine=EncodesSwappedPictures))
    assert found["pictures"] == "two pictures: engine 0 has the pictures in another order"


@pytest.mark.slow
def test_dropped_pixels_are_named(run: LocalRun, tmp_path: Path) -> None:
    found = wrong(run.check(tmp_path, engine=DropsPixels))
    assert set(found) == {"logprobs, one picture", "logprobs, another picture", "logprobs, two pictures"}
    assert all("dropped pixels" in words for words in found.values())


@pytest.mark.slow
def test_shifted_positions_are_named(run: LocalRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = run.trainer.backend.policy.family
    place = family.prompt_positions

    def shifted(is_image: Any, grids: Any) -> Any:
        """What stands behind the first picture comes one position later."""
        positions, following = place(is_image, grids)
        behind = np.cumsum(is_image) * ~is_image > 0
        return positions + behind, following + int(is_image.any())

    monkeypatch.setattr(family, "prompt_positions", shifted)
    found = wrong(run.check(tmp_path))
    assert set(found) >= {"logprobs, one picture", "logprobs, another picture", "logprobs, two pictures"}
    assert "logprobs, text" not in found
    assert all("shifted positions" in words for what, words in found.items() if what.startswith("logprobs"))


@pytest.mark.slow
def test_another_chat_template_in_the_learners_copy_of_the_model_is_named(run: LocalRun, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run.model, copy)
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "answer"))

    class ReadsCopy(LocalLearner):
        def __init__(self, trainer: Any, config: Any, *rest: Any) -> None:
            super().__init__(trainer, replace(config, model_path=str(copy)), *rest)

    found = wrong(run.check(tmp_path, learner=ReadsCopy))
    assert set(found) == {"chat template", "prompt tokens"}


@pytest.mark.slow
def test_boxes_in_another_frame_are_named(run: LocalRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.engine._prompts, "_input_size", lambda image: image.size)
    found = wrong(run.check(tmp_path, coord_mode="pixel_resized"))
    assert "engine 0 says 150x90, the model sees 140x84" in found["box frame"]


@pytest.mark.slow
def test_a_placeholder_that_is_sampled_is_named(run: LocalRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [pad] = [index for index in run.engine._logit_bias if index == run.trainer.backend.policy.family.image_token_id]
    monkeypatch.setattr(run.engine, "_logit_bias", {pad: 100.0})
    found = wrong(run.check(tmp_path))
    assert "<|image_pad|>" in found["sampled tokens"]
