r"""Pictures by who drew them: FEMNIST as LEAF writes it, Omniglot, and whatever lies in an npz or a zip of PNG.

    kind: images, settings: {files: {all: digits.npz}}              arrays `x` (N, H, W), `y` (N,), `user` (N,)
    kind: images, settings: {files: {all: "*.zip"}, name: "(?P<user>f\\d+)_(?P<answer>\\d+)_"}     a picture per file
    kind: images, settings: {files: {train: "train/*.json", test: "test/*.json"}}             LEAF: x of 784, y, users

An item's features are the grey picture, `(side, side)` in bytes, strokes bright; its question names it by a hash of
its pixels, so that equal pictures are one question and never in two splits.
"""

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from flsim.config.schema import ConfigError
from flsim.tasks.data_file import DataFile
from flsim.tasks.item import Item
from flsim.tasks.known_set import Found, KnownSet, Reader
from flsim.tasks.readers.own import ALL, own_files
from flsim.tasks.readers.users import leaf_rows

NPZ = {"x": "pictures (N, H, W) or (N, H * W)", "y": "their answers (N,)", "user": "who drew them (N,)"}
_EVERY_NAME = r"(?P<user>[^/_]+)_(?P<answer>[^/_]+)[^/]*\.png$"
_MOST_SHOWN = 3
_CLASSES = "".join([*"0123456789", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *"abcdefghijklmnopqrstuvwxyz"])
"""What FEMNIST's labels 0 to 61 are."""


@dataclass(frozen=True)
class Picture:
    """One picture as a file has it."""

    pixels: NDArray[Any]
    """`(H, W)`, or flat; bytes, or numbers in [0, 1]."""
    answer: str
    user: str
    where: str
    """File and place in it."""


def images(
    root: Path,
    *,
    files: Mapping[str, str],
    name: str = _EVERY_NAME,
    side: int = 28,
    dark: bool = False,
    encoding: str = "utf-8",
) -> list[Item]:
    """Items of one's own pictures.

    Args:
        root: folder that the files are relative to.
        files: split (or `all`) -> file or pattern, of `.npz`, `.zip` with PNG, or LEAF's `.json`.
        name: regular expression that finds `user` and `answer` in the path of a PNG within its zip.
        side: of the square that pictures are scaled to, in pixels.
        dark: whether strokes are dark on bright, and are to be turned about.
        encoding: of JSON files without a byte order mark.

    Raises:
        ConfigError: for a file that is not there or holds other things.
    """
    found = own_files(root, files, encoding)
    pattern = _compiled(name)
    return [
        _item(picture, None if split == ALL else split, side, dark=dark)
        for split, own in found.items()
        for file in own
        for picture in _pictures(file, pattern)
    ]


def femnist(found: Found, *, side: int = 28) -> list[Item]:
    """LEAF's FEMNIST: 62 digits and letters by 3,550 writers, bright paper, values in [0, 1]."""
    return [
        _item(_lettered(picture), None if split == ALL else split, side, dark=True)
        for split, own in found.items()
        for file in own
        for picture in _leaf(file)
    ]


def _lettered(picture: Picture) -> Picture:
    """With the digit or letter that its label stands for."""
    if not picture.answer.isdecimal() or int(picture.answer) >= len(_CLASSES):
        raise ConfigError(f"{picture.where}: the label {picture.answer!r} is none of 0 to {len(_CLASSES) - 1}")
    return replace(picture, answer=_CLASSES[int(picture.answer)])


def omniglot(found: Found, *, side: int = 28) -> list[Item]:
    """Omniglot: characters of many alphabets, 20 people drew each once; they are other people for each alphabet."""
    pattern = re.compile(r"(?P<alphabet>[^/]+)/(?P<character>character\d+)/\d+_(?P<drawer>\d+)\.png$")
    seen: set[str] = set()  # the two small background sets share alphabets
    items = []
    for file in found["all"]:
        for picture in _of_zip(file, pattern):
            match = pattern.search(picture.where.rpartition(", ")[2])
            assert match is not None, "only what the pattern finds is read"
            if match[0] not in seen:
                seen.add(match[0])
                alphabet, character, drawer = match.groups()
                own = replace(picture, answer=f"{alphabet}/{character}", user=f"{alphabet}/{drawer}")
                items.append(_item(own, None, side, dark=True))
    return items


def _item(picture: Picture, split: str | None, side: int, *, dark: bool) -> Item:
    pixels = _squared(picture, side)  # (side, side)
    pixels = 255 - pixels if dark else pixels
    named = hashlib.sha256(pixels.tobytes()).hexdigest()[:24]
    return Item(
        f"picture {named}",
        picture.answer,
        user=picture.user,
        label=picture.answer,
        split=split,
        features=pixels,
        where=picture.where,
    )


def _squared(picture: Picture, side: int) -> NDArray[np.uint8]:
    """The picture in bytes, `(side, side)`."""
    pixels = np.asarray(picture.pixels)
    if pixels.ndim == 1:
        width = round(len(pixels) ** 0.5)
        if width * width != len(pixels):
            raise ConfigError(f"{picture.where}: {len(pixels)} numbers are no square picture")
        pixels = pixels.reshape(width, width)
    if pixels.ndim != 2 or not np.issubdtype(pixels.dtype, np.number):
        raise ConfigError(f"{picture.where}: a picture must be grey, (H, W); it is {pixels.dtype} of {pixels.shape}")
    if pixels.dtype != np.uint8:
        if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 255:
            raise ConfigError(f"{picture.where}: pixels must be bytes, or numbers in [0, 1]")
        pixels = np.round(pixels * (255.0 if pixels.max() <= 1 else 1.0)).astype(np.uint8)
    if pixels.shape != (side, side):
        pixels = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX))
    return pixels


def _pictures(file: DataFile, pattern: re.Pattern[str]) -> Iterator[Picture]:
    """The pictures of one file, by its ending."""
    if file.format == ".npz":
        yield from _of_npz(file)
    elif file.format == ".zip":
        yield from _of_zip(file, pattern)
    elif file.format == ".json":
        yield from _leaf(file)
    else:
        raise ConfigError(f"{file}: is no file of pictures; take .npz, .zip with PNG, or LEAF's .json")


def _of_npz(file: DataFile) -> Iterator[Picture]:
    try:
        with np.load(file.path, allow_pickle=False) as held:
            arrays = {key: held[key] for key in NPZ if key in held}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{file}: cannot be read as npz ({error})") from error
    missing = [f"{key}, {what}" for key, what in NPZ.items() if key not in arrays]
    if missing:
        raise ConfigError(f"{file}: has no {'; no '.join(missing)}")
    if len({len(array) for array in arrays.values()}) > 1:
        sizes = ", ".join(f"{key} {len(array)}" for key, array in arrays.items())
        raise ConfigError(f"{file}: its arrays are of unequal length: {sizes}")
    for number, (x, y, user) in enumerate(zip(arrays["x"], arrays["y"], arrays["user"], strict=True), 1):
        yield Picture(x, str(y), str(user), f"{file}, picture {number}")


def _of_zip(file: DataFile, pattern: re.Pattern[str]) -> Iterator[Picture]:
    """PNG files whose paths the pattern finds, in the order of their paths."""
    try:
        with zipfile.ZipFile(file.path) as held:
            names = sorted(
                name for name in held.namelist() if name.endswith(".png") and not name.startswith("__MACOSX")
            )
            fitting = [name for name in names if pattern.search(name)]
            if not fitting:
                shown = ", ".join(names[:_MOST_SHOWN]) or "none"
                raise ConfigError(f"{file}: no PNG has a path like {pattern.pattern!r}; there are {shown}")
            for name in fitting:
                match = pattern.search(name)
                assert match is not None, "it was found before"
                named = match.groupdict()
                with Image.open(io.BytesIO(held.read(name))) as picture:
                    pixels = np.asarray(picture.convert("L"))  # (H, W)
                yield Picture(pixels, named.get("answer") or "", named.get("user") or "", f"{file}, {name}")
    except (OSError, zipfile.BadZipFile, UnidentifiedImageError) as error:
        raise ConfigError(f"{file}: cannot be read as a zip of PNG ({error})") from error


def _leaf(file: DataFile) -> Iterator[Picture]:
    for row in leaf_rows(file):
        try:
            pixels = np.asarray(row["x"], dtype=np.float32)  # (H * W,)
        except (TypeError, ValueError) as error:
            raise row.error(f"its x is no picture ({error})") from None
        yield Picture(pixels, str(row["y"]), str(row["user"]), row.where)


def _compiled(name: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(name)
    except re.error as error:
        raise ConfigError(f"images: name={name!r} is no regular expression ({error})") from error
    missing = {"user", "answer"} - pattern.groupindex.keys()
    if missing:
        raise ConfigError(f"images: name={name!r} has no group {', '.join(sorted(missing))}; write (?P<user>...)")
    return pattern


IMAGES = Reader(images, files=own_files)
"""One's own pictures by users."""

FEMNIST = KnownSet(
    name="femnist",
    files={"train": ("data/train/*.json", "train/*.json"), "test": ("data/test/*.json", "test/*.json")},
    read=femnist,
    verifier="exact",
    source="Make it with LEAF (https://github.com/TalwalkarLab/leaf): preprocess.sh -s niid --sf 1.0 -k 0 -t sample.",
    licence="NIST Special Database 19 is public domain; LEAF is BSD 2-Clause",
    columns=("user", "x", "y"),
)
"""Handwritten digits and letters by writers (Caldas et al. 2018, arXiv 1812.01097)."""

OMNIGLOT = KnownSet(
    name="omniglot",
    files={"all": ("images_background_small*.zip", "images_background.zip")},
    read=omniglot,
    verifier="exact",
    source="Get it from https://github.com/brendenlake/omniglot (python/images_background*.zip).",
    licence="MIT",
    columns=("alphabet", "character", "drawer"),
)
"""Handwritten characters by drawers (Lake, Salakhutdinov and Tenenbaum 2015)."""
