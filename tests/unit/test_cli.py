"""How a run that must not go on leaves: one line, with step and groups, and an exit code that is not 0."""

import pytest

from learner.errors import DivergedError, ExplodingGradientError, NonFiniteLossError
from orchestration import cli


@pytest.mark.parametrize("error", [NonFiniteLossError, ExplodingGradientError])
def test_an_update_that_must_not_be_applied_ends_with_one_line_and_code_1(
    error: type[DivergedError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def diverge(_: object) -> int:
        raise error(7, ("0-12", "0-15"), "gradient norm nan")

    monkeypatch.setattr(cli, "_train", diverge)

    with pytest.raises(SystemExit) as left:
        cli.main(["train"])

    assert left.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "mixed-r1 train: step 7: gradient norm nan in groups 0-12, 0-15; the update was not applied."
    )
