"""FedSA-LoRA: A is shared, every device keeps its own B (Guo et al. 2025, arXiv 2410.01463).

Personalised: a device is measured with the server's A and its own B; one that has never learned has B = 0 and is the
frozen model. Its B waits in the device store while it is not in a cohort, and A moves on meanwhile. What devices learn
beside LoRA travels with A: one device alone has too few examples for it.
"""

from strategies.fedavg import FedAvg


class FedSaLora(FedAvg):
    """FedAvg on A; devices learn both factors. Takes the same parts."""

    carries = "A"
