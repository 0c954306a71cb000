"""Facts of a check on which everything is in order; tests change one thing."""

from typing import Any

from learner.records import RankMemory
from orchestration.check.facts import (
    CheckpointFacts,
    Expectations,
    Facts,
    NodeFacts,
    PromptFacts,
    Row,
    SampledFacts,
    ScoreFacts,
    StepFacts,
    WeightFacts,
)
from orchestration.check.verdicts import judge
from rewards.core.config import GroundingConfig
from rollout.records import EncodedPicture, EncodedPrompt

GIB = 2**30
EXPECTED = Expectations(
    device="cpu",
    dtype="float32",
    coord_mode="pixel_resized",
    family_frame="pixel_resized",
    patch_side=14,
    grounding=GroundingConfig(),
    learns=True,
)
RED, BLUE = (EncodedPicture(grid=(1, 6, 10), pixels=(70560, value, value), num_values=200) for value in (7, 9))
NAMES = ("lm_head.weight", "model.norm.weight", "visual.merger.weight")


def node(name: str, **changes: Any) -> NodeFacts:
    told = {
        "versions": {"torch": "2.13.0", "vllm": "0.32.0"},
        "driver": "580.65.06",
        "driver_fault": None,
        "model_files": {"config.json": "ab", "model.safetensors": "9 B"},
        "sees_run_dir": True,
        "is_seen": True,
    }
    return NodeFacts(node=name, **{**told, **changes})


def encoded(*pictures: EncodedPicture, **changes: Any) -> EncodedPrompt:
    told = {
        "token_ids": (1, *[2] * 15 * len(pictures), 3),
        "pictures": pictures,
        "input_sizes": ((140, 84),) * len(pictures),
        "template": "9f",
    }
    return EncodedPrompt(**{**told, **changes})


def prompt(name: str, *pictures: EncodedPicture, engine: EncodedPrompt | None = None) -> PromptFacts:
    right = encoded(*pictures)
    return PromptFacts(
        name=name,
        image_sizes=((150, 90),) * len(pictures),
        engines=(right, engine or right),
        ranks=(right,),
    )


def sampled(engine: int, **changes: Any) -> SampledFacts:
    told = {"prompt": "text", "num_tokens": 64, "banned": (), "versions": (0,), "seconds": 0.2}
    return SampledFacts(engine=engine, **{**told, **changes})


def weights(version: int, **changes: Any) -> WeightFacts:
    told = {
        "seconds": 0.5,
        "num_bytes": 10**9,
        "num_sent": 3,
        "num_moved": 3 if version else None,
        "compared": {0: 3, 1: 3},
        "wrong": {0: (), 1: ()},
        "stale": {0: (), 1: ()},
        "unsent": {0: (), 1: ()},
        "unread": {0: (), 1: ()},
    }
    return WeightFacts(version=version, **{**told, **changes})


def score(name: str, engine: int, **changes: Any) -> ScoreFacts:
    causes = {"stale": (0.3, 0.4)} if name == "text" else {"stale": (0.3, 0.4), "swapped": (0.2,) * 2, "blank": (1, 1)}
    told = {"version": 1, "difference": (1e-7, 3e-7), "to_others": causes, "effects": causes}
    return ScoreFacts(prompt=name, engine=engine, **{**told, **changes})


def memory(peak_bytes: int) -> RankMemory:
    return RankMemory(device="cpu", peak_bytes=peak_bytes, total_bytes=24 * GIB)


def healthy() -> Facts:
    """Two machines, two engines, two ranks."""
    return Facts(
        nodes=[node("10.0.0.1"), node("10.0.0.2")],
        rank_links_s={1: 0.01},
        link_bytes=10**7,
        engine_links_s={0: 0.1, 1: 0.12},
        places={"engine 0": "10.0.0.1", "engine 1": "10.0.0.2", "rank 1": "10.0.0.2"},
        prompts=[prompt("text"), prompt("one picture", RED), prompt("two pictures", RED, BLUE)],
        sampled=[sampled(0), sampled(1)],
        weights=[weights(0), weights(1)],
        scores=[score(name, engine) for name in ("text", "one picture", "two pictures") for engine in (0, 1)],
        turn_s={"engines sleep, the learner comes": 0.1},
        is_idle_in_turn=True,
        step=StepFacts(
            seconds=2.0,
            num_groups=32,
            num_tokens=8000,
            metrics={"policy/grad_norm": 0.3, "policy/mismatch": 1e-7},
            before=(memory(GIB),),
            after=(memory(2 * GIB),),
            planned_bytes=GIB,
        ),
        checkpoint=CheckpointFacts(place="/runs/x", num_bytes=10**7, stage_s=0.1, upload_s=0.2),
    )


def faults(facts: Facts, expected: Expectations = EXPECTED) -> dict[str, Row]:
    """The rows that are faults, by what they are about."""
    return {row.what: row for row in judge(facts, expected) if row.verdict == "fault"}
