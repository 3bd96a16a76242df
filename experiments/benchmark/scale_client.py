"""The client of `scale`: it reads the adapter, computes for about two milliseconds, and returns a new adapter.

A plain Flower ClientApp, so that flsim's engine and Flower's run the very same code; both read and write the adapter by
`flsim.flower.messages`, which is several times as fast as Flower's own arrays. What it computes is timed apart and sent
along.
"""

import time

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

import flsim.flower.messages as wire
from flsim.flower.arrays import to_arrays
from flsim.timing import spend

COMPUTE = "compute"
"""The metric that holds the seconds of the device's own computing."""
_STEPS, _WIDTH = 7, 160

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One device's round."""
    adapter = wire.adapter_of(message)
    started = time.perf_counter()
    with spend("train"):
        moved = compute(int(context.node_config["partition-id"]))
    seconds = time.perf_counter() - started
    new = {name: tensor + moved for name, tensor in adapter.items()}
    metrics = MetricRecord({wire.NUM_EXAMPLES: 8, COMPUTE: seconds})
    return Message(RecordDict({wire.ARRAYS: to_arrays(new), wire.METRICS: metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Nothing to measure."""
    return Message(RecordDict({wire.METRICS: MetricRecord({wire.NUM_EXAMPLES: 1})}), reply_to=message)


def compute(device: int) -> np.float32:
    """A few products of matrices; a small number that depends on the device."""
    rng = np.random.default_rng(device)
    matrix = rng.normal(size=(_WIDTH, _WIDTH)).astype(np.float32)
    vectors = np.eye(_WIDTH, dtype=np.float32)
    for _ in range(_STEPS):
        vectors = np.tanh(vectors @ matrix)
    return np.float32(1e-3 * vectors.mean())
