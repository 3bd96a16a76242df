"""A question that is sent with a device's own draft beside it, so that the cloud may correct it.

The words of `cloud.draft` make it a question of its own: it has its own quote, its own place in journals and caches,
and its answer is charged like any other. Its right answer is that of the question within it.
"""

from dataclasses import replace

from flsim.cloud.protocol import Cloud
from flsim.config.given import shown
from flsim.config.model import ModelConfig
from flsim.config.schema import CloudConfig, ConfigError
from flsim.problems.problem import Problem


def with_draft(problem: Problem, draft: str, template: str | None) -> Problem:
    """The problem as it is sent.

    Args:
        problem: what the device was asked.
        draft: what it said itself; where that is nothing but white space, the problem is sent as it is.
        template: `cloud.draft`; None sends every problem as it is.
    """
    if template is None or not draft.strip():
        return problem
    return replace(problem, question=template.format(question=problem.question, draft=draft.strip()))


def as_sent(problem: Problem, draft: str, config: CloudConfig) -> Problem:
    """The problem in the words of `cloud.hint`, with a draft or without, or of `cloud.draft`, if there are any."""
    if config.hint is None:
        return with_draft(problem, draft, config.draft)
    return replace(problem, question=config.hint.format(question=problem.question, draft=draft.strip()))


def refuse_draft(cloud: Cloud, template: str | None, model: ModelConfig) -> None:
    """Refuse to send drafts to a cloud that cannot read them, or from a model that makes none.

    Args:
        cloud: what is asked.
        template: `cloud.draft`; None refuses nothing.
        model: what devices hold.

    Raises:
        ConfigError: naming cloud or model, and the mend.
    """
    if template is None:
        return
    if not getattr(cloud, "reads_drafts", False):
        raise ConfigError(
            f"cloud.draft={shown(template)} cannot be sent to {type(cloud).__name__}, which looks questions up or "
            f"reads no English; leave it out, or take a server (flsim.cloud.endpoint:Endpoint), the folder of a "
            f"language model (flsim.cloud.checkpoint:Checkpoint), or a class of your own with reads_drafts = True"
        )
    if not model.drafts:
        raise ConfigError(
            f"cloud.draft={shown(template)} sends what a device said before it asked, and model.path={model.path} with "
            f"model.request={model.request} is taken to ask before it answers; set model.request=after, or leave the "
            f"draft out"
        )


def refuse_hint(cloud: Cloud, config: CloudConfig) -> None:
    """Refuse to ask for hints in words that the cloud cannot read, or in two ways at once.

    Args:
        cloud: what is asked.
        config: with `cloud.hint`; None refuses nothing.

    Raises:
        ConfigError: naming the cloud, and the mend.
    """
    if config.hint is None:
        return
    if config.draft is not None:
        raise ConfigError(
            "cloud.hint and cloud.draft both word what is sent; {draft} may stand in cloud.hint, leave cloud.draft out"
        )
    if not getattr(cloud, "reads_drafts", False):
        raise ConfigError(
            f"cloud.hint={shown(config.hint)} cannot be sent to {type(cloud).__name__}, which looks questions up or "
            f"reads no English; leave it out, so that a hint is the beginning of its answer, or take a server "
            f"(flsim.cloud.endpoint:Endpoint) or the folder of a language model (flsim.cloud.checkpoint:Checkpoint)"
        )
