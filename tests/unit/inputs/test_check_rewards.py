"""What a run would trip over in its rewards is found before anything is reserved."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from orchestration.inputs.prepare import check_rewards
from rewards import RewardConfig, RewardError
from rewards.config import OpenEndedConfig, RewardRule
from rollout.dataset import write_samples
from rollout.records import Sample


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    save_file({"model.embed_tokens.weight": np.eye(2, dtype=np.float32)}, folder / "model.safetensors")
    return folder


def data(path: Path, *pairs: tuple[str, str]) -> Path:
    samples = (
        Sample(sample_id=str(i), source=source, task=task, question="?", answer="a")
        for i, (task, source) in enumerate(pairs)
    )
    write_samples(path, samples)
    return path


def test_unrouted_rows_are_listed_with_their_counts(tmp_path: Path, model: Path) -> None:
    rows = [("chart", "plotqa"), ("video", "clips"), ("video", "clips"), ("audio", "songs")]
    path = data(tmp_path / "rows.parquet", *rows)
    with pytest.raises(RewardError) as caught:
        check_rewards(RewardConfig(), model, path)
    message = str(caught.value)
    assert "has 3 rows that no reward reads" in message
    table = [line.split() for line in message.splitlines()[1:]]
    assert table == [["rows", "task", "source"], ["1", "audio", "songs"], ["2", "video", "clips"]]
    rules = tuple(RewardRule(source=source, function="matching") for source in ("clips", "songs"))
    check_rewards(RewardConfig(rules=rules), model, path)


def test_settings_that_do_not_fit_the_model_are_refused(tmp_path: Path, model: Path) -> None:
    path = data(tmp_path / "rows.parquet", ("open", "captions"))
    (tmp_path / "idf.json").write_text('{"num_references": 2, "words": {"dog": 3}}')
    config = RewardConfig(open_ended=OpenEndedConfig(idf_path=str(tmp_path / "idf.json")))
    with pytest.raises(RewardError, match=r"idf_path .*idf.json .*counts lie outside of 1..num_references"):
        check_rewards(config, model, path)
    config = RewardConfig(open_ended=OpenEndedConfig(idf_path=str(tmp_path / "absent.json")))
    with pytest.raises(RewardError, match=r"idf_path .*absent.json"):
        check_rewards(config, model, path)
    (model / "tokenizer.json").unlink()
    with pytest.raises(RewardError, match=r"has no tokenizer.json"):
        check_rewards(RewardConfig(), model, path)
