"""The client of `writers`: what a user of Flower writes, on the examples and the network of our side.

It loads the state, makes an epoch of SGD over the batches, and sends the state. Each actor reads the examples once.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.supervised import SupervisedApp
from flsim.config.load import load_config
from flsim.config.schema import Config
from flsim.devices import device_name
from flsim.flower.contract import client_of
from flsim.seeding import generator

WORKERS = 2
NETWORKS: dict[str, dict[str, Any]] = {"LEAF": {}, "narrow": {"channels": [8, 16], "hidden": 64}}
"""Settings of `LeafCnn` by name."""
_PICTURES, _CLASSES, _SIDE = 28, 62, 28


app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One device's round."""
    config, arrays = message.content.config_records["config"], message.content.array_records["arrays"]
    world = world_of(str(config["setting"]))
    name, round_ = device_name(int(context.node_config["partition-id"])), int(str(config["round"]))
    model, own = world.module, world.learner
    model.load_state_dict(arrays.to_torch_state_dict())
    optimizer = torch.optim.SGD(model.parameters(), own.lr)
    for rows in world.examples.order(name, round_, epochs=1, size=own.batch, seed=world.config.seed):
        inputs, labels, _ = world.examples.batch([rows], [name], round_)
        optimizer.zero_grad()
        F.cross_entropy(model(inputs[0]), labels[0]).backward()
        optimizer.step()
    metrics = MetricRecord({"num-examples": world.examples.count(name, round_)})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)


@lru_cache(maxsize=1)
def world_of(setting: str) -> SupervisedApp:
    """The examples and the network of a setting, which is `config_of`'s arguments as JSON."""
    network, writers, rounds, folder = json.loads(setting)
    made = client_of(config_of(network, writers, rounds, Path(folder)))
    assert isinstance(made, SupervisedApp)
    torch.set_num_threads(1)
    return made


def config_of(network: str, writers: int, rounds: int, folder: Path) -> Config:
    """The run of our side, and the examples of both; the pictures lie in the folder."""
    pictures = folder / "pictures.npz"
    if not pictures.is_file():
        rng = generator(0, "benchmark", "writers")
        x = rng.integers(0, 256, (writers * _PICTURES, _SIDE, _SIDE), dtype=np.uint8)  # (N, 28, 28)
        y = np.array([f"{label:02d}" for label in rng.integers(0, _CLASSES, len(x))])
        y[:_CLASSES] = [f"{label:02d}" for label in range(_CLASSES)]  # all of them, however few writers
        np.savez(pictures, x=x, y=y, user=np.repeat(np.arange(writers), _PICTURES).astype(str))
    return load_config(
        None,
        [
            f"run_dir={folder / 'run'}",
            f"rounds={rounds + 2}",
            f"fleet.devices={writers}",
            f"data={{writing: {{kind: images, root: {folder}, partition: evenly}}}}",
            "data.writing.settings={files: {all: pictures.npz}}",
            "stream.phases=[[writing]]",
            "client={path: 'clients.supervised:Supervised', model: 'flsim.models.cnn:LeafCnn', lr: 0.01}",
            f"client.model_settings={json.dumps(NETWORKS[network])}",
            "strategy={path: 'strategies.fedavg:FedAvg'}",
            f"evaluation={{every_rounds: {rounds + 2}, prompts_per_task: 1, own: never}}",
            f"engine={{workers: {WORKERS}, pack: 50, stream: 0}}",
        ],
    )
