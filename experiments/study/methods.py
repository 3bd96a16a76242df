"""Methods as files: a YAML fragment each, laid key by key over a config."""

from dataclasses import dataclass
from pathlib import Path

from flsim.config.schema import ConfigError

FOLDER = Path(__file__).parents[1] / "configs" / "methods"


@dataclass(frozen=True)
class Method:
    """One value of `method=`."""

    name: str
    """Of its files, without `.yaml`, joined by `+`."""
    files: tuple[Path, ...]
    """In the order in which they are laid over the config; none leaves it as it is."""


def find_method(text: str) -> Method:
    """Find the files of a method.

    Args:
        text: a name in `experiments/configs/methods/`, the path of a YAML file, or several of them joined by `+`;
            empty for none.

    Raises:
        ConfigError: naming the methods that there are.
    """
    files = tuple(_find(text, part) for part in text.split("+")) if text else ()
    return Method("+".join(file.stem for file in files), files)


def method_names() -> list[str]:
    """What is shipped."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def _find(text: str, part: str) -> Path:
    if part.endswith(".yaml"):
        if not Path(part).is_file():
            raise ConfigError(f"method={text}: there is no file {part!r} (looked in {Path.cwd()})")
        return Path(part)
    if part not in method_names():
        raise ConfigError(
            f"method={text}: there is no method {part!r}; choose of: {', '.join(method_names())}, join two by +, or "
            f"give a file of your own, such as my_method.yaml"
        )
    return FOLDER / f"{part}.yaml"
