"""Who a device is: its index in the fleet, its name in the rows, and its node id at Flower, index + 1."""

_DEVICE = "device-"


def device_name(index: int) -> str:
    """The stable id of a device, such as `device-007`."""
    return f"{_DEVICE}{index:03d}"


def device_index(name: str) -> int:
    """The index of a device's name."""
    return int(name.removeprefix(_DEVICE))


def node_of(device: int) -> int:
    """Flower's node id of a device: its index plus one, since 0 is no node id in Flower."""
    return device + 1


def device_at(node: int) -> int:
    """The index of the device behind a node id."""
    return node - 1
