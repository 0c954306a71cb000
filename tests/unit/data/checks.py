"""How the tests of images ask for a verdict."""

import pytest

from orchestration.data.images import CheckedImage, check_image
from orchestration.data.rows import Refused
from orchestration.settings.recipe import LimitsConfig

LIMITS = LimitsConfig()


def refusal(data: bytes, limits: LimitsConfig = LIMITS, *, has_boxes: bool = False) -> Refused:
    with pytest.raises(Refused) as caught:
        check_image(data, limits, has_boxes=has_boxes)
    return caught.value


def accepted(data: bytes, limits: LimitsConfig = LIMITS, *, has_boxes: bool = False) -> CheckedImage:
    return check_image(data, limits, has_boxes=has_boxes)
