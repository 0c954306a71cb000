"""BuildJob: everything that shapes a dataset, and the key that stands for it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestration.data.plan import SourcePlan
from orchestration.data.rows.chunks import digest_of
from orchestration.data.rows.code import STAGES, stage_code
from orchestration.data.stages.measure import Ruler
from orchestration.settings.recipe import RecipeConfig
from rewards.config import RewardConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildJob:
    """Everything that shapes a dataset."""

    recipe: RecipeConfig
    plans: Sequence[SourcePlan]
    reward: RewardConfig
    ruler: Ruler
    processor: str
    """Digest of the files that decide how long a prompt is."""
    policy: str
    """Digest of the model that tries the rows, and of how it samples; empty where it does not."""
    store: Path
    """Folder of all chunks: shared by every machine that has workers."""
    out: Path

    @property
    def key(self) -> str:
        """Digest of all that, code included: equal keys are equal datasets."""
        recipe = {**asdict(self.recipe), "raw": None, "out": None, "num_workers": None}
        for source in recipe["sources"].values():
            source["path"] = None
        parts = [task.key for plan in self.plans for task in plan.tasks]
        # That of stage sample is part of `policy`, which is empty where no row is tried.
        code = {stage: stage_code(stage) for stage in STAGES if stage != "sample"}
        return digest_of(recipe, parts, asdict(self.reward), self.ruler.settings, self.processor, self.policy, code)
