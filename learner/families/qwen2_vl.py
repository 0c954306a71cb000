"""Qwen2-VL."""

from learner.families.qwen2_5_vl import Qwen25VL


class Qwen2VL(Qwen25VL):
    """Qwen2-VL, 2B to 72B: positions and parts of Qwen2.5-VL, a tower without windows, boxes in 0..1000.

    Source: arXiv:2409.12191.
    """
