"""Which states the devices of a run have left, in which files, and when files are written together or deleted.

A small fleet that takes part as a whole leaves a file a pack and round, which nobody needs two rounds later. Of a
million devices hardly one comes twice: all that was left stays, and files would pile up. So files are kept as in a
log-structured merge tree (O'Neil et al. 1996): eight of about a size become one of the next, which makes at most seven
of each power of eight, and every state is copied once for each.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flsim.flower.store import DeviceStore, Place, Saved

Files = Mapping[str, Sequence[tuple[int, Saved]]]
"""What each file of a store holds, by device (`DeviceStore.files`)."""
FAN = 8
"""Files of a size that are written together."""
_SETTLED = 2  # rounds after which a file is looked at: where everybody takes part, it is no longer needed then


class States:
    """The states of a run as its driver knows them: by the replies that came with them, and by its checkpoint.

    Two checkpoints are kept, so of each device two states may be needed: the newest, and the one before it as long as
    the newest is of the round of the newest checkpoint.
    """

    def __init__(self, saved: Mapping[int, Saved] | None = None, files: Files | None = None) -> None:
        """Begin with the states of a checkpoint.

        Args:
            saved: by device; None is a run that begins.
            files: of the store; None is one that is empty.
        """
        self._by_device = {device: [one] for device, one in (saved or {}).items()}
        self._sizes: dict[str, int] = {}  # of each file, how many states it was written with
        self._rounds: dict[str, int] = {}  # the last of them
        self._needed: defaultdict[str, set[int]] = defaultdict(set)  # of each file, whose states in it are
        self._replaced: list[tuple[int, int]] = []  # the round in which a device left a state after another, and whose
        for name, held in (files or {}).items():
            self._enter(name, [one for _, one in held])
        for device, one in (saved or {}).items():
            self._need(device, one)

    def note(self, saved: Mapping[int, Saved]) -> None:
        """What devices have left in the round that is at work; what one left in it before is forgotten."""
        by_file: defaultdict[str, list[Saved]] = defaultdict(list)
        for device, new in saved.items():
            known = self._by_device.get(device, [])
            earlier = self.before(device, new.round)
            for old in known:
                if old is not earlier:
                    self._spare(device, old)
            if earlier is not None and known[-1] is earlier:
                self._replaced.append((new.round, device))
            self._by_device[device] = [*([] if earlier is None else [earlier]), new]
            if new.place is not None:
                by_file[new.place.file].append(new)
        for name, held in by_file.items():
            self._enter(name, held)
        for device, new in saved.items():
            self._need(device, new)

    def before(self, device: int, round_: int) -> Saved | None:
        """What a device begins a round with; None if it has left nothing before."""
        return next((one for one in reversed(self._by_device.get(device, [])) if one.round < round_), None)

    def newest(self) -> dict[int, Saved]:
        """What a checkpoint names, by device."""
        return {device: self._by_device[device][-1] for device in sorted(self._by_device)}

    def files_of(self, round_: int) -> list[str]:
        """The files that were written in a round."""
        return sorted(name for name, last in self._rounds.items() if last == round_)

    def tidy(self, store: DeviceStore, round_: int) -> None:
        """Once a round is committed: delete files that nobody needs any more, and write small ones together.

        Args:
            store: of the devices, which nobody reads meanwhile.
            round_: of the newest checkpoint.

        Raises:
            DamagedFileError: if a state cannot be read that is to be copied.
            UnwritableError: if a file cannot be written; the old ones stay then.
        """
        for late, device in self._replaced:
            *older, newest = self._by_device[device]
            if late < round_ and newest.round == late:  # else it has left another since, and the older one is spared
                for one in older:
                    self._spare(device, one)
                self._by_device[device] = [newest]
        self._replaced = [one for one in self._replaced if one[0] >= round_]
        for together in self._to_merge(round_ - _SETTLED):
            self._merge(store, together)
        unneeded = [name for name in self._sizes if not self._needed.get(name)]
        store.delete(unneeded)
        for name in unneeded:
            del self._sizes[name], self._rounds[name]
            self._needed.pop(name, None)

    def _to_merge(self, last: int) -> list[list[str]]:
        """Groups of files to write together: full sizes, and all of which less than half is needed."""
        wasteful, by_size = [], defaultdict(list)
        for name in sorted(self._sizes):
            needed = len(self._needed[name])
            if self._rounds[name] <= last and needed:
                by_size[(needed.bit_length() - 1) // (FAN.bit_length() - 1)].append(name)
        full = [names for names in by_size.values() if len(names) >= FAN]
        for names in by_size.values():
            wasteful += [name for name in names if len(names) < FAN and 2 * len(self._needed[name]) < self._sizes[name]]
        return [*full, *([wasteful] if wasteful else [])]

    def _merge(self, store: DeviceStore, names: list[str]) -> None:
        """Write what is needed of these files into one."""
        held = {device: self._lying_in(device, name) for name in names for device in sorted(self._needed[name])}
        mend = f"flsim resume {store.run_dir} says how to go on"
        data = (store.read(device, saved, mend) for device, saved in held.items())
        written = store.write(held, data, what="states that are written together")
        places = {(device, one.round): one.place for device, one in written.items()}
        for device, old in held.items():
            self._by_device[device] = [
                replace(one, place=places[device, one.round]) if one.place == old.place else one
                for one in self._by_device[device]
            ]
        for name in names:
            self._needed[name] = set()
        place: Place | None = next(iter(places.values()))
        assert place is not None
        self._enter(place.file, list(written.values()))
        self._needed[place.file] = set(held)

    def _lying_in(self, device: int, name: str) -> Saved:
        return next(one for one in self._by_device[device] if one.place is not None and one.place.file == name)

    def _enter(self, name: str, held: list[Saved]) -> None:
        self._sizes[name] = len(held)
        self._rounds[name] = max((one.round for one in held), default=-1)

    def _need(self, device: int, saved: Saved) -> None:
        if saved.place is not None:
            self._needed[saved.place.file].add(device)

    def _spare(self, device: int, saved: Saved) -> None:
        if saved.place is not None:
            self._needed[saved.place.file].discard(device)
