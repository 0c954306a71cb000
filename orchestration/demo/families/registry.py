"""Family names -> TinyFamily."""

from orchestration.demo.families.base import TinyFamily
from orchestration.demo.families.internvl import INTERNVL
from orchestration.demo.families.qwen2_5_vl import QWEN2_5_VL
from orchestration.demo.settings import FamilyName

FAMILIES: dict[FamilyName, TinyFamily] = {"qwen2_5_vl": QWEN2_5_VL, "internvl": INTERNVL}
