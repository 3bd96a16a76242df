"""What a run's asking rule, its mode of help and its cloud cannot do together, refused before it begins."""

from typing import Any

from clients.asking.rule import AskingRule, asks_all
from clients.helping.helping import ASK, Ask, Helping
from clients.helping.hint import Hint
from flsim.cloud.protocol import Cloud, asks_all_tests
from flsim.config.schema import Config, ConfigError


def refuse_rule(asking: Any, helping: Helping, cloud: Cloud, config: Config) -> None:
    """Refuse what is no rule, and a rule that would see answers of the cloud which it cannot.

    Raises:
        ValueError: naming both, and the mend.
    """
    if isinstance(asking, type) or not isinstance(asking, AskingRule):
        raise ValueError(
            f"asking={asking!r} is no rule for asking; name one, such as "
            f"client.asking.path=clients.asking.scores:Confidence, or pass an object with `decide`"
        )
    if asks_all(asking) and not asks_all_tests(cloud, config.evaluation.cloud):
        raise ValueError(
            f"client.asking={type(asking).__name__} sends every test prompt to the cloud, and only those that a "
            f"budget grants may go there; set evaluation.cloud=all, which buys each of them once, or take another "
            f"rule"
        )
    if asks_all(asking) and config.cloud.draft is not None:
        raise ValueError(
            f"client.asking={type(asking).__name__} looks at the cloud's answers before it decides, and with "
            f"cloud.draft nothing is sent before there are drafts; leave the draft out, or take another rule"
        )
    if asks_all(asking) and (isinstance(helping, Hint) or not isinstance(helping, Ask)):
        raise ValueError(
            f"client.asking={type(asking).__name__} looks at the cloud's answers before it decides, and with "
            f"client.helping={type(helping).__name__} these are not what a device says in the end; take another "
            f"rule"
        )


def refuse_mode(helping: Helping, cloud: Cloud, config: Config, *, asked: bool) -> None:
    """Refuse a mode of help that this cloud, this model or this run has no use for.

    Args:
        helping: the mode.
        cloud: of the run.
        config: likewise.
        asked: whether anybody asks for help, while devices learn or when they are measured.

    Raises:
        ValueError: naming both, and the mend.
        ConfigError: likewise, by the mode's own checks.
    """
    if helping != ASK and not asked:
        raise ValueError(
            f"client.helping={type(helping).__name__} has no effect: nobody asks; name a rule that does, such as "
            f"client.asking.path=clients.asking.scores:Confidence, or leave it out"
        )
    helping.check(cloud, config.cloud.access)
    if helping.chosen_by_time is not None and config.system is None:
        raise ConfigError(
            f"client.helping={type(helping).__name__} chooses by seconds, which are only known in virtual time; set "
            f"system, such as system.stands_for.cloud=1.5, or {helping.chosen_by_time}"
        )
    helping.check_model(cloud, config.model)
    if not isinstance(helping, Ask) and (config.cloud.draft is not None or config.cloud.hint is not None):
        raise ValueError(
            f"cloud.draft and cloud.hint word what the cloud is to answer, and with "
            f"client.helping={type(helping).__name__} it does not answer by itself; leave them out"
        )
