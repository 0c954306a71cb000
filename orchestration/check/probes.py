"""Probes: calls to a run's own engines and learner ranks, one after the other, whose answers are the facts.

Everything goes through the pools, turns and calls that a training run uses. Engines begin without any of the model's
weights, so a tensor that does not arrive cannot be mistaken for one that did; one training step changes the learner's
weights before they are published a second time, so an engine that keeps the first ones is found as well.
"""

import asyncio
import itertools
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learner import checkpoint
from learner.records import ScoredGroup
from learner.store import FileStore
from orchestration.check.facts import (
    CheckpointFacts,
    Facts,
    NodeFacts,
    PromptFacts,
    SampledFacts,
    ScoreFacts,
    StepFacts,
    WeightFacts,
)
from orchestration.check.prompts import CheckPrompt, made_up_rewards
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.seeds import derive_seed
from orchestration.workers.engine_pool import Engine, EnginePool
from orchestration.workers.learner_group import LearnerGroup
from orchestration.workers.tickets import GroupTicket, summarise, to_scored_group
from orchestration.workers.turns import Turns
from orchestration.workers.weight_sync import compare_fingerprints
from rollout.records import Fingerprint, RolloutGroup, Sample, SamplingSpec

MAX_COMPLETIONS = 4
"""Of a prompt, scored on both sides."""
MAX_TOKENS = 16
"""Of a completion."""
MAX_LINKS = 16
"""Engines to which the weights are sent one by one, each on another machine where there are more."""
LINK_BYTES = {"cuda": 256 * 2**20, "cpu": 16 * 2**20}
"""Sent between two learner ranks; enough that the link's speed shows and not its delay."""
FULL_BATCHES = 2
"""Micro-batches of every rank that the step's tokens would fill."""
MAX_REPEATS = 64
"""Times that a group may be repeated in the step."""

Logprobs = list[NDArray[np.float32]]
logger = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class Probes:
    """Collects the facts. Life: constructed -> `look`, once."""

    config: ExperimentConfig
    engines: EnginePool
    """Engines of the run, not started, which begin without the model's weights."""
    learner: LearnerGroup
    """Its ranks, not started."""
    turns: Turns
    """Hands the GPUs over between engines and learner."""
    prompts: Sequence[CheckPrompt]
    placeholders: Mapping[int, str]
    """Ids that must not be sampled, with their texts."""
    planned_bytes: int
    """Of a learner rank, by `mixed-r1 plan`."""
    store: FileStore
    """Takes a checkpoint, which is deleted again."""
    record: Path
    """Where `turns` writes whose turn it is."""
    look_at_nodes: Callable[[], Awaitable[list[NodeFacts]]]
    hold: Callable[[Any], Any]
    """Puts a value where the learner's ranks find it, and returns the reference."""
    say: Callable[[str], None]
    """Prints what is checked next."""
    facts: Facts = field(default_factory=Facts)
    _ready: Sequence[Engine] = ()
    _connected: list[Any] = field(default_factory=list)
    _groups: dict[tuple[int, str], RolloutGroup] = field(default_factory=dict)
    """By engine and prompt."""
    _learner_scores: dict[tuple[str, str], Logprobs] = field(default_factory=dict)
    """By prompt, and `now`, `stale`, `swapped` or `blank`."""
    _sent: dict[int, dict[str, Fingerprint]] = field(default_factory=dict)
    _held: dict[int, list[dict[str, Fingerprint]]] = field(default_factory=dict)
    _seconds: dict[int, float] = field(default_factory=dict)
    _sent_bytes: dict[int, int] = field(default_factory=dict)
    _early_scores: dict[tuple[int, str], Logprobs] = field(default_factory=dict)
    """By engine and prompt, under the first weights."""

    async def look(self) -> None:
        """Check everything in turn, up to the first error."""
        stages: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
            ("machines", self._see_nodes),
            ("starting engines and learner ranks", self._start),
            ("links", self._measure_links),
            ("first weights", self._publish_first),
            ("prompts", self._encode),
            ("answers", self._sample),
            ("a training step and a checkpoint", self._train),
            ("new weights", self._publish_again),
        )
        for name, stage in stages:
            self.say(f"{name} ...")
            try:
                await stage()
            except Exception as error:  # of any kind: it is a result of the check
                logger.exception("the check ends at %s", name)
                self.facts.failure = name, f"{type(error).__name__}: {error}"
                break

    async def _see_nodes(self) -> None:
        self.facts.nodes = await self.look_at_nodes()

    async def _start(self) -> None:
        if self.turns.is_shared:  # engines share the ranks' GPUs, and start after them
            await self._build_learner()
            await self.engines.ready()
            await self.turns.to_learner()
        else:
            await asyncio.gather(self._build_learner(), self.engines.ready())
        self._ready = self.engines.ready_engines()

    async def _build_learner(self) -> None:
        await self.learner.build(derive_seed(self.config.seed, "check"))
        await self.turns.settle_learner()

    async def _measure_links(self) -> None:
        self.facts.link_bytes = LINK_BYTES[self.config.learner.device]
        seconds = (await self.learner.on_each("round_trips", self.facts.link_bytes))[0]
        self.facts.rank_links_s = dict(enumerate(seconds, start=1))
        if self.turns.is_shared:
            return  # engines and ranks are on the same GPUs, and take weights together
        found: dict[int, float] = {}
        chosen = self._ready[:: -(-len(self._ready) // MAX_LINKS)]
        for engine in chosen:
            found[engine.index] = await self._send([engine], 0)
        self.facts.engine_links_s = found

    async def _send(self, engines: Sequence[Engine], version: int) -> float:
        """Send the weights as a publication does; return the seconds of the transfer."""
        clock = asyncio.get_running_loop().time
        await self.turns.pause_for_weights(engines)
        handles = [engine.handle for engine in engines]
        if handles != self._connected:
            await self.learner.connect(handles, self.config.rollout)
            self._connected = handles
        started = clock()
        self._sent_bytes[version] = await self.learner.send_weights(version)
        seconds = clock() - started
        await self.turns.resume_with_weights(engines)
        return seconds

    async def _publish(self, version: int) -> None:
        started = asyncio.get_running_loop().time()
        await self.turns.some_ready()
        await self._send(self._ready, version)
        self.turns.end()
        self._seconds[version] = asyncio.get_running_loop().time() - started

    async def _publish_first(self) -> None:
        self._connected = []  # a new channel: the first transfer of one is of all weights
        await self._publish(0)
        self._held[0] = await self._read_engines()

    async def _read_engines(self) -> list[dict[str, Fingerprint]]:
        """Return the fingerprints of all tensors of every engine."""
        names = (await self.engines.on_each(self._ready, "weight_names"))[0]
        return list(await self.engines.on_each(self._ready, "weight_fingerprints", names))

    async def _encode(self) -> None:
        rollout = self.config.rollout
        for prompt in self.prompts:
            asked = prompt.sample, rollout.prompt_spec, rollout.engine.max_images_per_prompt
            engines, ranks = await asyncio.gather(
                self.engines.on_each(self._ready, "encode", prompt.sample), self.learner.on_each("encode", *asked)
            )
            self.facts.prompts.append(
                PromptFacts(
                    name=prompt.name,
                    image_sizes=tuple(image.size for image in prompt.sample.images),
                    engines=tuple(engines),
                    ranks=tuple(ranks),
                )
            )

    async def _sample(self) -> None:
        sampling = self.config.rollout.sampling
        spec = SamplingSpec(
            group_size=min(sampling.group_size, 2 * MAX_COMPLETIONS),
            temperature=sampling.temperature,
            max_completion_tokens=min(sampling.max_completion_tokens, MAX_TOKENS),
            seed=derive_seed(self.config.seed, "check"),
        )
        for prompt in self.prompts:
            groups = await self.engines.on_each(self._ready, "answer", prompt.name, prompt.sample, spec)
            for engine, group in zip(self._ready, groups, strict=True):
                self._groups[engine.index, prompt.name] = group
                self.facts.sampled.append(self._sampled(engine, group))
        await self._score(0)

    def _sampled(self, engine: Engine, group: RolloutGroup) -> SampledFacts:
        tokens = [int(token) for generation in group.generations for token in generation.token_ids]
        versions = {v for g in group.generations for v in (g.weight_version_start, g.weight_version_end)}
        return SampledFacts(
            prompt=group.group_id,
            engine=engine.index,
            num_tokens=len(tokens),
            banned=tuple(sorted({self.placeholders[token] for token in tokens if token in self.placeholders})),
            versions=tuple(sorted(versions)),
            seconds=group.seconds,
        )

    def _asked(self, prompt: CheckPrompt, sample: Sample | None = None) -> ScoredGroup:
        """Return the completions that both sides score, as answers to a prompt or to another sample in its place."""
        group = self._groups[self._ready[0].index, prompt.name]
        some = replace(group, sample=sample or prompt.sample, generations=group.generations[:MAX_COMPLETIONS])
        return to_scored_group(some, made_up_rewards(len(some.generations)))

    async def _score(self, version: int) -> None:
        """Have every engine score the same completions; the learner scores them in its own turn."""
        for prompt in self.prompts:
            group = self._asked(prompt)
            calls = (
                self.engines.on_each(self._ready, "score_completion", group, prompt.sample, index)
                for index in range(len(group.sequences))
            )
            by_completion = await asyncio.gather(*calls)
            for place, engine in enumerate(self._ready):
                own = [answers[place] for answers in by_completion]
                self._compare(prompt, engine, version, own)

    def _compare(self, prompt: CheckPrompt, engine: Engine, version: int, own: Logprobs) -> None:
        if version == 0:
            self._early_scores[engine.index, prompt.name] = own
            return
        now = self._learner_scores[prompt.name, "now"]
        others = {what: says for (name, what), says in self._learner_scores.items() if name == prompt.name}
        del others["now"]
        stale = others["stale"]
        for number, ours, says in ((0, self._early_scores[engine.index, prompt.name], stale), (1, own, now)):
            self.facts.scores.append(
                ScoreFacts(
                    prompt=prompt.name,
                    engine=engine.index,
                    version=number,
                    difference=distances(ours, says),
                    to_others={what: distances(ours, other) for what, other in others.items()} if number else {},
                    effects={what: distances(now, other) for what, other in others.items()} if number else {},
                )
            )

    async def _train(self) -> None:
        clock = asyncio.get_running_loop().time
        started = clock()
        await self.turns.to_learner()
        if self.turns.is_shared:
            self.facts.turn_s = {"engines sleep, the learner comes": clock() - started}
        self._sent[0] = await self._read_learner()
        for prompt in self.prompts:
            self._learner_scores[prompt.name, "stale"] = await self._ask_learner(self._asked(prompt))
        await self._step()
        for prompt in self.prompts:
            for what, sample in {"now": prompt.sample, "swapped": prompt.swapped, "blank": prompt.blank}.items():
                if sample is not None:
                    self._learner_scores[prompt.name, what] = await self._ask_learner(self._asked(prompt, sample))
        self._sent[1] = await self._read_learner()
        await self._save()

    async def _read_learner(self) -> dict[str, Fingerprint]:
        return await self.learner.weight_fingerprints(await self.learner.weight_names())

    async def _ask_learner(self, group: ScoredGroup) -> Logprobs:
        found: Logprobs = (await self.learner.on_each("sequence_logprobs", self.hold(group)))[0]
        return found

    async def _step(self) -> None:
        clock = asyncio.get_running_loop().time
        tickets = self._tickets()
        before = await self.learner.on_each("memory", True)
        started = clock()
        report = await self.learner.train_step(0, tickets)
        seconds = clock() - started
        after = await self.learner.on_each("memory", False)
        self.facts.step = StepFacts(
            seconds=seconds,
            num_groups=len(tickets),
            num_tokens=sum(t.summary.num_prompt_tokens + t.summary.num_completion_tokens for t in tickets),
            metrics=report.metrics,
            before=tuple(before),
            after=tuple(after),
            planned_bytes=self.planned_bytes,
        )

    def _tickets(self) -> list[GroupTicket]:
        """Return the groups of a step: those that were sampled, repeated until every rank has full micro-batches."""
        learner, groups = self.config.learner, list(self._groups.values())
        wanted = FULL_BATCHES * learner.num_ranks * learner.micro_batch_tokens
        per_round = sum(len(g.prompt_token_ids) + sum(len(one.token_ids) for one in g.generations) for g in groups)
        most = self.config.training.groups_per_step
        num_groups = min(most, len(groups) * min(MAX_REPEATS, -(-wanted // per_round)))
        return [
            self._ticket(number, groups[number % len(groups)]) for number in range(max(num_groups, learner.num_ranks))
        ]

    def _ticket(self, number: int, group: RolloutGroup) -> GroupTicket:
        results = made_up_rewards(len(group.generations))
        named = replace(group, group_id=f"check-{number}")
        return GroupTicket(
            position=number,
            group_id=named.group_id,
            sample_id=group.sample.sample_id,
            payload=self.hold(to_scored_group(named, results)),
            summary=summarise(named, results, function="check", score_s=0.0),
        )

    async def _save(self) -> None:
        clock = asyncio.get_running_loop().time
        started = clock()
        share = await self.learner.stage(0)
        staged = clock()
        try:
            entries = await self.learner.upload(self.store, share.step)
        finally:
            uploaded = clock()
            await asyncio.to_thread(checkpoint.remove, self.store, share.step)
        self.facts.checkpoint = CheckpointFacts(
            place=str(self.store),
            num_bytes=sum(entry.num_bytes for entry in entries),
            stage_s=staged - started,
            upload_s=uploaded - staged,
        )

    async def _publish_again(self) -> None:
        await self._publish(1)
        self._held[1] = await self._read_engines()
        if self.turns.is_shared:
            self.facts.turn_s = {**self.facts.turn_s, "weights go over, engines wake": self._seconds[1]}
            self.facts.is_idle_in_turn = were_idle(self.record)
        names = list(self._sent[0])
        layouts = await self.engines.on_each(self._ready, "weight_layout", names)
        self.facts.weights = [self._weights(version, names, layouts) for version in (0, 1)]
        await self._score(1)

    def _weights(self, version: int, names: Sequence[str], layouts: Sequence[Mapping[str, str]]) -> WeightFacts:
        sent, before = self._sent[version], self._sent.get(version - 1)
        compared: dict[int, int] = {}
        wrong: dict[int, tuple[str, ...]] = {}
        stale: dict[int, tuple[str, ...]] = {}
        unsent: dict[int, tuple[str, ...]] = {}
        unread: dict[int, tuple[str, ...]] = {}
        for engine, layout, held in zip(self._ready, layouts, self._held[version], strict=True):
            index = engine.index
            differing, compared[index] = compare_fingerprints(sent, held, dict(layout))
            wrong[index] = tuple(differing)
            unsent[index] = tuple(own for own in held if own not in set(layout.values()))
            unread[index] = tuple(name for name in names if name not in layout)
            as_before = set(compare_fingerprints(before, held, dict(layout))[0]) if before else set(differing)
            stale[index] = tuple(own for own in differing if own not in as_before)
        return WeightFacts(
            version=version,
            seconds=self._seconds[version],
            num_bytes=self._sent_bytes[version],
            num_sent=len(sent),
            num_moved=None if before is None else sum(sent[name] != before[name] for name in sent),
            compared=compared,
            wrong=wrong,
            stale=stale,
            unsent=unsent,
            unread=unread,
        )


def distances(some: Logprobs, others: Logprobs) -> tuple[float, ...]:
    """Return the mean |difference| of each completion's logprobs."""
    return tuple(float(np.mean(np.abs(one - other))) for one, other in zip(some, others, strict=True))


def were_idle(record: Path) -> bool:
    """Return whether engines got no call during the learner's turns that `turns.jsonl` holds."""
    turns = [json.loads(line) for line in record.read_text().splitlines()]
    pairs = itertools.pairwise(turns)
    return all(one["engines"] == two["engines"] for one, two in pairs if one["turn"] == "learner")
