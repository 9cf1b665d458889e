"""CLIP's two towers over the parameters of transformers' own CLIPModel: the same vectors, sooner.

What is saved, against the modules' own forward, changes no result (tests compare them):

- only one position of the last layer is ever pooled, so that layer computes its queries and its MLP for
  that position alone;
- patches are cut by a reshape and embedded by one matrix product; queries, keys and values come from one;
- a text tower that looks backwards only needs no padding mask, and no column that every text pads.

``torch.compile`` then fuses what is left between the matrix products.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def image_vectors(model: Any, pixels: Tensor) -> Tensor:
    """float32[n,3,s,s], normalised as the checkpoint wants -> float32[n,d], not of unit norm."""
    vision = model.vision_model
    embeddings = vision.embeddings
    weight = embeddings.patch_embedding.weight
    n, channels, size, _ = pixels.shape
    patch = weight.shape[-1]
    grid = size // patch
    patches = pixels.reshape(n, channels, grid, patch, grid, patch).permute(0, 2, 4, 1, 3, 5)
    x = patches.reshape(n, grid * grid, channels * patch * patch) @ weight.flatten(1).t()
    positions = embeddings.position_embedding.weight
    first = (embeddings.class_embedding + positions[0]).expand(n, 1, -1)
    x = _norm(vision.pre_layrnorm, torch.cat([first, x + positions[1:]], dim=1))
    for layer in vision.encoder.layers[:-1]:
        x = _layer(layer, x, x)
    x = _layer(vision.encoder.layers[-1], x[:, :1], x)[:, 0]
    return F.linear(_norm(vision.post_layernorm, x), model.visual_projection.weight)


def text_vectors(model: Any, tokens: Tensor, ends: Tensor) -> Tensor:
    """int64[n,t] and the position int64[n] of each text's end -> float32[n,d], not of unit norm."""
    text = model.text_model
    n, length = tokens.shape
    x = F.embedding(tokens, text.embeddings.token_embedding.weight)
    x = x + text.embeddings.position_embedding.weight[:length]
    places = torch.arange(length, device=x.device)
    later = places > places[:, None]
    for layer in text.encoder.layers[:-1]:
        x = _layer(layer, x, x, hidden=later)
    last = x[torch.arange(n, device=x.device), ends][:, None]
    x = _layer(text.encoder.layers[-1], last, x, hidden=(places > ends[:, None])[:, None, None])[:, 0]
    return F.linear(_norm(text.final_layer_norm, x), model.text_projection.weight)


def _norm(module: Any, x: Tensor) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), module.weight, module.bias, module.eps)


def _layer(layer: Any, x: Tensor, context: Tensor, hidden: Tensor | None = None) -> Tensor:
    """One pre-norm layer: ``x`` [n,q,w] asks, ``context`` [n,t,w] answers where it is not hidden."""
    attention = layer.self_attn
    heads, width = attention.num_heads, x.shape[-1]
    q, k, v = attention.q_proj, attention.k_proj, attention.v_proj
    around = _norm(layer.layer_norm1, context)
    if x is context:
        weight = torch.cat([q.weight, k.weight, v.weight])
        bias = torch.cat([q.bias, k.bias, v.bias])
        queries, keys, values = F.linear(around, weight, bias).split(width, dim=-1)
    else:
        queries = F.linear(_norm(layer.layer_norm1, x), q.weight, q.bias)
        both = F.linear(around, torch.cat([k.weight, v.weight]), torch.cat([k.bias, v.bias]))
        keys, values = both.split(width, dim=-1)

    def split(y: Tensor) -> Tensor:
        return y.unflatten(-1, (heads, width // heads)).transpose(1, 2)

    # Written out: for a few dozen positions this compiles to less than scaled_dot_product_attention does.
    scores = (split(queries) * (width // heads) ** -0.5) @ split(keys).transpose(-1, -2)
    if hidden is not None:
        scores = scores.masked_fill(hidden, -torch.inf)
    mixed = (scores.softmax(-1) @ split(values)).transpose(1, 2).flatten(2)
    x = x + F.linear(mixed, attention.out_proj.weight, attention.out_proj.bias)
    mlp = layer.mlp
    inner = mlp.activation_fn(F.linear(_norm(layer.layer_norm2, x), mlp.fc1.weight, mlp.fc1.bias))
    return x + F.linear(inner, mlp.fc2.weight, mlp.fc2.bias)
