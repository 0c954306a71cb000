"""How often the driver looks for garbage cycles."""

import gc

THRESHOLDS = (100_000, 20, 100)
"""Python's own look at the young objects after every 700 new ones; a driver with thousands of groups on their way then
spends most of its time on looking at what lives."""


def collect_rarely() -> None:
    """Exclude existing objects from Python's cycle collector, and run it less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
