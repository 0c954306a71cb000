"""HeldOut: a run's held-out samples, scored before, during and after training."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from orchestration.page.tables import scores_table
from orchestration.settings.experiment import ExperimentConfig
from orchestration.storage.checkpoints import read_evaluation
from orchestration.storage.run_folder import RunFolder, write_json
from orchestration.train.scores import Evaluation, evaluate, rows_digest
from orchestration.workers.collect import Questioning, draw_rows
from rollout.dataset import SampleTable
from rollout.records import Sample, SamplingSpec

if TYPE_CHECKING:
    from orchestration.workers.engine_pool import GeneratorPool
    from orchestration.workers.reward_pool import RewardPool


class HeldOut:
    """Scores always the same samples, with the same seeds.

    Consumes: the weights that are live. Produces: one file of scores a name, in the run folder.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        table: SampleTable,
        *,
        generators: "GeneratorPool",
        rewards: "RewardPool",
        folder: RunFolder,
        say: Callable[[str], None],
    ) -> None:
        """Choose the samples; nothing is asked yet."""
        pairs = set(table.tasks_and_sources())
        sampling = config.rollout.sampling
        self._function_of = {pair: config.reward.route(*pair).function for pair in pairs}
        self._samples = choose_samples(table, self._function_of, config.evaluation.samples_per_family, seed=config.seed)
        self._questioning = Questioning(
            greedy=True,
            sampled=SamplingSpec(
                group_size=config.evaluation.completions_per_sample,
                temperature=sampling.temperature,
                max_completion_tokens=sampling.max_completion_tokens,
            ),
            max_completion_tokens=sampling.max_completion_tokens,
            seed=config.seed,
            coord_mode=config.model.coord_mode,
        )
        self._generators = generators
        self._rewards = rewards
        self._folder = folder
        self._say = say
        self._newest: Evaluation | None = None
        self._before = read_evaluation(folder, "before")
        self._say_if_incomparable()

    def _say_if_incomparable(self) -> None:
        """Say that a run which an older version began, or with other settings, was scored on other rows before."""
        if self._before and self._before.get("rows") != rows_digest(self._samples):
            self._say(
                f"{self._folder.evaluation('before')} scores other held-out rows than this sitting will (other "
                "settings of evaluation, data or seed, or an older version): its scores, and those of earlier "
                "checkpoints, are not compared with new ones"
            )
            self._before = {}

    async def score(self, name: str, step: int) -> Evaluation:
        """Score the live weights, which are those after `step` steps, and write the result under a name.

        The same step is scored once, however many names it has.
        """
        if self._newest is None or self._newest.step != step:
            self._say(f"scoring held-out samples at step {step} ...")
            self._newest = await evaluate(
                self._samples,
                generators=self._generators,
                rewards=self._rewards,
                questioning=self._questioning,
                function_of=self._function_of,
                step=step,
            )
            self._tell(self._newest, is_last=name == "after")
            if name == "before":
                self._before = self._newest.to_json()
        write_json(self._folder.evaluation(name), self._newest.to_json())
        return self._newest

    def _tell(self, scores: Evaluation, *, is_last: bool) -> None:
        """Say how the samples scored; a run whose scores before it are known ends with a table of both instead."""
        if not scores.families:
            self._say(f"not one of {len(self._samples)} held-out samples could be scored: {scores.failure}")
        elif not (is_last and self._before):
            self._say(scores_table(scores.to_json()["families"], self._before.get("families", {})))

    def forget(self) -> None:
        """A run that goes back to a checkpoint comes to the same steps with other weights."""
        self._newest = None


def choose_samples(
    table: SampleTable, family_of: Mapping[tuple[str, str], str], per_family: int, *, seed: int = 0
) -> list[Sample]:
    """Return `per_family` rows of every reward function, drawn as `mixed-r1 evaluate max_samples=` draws them.

    Args:
        table: held-out samples.
        family_of: reward function of each (task, source).
        per_family: how many of each function.
        seed: of the run; the same rows come with the same seed, whatever became of the run in between.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for index, pair in enumerate(table.tasks_and_sources()):
        rows[family_of[pair]].append(index)
    return [
        table[index] for indices in rows.values() for index in draw_rows(table, indices, seed=seed, max_rows=per_family)
    ]
