"""RewardActor: Mixed-Reward under Ray."""

import os
import time
from pathlib import Path

import ray

from learner.records import ScoredGroup
from orchestration.cluster.process import Placement, settle
from orchestration.workers.handoff import summarise, to_reward_requests, to_scored_group
from orchestration.workers.tickets import GroupSummary
from rewards.config import RewardConfig
from rewards.mixed import MixedReward
from rollout.prompt import PLACEHOLDER_TOKENS
from rollout.records import RolloutGroup


@ray.remote(concurrency_groups={"health": 1})
class RewardActor:
    """Decodes the completions of a group and scores them as one batch, one group after the other."""

    def __init__(
        self, index: int, config: RewardConfig, model_path: Path, coord_mode: str, placement: Placement, log_dir: Path
    ) -> None:
        """Load the tokenizer and map the embedding table; neither torch nor transformers is imported."""
        settle(f"reward_{index}", placement, log_dir)
        from rewards.tokenizer import CompletionDecoder

        self._config = config
        self._coord_mode = coord_mode
        self._decoder = CompletionDecoder(model_path, hidden=PLACEHOLDER_TOKENS)
        self._reward = MixedReward.from_checkpoint(config, model_path)

    def ready(self) -> int:
        return os.getpid()

    @ray.method(concurrency_group="health")
    def beat(self) -> None:
        """Answer on a thread of its own, so that a long score does not look like a dead process."""

    @ray.method(num_returns=2)
    def score(self, group: RolloutGroup, keep_texts: bool) -> tuple[ScoredGroup, GroupSummary]:
        """Return the scored group, which stays in the object store, and its summary."""
        started = time.perf_counter()
        completions = [generation.token_ids.tolist() for generation in group.generations]
        texts = self._decoder.decode(completions)
        results = self._reward.score(to_reward_requests(group, texts, coord_mode=self._coord_mode))
        function = self._config.route(group.sample.task, group.sample.source).function
        seconds = time.perf_counter() - started
        summary = summarise(group, results, function=function, score_s=seconds, texts=texts if keep_texts else ())
        return to_scored_group(group, results), summary
