"""What the devices of a run keep, as tests look at it: the newest states, and the files that hold them."""

from pathlib import Path

from flsim.devices import device_name
from flsim.flower.grid import store_in


def states_of(folder: Path) -> dict[str, bytes]:
    """The newest state of every device of a run, by name."""
    store = store_in(folder)
    found = sorted(((one.round, device, one) for held in store.files().values() for device, one in held), key=str)
    newest = {device: one for _, device, one in sorted(found, key=lambda entry: entry[0])}
    return {device_name(device): store.read(device, newest[device], "") for device in sorted(newest)}


def states_file(folder: Path, round_: int) -> Path:
    """The one file of states that a round left in a run's folder."""
    (path,) = (folder / "devices").glob(f"round-{round_:05d}-*.states")
    return path
