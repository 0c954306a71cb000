"""Further held-out sets: the settings of the README, their rhythm, their rows, and where their scores are."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestration import train
from orchestration.page.curves import held_out_svg
from orchestration.settings.composition import compose
from orchestration.settings.errors import ConfigError
from orchestration.settings.evaluation import held_out_metrics
from orchestration.settings.experiment import build_settings
from orchestration.train.held_out import MAIN
from rollout.dataset import write_samples
from tests.unit.train.test_held_out import SAMPLES, FakePools, held_out

README = (Path(train.__path__[0]) / "README.md").read_text(encoding="utf-8").split("## Several held-out sets")[1]
ENTRIES = README.split("```yaml\nsets:\n")[1].split("```")[0]


def settings_of_the_readme(folder: Path) -> list[str]:
    """The lines of the README as overrides, with files that exist."""
    found = []
    for line in ENTRIES.splitlines():
        name, _, entry = line.strip().partition(": ")
        path = folder / f"{name}.parquet"
        write_samples(path, [sample for sample in SAMPLES if sample.sample_id != "s2"])
        given = entry.split("path: ")[1].split(",")[0].rstrip("}")
        found.append(f"+evaluation.sets.{name}={entry.replace(given, str(path))}")
    return found


def test_each_set_is_scored_at_its_own_rhythm(tmp_path: Path) -> None:
    said: list[str] = []
    sets = settings_of_the_readme(tmp_path)
    scored = held_out(tmp_path, FakePools(), said, "evaluation.every_steps=50", *sets)
    assert [scored.due(step) for step in (20, 50, 100, 30)] == [["charts"], [MAIN], [MAIN, "charts", "boxes"], []]
    off = held_out(tmp_path, FakePools(), said, "evaluation.enabled=false", *sets)
    assert off.due(100) == []

    before = asyncio.run(scored.score("before", 0))
    assert set(before.sets) == {"charts", "boxes"}
    at_20 = asyncio.run(scored.score("step_00000020", 20, ["charts"]))
    assert (at_20.families, set(at_20.sets)) == ({}, {"charts"})
    asyncio.run(scored.score("after", 20))
    assert [line for line in said if line.startswith("scoring")] == [
        "scoring held-out samples at step 0 ...",
        "scoring held-out set charts at step 0 ...",
        "scoring held-out set boxes at step 0 ...",
        "scoring held-out set charts at step 20 ...",
        "scoring held-out samples at step 20 ...",
        "scoring held-out set boxes at step 20 ...",
    ]
    tables = [line for line in said if line.startswith("held-out set charts")]
    assert "+0.000" not in tables[0]
    assert "+0.000" in tables[1], "the change from the untrained model"


def test_scores_of_sets_are_metrics_curves_and_part_of_the_file(tmp_path: Path) -> None:
    scored = held_out(tmp_path, FakePools(), [], *settings_of_the_readme(tmp_path))
    found = asyncio.run(scored.score("before", 0))
    metrics = found.metrics()
    assert metrics["held_out/set/charts/chart/greedy"] == 1.0
    assert metrics["held_out/set/charts/mean/sampled"] == found.sets["charts"].metrics()["held_out/mean/sampled"]
    assert "held_out/chart/greedy" in metrics
    written = json.loads((tmp_path / "evaluation_before.json").read_text())
    assert written["sets"]["charts"]["families"]["chart"]["num_samples"] == 2
    drawn = held_out_svg([{"step": 0, **metrics}, {"step": 5, **metrics}])
    assert "set/charts/chart" in drawn


def test_what_judges_cost_is_told_and_recorded_for_every_set(tmp_path: Path) -> None:
    class Judged(FakePools):
        async def score(self, group: Any, *, keep_texts: bool) -> Any:
            payload, summary = await super().score(group, keep_texts=keep_texts)
            return payload, replace(summary, counts=(("judge/wise/num_requests", 1.0),))

    said: list[str] = []
    scored = held_out(tmp_path, Judged(), said, *settings_of_the_readme(tmp_path))
    found = asyncio.run(scored.score("before", 0))
    # Two groups of each row, one greedy; of the four main rows the one that cannot be sampled asks nobody.
    asked = {"judge": 2 * 3, "set/charts/judge": 2 * 5, "set/boxes/judge": 2 * 5}
    costs = {name: value for name, value in found.metrics().items() if "judge" in name}
    assert costs == {f"held_out/{name}/wise/num_requests": float(count) for name, count in asked.items()}
    written = json.loads((tmp_path / "evaluation_before.json").read_text())
    assert written["counts"] == {"judge/wise/num_requests": 6.0}
    assert written["sets"]["charts"]["counts"] == {"judge/wise/num_requests": 10.0}
    told = [line.partition(" requests")[0] for line in said if line.startswith("judge")]
    assert told == ["judge wise: 6", "judge wise: 10", "judge wise: 10"]


def test_a_checkpoint_keeps_the_metric_of_a_set_beside_the_scores_of_the_main_rows(tmp_path: Path) -> None:
    found = asyncio.run(held_out(tmp_path, FakePools(), [], *settings_of_the_readme(tmp_path)).score("before", 0))
    of_functions = {name: score.sampled for name, score in found.families.items()}
    assert found.scores(None) == of_functions
    metric = "held_out/set/charts/mean/greedy"
    assert found.scores(metric) == {**of_functions, metric: 1.0}


def test_every_metric_but_those_of_sources_may_name_the_best_checkpoint(tmp_path: Path) -> None:
    sets = settings_of_the_readme(tmp_path)
    found = asyncio.run(held_out(tmp_path, FakePools(), [], *sets).score("before", 0))
    config = build_settings(compose([f"run_dir={tmp_path}", *sets]))
    metrics = {name for name in found.metrics() if "/source/" not in name}
    assert metrics <= held_out_metrics(config.reward, config.evaluation).keys()


def test_a_set_is_compared_with_its_own_scores_before_although_the_main_rows_are_others(tmp_path: Path) -> None:
    sets = settings_of_the_readme(tmp_path)
    asyncio.run(held_out(tmp_path, FakePools(), [], *sets).score("before", 0))
    said: list[str] = []
    other = held_out(tmp_path, FakePools(), said, "evaluation.samples_per_family=1", *sets)
    asyncio.run(other.score("after", 2))
    assert "are not compared with new ones" in said[0]
    tables = {line.splitlines()[0]: line for line in said if "sampled" in line}
    assert "+0.000" in tables["held-out set charts"]
    assert not any("+0.000" in text for title, text in tables.items() if title.startswith("held-out reward"))


def test_rows_of_a_set_are_drawn_by_the_seed_or_all_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "some.parquet"
    write_samples(path, SAMPLES[3:])
    few = f"+evaluation.sets.some={{path: {path}, num_samples: 2}}"
    everything = f"+evaluation.sets.some={{path: {path}}}"
    for setting, count in ((few, 2), (everything, 3)):
        found = asyncio.run(held_out(tmp_path, FakePools(), [], setting).score("before", 0))
        assert sum(score.num_samples for score in found.sets["some"].families.values()) == count


def test_without_sets_files_and_metrics_are_as_before(tmp_path: Path) -> None:
    found = asyncio.run(held_out(tmp_path, FakePools(), []).score("before", 0))
    assert list(json.loads((tmp_path / "evaluation_before.json").read_text())) == [
        "step", "rows", "families", "sources", "examples",
    ]  # fmt: skip
    assert not any("/set/" in name for name in found.metrics())


def test_a_name_that_is_no_part_of_a_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluation.sets names 'a/b', a part of metrics; use letters, digits"):
        build_settings(compose([f"run_dir={tmp_path}", "+evaluation.sets={a/b: {path: x}}"]))
