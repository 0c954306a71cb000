"""What each option of the open-ended reward changes: mean rewards of honest and dishonest captions, as a table.

    python -m tests.benchmarks.table_bmas_options [--embeddings CHECKPOINT]

Without a checkpoint the table of words is used: near-orthogonal rows, so overlap of words decides.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import numpy as np

from rewards.base import RewardRequest
from rewards.bmas import BmasOptions, bmas_group, inverse_document_frequencies
from rewards.embedding_table import EmbeddingTable
from rewards.open_ended import OpenEndedReward
from rewards.parameters import OpenEndedConfig
from rewards.tokenizer import load_tokenizer
from rewards.word_table import WordTable

PAIRS = (
    (
        "A brown dog runs over the wet grass with a red ball in its mouth, two children watch from a wooden fence.",
        "Two kids stand at a wood fence and look at a brown dog that carries a red ball across the wet lawn.",
        "A black cat sleeps on the dry sand with a blue ball near its tail, three children watch from a metal gate.",
    ),
    (
        "An old man in a green coat sits on a bench by the river and feeds four white ducks with bread.",
        "Four white ducks are fed with bread by an old man in a green coat who sits by the river on a bench.",
        "A young man in a yellow coat stands on a bridge by the lake and feeds two brown ducks with corn.",
    ),
    (
        "A large blue bus waits at a crossing in front of a tall glass building as people walk past with umbrellas.",
        "People with umbrellas walk past a large blue bus that waits at the crossing before a tall building of glass.",
        "A small red bus drives through a tunnel in front of a low brick building as people run past with bags.",
    ),
    (
        "On a round table lie three oranges, a knife and a folded newspaper beside a cup of black coffee.",
        "Three oranges, a folded newspaper and a knife lie on a round table next to a cup of coffee.",
        "On a square table lie five lemons, a spoon and an open book beside a glass of cold milk.",
    ),
)
STOP_WORDS = "the a and of with on in at by to is that"

TEXTS: dict[str, Callable[[str, str, str, str], str]] = {
    "identical": lambda gold, honest, wrong, other: gold,
    "honest": lambda gold, honest, wrong, other: honest,
    "wrong facts": lambda gold, honest, wrong, other: wrong,
    "other image": lambda gold, honest, wrong, other: other,
    "full stop": lambda gold, honest, wrong, other: ".",
    "stop words": lambda gold, honest, wrong, other: STOP_WORDS,
    "honest + stop": lambda gold, honest, wrong, other: f"{honest} {' '.join([STOP_WORDS] * 4)}",
    "honest x 2": lambda gold, honest, wrong, other: f"{honest} {honest}",
    "identical x 3": lambda gold, honest, wrong, other: f"{gold} {gold} {gold}",
    "first half": lambda gold, honest, wrong, other: " ".join(gold.split()[: len(gold.split()) // 2]),
}
LITERAL = OpenEndedConfig(guards=False)


def main() -> None:
    """Print one line an option."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embeddings", type=Path)
    folder = parser.parse_args().embeddings
    encode, table = _compact(*_open(folder))
    golds = [encode(gold) for gold, _, _ in PAIRS]
    unrelated = [bmas_group(gold, [other], table, options=BmasOptions())[0] for gold, other in pairwise(golds)]
    baseline = round(fmean(unrelated), 3)
    with tempfile.TemporaryDirectory() as name:
        idf_path = Path(name) / "idf.npy"
        np.save(
            idf_path, inverse_document_frequencies([encode(text) for pair in PAIRS for text in pair], table.shape[0])
        )
        options = {
            "literal": LITERAL,
            "f1": replace(LITERAL, f1=True),
            "distinct": replace(LITERAL, distinct=True),
            "idf": replace(LITERAL, idf_path=str(idf_path)),
            f"baseline {baseline}": replace(LITERAL, baseline=baseline),
            "guards (default)": OpenEndedConfig(),
            "guards, 1.5": OpenEndedConfig(max_length_ratio=1.5),
        }
        print("| option | " + " | ".join(TEXTS) + " |\n|---|" + "---|" * len(TEXTS))
        for title, config in options.items():
            reward = OpenEndedReward(config, encode, table)
            print(f"| {title} | " + " | ".join(f"{_mean(reward, make):.3f}" for make in TEXTS.values()) + " |")


def _mean(reward: OpenEndedReward, make: Callable[[str, str, str, str], str]) -> float:
    values = []
    for index, (gold, honest, wrong) in enumerate(PAIRS):
        answer = make(gold, honest, wrong, PAIRS[(index + 1) % len(PAIRS)][0])
        grade = reward.grade(RewardRequest(task="open", question="", response="", answer=gold), [answer])[0]
        assert grade.value is not None
        values.append(grade.value)
    return fmean(values)


def _open(folder: Path | None) -> tuple[Callable[[str], list[int]], EmbeddingTable]:
    if folder is None:
        words = WordTable()
        return words.encode, words
    tokenizer = load_tokenizer(folder)
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids, EmbeddingTable.from_checkpoint(folder)


def _compact(
    encode: Callable[[str], list[int]], table: EmbeddingTable
) -> tuple[Callable[[str], list[int]], EmbeddingTable]:
    """Renumber the ids that occur, so that token weights need no entry for every id of the vocabulary."""
    texts = [*(text for pair in PAIRS for text in pair), STOP_WORDS, "."]
    ids = sorted({token for text in texts for token in encode(text)})
    number_of = {token: index for index, token in enumerate(ids)}
    return lambda text: [number_of[token] for token in encode(text)], EmbeddingTable(table.rows(np.array(ids)))


if __name__ == "__main__":
    main()
