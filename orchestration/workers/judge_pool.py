"""JudgePool: the servers of a run's judges, each replaced when it is lost; and where reward actors find them.

A server's address is a line of a file in the run folder, which a reward actor reads again whenever nothing answers. So
a request that was under way when a server died waits for the next one, and no actor has to be told.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from orchestration.cluster.machines import judge_names, needs_of
from orchestration.cluster.reservations import Reservations
from orchestration.models.files import model_digest
from orchestration.settings.cluster import FaultsConfig
from orchestration.settings.errors import InfrastructureError, JudgeLostError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.storage.faults import FaultLog, Role
from orchestration.workers.judge_actor import JudgeActor
from orchestration.workers.supervised import Start, Stop, SupervisedActor
from rewards.core.config import RewardConfig
from rewards.core.judge_config import FILE_PREFIX

logger = logging.getLogger(__name__)

DIGEST_CHARS = 12


class JudgeLane(SupervisedActor):
    """The server of one judge; its address is in a file while it answers."""

    def __init__(
        self, name: str, index: int, start: Start, stop: Stop, faults: FaultsConfig, log: FaultLog, *, place: Path,
        key: str,
    ) -> None:  # fmt: skip
        """Start the first actor. `place` is the file of the address, `key` what requests must show."""
        self.name = name
        self._log = log
        self._place = place
        self._key = key
        super().__init__(Role.JUDGE, index, start, stop, faults)

    async def ready(self) -> int:
        """Wait until the server answers, and publish its address."""
        pid = await super().ready()
        publish_address(self._place, await self.call("address"), self._key)
        return pid

    def lose(self, handle: Any, cause: str) -> bool:
        """See `SupervisedActor`; takes the address away and counts the loss.

        Raises:
            TooManyFaultsError: too many servers were lost within the window.
        """
        is_newly_lost = super().lose(handle, cause)
        if is_newly_lost:
            self._place.unlink(missing_ok=True)
            logger.warning("judge %s is started again: %s", self.name, cause)
            self._log.record(Role.JUDGE, self.index, f"{self.name}: {cause}")
        return is_newly_lost


class JudgePool:
    """All judges whose servers a run starts.

    Consumes: heartbeats. Produces: addresses. Waits for: a server that is lost. Woken by: the next heartbeat.
    """

    def __init__(self, lanes: Sequence[JudgeLane], faults: FaultsConfig) -> None:
        """Keep the servers, which have begun to start."""
        self._lanes = lanes
        self._faults = faults
        self._supervision: list[asyncio.Task[None]] = []
        self.failure: Exception | None = None
        """What ended supervision; judges that are lost then stay away."""

    async def ready(self) -> None:
        """Wait until every server answers, and supervise them from then on.

        Raises:
            InfrastructureError: they do not answer in time.
            JudgeLostError: one died before it answered.
        """
        try:
            async with asyncio.timeout(self._faults.start_timeout_s):
                await asyncio.gather(*(lane.ready() for lane in self._lanes))
        except TimeoutError as error:
            missing = ", ".join(lane.name for lane in self._lanes if not lane.is_ready)
            raise InfrastructureError(
                f"judges {missing} do not answer within cluster.faults.start_timeout_s="
                f"{self._faults.start_timeout_s:g}; their logs say why"
            ) from error
        self._supervision = [asyncio.create_task(self._supervise(lane)) for lane in self._lanes]

    def close(self) -> None:
        """End supervision and the servers."""
        for task in self._supervision:
            task.cancel()
        for lane in self._lanes:
            lane.end()

    async def _supervise(self, lane: JudgeLane) -> None:
        try:
            while True:
                await lane.replace_when_lost(JudgeLostError)
        except Exception as error:
            self.failure = error


def publish_address(place: Path, address: str, key: str) -> None:
    """Write address and key of a server, whole or not at all, for this user alone."""
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(place.name + ".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{address}\n{key}\n")
    partial.replace(place)


def judges_folder(log_dir: Path) -> Path:
    """Return the folder beside the logs of a job where its judges keep addresses and replies."""
    return log_dir.parent / "judges"


def with_places(config: ExperimentConfig, log_dir: Path) -> RewardConfig:
    """Return the reward settings with what only a run knows of its judges: where replies and addresses are.

    The name under which a server knows its model holds a digest of the model's files, and is part of what replies are
    kept by: other weights in the same folder are asked again.
    """
    judges = dict(config.reward.judges)
    for name, judge in judges.items():
        folder = judges_folder(log_dir) / name
        if judge.cache and judge.cache_dir is None:
            judges[name] = replace(judge, cache_dir=str(folder / "replies"))
    for name in judge_names(config):
        judge, faults = judges[name], config.cluster.faults
        judges[name] = replace(
            judge,
            address=f"{FILE_PREFIX}{judges_folder(log_dir) / name / 'address'}",
            model=served_name(Path(judge.model)),
            wait_s=max(judge.wait_s, 2 * faults.start_timeout_s + faults.heartbeat_timeout_s),
        )
    return replace(config.reward, judges=judges)


def served_name(model: Path) -> str:
    """Return the name under which a server knows the model of a folder."""
    return f"{model.name}-{model_digest(model)[:DIGEST_CHARS]}"


def start_judge_pool(
    config: ExperimentConfig, reservations: Reservations, log_dir: Path, faults: FaultLog
) -> JudgePool | None:
    """Start the servers that have reservations; None where no judge needs one."""
    names = judge_names(config)
    if not names:
        return None
    key = secrets.token_urlsafe(24)
    needs = needs_of(config)

    def start(index: int) -> Any:
        name = names[index]
        judge = config.reward.judges[name]
        model = Path(judge.model)
        arguments = (name, model, served_name(model), judge.arguments, needs.judges[index].gpus, key)
        placement = reservations.placements["judge"][index]
        return reservations.start(JudgeActor, "judge", index, *arguments, placement, log_dir)

    limits = config.cluster.faults
    lanes = [
        JudgeLane(
            name,
            index,
            start,
            ray.kill,
            limits,
            faults,
            place=judges_folder(log_dir) / name / "address",
            key=key,
        )
        for index, name in enumerate(names)
    ]
    return JudgePool(lanes, limits)
