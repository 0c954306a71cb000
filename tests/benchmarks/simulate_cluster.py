"""The product's loop over simulated clusters of 8 to 4,096 engines: which policy keeps engines and learner at work.

    python -m tests.benchmarks.simulate_cluster [--engines 8 64 512 4096] [--policies sync ahead_1 ...]
                                                [--policy-engines 64] [--groups-per-engine 8 16] [--seed 0]
                                                [--json FILE]

**Real** is everything that runs in the driver: `Run`, the loop, the buffer and its line of steps, dispatch, the three
pools with their restarts, the weight publication with its comparisons, the prompt stream over a Parquet file, metrics,
ledger and checkpoint files. **Simulated** is what stands behind an actor's handle. An engine batches continuously: each
decoding step gives every running sequence a token and costs a constant and a share for each; prompts cost their prefill
once a group; pauses hold at token boundaries, and after one everything that runs is computed again, unless the policy
keeps the caches; it is computed by events, and a test shows it equal to following every token. Reward actors score one
group after the other. Learner ranks take a constant and a share for each token. Weights travel in a time that grows
with the logarithm of the engines. Engines and reward actors die by chance where a policy says so, and need their time
to start. Lengths are log-normal with a cap. `simulation/settings.py` has all numbers.

**Time is virtual**: nothing is waited for, the clock jumps from event to event, and a run repeats exactly for one seed.

**Step time** is compared with the slower of rollout alone (the same engines, never held up: the learner takes no time
and rollout runs ten steps ahead) and learner alone (fetching, training, publishing): `ratio`. Engines stand still while
weights are published, `pause` seconds a step, which no policy avoids; `reach` is the ratio to what is left to reach,
rollout alone and the pause. Means leave out the first steps, and the last ones, which have nothing to run ahead to.

**Processor time of the controller** is all that the process uses from the first step to the last, less what is measured
around every simulated call and event (`World.simulate`); simulated events have a queue of their own, so that those
which wake nobody cost the event loop nothing. It is measured again on the ordinary clock with actors that answer at
once, with and without Python's search for garbage cycles (part of that search is due to objects of the simulation).
Cost against engines is a least-squares line over log2(engines): microseconds that each doubling adds to each group.
Ray's own cost of a call is in none of these numbers, and the dataset is small enough to stay in the table's cache.

The numbers say how policies compare under these assumptions, not how fast a cluster is; the guesses about lengths and
costs matter, above all the ratio of the longest completion to the mean.
"""

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tests.benchmarks.hardware import describe_hardware
from tests.benchmarks.simulation.policies import POLICIES, Policy
from tests.benchmarks.simulation.simulate import Outcome, rollout_alone_s, simulate, simulate_instant

SCALED = POLICIES["ahead_1"]
"""Policy of the scaling table."""


def main() -> None:
    """Print both tables and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=int, nargs="*", default=[8, 64, 512, 4096], help="of the scaling table")
    parser.add_argument("--policies", nargs="*", default=list(POLICIES), choices=POLICIES)
    parser.add_argument("--policy-engines", type=int, nargs="*", default=[64], help="of the tables of policies")
    parser.add_argument("--groups-per-engine", type=int, nargs="*", default=[8, 16], help="of the tables of policies")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)  # the pools tell of every death
    found = {
        "hardware": describe_hardware(),
        "seed": chosen.seed,
        "policies": [
            compare(engines, groups, [POLICIES[p] for p in chosen.policies], chosen.seed)
            for engines in chosen.policy_engines
            for groups in chosen.groups_per_engine
        ],
        "scaling": scale(chosen.engines, chosen.seed) if chosen.engines else None,
    }
    print(found["hardware"])
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1))


def compare(num_engines: int, groups_per_engine: int, policies: Sequence[Policy], seed: int) -> dict[str, object]:
    """Print one line a policy; gives everything as values for JSON."""
    alone_s = rollout_alone_s(num_engines=num_engines, seed=seed, groups_per_engine=groups_per_engine)
    print(
        f"{num_engines} engines, {groups_per_engine} groups an engine and step, seed {seed}; rollout alone "
        f"{alone_s:.2f} s a step"
    )
    print(
        f"{'policy':<19}{'step s':>8}{'learner':>9}{'pause':>7}{'ratio':>7}{'reach':>7}{'busy%':>7}{'seats%':>8}"
        f"{'learn%':>8}{'signal/s':>10}{'stale':>7}{'max':>5}{'carried':>9}{'replaced':>10}{'died':>6}{'again':>7}"
    )
    outcomes = []
    for policy in policies:
        steps = 16 + 2 * policy.max_staleness
        outcome = simulate(
            policy, num_engines=num_engines, num_steps=steps, seed=seed, groups_per_engine=groups_per_engine
        ).outcome
        outcomes.append(outcome)
        print(_policy_line(outcome, alone_s), flush=True)
    print("share of trained groups by staleness, %")
    for outcome in outcomes:
        print(f"{outcome.policy:<19}" + _histogram(outcome.staleness))
    print()
    return {"num_engines": num_engines, "rollout_alone_s": alone_s, "outcomes": [asdict(o) for o in outcomes]}


def scale(sizes: Sequence[int], seed: int) -> dict[str, object]:
    """Print what a group costs the controller at every size, and the line through it."""
    print(f"processor time of the controller, microseconds a group, policy {SCALED.name}")
    print(
        f"{'engines':>8}{'groups/step':>13}{'virtual':>9}{'(simulated)':>13}{'instant':>9}{'no gc':>7}"
        f"{'groups/s':>10}{'no gc':>8}"
    )
    rows = []
    for size in sizes:
        steps = max(3, min(20, 3000 // size))
        virtual = simulate(SCALED, num_engines=size, num_steps=steps, seed=seed).outcome
        instant = simulate_instant(SCALED, num_engines=size, num_steps=steps, seed=seed).outcome
        bare = simulate_instant(SCALED, num_engines=size, num_steps=steps, seed=seed, collects_garbage=False).outcome
        rows.append({"virtual": asdict(virtual), "instant": asdict(instant), "instant_without_gc": asdict(bare)})
        print(
            f"{size:>8}{virtual.groups_per_step:>13}{virtual.controller_us:>9.0f}{virtual.simulated_us:>13.0f}"
            f"{instant.controller_us:>9.0f}{bare.controller_us:>7.0f}{1e6 / instant.controller_us:>10.0f}"
            f"{1e6 / bare.controller_us:>8.0f}",
            flush=True,
        )
    slopes = {}
    if len(sizes) > 1:
        for name in ("virtual", "instant", "instant_without_gc"):
            slope, start = np.polyfit(np.log2(sizes), [row[name]["controller_us"] for row in rows], 1)
            slopes[name] = float(slope)
            print(f"{name:>20}: {start:.0f} us {slope:+.1f} us a doubling of the engines")
    print()
    return {"policy": SCALED.name, "sizes": list(sizes), "rows": rows, "us_per_doubling": slopes}


def _policy_line(outcome: Outcome, alone_s: float) -> str:
    ratio = outcome.step_s / max(alone_s, outcome.learner_s)
    reach = outcome.step_s / max(alone_s + outcome.pause_s, outcome.learner_s)
    return (
        f"{outcome.policy:<19}{outcome.step_s:>8.2f}{outcome.learner_s:>9.2f}{outcome.pause_s:>7.2f}{ratio:>7.2f}"
        f"{reach:>7.2f}"
        f"{100 * outcome.engine_busy_frac:>7.0f}{100 * outcome.seat_frac:>8.0f}{100 * outcome.learner_busy_frac:>8.0f}"
        f"{outcome.signal_groups_per_s:>10.1f}{outcome.staleness_mean:>7.2f}{outcome.staleness_max:>5}"
        f"{outcome.num_carried:>9}{outcome.num_replaced:>10}{outcome.engine_faults + outcome.reward_faults:>6}"
        f"{outcome.num_repeated:>7}"
    )


def _histogram(staleness: dict[int, int]) -> str:
    total = max(1, sum(staleness.values()))
    return "".join(f"{k:>5}:{100 * count / total:>5.1f}" for k, count in staleness.items())


if __name__ == "__main__":
    main()
