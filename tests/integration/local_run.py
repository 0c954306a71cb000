"""A real engine and a real learner rank in the test's own process, behind the pools of a run: for `mixed-r1 check`."""

import asyncio
import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import tests.integration.environment  # noqa: F401
from learner.store import open_store
from orchestration.check.command import as_checked, expectations
from orchestration.check.facts import Facts, Row
from orchestration.check.probes import Probes
from orchestration.check.prompts import check_prompts
from orchestration.check.verdicts import judge
from orchestration.plan.learner_memory import planned_bytes
from orchestration.settings.composition import compose
from orchestration.settings.experiment import ExperimentConfig, build_settings
from orchestration.storage.faults import FaultLog
from orchestration.workers.engine_actor import EngineActor
from orchestration.workers.engine_pool import EnginePool
from orchestration.workers.learner_actor import LearnerActor
from orchestration.workers.learner_group import LearnerGroup
from orchestration.workers.turns import Turns
from rewards.functions.tokenizer import load_tokenizer
from rollout.placeholders import SPELLINGS
from tests.integration.loop_client import LoopClient
from tests.unit.check.healthy import node
from tests.unit.learner.tiny_learner import free_port
from tests.unit.storage.fault_limits import fault_limits

HOST = "127.0.0.1"


class LocalEngine(EngineActor.__ray_metadata__.modified_class):  # type: ignore[misc]
    """The engine's actor without Ray; tests override what goes wrong."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    async def close(self) -> None:
        """The next check uses it again."""


class LocalLearner(LearnerActor.__ray_metadata__.modified_class):  # type: ignore[misc]
    """The rank's actor without Ray; tests override what goes wrong."""

    def __init__(self, trainer: Any, config: Any, engine: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._trainer = trainer
        self._config = config
        self._client = LoopClient(engine, loop)
        self._sender = None

    def rendezvous(self) -> tuple[str, int]:
        return HOST, free_port()

    def build(self, *_: Any) -> int:
        return os.getpid()

    def tensors(self, names: Collection[str]) -> Iterator[tuple[str, Any]]:
        """What travels."""
        yield from self._trainer.backend.full_tensors(names)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self._trainer.backend.full_shapes())

    def connect(self, engines: Any, config: Any, dtype: str, workers: int, address: str, port: int) -> None:
        from learner.weight_sender import WeightSender

        if self._sender is not None:
            self._sender.close()
        self._sender = WeightSender(
            self.shapes(), self.tensors, client=self._client, backend="gloo", dtype=dtype, rank=0, num_receivers=1,
            address=address, port=port, bucket_bytes=config.bucket_bytes, timeout_s=config.timeout_s,
            changing=self._trainer.backend.changing_names(),
        )  # fmt: skip

    def train_step(self, step: int, payloads: Any) -> Any:
        return self._trainer.train_step(list(payloads), step=step)


class Handle:
    """An actor's handle: coroutines run in the loop, everything else in one thread."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.thread = ThreadPoolExecutor(max_workers=1)

    def __getattr__(self, name: str) -> Any:
        handle = self

        class Method:
            @staticmethod
            def remote(*arguments: Any) -> "asyncio.Future[Any]":
                method = getattr(handle.actor, name)
                if asyncio.iscoroutinefunction(method):
                    return asyncio.ensure_future(method(*arguments))
                return asyncio.get_running_loop().run_in_executor(handle.thread, method, *arguments)

        return Method


class LocalRun:
    """One engine and one rank, which any number of checks look at one after the other."""

    def __init__(self, config: ExperimentConfig, model: Path) -> None:
        from learner.training.trainer import PolicyTrainer
        from rollout.engine import GenerationEngine
        from rollout.placeholders import banned_token_ids

        self.model = model
        self.planned = config
        self.config = as_checked(config)
        self.loop = asyncio.new_event_loop()
        self.engine = self.loop.run_until_complete(self._make(GenerationEngine))
        self.learner_config = replace(self.config.learner, model_path=str(model), algorithm=self.config.algorithm)
        self.trainer = PolicyTrainer(
            self.learner_config, rank=0, world_size=1, master_address=HOST, master_port=free_port(), seed=1,
            banned_token_ids=banned_token_ids(model),
        )  # fmt: skip

    async def _make(self, engine: Any) -> Any:
        return engine(self.config.rollout, self.model, loads_weights=False)

    def check(
        self,
        folder: Path,
        *,
        engine: Callable[..., Any] = LocalEngine,
        learner: Callable[..., Any] = LocalLearner,
        **changes: Any,
    ) -> tuple[Facts, dict[str, Row]]:
        """Look at everything once; gives facts, and rows by what they are about."""
        facts = self.loop.run_until_complete(self._look(folder, engine, learner))
        expected = replace(expectations(self.planned, self.model), **changes)
        return facts, {row.what: row for row in judge(facts, expected)}

    async def _look(self, folder: Path, engine: Callable[..., Any], learner: Callable[..., Any]) -> Facts:
        limits = fault_limits(heartbeat_s=1e6)
        actor = learner(self.trainer, self.learner_config, self.engine, self.loop)
        engines = EnginePool(
            lambda index: Handle(engine(self.engine)), stop=lambda handle: None, config=self.config.rollout,
            faults=limits, log=FaultLog(limits),
        )  # fmt: skip
        group = LearnerGroup(lambda rank: Handle(actor), stop=lambda handle: None, num_ranks=1, faults=limits)
        tokenizer = load_tokenizer(self.model)
        known = {tokenizer.token_to_id(token): token for token in SPELLINGS}

        async def nodes() -> list[Any]:
            return [node("here")]

        probes = Probes(
            config=self.config,
            engines=engines,
            learner=group,
            turns=Turns(engines, group),
            prompts=check_prompts(),
            placeholders={index: token for index, token in known.items() if index is not None},
            planned_bytes=planned_bytes(self.planned, self.model),
            store=open_store(folder),
            record=folder / "turns.jsonl",
            look_at_nodes=nodes,
            hold=lambda value: value,
            say=lambda line: None,
        )
        try:
            await probes.look()
        finally:
            await engines.close()
            await group.close()
            if actor._sender is not None:
                actor._sender.close()
        return probes.facts

    def close(self) -> None:
        self.trainer.close()
        self.loop.run_until_complete(self._close_engine())
        self.loop.close()

    async def _close_engine(self) -> None:
        """In its loop: elsewhere vLLM would leave sockets open, and the collector wait for them for ever."""
        self.engine.close()


@contextmanager
def local_run(folder: Path, family: str) -> Iterator[LocalRun]:
    """A random model of a family, with sharp weights, under the settings of `cpu_smoke`."""
    from tests.integration.tiny import save_tiny_model

    model = folder / "model"
    save_tiny_model(model, family=family)  # type: ignore[arg-type]
    values = compose(
        ["experiment=cpu_smoke", f"model=tiny_{family}", f"model.path={model}", f"run_dir={folder / 'run'}"]
    )
    run = LocalRun(build_settings(values), model)
    try:
        yield run
    finally:
        run.close()
