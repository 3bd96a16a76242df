"""TRL under stock Flower: the ClientApp, as a user would write it.

The module is importable, so each of Flower's actors loads the model once; the adapter comes and goes in the message.
"""

import gc
from functools import lru_cache

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

import flsim.flower.messages as wire
from experiments.benchmark.setting import Round, Setting
from experiments.benchmark.trl_device import TrlDevice
from flsim.flower.arrays import to_arrays

app = ClientApp()


@lru_cache(maxsize=1)
def _resident(setting: str) -> TrlDevice:
    return TrlDevice(Setting.from_json(setting))


@lru_cache(maxsize=1)
def _freeze() -> None:
    """Once per actor: each training begins with a garbage collection, which leaves frozen objects alone."""
    gc.collect()
    gc.freeze()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One device's round."""
    config = message.content.config_records[wire.CONFIG]
    trl = _resident(str(config["setting"]))
    round_ = Round(wire.round_of(message), int(str(config["seed"])), False)
    before = trl.tokens, trl.responses
    adapter = trl.learn(int(context.node_config["partition-id"]), round_, wire.adapter_of(message))
    metrics: dict[str, int | float] = {
        wire.NUM_EXAMPLES: trl.setting.steps * trl.setting.prompts,
        "tokens": trl.tokens - before[0],
        "responses": trl.responses - before[1],
    }
    if wire.flag(message, "freeze"):
        _freeze()
    content = RecordDict({wire.ARRAYS: to_arrays(adapter), wire.METRICS: MetricRecord(metrics)})  # type: ignore[arg-type]
    return Message(content, reply_to=message)
