"""Which weights are trained: all, one tower, the projections, or LoRA adapters beside them."""

from __future__ import annotations

import warnings
from typing import Any

from nshot.errors import MissingExtra
from nshot.train.loop import is_of_loss
from nshot.train.options import Options

_HEADS = (
    *("visual_projection.", "text_projection."),  # CLIP's
    *("vision_model.head.", "text_model.head."),  # SigLIP's
)
_ADAPTED = r".*encoder\.layers\.\d+\.(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.(fc1|fc2))"


def adapted(model: Any, options: Options) -> Any:
    """Mark what is trained in ``model``, and put LoRA adapters into it where the options ask for them.

    Returns:
        peft's wrapper around the model, which ``merged`` takes; None without LoRA.

    Raises:
        MissingExtra: LoRA, and peft is not installed.
    """
    for name, parameter in model.named_parameters():
        whole = options.part == "all" or (options.part == "text" and name.startswith("text_"))
        head = name.startswith(_HEADS) and options.part != "text"
        parameter.requires_grad_(whole or head or is_of_loss(name))
    if not options.lora:
        return None
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtra('LoRA needs peft: pip install "nshot[train]"') from error
    import torch

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an older name
        torch.manual_seed(options.seed)
        wrapped = get_peft_model(
            model, LoraConfig(r=options.lora, lora_alpha=2 * options.lora, target_modules=_ADAPTED)
        )
    for name, parameter in model.named_parameters():
        if is_of_loss(name):
            parameter.requires_grad_(True)
    return wrapped
