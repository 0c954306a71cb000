"""Family names -> TinyFamily."""

from orchestration.demo.family import TinyFamily
from orchestration.demo.internvl import INTERNVL
from orchestration.demo.qwen2_5_vl import QWEN2_5_VL
from orchestration.settings.demo import FamilyName

FAMILIES: dict[FamilyName, TinyFamily] = {"qwen2_5_vl": QWEN2_5_VL, "internvl": INTERNVL}
