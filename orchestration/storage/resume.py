"""Which settings may change between two sittings of one run: one table, with the reason of every entry.

A key speaks for all settings below it, and the longest key that fits a setting decides. May change: what moves work to
other processes, machines or kinds of memory, and what is only observed, kept or given up; the steps still mean what
they meant, though rounding may differ. Must stay: what decides which completions are sampled, what they earn, and
what an update makes of them.
"""

MAY_CHANGE = {
    "run_dir": "a run folder may be moved",
    "cache_dir": "made again where it is empty",
    "tensorboard": "a record only",
    "allow_config_change": "says what is done with changes",
    "model.path": "a model folder may be moved; its content is compared",
    "model.hf_config": "read by plan; a run compares it with the folder",
    "model.hf_processor": "read by plan",
    "data.train": "files may be moved; their rows are compared",
    "data.held_out": "files may be moved; their rows are compared",
    "data.recipe.num_workers": "moves work",
    "data.recipe.out": "files may be moved; their rows are compared",
    "data.recipe.raw": "raw files may be moved",
    "data.recipe.chunk_rows": "moves work; the rows of the dataset are compared",
    "rollout.engines": "moves work",
    "rollout.max_engines": "moves work",
    "rollout.engine.device": "the same weights in the same type elsewhere",
    "rollout.engine.max_num_seqs": "memory: completions decoded at once",
    "rollout.engine.max_num_batched_tokens": "memory: prompt tokens computed at once",
    "rollout.engine.tensor_parallel_size": "moves work",
    "rollout.engine.gpu_memory_utilization": "memory",
    "rollout.engine.kv_cache_bytes": "memory",
    "rollout.engine.block_size": "memory",
    "rollout.engine.enforce_eager": "the same model, compiled or not",
    "rollout.engine.threads": "moves work",
    "rollout.weight_channel.backend": "the way by which the same weights come",
    "rollout.weight_channel.timeout_s": "when to give up",
    "rollout.weight_channel.bucket_bytes": "memory",
    "learner.optimizer.total_steps": "the end of the schedule, which the run says where it bends",
    "learner.fsdp": "memory and compilation of the same model",
    "learner.deepspeed.offload_optimizer": "memory",
    "learner.deepspeed.offload_params": "memory",
    "learner.device": "the same weights in the same type elsewhere",
    "learner.num_ranks": "moves work",
    "learner.threads_per_rank": "moves work",
    "learner.attention": "another kernel for the same sums",
    "learner.prefix_sharing": "another order of the same sums",
    "learner.micro_batch_tokens": "memory: another order of the same sums",
    "learner.activation_checkpointing": "memory",
    "learner.abort_grad_norm": "when to give up",
    "training.num_steps": "lengthens or shortens the run",
    "training.checkpoint_every": "what is kept",
    "training.staging_dir": "where a checkpoint waits",
    "training.keep_last": "what is kept",
    "training.keep_best": "what is kept",
    "training.time_limit_s": "when to leave",
    "training.checkpoint_before_s": "when to leave",
    "training.weight_check_every": "observes",
    "training.max_mismatch": "when to give up",
    "training.max_drop_frac": "when to give up",
    "training.max_failed_frac": "when to give up",
    "training.recorded_groups_per_step": "a record only",
    "evaluation": "observes",
    "evaluate": "read by mixed-r1 evaluate",
    "check": "read by mixed-r1 check",
    "cluster": "processes and machines",
    "plan": "read by mixed-r1 plan",
    "submit": "read by mixed-r1 submit",
}

MUST_STAY = {
    "seed": "everything random follows from it",
    "model": "what is trained, and the frame of its boxes",
    "data": "which prompts come, and when",
    "demo": "the model and the data that the demo makes",
    "reward": "what completions earn",
    "algorithm": "what an update makes of rewards",
    "rollout.sampling": "how completions are sampled",
    "rollout.system_prompt": "part of every prompt",
    "rollout.engine.dtype": "probabilities with which completions are sampled",
    "rollout.engine.max_model_len": "which prompts are refused",
    "rollout.engine.max_images_per_prompt": "which prompts are refused",
    "rollout.weight_channel.in_flight": "by which weights the tokens of one completion are sampled",
    "learner.optimizer": "what an update does",
    "learner.model_path": "set by the run itself",
    "learner.algorithm": "set by the run itself",
    "learner.backend": "reads its own checkpoints alone",
    "learner.deepspeed.zero_stage": "reads checkpoints of the same stage alone",
    "learner.dtype": "rounding of every gradient",
    "learner.max_grad_norm": "what an update does",
    "learner.freeze": "what is trained",
    "learner.lora": "what is trained",
    "training.groups_per_step": "what a step is",
    "training.max_staleness": "how old completions may be, and by how many steps an adaptive curriculum lags",
    "training.run_ahead": "how old completions are",
    "training.straggler_deadline_s": "which groups a step trains on",
    "training.oversampling": "which groups a step trains on",
    "training.checkpoint_dir": "holds the checkpoints that the run goes on from",
}


def may_change(key: str) -> bool:
    """Return whether a setting, by its dotted key, may differ from the one that the run has gone by so far."""
    return deciding_entry(key) in MAY_CHANGE


def deciding_entry(key: str) -> str | None:
    """Return the longest entry of both tables that is a setting or a group above it; None where there is none.

    Example:
        >>> deciding_entry("rollout.engine.kv_cache_bytes"), deciding_entry("reward.chart.tolerance")
        ('rollout.engine.kv_cache_bytes', 'reward')
    """
    parts = key.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in MAY_CHANGE or prefix in MUST_STAY), None)
