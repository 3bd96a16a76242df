"""Teach the small model of a config the form of an answer before any run, and keep what it learned as an adapter.

Examples:
  flsim warmup my_config.yaml warm warmup.steps=30
  flsim warmup my_config.yaml warm warmup.steps=30 client.policy=token warmup.request_share=0.3
  flsim run my_config.yaml model.adapter=warm    # a run that starts from it

A run does the same by itself where its config has warmup.steps above 0, and books what it takes; a run that starts from
the folder does not know what that took, which stands in warmup.json there. flsim explain warmup says what can be set.
"""

from experiments.command.terminal import Parser, bold
from flsim.text import amount


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser("warmup", __doc__, settings=True)
    parser.add_argument("config", metavar="CONFIG", help="a name (flsim list configs) or a YAML file of your own")
    parser.add_argument("folder", metavar="FOLDER", help="where the adapter is to lie")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings that go over the file's")
    args = parser.parse_intermixed_args(arguments)
    if "=" in args.folder or "=" in args.config:
        parser.error("give a config and a folder first, such as my_config.yaml warm")
    from flsim.loop.run import warm_up  # not above: --help need not wait for torch

    facts = warm_up(args.config, args.folder, args.settings).facts
    print(
        f"{args.folder} is there: {amount(facts['lessons'])} lessons on {amount(facts['answered'])} questions, "
        f"{amount(facts['requests'])} of them the help request; {amount(facts['learned_tokens'])} tokens learned, "
        f"{amount(facts['sampled_tokens'])} sampled, {amount(facts['cloud_calls'])} cloud calls (money "
        f"{amount(facts['cloud_money'])}). A run starts from it by\n\n  {bold(f'model.adapter={args.folder}')}"
    )
    return 0
