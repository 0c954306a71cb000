"""Train rows that give an evaluation set away: its images, or, without images, its questions."""

from collections.abc import Callable

import numpy as np

from orchestration.data.duplicates.looks import Looks
from orchestration.data.duplicates.near_pairs import Pairs, Places, first_matches
from orchestration.data.duplicates.questions import Questions
from orchestration.data.duplicates.row_index import RowIndex
from orchestration.data.rows.reasons import RejectReason

LEAK_SIMILARITY = 0.9
LEAK_WORDS = 4
"""Fewer words are too common to prove that a question comes from an evaluation set; equal questions always count."""

_NOT_DECIDED = "r.place NOT IN (SELECT place FROM decisions)"
_EQUAL_IMAGE = f"""
INSERT INTO decisions SELECT r.place, ?, MIN(e.place), ? FROM rows r CROSS JOIN images i ON i.place = r.place
CROSS JOIN evaluation_images e ON e.{{column}} = i.{{column}}
WHERE r.role = 'train' AND {_NOT_DECIDED} AND i.{{column}} <> '' GROUP BY r.place
"""
_EQUAL_QUESTION = f"""
INSERT INTO decisions SELECT r.place, ?, MIN(e.place), ? FROM rows r CROSS JOIN rows e ON e.question = r.question
WHERE r.role = 'train' AND e.role <> 'train' AND r.num_images = 0 AND e.num_images = 0 AND {_NOT_DECIDED}
GROUP BY r.place
"""
_NEAR_IMAGE = f"""
INSERT INTO decisions SELECT r.place, ?, MIN(m.other), ? FROM rows r CROSS JOIN images i ON i.place = r.place
CROSS JOIN looks l ON l.key = i.look CROSS JOIN leaked_looks m ON m.member = l.id - 1
WHERE r.role = 'train' AND {_NOT_DECIDED} GROUP BY r.place
"""
_NEAR_QUESTION = f"""
INSERT INTO decisions SELECT r.place, ?, m.other, ? FROM rows r CROSS JOIN word_sets w ON w.key = r.words
CROSS JOIN leaked_words m ON m.member = w.id - 1 WHERE r.role = 'train' AND r.num_images = 0 AND {_NOT_DECIDED}
"""
_LOOKS = """
SELECT l.id - 1, MIN(r.place) FROM rows r CROSS JOIN images i ON i.place = r.place CROSS JOIN looks l ON l.key = i.look
WHERE {role} GROUP BY l.id ORDER BY 2
"""
_WORDS = f"""
SELECT w.id - 1, MIN(r.place) FROM rows r CROSS JOIN word_sets w ON w.key = r.words
WHERE {{role}} AND r.num_images = 0 AND w.num_words >= {LEAK_WORDS} GROUP BY w.id ORDER BY 2
"""
_TRAIN = f"r.role = 'train' AND {_NOT_DECIDED}"
_EVALUATION = "r.role <> 'train'"


def decide_leaks(index: RowIndex, looks: Looks | None, questions: Questions) -> None:
    """Decide on every train row with an image, or a question without image, of a held_out or guard row.

    Looks are compared all with all, in blocks: about 4 ns for a pair of distinct looks, 8 s for 200,000 in training
    against 10,000 in evaluation.

    Args:
        index: With all rows in it.
        looks: None where nearly equal images shall not count.
        questions: Of the index.
    """
    index.write(
        "CREATE TABLE evaluation_images AS SELECT i.sha256, i.image_id, MIN(r.place) AS place FROM images i "
        "JOIN rows r ON r.place = i.place WHERE r.role <> 'train' GROUP BY 1, 2"
    )
    for column, note in (("sha256", "the same image as in"), ("image_id", "an image of the same name as in")):
        index.write(f"CREATE INDEX evaluation_{column} ON evaluation_images ({column})")
        index.write(_EQUAL_IMAGE.format(column=column), RejectReason.LEAKED_IMAGE.value, note)
    if looks is not None:
        near_looks = looks
        _match(index, "leaked_looks", _LOOKS, lambda left, right: _like_looks(near_looks, left, right))
        index.write(_NEAR_IMAGE, RejectReason.LEAKED_IMAGE.value, "nearly the same image as in")
    index.write("CREATE INDEX rows_question ON rows (question) WHERE num_images = 0")
    index.write(_EQUAL_QUESTION, RejectReason.LEAKED_QUESTION.value, "the same question as")
    _match(index, "leaked_words", _WORDS, lambda left, right: _like_questions(questions, left, right))
    index.write(_NEAR_QUESTION, RejectReason.LEAKED_QUESTION.value, "nearly the same question as")


def _match(index: RowIndex, table: str, query: str, matches: Callable[[Places, Places], Pairs]) -> None:
    """Write (member of training, earliest place of the evaluation rows with a member that it matches)."""
    index.write(f"CREATE TABLE {table} (member INTEGER PRIMARY KEY, other INTEGER)")
    ours = np.fromiter((member for member, _ in index.read(query.format(role=_TRAIN))), dtype=np.int64)
    theirs = np.array(list(index.read(query.format(role=_EVALUATION))), dtype=np.int64).reshape(-1, 2)
    places = dict(zip(theirs[:, 0].tolist(), theirs[:, 1].tolist(), strict=True))
    # Sorted, because looks and word sets lie by number in mapped files.
    found = first_matches(np.sort(ours), np.ascontiguousarray(theirs[:, 0]), matches)
    index.write_many(f"INSERT INTO {table} VALUES (?, ?)", ((member, places[other]) for member, other in found))


def _like_looks(looks: Looks, left: Places, right: Places) -> Pairs:
    rows, columns = looks.near_hashes(left, right)
    keep = looks.alike(left[rows], right[columns])
    return rows[keep], columns[keep]


def _like_questions(questions: Questions, left: Places, right: Places) -> Pairs:
    rows, columns = questions.near_signatures(left, right, LEAK_SIMILARITY)
    keep = questions.similar(left[rows], right[columns], LEAK_SIMILARITY)
    return rows[keep], columns[keep]
