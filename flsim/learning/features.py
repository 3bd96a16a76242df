"""What a student learns from a teacher's hidden states: how far two states are apart, and the map between their widths.

    cosine   1 - cos(W h_S, h_T)        DistilBERT's, where W is the identity (Sanh et al. 2019, arXiv 1910.01108)
    square   |W h_S - h_T|^2 / |h_T|^2  that of FitNets (Romero et al. 2015, arXiv 1412.6550), in parts of the teacher's

W is a matrix `(d_T, d_S)` for each pair of layers, the ridge regression of the teacher's states on the student's: what
is left to the loss is what the student's states lack, and not where a matrix happens to point. Neither loss knows the
scale of the teacher's states, which may be 30 in one model and 1 in another, so that a weight means the same for all.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

COSINE, SQUARE = "cosine", "square"
FEATURE_LOSSES = (COSINE, SQUARE)
"""How far two states are apart."""

RIDGE = 1e-2
"""In parts of the student's mean square: it keeps W small where there are fewer places than numbers of a state."""


def feature_loss(mapped: Tensor, taught: Tensor, kind: str) -> Tensor:
    """How far the student's states are from the teacher's, one number for each place.

    Args:
        mapped: `W h_S`, `(S, N, d_T)`, with gradient.
        taught: `h_T`, `(S, N, d_T)`.
        kind: one of `FEATURE_LOSSES`.

    Returns:
        `(S, N)`: from 0 to 2 for the cosine, of which a state of zeros is 1 away; for the square at least 0, and 1
        where W gives zeros.
    """
    if kind == COSINE:
        return 1 - F.cosine_similarity(mapped, taught, dim=-1)  # (S, N)
    size = taught.square().sum(-1).clamp(min=torch.finfo(taught.dtype).tiny)  # (S, N)
    square: Tensor = (mapped - taught).square().sum(-1) / size  # (S, N)
    return square


def mapped_by(maps: Tensor, states: Tensor) -> Tensor:
    """The student's states `(S, N, d_S)` through the maps `(S, d_T, d_S)`, `(S, N, d_T)`."""
    return states @ maps.transpose(1, 2)  # (S, N, d_T)


def fitted_maps(states: Tensor, taught: Tensor) -> Tensor:
    """The maps of least `|W h_S - h_T|^2 + ridge |W|^2`, summed in float64.

    Args:
        states: of the student, `(S, N, d_S)`.
        taught: of the teacher, `(S, N, d_T)`.

    Returns:
        `(S, d_T, d_S)`, in the student's dtype.
    """
    own, other = states.double(), taught.double()  # (S, N, d_S) and (S, N, d_T)
    gram = own.transpose(1, 2) @ own  # (S, d_S, d_S)
    mean = gram.diagonal(dim1=1, dim2=2).mean(-1)  # (S,)
    ridge = (RIDGE * mean).clamp(min=torch.finfo(torch.float32).tiny)  # (S,): states of zeros have a map, too
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)  # (d_S, d_S)
    solved: Tensor = torch.linalg.solve(gram + ridge[:, None, None] * eye, own.transpose(1, 2) @ other)  # (S, d_S, d_T)
    return solved.transpose(1, 2).to(states.dtype).contiguous()  # (S, d_T, d_S)
