"""Export a finished run for others: adapter, merged model, rows with a data dictionary.

Examples:
  flsim export runs/demo-seed0                          # into runs/demo-seed0/export
  flsim export runs/demo-seed0 shared/demo --tables csv
  flsim export runs/demo-seed0 shared/demo --merged --gguf

The folder holds adapter/ as peft and vLLM load it, rows and users as tidy tables, dictionary.csv with the unit and the
meaning of every column and name, and README.md, which says how each is read. --merged adds the base with the adapter in
its weights, --gguf the adapter for llama.cpp. Tables of a comparison for a paper are beside its page: tables.tex and
tables.md (flsim compare). docs/export.md says more.
"""

from pathlib import Path

from experiments.command.terminal import Parser

FORMS = ("parquet", "csv")


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser("export", __doc__)
    parser.add_argument("run", metavar="RUN", help="the folder of a finished run, or its address")
    parser.add_argument("out", nargs="?", metavar="OUT", type=Path, help="where it goes (default: RUN/export)")
    parser.add_argument("--merged", action="store_true", help="the base with the adapter in its weights, too")
    parser.add_argument("--gguf", action="store_true", help="the adapter for llama.cpp, too")
    parser.add_argument("--tables", choices=FORMS, default=FORMS[0], help="what tables are written as")
    args = parser.parse_args(arguments)
    from flsim.config.address import is_address  # not above: `flsim export --help` need not wait for torch
    from flsim.export.write import export
    from flsim.storage.looking import run_folder

    if args.out is None and is_address(args.run):
        parser.error(f"{args.run} is no folder here; say where the export goes: flsim export RUN OUT")
    out = Path(args.run) / "export" if args.out is None else args.out
    page, *files = export(run_folder(args.run), out, merged=args.merged, gguf=args.gguf, form=args.tables)
    print(f"{page} says what is what: {', '.join(str(file.relative_to(out)) for file in files)}")
    return 0
