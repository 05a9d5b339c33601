"""The LAION aesthetic predictor's head, as github.com/christophschuhmann/improved-aesthetic-predictor has it."""

import torch
from torch import nn


class AestheticHead(nn.Module):
    """An MLP without activations on CLIP's image features; `sizes` are LAION's for CLIP ViT-L/14."""

    def __init__(self, features: int = 768, sizes: tuple[int, int, int, int] = (1024, 128, 64, 16)) -> None:
        super().__init__()
        a, b, c, d = sizes
        self.layers = nn.Sequential(
            nn.Linear(features, a),
            nn.Dropout(0.2),
            nn.Linear(a, b),
            nn.Dropout(0.2),
            nn.Linear(b, c),
            nn.Dropout(0.1),
            nn.Linear(c, d),
            nn.Linear(d, 1),
        )

    @classmethod
    def from_state_dict(cls, tensors: dict[str, torch.Tensor]) -> "AestheticHead":
        sizes = tuple(tensors[f"layers.{i}.bias"].shape[0] for i in (0, 2, 4, 6))
        head = cls(tensors["layers.0.weight"].shape[1], sizes)
        head.load_state_dict(tensors)
        return head.eval()

    def forward(self, image_embeds: torch.Tensor) -> torch.Tensor:
        """image_embeds [B,D], which are divided by their norm -> [B]"""
        normalized = image_embeds / torch.linalg.vector_norm(image_embeds, dim=-1, keepdim=True)
        return self.layers(normalized).squeeze(-1)
