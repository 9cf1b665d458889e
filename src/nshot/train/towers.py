"""Two towers over the parameters of transformers' own CLIPModel or SiglipModel: the same vectors, sooner.

What is saved, against the modules' own forward, changes no result (tests compare them):

- only one position of the last layer is ever pooled, but for SigLIP's images: that position alone asks, and
  what it asks with is brought to the other positions instead of their keys and values to it;
- patches are cut by a reshape and embedded by one matrix product; queries, keys and values come from one;
- a text tower that looks backwards only needs no padding mask, and no column that every text pads.

Layers may carry LoRA adapters (``adapters.py``), and keep no activations where the model asks for gradient
checkpointing.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def is_siglip(model: Any) -> bool:
    """Whether the model is a SiglipModel; it is a CLIPModel otherwise."""
    return hasattr(model, "logit_bias")


def image_vectors(model: Any, pixels: Tensor) -> Tensor:
    """float32[n,3,s,s], normalised as the checkpoint wants -> float32[n,d], not of unit norm."""
    vision = model.vision_model
    embeddings = vision.embeddings
    x = _patches(embeddings.patch_embedding, pixels)
    positions = embeddings.position_embedding.weight
    if is_siglip(model):
        x = _through(vision.encoder, vision.encoder.layers, x + positions)
        return _attended(vision.head, _norm(vision.post_layernorm, x))
    first = (embeddings.class_embedding + positions[0]).expand(len(x), 1, -1)
    x = _norm(vision.pre_layrnorm, torch.cat([first, x + positions[1:]], dim=1))
    x = _through(vision.encoder, vision.encoder.layers[:-1], x)
    x = _pooled(vision.encoder.layers[-1], x[:, 0], x)
    return F.linear(_norm(vision.post_layernorm, x), _weight(model.visual_projection))


def text_vectors(model: Any, tokens: Tensor, ends: Tensor) -> Tensor:
    """int64[n,t] and the pooled position int64[n] of each text -> float32[n,d], not of unit norm."""
    text = model.text_model
    n, length = tokens.shape
    x = F.embedding(tokens, text.embeddings.token_embedding.weight)
    x = x + text.embeddings.position_embedding.weight[:length]
    places, causal = torch.arange(length, device=x.device), not is_siglip(model)
    x = _through(text.encoder, text.encoder.layers[:-1], x, places > places[:, None] if causal else None)
    own = x[torch.arange(n, device=x.device), ends]
    x = _pooled(text.encoder.layers[-1], own, x, places > ends[:, None] if causal else None)
    x = _norm(text.final_layer_norm, x)
    if causal:
        return F.linear(x, _weight(model.text_projection))
    return F.linear(x, text.head.weight, text.head.bias)


def _patches(module: Any, pixels: Tensor) -> Tensor:
    """float32[n,3,s,s] -> float32[n,t,w], a row per patch; pixels that make no whole patch are not seen."""
    weight = module.weight
    n, channels, size, _ = pixels.shape
    patch = weight.shape[-1]
    grid = size // patch
    whole = pixels[..., : grid * patch, : grid * patch]
    patches = whole.reshape(n, channels, grid, patch, grid, patch).permute(0, 2, 4, 1, 3, 5)
    return F.linear(patches.reshape(n, grid * grid, channels * patch * patch), weight.flatten(1), module.bias)


def _attended(head: Any, x: Tensor) -> Tensor:
    """SigLIP's pooling: float32[n,t,w] by the attention of one learnt query, float32[n,w]."""
    attention, width = head.attention, x.shape[-1]
    each = (attention.num_heads, width // attention.num_heads)
    own, around = attention.in_proj_weight.split([width, 2 * width])
    own_bias, around_bias = attention.in_proj_bias.split([width, 2 * width])
    query = F.linear(head.probe.view(1, width), own, own_bias).unflatten(-1, each)
    keys, values = F.linear(x, around, around_bias).unflatten(-1, (2, *each)).unbind(2)
    scores = torch.einsum("qhd,nthd->nht", query * each[1] ** -0.5, keys)
    mixed = torch.einsum("nht,nthd->nhd", scores.softmax(-1), values).flatten(1)
    x = F.linear(mixed, attention.out_proj.weight, attention.out_proj.bias)
    inner = head.mlp.activation_fn(F.linear(_norm(head.layernorm, x), head.mlp.fc1.weight, head.mlp.fc1.bias))
    return x + F.linear(inner, head.mlp.fc2.weight, head.mlp.fc2.bias)


def _weight(linear: Any) -> Tensor:
    """The matrix of a linear module, its LoRA adapter's product added to it."""
    delta = getattr(linear, "get_delta_weight", None)
    weight: Tensor = linear.weight if delta is None else linear.weight + delta("default")
    return weight


def _norm(module: Any, x: Tensor) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), module.weight, module.bias, module.eps)


def _mlp(layer: Any, x: Tensor) -> Tensor:
    mlp = layer.mlp
    inner = mlp.activation_fn(F.linear(_norm(layer.layer_norm2, x), _weight(mlp.fc1), mlp.fc1.bias))
    return x + F.linear(inner, _weight(mlp.fc2), mlp.fc2.bias)


def _through(encoder: Any, layers: Any, x: Tensor, hidden: Tensor | None = None) -> Tensor:
    forgetful = encoder.gradient_checkpointing and torch.is_grad_enabled()
    for layer in layers:
        x = (
            checkpoint(_layer, layer, x, hidden, use_reentrant=False)
            if forgetful
            else _layer(layer, x, hidden)
        )
    return x


def _layer(layer: Any, x: Tensor, hidden: Tensor | None = None) -> Tensor:
    """One pre-norm layer over float32[n,t,w]; no position sees what is ``hidden`` bool[t,t] from it."""
    attention = layer.self_attn
    heads, width = attention.num_heads, x.shape[-1]
    three = (attention.q_proj, attention.k_proj, attention.v_proj)
    weight, bias = torch.cat([_weight(each) for each in three]), torch.cat([each.bias for each in three])
    asked = F.linear(_norm(layer.layer_norm1, x), weight, bias)
    queries, keys, values = asked.unflatten(-1, (3, heads, width // heads)).permute(2, 0, 3, 1, 4)
    # Written out: for a few dozen positions this compiles to less than scaled_dot_product_attention does.
    scores = (queries * (width // heads) ** -0.5) @ keys.transpose(-1, -2)
    if hidden is not None:
        scores = scores.masked_fill(hidden, -torch.inf)
    mixed = (scores.softmax(-1) @ values).transpose(1, 2).flatten(2)
    return _mlp(layer, x + F.linear(mixed, _weight(attention.out_proj), attention.out_proj.bias))


def _pooled(layer: Any, x: Tensor, sequence: Tensor, hidden: Tensor | None = None) -> Tensor:
    """One pre-norm layer over float32[n,t,w] at one position ``x`` [n,w] alone: float32[n,w].

    One query q meets every position's key W x + b. As q (W x + b) = (q W) x + q b, and q b is the same for
    all of them, the keys are never made; nor are the values, since the mean of all V x is V times that of x.
    """
    attention = layer.self_attn
    heads, width = attention.num_heads, x.shape[-1]
    each = (heads, width // heads)
    around, own = _norm(layer.layer_norm1, sequence), _norm(layer.layer_norm1, x)
    queries = F.linear(own, _weight(attention.q_proj), attention.q_proj.bias).unflatten(-1, each)
    asked = torch.einsum("nhd,hdw->nhw", queries, _weight(attention.k_proj).unflatten(0, each))
    scores = (asked * (width // heads) ** -0.5) @ around.transpose(1, 2)
    if hidden is not None:
        scores = scores.masked_fill(hidden[:, None], -torch.inf)
    met = scores.softmax(-1) @ around
    mixed = torch.einsum("nhw,hdw->nhd", met, _weight(attention.v_proj).unflatten(0, each)).flatten(1)
    mixed = mixed + attention.v_proj.bias
    return _mlp(layer, x + F.linear(mixed, _weight(attention.out_proj), attention.out_proj.bias))
