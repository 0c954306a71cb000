"""HeldOut: a run's held-out samples, scored before, during and after training."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from orchestration.config.experiment import ExperimentConfig
from orchestration.evaluation.collect import Questioning
from orchestration.evaluation.families import Evaluation, evaluate
from orchestration.persistence.state import RunFolder, write_json
from rollout.dataset import SampleTable
from rollout.records import Sample, SamplingSpec

if TYPE_CHECKING:
    from orchestration.pools.generators import GeneratorPool
    from orchestration.pools.rewards import RewardPool


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
        self._samples = choose_samples(table, self._function_of, config.evaluation.samples_per_family)
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
        write_json(self._folder.evaluation(name), self._newest.to_json())
        return self._newest

    def forget(self) -> None:
        """A run that goes back to a checkpoint comes to the same steps with other weights."""
        self._newest = None


def choose_samples(table: SampleTable, family_of: Mapping[tuple[str, str], str], per_family: int) -> list[Sample]:
    """The first `per_family` rows of every reward function; the same ones at every evaluation.

    Args:
        table: held-out samples.
        family_of: reward function of each (task, source).
        per_family: how many of each function.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for index, pair in enumerate(table.tasks_and_sources()):
        rows[family_of[pair]].append(index)
    return [table[index] for indices in rows.values() for index in islice(indices, per_family)]
