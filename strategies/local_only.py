"""No federation: every device learns alone, from the run's first adapter. The bound that a federation has to beat."""

from strategies.fedavg import FedAvg


class LocalOnly(FedAvg):
    """Nothing travels; every device keeps its own adapter."""

    carries = ""
