"""What the largest forward pass of the learner holds: prompts, completions, pictures."""

from dataclasses import dataclass
from math import ceil

from orchestration.models.image_tokens import largest_image_tokens
from orchestration.models.processor_settings import processor_of
from orchestration.models.shapes import ModelShape
from orchestration.settings.experiment import ExperimentConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLoad:
    """The tokens of one micro-batch, as learner/policy/packing.py lays it out: a prompt once, then its completions.

    Example:
        >>> load = StreamLoad(num_prompts=2, prompt_tokens=160, image_tokens=121, num_completions=16,
        ...                   completion_tokens=60)
        >>> load.num_tokens, load.num_predicted, load.branch_rows
        (1264, 960, 3504)
    """

    num_prompts: int
    prompt_tokens: int
    """Of one prompt, its image tokens included."""
    image_tokens: int
    """Of one prompt."""
    num_completions: int
    """In all; spread evenly over the prompts."""
    completion_tokens: int
    """Of one completion."""

    @property
    def num_tokens(self) -> int:
        """Tokens that the model is fed; the last one of a completion is only predicted."""
        return self.num_prompts * self.prompt_tokens + self.num_completions * (self.completion_tokens - 1)

    @property
    def num_predicted(self) -> int:
        """Completion tokens."""
        return self.num_completions * self.completion_tokens

    @property
    def num_image_tokens(self) -> int:
        """Of all prompts."""
        return self.num_prompts * self.image_tokens

    @property
    def branch_rows(self) -> int:
        """Keys that completions look at where each has its own copy of them: the prompt and itself."""
        return self.num_completions * (self.prompt_tokens + self.completion_tokens - 1)


def largest_load(config: ExperimentConfig, shape: ModelShape) -> StreamLoad:
    """Return a micro-batch at the token budget, or one update's groups where those are fewer tokens.

    Prompts and completions are the longest, with as much image as prompts take. Shorter completions under long
    prompts would hold more image tokens, at most `learner.micro_batch_tokens`; whoever knows the data passes a load of
    his own.
    """
    sampling, engine = config.rollout.sampling, config.rollout.engine
    completion = sampling.max_completion_tokens
    prompt = engine.max_model_len - completion
    largest = largest_image_tokens(shape, processor_of(config.model))
    # A sequence longer than the budget stands alone.
    budget = max(config.learner.micro_batch_tokens, prompt + completion - 1)
    group = prompt + sampling.group_size * (completion - 1)
    groups_per_update = ceil(config.training.groups_per_step / config.algorithm.num_minibatches)
    most_prompts = max(1, ceil(groups_per_update / config.learner.num_ranks))
    num_prompts = min(most_prompts, budget // group)
    num_completions = num_prompts * sampling.group_size
    left = budget - num_prompts * group
    if left > prompt and num_prompts < most_prompts:
        num_prompts += 1
        num_completions += (left - prompt) // max(1, completion - 1)
    return StreamLoad(
        num_prompts=num_prompts,
        prompt_tokens=prompt,
        image_tokens=min(prompt, engine.max_images_per_prompt * largest),
        num_completions=num_completions,
        completion_tokens=completion,
    )
