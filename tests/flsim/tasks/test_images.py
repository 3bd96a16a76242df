"""Pictures by users: npz, a zip of PNG, LEAF's FEMNIST and Omniglot, and files that hold other things."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import flsim
from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.metrics.rows import evaluation
from flsim.tasks.load import load


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def zipped(path: Path, **pictures: np.ndarray) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, pixels in pictures.items():
            file.writestr(name.replace("__", "/") + ".png", png(pixels))
    return path


def test_an_npz_of_bytes_or_of_numbers_up_to_one(tmp_path: Path) -> None:
    bytes_ = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    users = np.array(["a", "b"])
    np.savez(tmp_path / "bytes.npz", x=bytes_, y=np.array([3, 4]), user=users)
    np.savez(tmp_path / "floats.npz", x=(bytes_ / 255).reshape(2, 16), y=np.array([3, 4]), user=users)
    first, second = (load("images", tmp_path, files={"all": f"{name}.npz"}, side=4) for name in ("bytes", "floats"))
    assert [(item.answer, item.user) for item in first] == [("3", "a"), ("4", "b")]
    for one, other, pixels in zip(first, second, bytes_, strict=True):
        assert one.features is not None
        assert other.features is not None
        assert (one.features == pixels).all()
        assert (other.features == pixels).all()
        assert one.question == other.question  # equal pixels, one question


def test_a_zip_of_png_by_its_names_scaled_and_turned_about(tmp_path: Path) -> None:
    dark = np.full((8, 8), 255, np.uint8)
    dark[:2, :2] = 0
    zipped(tmp_path / "some.zip", f0001_26_0=dark, f0002_7_1=dark)
    name = r"(?P<user>f\d+)_(?P<answer>\d+)_"
    items = load("images", tmp_path, files={"train": "some.zip"}, name=name, side=4, dark=True)
    assert [(item.user, item.answer, item.split) for item in items] == [
        ("f0001", "26", "train"),
        ("f0002", "7", "train"),
    ]
    wanted = np.zeros((4, 4), np.uint8)
    wanted[0, 0] = 255
    assert (np.asarray(items[0].features) == wanted).all()


def test_leafs_femnist_by_writer(tmp_path: Path) -> None:
    for split, labels in (("train", [10, 35]), ("test", [61])):
        (tmp_path / "data" / split).mkdir(parents=True)
        own = {"x": [[1.0] * 783 + [0.0] for _ in labels], "y": labels}
        whole = {"users": ["f0"], "num_samples": [len(labels)], "user_data": {"f0": own}}
        (tmp_path / "data" / split / "all.json").write_text(json.dumps(whole))
    items = load("femnist", tmp_path)
    assert [(item.answer, item.split) for item in items] == [("A", "train"), ("Z", "train"), ("z", "test")]
    pixels = np.asarray(items[0].features)
    assert pixels.shape == (28, 28)
    assert (pixels[0, 0], pixels[27, 27]) == (0, 255)  # paper is bright there, strokes are bright here


def test_omniglot_reads_a_drawing_once_that_two_archives_share(tmp_path: Path) -> None:
    drawn = {f"Latin__character0{c}__000{c}_0{d}": np.full((6, 6), 9 * c + d, np.uint8) for c in (1, 2) for d in (1, 2)}
    zipped(tmp_path / "images_background_small1.zip", **drawn)
    more = {"Greek__character01__0001_01": np.zeros((6, 6), np.uint8)}
    zipped(tmp_path / "images_background_small2.zip", **drawn, **more)
    items = load("omniglot", tmp_path)
    assert len(items) == 5
    assert {item.user for item in items} == {"Latin/01", "Latin/02", "Greek/01"}
    assert {item.answer for item in items} == {"Latin/character01", "Latin/character02", "Greek/character01"}


@pytest.mark.parametrize(
    ("name", "arrays", "said"),
    [
        ("no_user.npz", {"x": np.zeros((1, 4, 4)), "y": np.zeros(1)}, "has no user"),
        ("unequal.npz", {"x": np.zeros((2, 4, 4)), "y": np.zeros(1), "user": np.zeros(2)}, "unequal length"),
        ("colour.npz", {"x": np.zeros((1, 4, 4, 3)), "y": np.zeros(1), "user": np.zeros(1)}, "must be grey"),
        ("flat.npz", {"x": np.zeros((1, 7)), "y": np.zeros(1), "user": np.zeros(1)}, "no square picture"),
        ("far.npz", {"x": np.full((1, 4, 4), 300.0), "y": np.zeros(1), "user": np.zeros(1)}, "must be bytes"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(
    tmp_path: Path, name: str, arrays: dict[str, np.ndarray], said: str
) -> None:
    np.savez(tmp_path / name, **arrays)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=said):
        load("images", tmp_path, files={"all": name})


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no zip")
    (tmp_path / "a.txt").write_text("no picture")
    zipped(tmp_path / "b.zip", nothing=np.zeros((4, 4), np.uint8))
    for name, said in (("a.zip", "cannot be read"), ("a.txt", "no file of pictures"), ("b.zip", "no PNG has a path")):
        with pytest.raises(ConfigError, match=said):
            load("images", tmp_path, files={"all": name})
    with pytest.raises(ConfigError, match="has no group answer"):
        load("images", tmp_path, files={"all": "b.zip"}, name="(?P<user>.)")
    with pytest.raises(ConfigError, match="Get it from"):
        load("omniglot", tmp_path / "nowhere")


@pytest.mark.data
def test_the_shipped_run_of_omniglot_on_real_drawings(real: Callable[[str], Path], tmp_path: Path) -> None:
    folder = real("omniglot_by_drawer")
    few = ["rounds=1", "evaluation={every_rounds: 1, devices: 4}", "engine.kind=local", "fleet.cohort=4"]
    done = flsim.run(
        load_config("omniglot", [*few, f"data.characters.root={folder}", f"run_dir={tmp_path / 'run'}"]), progress=False
    )
    tested = evaluation(done.rows, model="global", name="accuracy")
    assert tested["device"].nunique() == 4
    losses = evaluation(done.rows, model="global", name="loss").groupby("round")[["total", "weight"]].sum()
    means = losses["total"] / losses["weight"]
    assert means[0] == pytest.approx(np.log(242), rel=0.1)  # a fresh network of 242 classes knows nothing


def test_a_label_that_no_letter_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "test").mkdir()
    whole = {"users": ["f0"], "num_samples": [1], "user_data": {"f0": {"x": [[1.0] * 784], "y": [62]}}}
    for split in ("train", "test"):
        (tmp_path / "data" / split / "all.json").write_text(json.dumps(whole))
    with pytest.raises(ConfigError, match="the label '62' is none of 0 to 61"):
        load("femnist", tmp_path)
