"""LEAF's network for FEMNIST: two convolutions and two linear layers (Caldas et al. 2018, arXiv 1812.01097)."""

import torch.nn.functional as F
from torch import Tensor, nn


class LeafCnn(nn.Module):
    """Convolutions of 5 x 5 with 32 and 64 channels, each with a max-pooling by 2; 2,048 units; the classes.

    On pictures of 28 x 28 and 62 classes it has 6,603,710 parameters.
    """

    def __init__(self, classes: int, *, side: int = 28, channels: tuple[int, int] = (32, 64), hidden: int = 2048):
        """Choose the widths; the defaults are LEAF's.

        Args:
            classes: how many answers there are.
            side: of the square, grey pictures, in pixels; a multiple of 4.
            channels: of both convolutions.
            hidden: units between them and the classes.
        """
        super().__init__()
        if side % 4 or side < 4:
            raise ValueError(f"side={side} must be a multiple of 4: pictures are halved twice")
        first, second = channels
        self.conv1 = nn.Conv2d(1, first, 5, padding=2)
        self.conv2 = nn.Conv2d(first, second, 5, padding=2)
        self.fc = nn.Linear(second * (side // 4) ** 2, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits `(N, C)` of grey pictures `(N, side, side)` with values in [0, 1]."""
        x = F.relu(_halved(self.conv1(pictures[:, None])))  # (N, 32, side / 2, side / 2)
        x = F.relu(_halved(self.conv2(x)))  # (N, 64, side / 4, side / 4)
        logits: Tensor = self.head(F.relu(self.fc(x.flatten(1))))  # (N, C)
        return logits


def _halved(x: Tensor) -> Tensor:
    """Max-pooling by 2 of `(N, C, H, W)`, on channels that lie side by side in memory.

    There PyTorch compares many at a time; else it goes number by number, and its branches are mostly guessed wrong.
    """
    aside = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # (N, C, H, W)
    return F.max_pool2d(aside, 2).contiguous()  # (N, C, H / 2, W / 2)
