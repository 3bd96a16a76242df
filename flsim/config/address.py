"""Addresses in object stores, such as `s3://bucket/path?region=eu-west-1`, and what is secret in them.

What is secret (`s3://key:secret@bucket`, `&client_secret=...`) leaves an address as soon as it is read. It is known to
this process alone, as an environment variable is, so that neither a config nor a log, page or message has it.
"""

import re
from dataclasses import dataclass, replace
from typing import Self

_ADDRESS = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://([^/?]*)([^?]*)(?:\?(.*))?", re.DOTALL)
_SECRET = re.compile(r"(^|_)(secret|password|token|sig|key)", re.IGNORECASE)  # names of parameters
_CONTAINERS = ("abfs", "abfss")  # of Azure, whose names stand before the @
_known: dict[str, "Secret"] = {}  # by what an address begins with


@dataclass(frozen=True)
class Secret:
    """What an address does not say."""

    user: str = ""
    """What stood before the `@`."""
    query: str = ""
    """Parameters, as they were written."""

    def __repr__(self) -> str:
        """Nothing of it."""
        return "Secret(...)"


@dataclass(frozen=True)
class Address:
    """An address without its secrets."""

    scheme: str
    host: str
    """A bucket, a container with its account, a server; empty for files."""
    path: str
    """From the `/` on, without one at its end."""
    query: str = ""

    @classmethod
    def of(cls, text: str) -> Self:
        """Take an address apart, and remember what is secret in it.

        Raises:
            ValueError: if it is none.
        """
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise ValueError("it is no address, such as s3://bucket/path")
        scheme, host, path, query = found.group(1).lower(), *found.group(2, 3), found.group(4) or ""
        user, at, name = host.rpartition("@")
        shown, colon, word = user.partition(":")
        hides = bool(colon and word)
        kept = name if hides and not (shown and scheme in _CONTAINERS) else f"{shown}{at}{name}"
        parts = query.split("&") if query else []
        open_ = [part for part in parts if not _SECRET.search(part.partition("=")[0])]
        address = cls(scheme, kept, path.rstrip("/"), "&".join(open_))
        hidden = Secret(user if hides else "", "&".join(part for part in parts if part not in open_))
        if hidden != Secret():
            _known[address.place] = hidden
        return address

    @property
    def place(self) -> str:
        """What addresses have in common to which the same secrets belong."""
        return f"{self.scheme}://{self.host}?{self.query}"

    @property
    def name(self) -> str:
        """Its last part."""
        return self.path.rpartition("/")[2] or self.host

    @property
    def secret(self) -> Secret:
        """What this process knows beside it."""
        return _known.get(self.place, Secret())

    def remember(self, secret: Secret) -> None:
        """Know what is secret, as told by the process that read it."""
        if secret != Secret():
            _known[self.place] = secret

    def below(self, name: str) -> Self:
        """The address of something in it."""
        return replace(self, path=f"{self.path}/{name}") if name else self

    @property
    def whole(self) -> str:
        """With its secrets, for the library that opens it, and for nobody else."""
        secret = self.secret
        _, _, name = self.host.rpartition("@")
        host = f"{secret.user}@{name}" if secret.user else self.host
        query = "&".join(part for part in (self.query, secret.query) if part)
        return f"{self.scheme}://{host}{self.path}{'?' if query else ''}{query}"

    def __str__(self) -> str:
        """As people see it."""
        return f"{self.scheme}://{self.host}{self.path}{'?' if self.query else ''}{self.query}"


def is_address(text: object) -> bool:
    """Whether a `run_dir` names an object store, and no folder."""
    return isinstance(text, str) and _ADDRESS.fullmatch(text) is not None


def without_secrets(run_dir: str | None) -> str | None:
    """A `run_dir` as it may be shown and written; what was secret is remembered."""
    return str(Address.of(run_dir)) if run_dir is not None and is_address(run_dir) else run_dir
