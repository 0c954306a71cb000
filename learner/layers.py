"""Names of parameters, without torch: which layer a parameter belongs to, with and without adapters."""

BASE_SUFFIX = ".base_layer"
"""What peft inserts between the name of an adapted layer and that of its original weight."""


def base_name(name: str) -> str:
    """Return a parameter's name in the model without adapters.

    Example:
        >>> base_name("model.layers.0.q_proj.base_layer.weight")
        'model.layers.0.q_proj.weight'
    """
    return name.replace(BASE_SUFFIX, "")


def layer_of(name: str) -> str:
    """Return the layer that a parameter belongs to: its transformer block, or else the module that holds it.

    Engines load a module's own tensors together or not at all, and merge modules of one block (q, k and v).

    Example:
        >>> layer_of("model.language_model.layers.3.self_attn.q_proj.lora_A.default.weight")
        'model.language_model.layers.3'
        >>> layer_of("model.multi_modal_projector.linear_1.bias")
        'model.multi_modal_projector.linear_1'
        >>> layer_of("model.vision_tower.embeddings.cls_token")
        'model.vision_tower.embeddings'
    """
    module, is_adapter, _ = base_name(name).partition(".lora_")
    parts = (module if is_adapter else module.rpartition(".")[0]).split(".")
    place = next((place for place, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[: place + 1])
