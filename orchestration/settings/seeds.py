"""Seeds by purpose: a stable hash, so that neither timing nor the number of actors changes what is sampled."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """Hash the parts into a seed in [0, 2**48).

    The range leaves room for vLLM, which adds the completion's index to the seed of its group, and for generators
    that take 63 bits.

    Example:
        >>> derive_seed(0, "rollout", 2, "7f") == derive_seed(0, "rollout", 2, "7f")
        True
    """
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big")
