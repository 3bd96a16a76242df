"""Where a server is, and what of an address may not be written into a run, since it could hold a key."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from flsim.config.schema import ConfigError

PATH = "flsim.cloud.endpoint:Endpoint"


def check_address(url: str, key_env: str) -> None:
    """Refuse an address that is none, and places where a key may have slipped in.

    Raises:
        ConfigError: which repeats neither.
    """
    if not url:
        raise ConfigError(f"{PATH} needs cloud.url: http://localhost:8000/v1")
    parts = urlsplit(str(url))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("cloud.url must begin with http:// or https:// and name a host, as https://api.openai.com/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(
            "cloud.url holds a user, a password or a query, which would be written into the run; put the key into the "
            "environment variable that cloud.key_env names, and give the bare address"
        )
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", str(key_env)):
        raise ConfigError(
            "cloud.key_env must be the name of an environment variable, in capitals, such as OPENAI_API_KEY; if the "
            "key itself stands there, take it out (and out of the shell's history)"
        )


def is_local(url: str) -> bool:
    """Whether a server is on this machine, where servers ask for no key."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
