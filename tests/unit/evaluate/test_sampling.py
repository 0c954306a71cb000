"""Sampling of an evaluation: the command of the page says how completions are asked for, and its record says so too."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from orchestration.evaluate.command import _manifest
from orchestration.settings.composition import compose
from orchestration.settings.experiment import ExperimentConfig, build_settings, settings_errors
from orchestration.workers.collect import EvaluationRows, EvaluationSampling
from rollout.config import SamplingConfig
from rollout.dataset import SampleTable, write_samples
from rollout.records import Sample, SamplingSpec

ROOT = Path(__file__).parents[3]
CHART = Sample(sample_id="a", source="s", task="chart", question="?", answer="1")


def section(page: str, title: str) -> str:
    return (ROOT / page).read_text().split(f"## {title}\n")[1].split("\n## ")[0]


def settings(*overrides: str) -> ExperimentConfig:
    return build_settings(compose(overrides))


def recorded(config: ExperimentConfig, tmp_path: Path) -> dict[str, int | float | str]:
    data = tmp_path / "data.parquet"
    write_samples(data, [CHART])
    return _manifest(config, tmp_path, data, EvaluationRows(table=SampleTable(data), ids={"a": 0}, digest="0")).sampling


def test_the_command_of_the_page_samples_as_it_says(tmp_path: Path) -> None:
    page = section("orchestration/evaluate/README.md", "Sampling as papers do")
    [command] = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    typed = [word for word in shlex.split(command.replace("\\\n", " ")) if word.startswith("rollout.")]
    config = settings(*typed)
    sampling = EvaluationSampling(
        greedy=True, num_sampled=8, sampling=config.rollout.sampling, seed=0, coord_mode="pixel"
    )

    asked = sampling.specs(CHART)

    sampled = asked["sampled"]
    assert (sampled.group_size, sampled.temperature, sampled.top_p, sampled.top_k) == (8, 0.6, 0.95, 20)
    assert (sampled.min_p, sampled.stop, sampled.keeps_stop) == (0.05, ("Question:",), False)
    length = config.rollout.sampling.max_completion_tokens
    assert asked["greedy"] == SamplingSpec(
        group_size=1, temperature=0.0, max_completion_tokens=length, stop=("Question:",)
    )
    found = recorded(config, tmp_path)
    assert (found["top_p"], found["top_k"], found["min_p"], found["stop"]) == (0.95, 20, 0.05, '["Question:"]')


def test_an_evaluation_without_these_settings_is_recorded_as_ever(tmp_path: Path) -> None:
    names = {"top_k", "min_p", "stop", "keeps_stop", "tasks"}
    assert not names & recorded(settings(), tmp_path).keys()
    own = "+rollout.sampling.tasks={chart: {temperature: 0.5}}"
    assert '"temperature": 0.5' in str(recorded(settings(own), tmp_path)["tasks"])


@pytest.mark.parametrize("key", ["top_p=0.9", "top_k=20", "min_p=0.1", "stop=[x]"])
def test_a_run_refuses_what_its_held_out_completions_may_have(key: str) -> None:
    config = settings("run_dir=/tmp/run", "cache_dir=/tmp/cache", f"rollout.sampling.{key}")
    [error] = settings_errors(config)
    assert f"rollout.sampling.{key.partition('=')[0]} is " in str(error)
    assert list(settings_errors(settings("run_dir=/tmp/run", "cache_dir=/tmp/cache", f"evaluation.{key}"))) == []


def test_the_settings_of_tasks_on_the_page_are_taken() -> None:
    page = section("rollout/README.md", "Group size, temperature and length of single tasks")
    [text] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    values = compose(["rollout=vllm_gpu"])
    values["rollout"]["sampling"] |= yaml.safe_load(text)["rollout"]["sampling"]

    sampling: SamplingConfig = build_settings(values).rollout.sampling

    chart, caption, other = (sampling.spec(task) for task in ("chart", "open", "math"))
    assert (chart.max_completion_tokens, chart.temperature, chart.group_size) == (64, 0.7, 16)
    assert (caption.max_completion_tokens, caption.temperature, caption.group_size) == (2048, 1.0, 4)
    assert (other.max_completion_tokens, other.temperature, other.group_size) == (2048, 1.0, 8)
