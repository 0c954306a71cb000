"""Similarity of two short strings by edit distance."""

ANLS_THRESHOLD = 0.5
"""Below it a string is another answer, not a misspelling."""


def levenshtein(left: str, right: str) -> int:
    """Give the least number of insertions, deletions and substitutions that turn one string into the other."""
    row = list(range(len(right) + 1))
    for i, char in enumerate(left, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(right, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (char != other))
    return row[-1]


def anls(text: str, gold: str, threshold: float = ANLS_THRESHOLD) -> float:
    """Give 1 - distance / longer length, or 0 below the threshold.

    Args:
        text: Normalised answer, of capped length.
        gold: Normalised reference.
        threshold: Below it a string is another answer.

    Returns:
        0 or a value in [threshold, 1].

    Source:
        Average normalised Levenshtein similarity, Biten et al., 2019.

    Example:
        >>> anls("brasil", "brazil")
        0.8333333333333334
    """
    longest = max(len(text), len(gold))
    if longest == 0:
        return 1.0
    # A large difference in length settles it without the quadratic table.
    if abs(len(text) - len(gold)) > (1.0 - threshold) * longest:
        return 0.0
    similarity = 1.0 - levenshtein(text, gold) / longest
    return similarity if similarity >= threshold else 0.0
