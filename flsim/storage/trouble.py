"""What an object store answers with an error, as a sentence for people: the reason, and how to mend it."""

import re

from flsim.config.address import Address
from flsim.files import UnwritableError

_DENIED = (
    "give credentials that may read, write, list and delete there, best by the environment (AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, AZURE_CLIENT_ID and its like), on every node"
)
_MENDS = (  # what stands in the error, whether it will stand there again, the reason, the mend
    ("NO_SUCH_BUCKET|NoSuchBucket|bucket does not exist|container does not exist|ContainerNotFound", True,
     "there is no such bucket", "make it, or correct its name"),
    ("INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN|EXPIRED_TOKEN|InvalidToken|ExpiredToken",
     True, "the credentials are not known there", _DENIED),
    ("ACCESS_DENIED|AccessDenied|HTTP status 403|AuthorizationFailure|PermissionDenied|Permission denied|No response "
     "body|anonymous|Unauthenticated|HTTP status 401", True, "it wants other credentials", _DENIED),
    ("PermanentRedirect|HTTP status 301|AuthorizationHeaderMalformed|IllegalLocationConstraint|different region", True,
     "the bucket lies in another region", "name it in the address, such as ?region=eu-west-1"),
    ("When resolving region", False, "its region could not be found",
     "name it in the address, such as ?region=eu-west-1, or the server by ?endpoint_override=HOST:PORT"),
    ("NETWORK_CONNECTION|curlCode|Connection refused|Could not connect|timed out|SLOW_DOWN|SERVICE_UNAVAILABLE|"
     "HTTP status 50|INTERNAL_FAILURE|InternalError", False, "the server does not answer",
     "see that it is up and can be reached from here, and go on then"),
    ("libjvm|libhdfs", True, "Hadoop's library is not here", "install Hadoop and set JAVA_HOME and HADOOP_HOME"),
)  # fmt: skip


class UnreachableError(UnwritableError):
    """An object store did not take or give something, after several tries; the message says what, why, and the mend."""


def told(error: BaseException, address: Address) -> tuple[str, bool]:
    """The reason and the mend, and whether it is of no use to try again.

    Args:
        error: as the library raised it.
        address: whose secrets must not be told.
    """
    text = str(error)
    said = _short(_bare(text, address))
    for pattern, lasts, reason, mend in _MENDS:
        if re.search(pattern, text):
            return f"{reason} ({said}); {mend}", lasts
    return said or type(error).__name__, isinstance(error, PermissionError | ValueError | ImportError)


def _bare(text: str, address: Address) -> str:
    """Without what is secret."""
    secret = address.secret
    parts = [address.whole, secret.user, *secret.user.split(":"), secret.query]
    parts += [part.partition("=")[2] for part in secret.query.split("&")]
    for part in sorted({part for part in parts if part}, key=len, reverse=True):
        text = text.replace(part, str(address) if part == address.whole else "***")
    return text


def _short(text: str) -> str:
    """Its first line, without the number of the request."""
    line = re.sub(r"\s*\(Request ID:.*", "", text.strip().splitlines()[0]) if text.strip() else ""
    return line if len(line) <= 300 else f"{line[:297]}..."
