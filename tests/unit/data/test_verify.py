import dataclasses
import os
from collections.abc import Iterator

import pytest

from orchestration.data.normalise import ReferenceCheck, normalise
from orchestration.data.sources.rows import Candidate, RawBox, RawRow, Refused, RejectReason, StoredImage
from orchestration.settings.recipe import LimitsConfig, NormaliseConfig
from rewards.core.config import ChartConfig, FormatConfig, GroundingConfig, OpenEndedConfig, RewardConfig, RewardRule

IMAGE = StoredImage(
    sha256="00", size_bytes=9, width=200, height=100, dhash="00", thumbnail="", image_id="", chunk="c", index=0
)
CAPTION = "A large dog sits on the lawn, near a red car. It is a sunny day; two kids play with a ball."


def candidate(task: str, answer: str, *, options: tuple[str, ...] = (), answer_type: str = "") -> Candidate:
    return Candidate(
        sample_id="1",
        source="src",
        source_id="1",
        role="train",
        license="",
        task=task,
        question="?",
        stem="?",
        answer=answer,
        images=(IMAGE,),
        options=options,
        answer_type=answer_type,
    )


@pytest.fixture(scope="module")
def check() -> Iterator[ReferenceCheck]:
    with ReferenceCheck(RewardConfig()) as opened:
        yield opened


def refusal(check: ReferenceCheck, row: Candidate) -> Refused:
    with pytest.raises(Refused) as caught:
        check.check(row)
    return caught.value


@pytest.mark.parametrize(
    "row",
    [
        candidate("match_yesno", "yes"),
        candidate("match_mcq", "B", options=("cat", "dog")),
        candidate("match_mcq", "A, C", options=("cat", "dog", "cow")),
        candidate("match_mcq", "dog", options=("cat", "dog")),
        candidate("match_text", "Brazil"),
        candidate("chart", "1,200.5", answer_type="number"),
        candidate("chart", "2015", answer_type="year"),
        candidate("chart", "[Brazil, India]"),
        candidate("iou", "[10, 20.5, 200, 100]"),
        candidate("iou", "[[1, 2, 3, 4], [5, 6, 7, 8]]"),
        candidate("iou", '[{"bbox_2d": [1, 2, 3, 4], "label": "dog"}, {"bbox_2d": [5, 6, 7, 8], "label": "cat"}]'),
        candidate("iou", "[]"),
        candidate("open", CAPTION),
        candidate("math", r"\frac{1}{2}"),
    ],
    ids=lambda row: f"{row.task} {row.answer[:12]}",
)
def test_references_that_their_reward_grades_as_right_are_accepted(check: ReferenceCheck, row: Candidate) -> None:
    check.check(row)


@pytest.mark.parametrize(
    "row",
    [
        candidate("match_yesno", "perhaps"),
        candidate("match_mcq", "E", options=("cat", "dog")),
        candidate("match_text", "..."),
        candidate("chart", "many", answer_type="number"),
        candidate("chart", "5", answer_type="float"),
        candidate("iou", "somewhere"),
        candidate("iou", "[30, 2, 3, 4]"),
        candidate("math", "no formula at all, only words **"),
    ],
    ids=lambda row: f"{row.task} {row.answer[:12]}",
)
def test_references_that_nothing_can_be_graded_against_are_refused(check: ReferenceCheck, row: Candidate) -> None:
    error = refusal(check, row)
    assert error.reason is RejectReason.REFERENCE_UNUSABLE
    assert row.answer[:10] in error.detail or row.answer_type in error.detail


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        (candidate("match_text", "x" * 257), "scores 0 (too_long"),
        (candidate("open", "dog " * 2_501), "scores 0 (too_long"),
        (candidate("match_text", "an </answer><answer> tag"), "scores 0 (two_answers"),
        (candidate("match_text", "<think>"), "scores 0 (no_answer"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.task,
)
def test_references_that_would_not_be_right_as_answers_are_refused(
    check: ReferenceCheck, row: Candidate, detail: str
) -> None:
    error = refusal(check, row)
    assert error.reason is RejectReason.REFERENCE_NOT_RIGHT
    assert detail in error.detail


@pytest.mark.parametrize(
    ("row", "spelling"),
    [
        (candidate("math", "a_{n+1}"), "'a_(n+1)'"),
        (candidate("math", r"\log_{\frac{1}{2}}x"), r"'\\log_(1/2)x' or 'log_(1/2)x'"),
    ],
)
def test_references_that_only_their_own_latex_earns_are_refused(
    check: ReferenceCheck, row: Candidate, spelling: str
) -> None:
    error = refusal(check, row)
    assert error.reason is RejectReason.REFERENCE_UNEARNED
    assert error.detail.startswith(f"{row.answer!r} is not earned by {spelling}")


@pytest.mark.parametrize(
    "row",
    [
        candidate("match_text", '["cat", "kitten"]'),
        candidate("match_text", '["5"]'),
        candidate("match_text", "\u20ac20"),
        candidate("match_text", "25 \u00b0C"),
        candidate("ocr", '["STOP", "Halt"]'),
        candidate("ocr", "\u00bd price"),
        candidate("counting", "[4, 5]"),
        candidate("pointing", "[[0, 0, 50, 50], [100, 20, 160, 80]]"),
        candidate("pointing", "[]"),
        candidate("open", "He paid $5 for 3 \u00d7 4 tiles at 20\u00b0, \u00bd of f(x) = x^{2}."),
        candidate("chart", "\u226565"),
    ],
    ids=lambda row: f"{row.task} {row.answer}",
)
def test_lists_of_answers_points_and_signs_are_no_fault(check: ReferenceCheck, row: Candidate) -> None:
    check.check(row)


def test_a_list_of_answers_none_of_which_is_read_is_refused(check: ReferenceCheck) -> None:
    assert refusal(check, candidate("counting", '["some", "few"]')).reason is RejectReason.REFERENCE_UNUSABLE


@pytest.mark.parametrize(
    "row",
    [
        candidate("math", r"$\frac{3}{2}\sqrt{3}$"),
        candidate("math", "2\u221a{3}"),
        candidate("math", r"3\frac{1}{2}"),
        candidate("math", r"1\dfrac{3}{4}\text{ cups}"),
        candidate("math", r"\sin 30^\circ"),
        candidate("math", "36cm\u00b2"),
        candidate("math", "9\u03c0cm^{2}"),
        candidate("math", "45^{\\circ}"),
        candidate("chart", "45\u00b0"),
        candidate("chart", "\u20ac3.5"),
        candidate("match_text", "na\u00efve caf\u00e9"),
        candidate("match_mcq", r"$\sqrt{17}$", options=(r"$\sqrt{17}$", "4")),
    ],
    ids=lambda row: f"{row.task} {row.answer}",
)
def test_references_in_latex_and_with_signs_are_earned_by_a_plain_spelling(
    check: ReferenceCheck, row: Candidate
) -> None:
    check.check(row)


def test_a_task_that_no_reward_reads_is_refused(check: ReferenceCheck) -> None:
    error = refusal(check, candidate("summary", "text"))
    assert error.reason is RejectReason.UNKNOWN_TASK
    assert "'summary'" in error.detail


def test_the_rules_of_the_run_decide() -> None:
    config = RewardConfig(rules=(RewardRule(source="src", function="matching"),))
    with ReferenceCheck(config) as check:
        check.check(candidate("summary", "text"))
        other = dataclasses.replace(candidate("summary", "text"), source="other")
        assert refusal(check, other).reason is RejectReason.UNKNOWN_TASK


def test_variants_of_the_rewards_accept_references_too() -> None:
    config = RewardConfig(
        format=FormatConfig(think_prefilled=True),
        chart=ChartConfig(graded=True, anls=True),
        grounding=GroundingConfig(label_aware=True, shaping="soft_f1"),
        open_ended=OpenEndedConfig(sharpness=1.5, function_word_weight=1.0),
    )
    labelled = '[{"bbox_2d": [1, 2, 3, 4], "label": "dog"}, {"bbox_2d": [5, 6, 7, 8]}]'
    with ReferenceCheck(config) as check:
        for row in (candidate("chart", "45"), candidate("iou", labelled), candidate("open", CAPTION)):
            check.check(row)


def test_weights_of_words_are_not_asked_for() -> None:
    config = RewardConfig(
        open_ended=OpenEndedConfig(idf_path="/nowhere/word_frequencies.json"),
        rules=(RewardRule(task="open", source="src", parameters={"idf_path": "/nowhere/else.json"}),),
    )
    with ReferenceCheck(config) as check:
        check.check(candidate("open", CAPTION))


def test_closing_ends_the_grader_process() -> None:
    before = children_of_this_process()
    with ReferenceCheck(RewardConfig()) as check:
        check.check(candidate("math", "7"))
        started = children_of_this_process() - before
        assert len(started) == 1
    assert not started & children_of_this_process()


def test_every_kind_of_row_goes_from_raw_to_accepted(check: ReferenceCheck) -> None:
    rows = [
        RawRow(source_id="1", task="match_mcq", question="Which?", answer="dog", options=("A. cat", "B. dog", "C. ox")),
        RawRow(source_id="2", task="match_mcq", question="?", answer="A", answer_type="text", options=("C", "A")),
        RawRow(source_id="3", task="match_yesno", question="A dog?", answer="True"),
        RawRow(source_id="4", task="chart", question="How many?", answer=" 45.2 ", answer_type="number"),
        RawRow(
            source_id="5",
            task="iou",
            question="dogs",
            boxes=(RawBox(values=(0.1, 0.1, 0.2, 0.3), label="dog"), RawBox(values=(0, 0, 1, 1), label="lawn")),
            box_form="xywh",
            box_frame="norm1",
        ),
        RawRow(source_id="6", task="open", question="Describe.", answer=CAPTION),
    ]
    config = NormaliseConfig(prompts={"match_mcq": "{question}\n{options}"}, shuffle_options=True)
    for row in rows:
        for seed in range(8):
            made = normalise(
                row,
                [IMAGE],
                source="src",
                role="train",
                license="",
                config=config,
                limits=LimitsConfig(),
                seed=seed,
            )
            check.check(made)


def children_of_this_process() -> set[str]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return set(file.read().split())


def test_references_whose_reward_pays_another_value_are_refused() -> None:
    config = RewardConfig(grounding=GroundingConfig(shaping="f1", threshold=0.0))
    with ReferenceCheck(config) as lenient:
        error = refusal(lenient, candidate("iou", "[10, 10, 20, 20]"))
    assert error.reason is RejectReason.REFERENCE_UNSELECTIVE
    assert error.detail == "for '[10, 10, 20, 20]' the answer '[[0.0, 0.0, 10.0, 10.0]]' scores 1"
