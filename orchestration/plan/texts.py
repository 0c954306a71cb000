"""Numbers and items as a plan writes them."""

from orchestration.plan.records import MemoryItem


def make_item(name: str, size: float, formula: str) -> MemoryItem:
    """Give an item of whole bytes."""
    return MemoryItem(name=name, bytes=int(size), formula=formula)


def ranks_text(num_ranks: int) -> str:
    """Say how many ranks.

    Example:
        >>> ranks_text(1), ranks_text(4)
        ('1 rank', '4 ranks')
    """
    return f"{num_ranks:,} rank" + ("" if num_ranks == 1 else "s")
