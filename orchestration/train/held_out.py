"""Held-out samples of a run, scored before, during and after training: sampled and greedy, by function and source."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from orchestration.page.figures import data_uri
from orchestration.settings.evaluation import KINDS, MEAN, MEAN_KINDS, HeldOutSetConfig
from orchestration.settings.experiment import ExperimentConfig
from orchestration.storage.files import write_json
from orchestration.storage.run_folder import RunFolder, read_evaluation
from orchestration.workers.answers import EvaluatedSample, row_metrics, split_rows
from orchestration.workers.collect import EvaluationSampling, collect, draw_rows
from orchestration.workers.judge_counts import judge_lines, sum_counts
from rollout.dataset import SampleTable
from rollout.records import Sample, readable

if TYPE_CHECKING:
    from orchestration.workers.engine_pool import EnginePool
    from orchestration.workers.reward_pool import RewardPool

Scores = Mapping[str, Mapping[str, float]]
"""Name of a reward function -> its score as written: num_samples, sampled, sampled_se, greedy, ..."""
NEEDED = ("sampled/reward", "greedy/reward")
"""Metrics that a sample must have to count, so that both means are over the same samples."""
NUM_EXAMPLES = 12
"""Completions of data.held_out that the report shows, at least one of every reward function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyScore:
    """Held-out score of one reward function, or one source.

    Example:
        >>> FamilyScore(num_samples=2, sampled=0.5, sampled_se=0.1, sampled_task=0.4, greedy=0.6, greedy_se=0.1,
        ...             greedy_task=0.5, format=1.0).sampled
        0.5
    """

    num_samples: int
    sampled: float
    """Mean weighted reward of completions sampled as in training."""
    sampled_se: float
    """Standard error over samples."""
    sampled_task: float
    """The same without the format part."""
    greedy: float
    greedy_se: float
    greedy_task: float
    format: float
    """Mean format reward of the sampled completions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Scores by reward function and source, and a few completions to show."""

    step: int
    """Training steps that the weights have taken."""
    rows: str
    """Digest of the samples; scores of equal digests may be compared."""
    families: dict[str, FamilyScore]
    sources: dict[str, FamilyScore]
    """The same samples by source."""
    examples: list[dict[str, Any]]
    failure: str | None
    """The most frequent reason for which samples have no score; None where all have one."""
    counts: dict[str, float] = field(default_factory=dict)
    """What judges were asked and what it cost, by name of a metric; less where replies were kept."""
    num_without_reward: dict[str, int] = field(default_factory=dict)
    """Completions whose reference or grader failed, by function and reason, `mine/function_raised`; in no score."""
    sets: dict[str, "Evaluation"] = field(default_factory=dict)
    """Scores of the further sets of evaluation.sets that were scored at this step, by name."""

    def to_json(self) -> dict[str, Any]:
        values = {name: value for name, value in asdict(self).items() if name not in ("failure", "sets")}
        for name in ("counts", "num_without_reward"):
            if not values[name]:
                del values[name]
        if self.sets:
            values["sets"] = {name: one.to_json() for name, one in self.sets.items()}
        return values

    def metrics(self) -> dict[str, float]:
        """Return the scores by metric name: of functions, their mean, several sources, sets; and the cost of judges.

        Example:
            >>> Evaluation(step=0, rows="", families={}, sources={}, examples=[], failure=None).metrics()
            {}
        """
        found: dict[str, float] = {}
        for name, score in self.families.items():
            values = asdict(score)
            found |= {f"held_out/{name}/{kind}": values[kind] for kind in KINDS}
        for kind in MEAN_KINDS if self.families else ():
            found[f"held_out/{MEAN}/{kind}"] = fmean(getattr(score, kind) for score in self.families.values())
        for name, score in self.sources.items() if len(self.sources) > 1 else ():
            found |= {f"held_out/source/{name}/sampled": score.sampled, f"held_out/source/{name}/greedy": score.greedy}
        found |= {f"held_out/{name}": count for name, count in self.counts.items()}
        for name, one in self.sets.items():
            found |= {f"held_out/set/{name}/{key.removeprefix('held_out/')}": v for key, v in one.metrics().items()}
        return found

    def scores(self, metric: str | None) -> dict[str, float]:
        """Return the scores that are kept with a checkpoint: of reward functions, and of a metric if it is named."""
        found = {name: score.sampled for name, score in self.families.items()}
        return found | {name: value for name, value in self.metrics().items() if name == metric}


def rows_digest(samples: Sequence[Sample]) -> str:
    """Return a digest of which samples these are, whatever their order."""
    return sha256("\n".join(sorted(sample.sample_id for sample in samples)).encode(errors="replace")).hexdigest()


async def evaluate(
    samples: Sequence[Sample],
    *,
    engines: "EnginePool",
    rewards: "RewardPool",
    sampling: EvaluationSampling,
    function_of: Mapping[tuple[str, str], str],
    step: int,
    num_examples: int = NUM_EXAMPLES,
) -> Evaluation:
    """Score every sample with its sampled completions and its greedy one; both must be asked for."""
    found: dict[str, EvaluatedSample] = {}
    await collect(
        samples,
        engines=engines,
        rewards=rewards,
        sampling=sampling,
        function_of=lambda task, source: function_of[task, source],
        finished=lambda result: found.update({result.sample_id: result}),
    )
    pairs = [(sample, found[sample.sample_id]) for sample in samples]
    # A sample that could not be scored is left out here; training reports such rows.
    scored = [(sample, result) for sample, result in pairs if row_metrics(result).keys() >= {*NEEDED}]
    results = [result for _, result in scored]
    families = split_rows(results, "function")
    failures = Counter(result.failure for _, result in pairs if result.failure is not None)
    return Evaluation(
        step=step,
        rows=rows_digest(samples),
        families={name: _score(rows) for name, rows in families.items()},
        sources={name: _score(rows) for name, rows in split_rows(results, "source").items()},
        examples=[e for name in families for e in _examples(scored, name, max(1, num_examples // len(families)))],
        failure=next((reason for reason, _ in failures.most_common(1)), None),
        counts=sum_counts(result.counts for _, result in pairs),
        num_without_reward=_num_without_reward(result for _, result in pairs),
    )


def _num_without_reward(results: Iterable[EvaluatedSample]) -> dict[str, int]:
    counts = Counter(
        f"{result.function}/{completion.reason}"
        for result in results
        for completion in (*result.sampled, *([result.greedy] if result.greedy is not None else ()))
        if completion.reward is None
    )
    return dict(sorted(counts.items()))


def _score(results: Sequence[EvaluatedSample]) -> FamilyScore:
    rows = [row_metrics(result) for result in results]
    mean = {name: fmean(row[name] for row in rows) for name in rows[0]}
    return FamilyScore(
        num_samples=len(rows),
        sampled=mean["sampled/reward"],
        sampled_se=_standard_error([row["sampled/reward"] for row in rows]),
        sampled_task=mean["sampled/task_reward"],
        greedy=mean["greedy/reward"],
        greedy_se=_standard_error([row["greedy/reward"] for row in rows]),
        greedy_task=mean["greedy/task_reward"],
        format=mean["sampled/format"],
    )


def _standard_error(values: Sequence[float]) -> float:
    return stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0


def _examples(scored: Sequence[tuple[Sample, EvaluatedSample]], family: str, count: int) -> list[dict[str, Any]]:
    chosen = [(sample, result) for sample, result in scored if result.function == family][:count]
    return [
        {
            "sample_id": sample.sample_id,
            "family": family,
            "task": sample.task,
            "question": readable(sample.question),
            "answer": sample.answer,
            "images": [
                {
                    "width": image.width,
                    "height": image.height,
                    "input_width": input_width,
                    "input_height": input_height,
                    "data": data_uri(image),
                }
                for image, (input_width, input_height) in zip(sample.images, result.image_input_sizes, strict=True)
            ],
            "greedy": result.greedy.text,
            "greedy_reward": result.greedy.reward,
            "sampled": [completion.text for completion in result.sampled],
            "sampled_rewards": [completion.reward for completion in result.sampled],
        }
        for sample, result in chosen
        if result.greedy is not None
    ]


@dataclass(slots=True)
class _Set:
    """Rows that are scored together: those of data.held_out, or of one of evaluation.sets."""

    samples: list[Sample]
    function_of: Mapping[tuple[str, str], str]
    every_steps: int | None
    num_examples: int = 0
    newest: Evaluation | None = None


MAIN = "data.held_out"
"""Stands for the rows of data.held_out where sets are named."""


class HeldOut:
    """Scores the same samples with the same seeds each time.

    Consumes: the weights that are live. Produces: a file of scores in the run folder for each name.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        table: SampleTable,
        *,
        engines: "EnginePool",
        rewards: "RewardPool",
        folder: RunFolder,
        say: Callable[[str], None],
    ) -> None:
        evaluation = config.evaluation
        function_of = _function_of(config, table)
        chosen = choose_samples(table, function_of, evaluation.samples_per_family, seed=config.seed)
        self._sets = {
            MAIN: _Set(chosen, function_of, evaluation.every_steps, NUM_EXAMPLES),
            **{name: _open_set(config, one) for name, one in evaluation.sets.items()},
        }
        self._sampling = EvaluationSampling(
            greedy=True,
            num_sampled=evaluation.completions_per_sample,
            sampling=replace(
                config.rollout.sampling,
                top_p=evaluation.top_p,
                top_k=evaluation.top_k,
                min_p=evaluation.min_p,
                stop=evaluation.stop,
                keeps_stop=evaluation.keeps_stop,
            ),
            seed=config.seed,
            coord_mode=config.model.box_frame,
        )
        self._engines = engines
        self._rewards = rewards
        self._folder = folder
        self._say = say
        self._is_enabled = evaluation.enabled
        self._before = read_evaluation(folder, "before")
        self._say_if_incomparable()

    def _say_if_incomparable(self) -> None:
        """Warn where the scores before training are of other rows: other settings, or an older version."""
        if self._before and self._before.get("rows") != rows_digest(self._sets[MAIN].samples):
            self._say(
                f"{self._folder.evaluation('before')} scores other held-out rows than this start will (other "
                "settings of evaluation, data or seed, or an older version): its scores, and those of earlier "
                "checkpoints, are not compared with new ones"
            )

    def due(self, step: int) -> list[str]:
        """Return what is to be scored after `step` steps: names of sets, MAIN for data.held_out; empty for nothing."""
        rhythms = {name: one.every_steps for name, one in self._sets.items() if self._is_enabled}
        return [name for name, every in rhythms.items() if every and step % every == 0]

    async def score(self, name: str, step: int, due: Sequence[str] | None = None) -> Evaluation:
        """Score the live weights, which are those after `step` steps, and write the result under a name.

        The same step is scored once, however many names it has. `due` is what to score; None is everything.
        """
        sets = {key: await self._score(key, name, step) for key in (self._sets if due is None else due)}
        nothing = Evaluation(step=step, rows="", families={}, sources={}, examples=[], failure=None)
        found = replace(sets.pop(MAIN, nothing), sets=sets)
        if name == "before":
            self._before = found.to_json()
        write_json(self._folder.evaluation(name), found.to_json())
        return found

    async def _score(self, key: str, name: str, step: int) -> Evaluation:
        """Score one set at a step, and print the scores with the change against those before training."""
        one = self._sets[key]
        if one.newest is not None and one.newest.step == step:
            return one.newest
        is_main = key == MAIN
        self._say(f"scoring held-out {'samples' if is_main else f'set {key}'} at step {step} ...")
        one.newest = found = await evaluate(
            one.samples,
            engines=self._engines,
            rewards=self._rewards,
            sampling=self._sampling,
            function_of=one.function_of,
            step=step,
            num_examples=one.num_examples,
        )
        before = self._before if is_main else self._before.get("sets", {}).get(key, {})
        known = before.get("families", {}) if before.get("rows") == found.rows else {}
        if not found.families:
            of_set = "" if is_main else f" of set {key}"
            self._say(f"not one of {len(one.samples)} held-out samples{of_set} could be scored: {found.failure}")
        elif not (is_main and name == "after" and known):  # job.py prints those beside the ones before
            title = "" if is_main else f"held-out set {key}\n"
            self._say(title + scores_table(found.to_json()["families"], known))
        for line in judge_lines(found.counts):
            self._say(line)
        self._say_failed(found)
        return found

    def _say_failed(self, scores: Evaluation) -> None:
        if scores.num_without_reward:
            counts = ", ".join(f"{count} {cause}" for cause, count in scores.num_without_reward.items())
            self._say(f"held-out completions without a reward, which no score counts: {counts}")

    def forget(self) -> None:
        """Drop the newest scores: a run that goes back to a checkpoint has other weights at the same steps."""
        for one in self._sets.values():
            one.newest = None


def _function_of(config: ExperimentConfig, table: SampleTable) -> dict[tuple[str, str], str]:
    return {pair: config.reward.route(*pair).function for pair in set(table.tasks_and_sources())}


def _open_set(config: ExperimentConfig, settings: HeldOutSetConfig) -> _Set:
    table = SampleTable(Path(settings.path))
    rows = draw_rows(table, range(len(table)), seed=config.seed, max_rows=settings.num_samples or len(table))
    return _Set([table[index] for index in rows], _function_of(config, table), settings.every_steps)


def choose_samples(
    table: SampleTable, function_of: Mapping[tuple[str, str], str], per_function: int, *, seed: int = 0
) -> list[Sample]:
    """Return `per_function` rows of every reward function, drawn as `mixed-r1 evaluate max_samples=` draws them.

    The same seed draws the same rows, also after a resume.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for index, pair in enumerate(table.tasks_and_sources()):
        rows[function_of[pair]].append(index)
    return [
        table[index]
        for indices in rows.values()
        for index in draw_rows(table, indices, seed=seed, max_rows=per_function)
    ]


def before_after_table(before: Scores, after: Scores) -> str:
    """Return one line per reward function: sampled and greedy reward before and after, and the change.

    Example:
        >>> print(before_after_table({}, {}).splitlines()[0])
        held-out reward                  sampled at the training temperature          greedy
    """
    families = sorted(before.keys() & after.keys())
    width = max([12, *map(len, families)])
    lines = [
        f"{'held-out reward':{width + 21}}sampled at the training temperature          greedy",
        f"{'':{width}}{'samples':>8}   {'before':>15} {'after':>15} {'change':>9}   "
        f"{'before':>8} {'after':>8} {'change':>9}",
    ]
    for family in families:
        b, a = before[family], after[family]
        lines.append(
            f"{family:{width}}{a['num_samples']:>8}   "
            f"{_with_error(b['sampled'], b['sampled_se'])} {_with_error(a['sampled'], a['sampled_se'])} "
            f"{a['sampled'] - b['sampled']:>+9.3f}   "
            f"{b['greedy']:>8.3f} {a['greedy']:>8.3f} {a['greedy'] - b['greedy']:>+9.3f}"
        )
    return "\n".join(lines)


def scores_table(scores: Scores, before: Scores) -> str:
    """Return one line per reward function: sampled and greedy reward, and the change from the untrained model.

    Args:
        scores: By reward function.
        before: Those of the untrained model; empty where they are not known, or are of other samples.

    Example:
        >>> print(scores_table({}, {}))
        held-out reward samples          sampled    change     greedy    change
    """
    width = max([16, *(len(name) + 1 for name in scores)])
    lines = [f"{'held-out reward':{width}}{'samples':>7} {'sampled':>16} {'change':>9} {'greedy':>10} {'change':>9}"]
    for name, score in sorted(scores.items()):
        b = before.get(name)
        sampled, greedy = (f"{score[key] - b[key]:+.3f}" if b else "" for key in ("sampled", "greedy"))
        lines.append(
            f"{name:{width}}{score['num_samples']:>7} {_with_error(score['sampled'], score['sampled_se']):>16} "
            f"{sampled:>9} {score['greedy']:>10.3f} {greedy:>9}".rstrip()
        )
    return "\n".join(lines)


def _with_error(mean: float, standard_error: float) -> str:
    return f"{mean:.3f} ± {standard_error:.3f}".rjust(15)
