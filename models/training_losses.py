"""What the model learns from: the words of its answers, and what is where in the frame.

The words alone teach too slowly: telemetry explains most of the action, so for a long time a model gains more by
ignoring the picture. The scene's classes, and the objects under each patch, teach the vision tower directly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .training_data import CLASS_SET_WEIGHTS, Questions
from .vlm import Recipe

# Objects cover few patches; without a counterweight "nothing anywhere" would be a good answer.
OBJECT_WEIGHT = 4.0
ATTENTION_QUERIES = 4


class SceneHeads(nn.Module):
    """Heads that only training has: the scene's classes from the image tokens, objects from the patches."""

    def __init__(self, recipe: Recipe, class_counts: tuple[int, ...], object_count: int) -> None:
        super().__init__()
        self.class_counts = class_counts
        width = recipe.text_width
        # Told apart in the decoder by where they stand; here nothing else says which frame is the older one.
        self.older = nn.Parameter(torch.randn(width) * 0.02)
        self.queries = nn.Parameter(torch.randn(ATTENTION_QUERIES, width) * 0.02)
        self.attended = nn.Linear(ATTENTION_QUERIES * width, width)
        self.classes = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, sum(class_counts)))
        self.objects = nn.Sequential(nn.LayerNorm(recipe.vision_width), nn.Linear(recipe.vision_width, object_count))

    def class_logits(self, image_tokens: Tensor) -> tuple[Tensor, ...]:
        """Image tokens [batch, frames, tokens, text_width] to one [batch, classes] for each set of classes."""
        tokens = image_tokens.float()
        tokens = torch.cat([tokens[:, :-1] + self.older, tokens[:, -1:]], dim=1).flatten(1, 2)
        # Small things, such as a lit lamp, drown in a mean; a few learned queries can look for them.
        attention = (self.queries @ tokens.transpose(1, 2) / tokens.shape[-1] ** 0.5).softmax(dim=-1)
        pooled = tokens.mean(dim=1) + self.attended((attention @ tokens).flatten(1))
        return self.classes(pooled).split(self.class_counts, dim=1)

    def loss(self, image_tokens: Tensor, patches: Tensor, classes: Tensor, objects: Tensor) -> Tensor:
        """Weighted mean cross-entropy of the class sets plus the weighted binary cross-entropy of objects per patch.

        image_tokens, patches: as `see` returns them. classes: [batch, class sets], int64.
        objects: [batch, frames, patches, object classes], 0 or 1.
        """
        class_losses = [
            weight * functional.cross_entropy(logits, classes[:, index])
            for index, (weight, logits) in enumerate(
                zip(CLASS_SET_WEIGHTS, self.class_logits(image_tokens), strict=True)
            )
        ]
        object_logits = self.objects(patches.float())
        weight = torch.full((object_logits.shape[-1],), OBJECT_WEIGHT, device=object_logits.device)
        # Summed over the object classes: a mean would make each of them count less, the more of them there are.
        object_loss = object_logits.shape[-1] * functional.binary_cross_entropy_with_logits(
            object_logits, objects.float(), pos_weight=weight
        )
        return torch.stack(class_losses).mean() + 0.5 * object_loss


def see(model: Any, frames: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Frames [batch, frames, 3, side, side], oldest first, each seen by itself.

    Returns image tokens [batch, frames, tokens, text_width] and patches [batch, frames, patches, vision_width].
    """
    side, scenes = recipe.patches_per_side, frames.shape[:2]
    frames = frames.flatten(0, 1)
    whole_grid = torch.ones(len(frames), side, side, dtype=torch.bool, device=frames.device)
    patches = model.model.vision_model(pixel_values=frames, patch_attention_mask=whole_grid).last_hidden_state
    return model.model.connector(patches).unflatten(0, scenes), patches.unflatten(0, scenes)


def read(model: Any, questions: Questions, image_tokens: Tensor) -> tuple[Tensor, ...]:
    """The decoder's hidden states after 0, 1, ... layers, the last one normed, each [batch, positions, text_width]."""
    tokens = questions.tokens
    embeddings = model.model.inputs_merger(
        input_ids=tokens,
        inputs_embeds=model.model.text_model.embed_tokens(tokens),
        image_hidden_states=image_tokens.flatten(0, 2),
    )
    output = model.model.text_model(
        inputs_embeds=embeddings,
        attention_mask=questions.attention(),
        position_ids=questions.position,
        output_hidden_states=True,
        use_cache=False,
    )
    return output.hidden_states


class Student(nn.Module):
    """Everything that learns: the model, its exits and the scene heads. Its output is a loss."""

    word_weights: Tensor

    def __init__(
        self,
        model: Any,
        exit_heads: nn.ModuleList,
        exit_layers: tuple[int, ...],
        scene_heads: SceneHeads,
        recipe: Recipe,
        auxiliary_weight: float,
        word_weights: Tensor,
    ) -> None:
        """word_weights: what each token counts where it is the right one, [vocabulary]."""
        super().__init__()
        self.model = model
        self.exit_heads = exit_heads
        self.exit_layers = exit_layers
        self.scene_heads = scene_heads
        self.recipe = recipe
        self.auxiliary_weight = auxiliary_weight
        self.register_buffer("word_weights", word_weights, persistent=False)

    def forward(self, frames: Tensor, classes: Tensor, objects: Tensor, questions: Questions | None) -> Tensor:
        """The scene heads' loss alone where nothing is asked, else the answers' with a share of it.

        The exits read detached hidden states: they learn to speak from layers that serve the whole model, and do not
        bend them to their own needs.
        """
        image_tokens, patches = see(self.model, frames, self.recipe)
        scene_loss = self.scene_heads.loss(image_tokens, patches, classes, objects)
        if questions is None:
            return scene_loss
        hidden_states = read(self.model, questions, image_tokens)
        asked = questions.labels != -100
        targets = questions.labels[asked]

        def missed(logits: Tensor) -> Tensor:
            return functional.cross_entropy(logits.float(), targets, weight=self.word_weights)

        loss = missed(self.model.lm_head(hidden_states[-1][asked]))
        for head, layer in zip(self.exit_heads, self.exit_layers, strict=True):
            loss = loss + missed(head(hidden_states[layer].detach()[asked]))
        return loss + self.auxiliary_weight * scene_loss
