"""How long prompts and completions are taken to be: measured where the dataset says it, assumed where it does not."""

from dataclasses import dataclass

from orchestration.settings.experiment import ExperimentConfig

DRAWN_TOKENS = (34, 16)
"""Prompt and image tokens of the demo's rows: means of 400 of them under the tokenizers of both of its models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts of values between edges.

    Example:
        >>> histogram = Histogram.of([3, 5, 9, 40])
        >>> histogram.edges, histogram.counts, histogram.mean
        ((0, 4, 8, 16, 32, 64), (1, 1, 1, 0, 1), 14.25)
    """

    edges: tuple[int, ...]
    """counts[i] are the values from edges[i] up to, not including, edges[i + 1]: 0, then powers of two."""
    counts: tuple[int, ...]
    mean: float
    middle: int
    """Half of the values are at most this."""
    high: int
    """99 of 100 values are at most this."""
    most: int

    @classmethod
    def of(cls, values: list[int]) -> "Histogram":
        """Count values, of which there is at least one."""
        ordered = sorted(values)
        first = max(1, ordered[0]).bit_length()
        edges = (0, *(1 << power for power in range(first, max(1, ordered[-1]).bit_length() + 1)))
        counts = [0] * (len(edges) - 1)
        for value in ordered:
            counts[max(0, value.bit_length() - first)] += 1
        return cls(
            edges=edges,
            counts=tuple(counts),
            mean=sum(ordered) / len(ordered),
            middle=_quantile(ordered, 0.5),
            high=_quantile(ordered, 0.99),
            most=ordered[-1],
        )


def _quantile(ordered: list[int], share: float) -> int:
    """The smallest value that at least `share` of all do not exceed."""
    return ordered[max(0, -(-int(share * 10_000) * len(ordered) // 10_000) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens of a prompt and of a completion."""

    prompt: float
    """Expected."""
    image: float
    """Of the pictures among them, expected."""
    prompt_most: int
    """Of the longest prompt that gets a whole completion."""
    completion: float
    """Expected."""
    completion_most: int
    are_measured: bool
    """Whether the prompts are those of the dataset; completions are always assumed."""


def is_drawn(config: ExperimentConfig) -> bool:
    """Whether all rows are the demo's, whose lengths are known before they are drawn."""
    recipe = config.data.recipe
    return recipe is not None and all(source.adapter == "drawn" for source in recipe.sources.values())


def expected_lengths(config: ExperimentConfig, prompts: Histogram | None, images: Histogram | None) -> Lengths:
    """Give the lengths to reckon with.

    Args:
        config: of the run.
        prompts: tokens of the prompts that the run takes; None where nobody knows.
        images: tokens of pictures in them.
    """
    assume, engine, sampling = config.plan.assume, config.rollout.engine, config.rollout.sampling
    limit = engine.max_model_len - sampling.max_completion_tokens
    assumed = DRAWN_TOKENS if is_drawn(config) else (assume.prompt_tokens, assume.image_tokens)
    prompt, image = (float(min(tokens, limit)) for tokens in assumed)
    return Lengths(
        prompt=prompts.mean if prompts else prompt,
        image=images.mean if images else image,
        prompt_most=min(prompts.most, limit) if prompts else limit,
        completion=max(1.0, assume.completion_frac * sampling.max_completion_tokens),
        completion_most=sampling.max_completion_tokens,
        are_measured=prompts is not None,
    )
