"""FFA-LoRA: A stays as it was drawn, devices learn and send B only (Sun et al. 2024, arXiv 2403.12313).

With one A for all, averaging B averages the products exactly, and half of the bytes travel. The row space is fixed for
good, which costs accuracy where tasks need another one.
"""

from strategies.fedavg import FedAvg


class FfaLora(FedAvg):
    """FedAvg on B; takes the same parts."""

    carries = "B"
    learns = "B"
