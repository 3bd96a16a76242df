"""Follow runs while they go, on a page of this machine or in the terminal; it only reads, and starts and stops nothing.

Examples:
  flsim watch runs                      # all runs below runs/, also of several studies; then open the address it says
  flsim watch runs/demo-seed0           # one run
  flsim watch runs --port 0             # at any port that is free
  flsim watch runs --text               # a table in the terminal, which follows as well
  flsim watch runs --text --once        # the table as it is now, for scripts

The list says of every run whether it is running, waiting in a study, done, stopped or failed and why, its round, the
time left, the accuracy of the mean user with and without the cloud, how often it asks and what its diagnosis finds. A
click opens the run: the figures and tables of its report as they are so far, without a reload.

The page is for this machine alone (127.0.0.1). From another one, go through ssh:

  ssh -L 8642:127.0.0.1:8642 MACHINE    # then open http://127.0.0.1:8642 here

Ctrl-C ends it, and no run notices. docs/watching.md says more.
"""

import os
import socket
import sys
import time
from pathlib import Path

from experiments.command.terminal import Parser, bold, folder_in
from flsim.config.schema import ConfigError

PORT = 8642
"""Unless another is wanted; those of Ray, TensorBoard and MLflow are others."""


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser("watch", __doc__)
    parser.add_argument("runs", metavar="RUNS", type=folder_in, help="a folder with runs at any depth, or a run's own")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    parser.add_argument("--port", type=int, default=PORT, help=f"port there (default {PORT}; 0 takes a free one)")
    parser.add_argument("--text", action="store_true", help="a table in the terminal in place of a page")
    parser.add_argument("--once", action="store_true", help="with --text: print it and end")
    parser.add_argument("--every", type=float, default=2.0, metavar="S", help="seconds between two looks (default 2)")
    args = parser.parse_args(arguments)
    if args.once and not args.text:
        parser.error("--once belongs to --text")
    if not 0 <= args.port <= 65535:
        parser.error(f"--port {args.port} is none; it is a number from 0 to 65535")
    if not args.every >= 0.2:
        parser.error(f"--every {args.every:g} must be at least 0.2 seconds")
    root = args.runs.resolve()
    if not root.is_dir():
        raise ConfigError(f"there is no folder {args.runs} (looked in {Path.cwd()}); give one with runs, such as runs")
    if args.text:
        _in_terminal(root, once=args.once, every_s=args.every)
        return 0
    return _as_page(root, args.host, args.port, args.every)


def _in_terminal(root: Path, *, once: bool, every_s: float) -> None:
    """Print the table, again and again unless `once`."""
    from rich.console import Console  # not above: `flsim watch --help` need not wait for pandas
    from rich.live import Live

    from experiments.command.unloaded import facts_unloaded
    from flsim.live.following import Following
    from flsim.live.terminal import plain, table

    following, console = Following(root, facts_unloaded), Console()
    if once:
        print(plain(following.entries(), time.time()))
        return
    if not console.is_terminal:
        said = ""
        while True:
            text = plain(following.entries(every_s), time.time())
            if text != said:
                print(text, end="\n\n", flush=True)
            said = text
            time.sleep(every_s)
    with Live(console=console, auto_refresh=False, screen=False, vertical_overflow="crop") as live:
        while True:
            live.update(table(following.entries(every_s), time.time(), console.height), refresh=True)
            time.sleep(every_s)


def _as_page(root: Path, host: str, port: int, every_s: float) -> int:
    """Serve the page until a signal ends it."""
    taken = _socket(host, port)
    with taken:
        from experiments.command.unloaded import facts_unloaded  # not above: the port is refused at once
        from flsim.live.following import Following
        from flsim.live.server import names_of, serve

        address = f"http://{'localhost' if host in ('0.0.0.0', '::') else _written(host)}:{taken.getsockname()[1]}"
        print(f"following the runs of {root} at {bold(address)} (Ctrl-C ends)", flush=True)
        if host not in ("127.0.0.1", "::1", "localhost"):
            said = "warning: whoever reaches this machine by its network can read the page; it has no password"
            print(said, file=sys.stderr, flush=True)
        serve(Following(root, facts_unloaded), taken, names_of(host), every_s)
    return 0


def _socket(host: str, port: int) -> socket.socket:
    """Listen there.

    Raises:
        ConfigError: if nothing can listen there.
    """
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return socket.create_server(address[:2], family=family)
    except socket.gaierror as error:
        raise ConfigError(f"--host {host} is no address here ({error.strerror}); 127.0.0.1 is one") from error
    except OSError as error:
        why = os.strerror(error.errno or 0)  # its own text has the address again
        mend = "--port 0 takes a free one" if port else "--host 127.0.0.1 is this machine"
        raise ConfigError(f"nothing can listen at port {port} of {host} ({why}); {mend}") from error


def _written(host: str) -> str:
    return f"[{host}]" if ":" in host else host
