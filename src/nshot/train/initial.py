"""The weights that a new model begins with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def initialise(model: Any, seed: int) -> None:
    """Draw the first weights of a transformers CLIPModel.

    Standard deviations as OpenAI's code has them (transformers gives the attention's two sides each other's),
    and the image tower's position vectors as waves along both axes rather than faint noise: how patches lie
    to each other is what a shape is (Beyer et al., "Better plain ViT baselines for ImageNet-1k", 2022).
    """
    rng = torch.Generator().manual_seed(seed)

    def noise(weight: Tensor, std: float) -> None:
        weight.copy_(torch.randn(weight.shape, generator=rng) * std)

    with torch.no_grad():
        vision, text = model.vision_model, model.text_model
        for tower in (text, vision):
            layers = tower.encoder.layers
            width = layers[0].mlp.fc2.out_features
            deep = width**-0.5 * (2 * len(layers)) ** -0.5
            for layer in layers:
                attention = layer.self_attn
                for module in (attention.q_proj, attention.k_proj, attention.v_proj):
                    noise(module.weight, width**-0.5)
                noise(attention.out_proj.weight, deep)
                noise(layer.mlp.fc1.weight, (2 * width) ** -0.5)
                noise(layer.mlp.fc2.weight, deep)
        noise(text.embeddings.token_embedding.weight, 0.02)
        noise(text.embeddings.position_embedding.weight, 0.01)
        patches = vision.embeddings.patch_embedding.weight
        width, grid = patches.shape[0], round((vision.embeddings.num_positions - 1) ** 0.5)
        noise(patches, patches[0].numel() ** -0.5 / 2)
        noise(vision.embeddings.class_embedding, width**-0.5)
        positions = vision.embeddings.position_embedding.weight
        positions[0] = 0
        positions[1:] = waves(grid, width) / 2
        noise(model.visual_projection.weight, width**-0.5)
        noise(model.text_projection.weight, text.config.hidden_size**-0.5)


def waves(grid: int, width: int) -> Tensor:
    """float32[grid * grid, width]: sines and cosines of a patch's row and column, in [-1, 1]."""
    quarter = width // 4
    frequency = 10.0 ** (-torch.arange(quarter) / max(1, quarter - 1))  # a radian a patch and slower
    place = torch.arange(grid) - (grid - 1) / 2
    angle = place[:, None] * frequency
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)
    both = torch.zeros(grid, grid, width)
    both[..., : 2 * quarter] = axis[:, None]
    both[..., 2 * quarter : 4 * quarter] = axis[None]
    return both.flatten(0, 1)
