"""A recurrent network that reads letters: LEAF's for Shakespeare, in any width (Caldas et al. 2018)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flsim.problems.problem import Problem

_LETTERS = 256


class CharRnn(nn.Module):
    """Letters as vectors of 8, layers of an LSTM, and a layer of classes on its last state.

    LEAF takes two layers of 256 units. The default is narrower, for processors.
    """

    batched = False
    """A recurrent kernel has no batching rule in `torch.func.vmap`."""

    def __init__(
        self, classes: int, *, hidden: int = 64, layers: int = 1, embedding: int = 8, letters: int = 80
    ) -> None:
        """Choose the widths.

        Args:
            classes: how many answers there are.
            hidden: units of a layer.
            layers: of the LSTM.
            embedding: numbers that a letter is read as.
            letters: of a question, from its end.
        """
        super().__init__()
        self.letters = letters
        self.embedding = nn.Embedding(_LETTERS, embedding)
        self.rnn = nn.LSTM(embedding, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def inputs(self, problems: Sequence[Problem]) -> Tensor:
        """Codes of the last letters of each question, `(N, letters)`; 0 in front of shorter ones."""
        rows = torch.zeros(len(problems), self.letters, dtype=torch.long)  # (N, L)
        for row, problem in zip(rows, problems, strict=True):
            codes = [min(ord(letter), _LETTERS - 1) for letter in problem.question[-self.letters :]]
            row[len(row) - len(codes) :] = torch.tensor(codes, dtype=torch.long)
        return rows

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits `(N, C)` of letters `(N, L)`."""
        states, _ = self.rnn(self.embedding(inputs))  # (N, L, hidden)
        logits: Tensor = self.head(states[:, -1])  # (N, C)
        return logits
