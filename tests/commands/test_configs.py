"""Every example configuration loads as its job loads it, and the published networks are what they say."""

from pathlib import Path

import pytest
import torch

from genre_ray.commands.erase import EraseConfiguration
from genre_ray.commands.pipeline import JOBS, PipelineConfiguration, _prepare
from genre_ray.commands.verify import VerifyConfiguration
from genre_ray.config import load_configuration
from genre_ray.systems.system import find_system

CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"

PIPELINES = {"pipeline", "demo"}

# Jobs that no pipeline has as a step.
CARE = {"verify": VerifyConfiguration, "erase": EraseConfiguration}


def load(path):
    job = path.stem.partition("-")[0]
    cls = PipelineConfiguration if job in PIPELINES else CARE.get(job) or JOBS[job][0]
    return load_configuration(cls, ["--config", str(path)])


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_loads(path):
    configuration = load(path)
    if path.stem in PIPELINES:
        for number, step in enumerate(configuration.steps, 1):
            _prepare(step, number, configuration)


def test_every_job_has_an_example():
    jobs = {path.stem for path in CONFIGS.parent.glob("*.py")}
    assert jobs <= {path.stem for path in CONFIGS.glob("*.yaml")}


def build(name, labels):
    configuration = load(CONFIGS / f"{name}.yaml")
    system = find_system(configuration.system)
    with torch.device("meta"):  # half a gigabyte of weights that nobody looks at
        network = system.network((2669,), {"genres": labels}, system.resolve_network(configuration.network))
    return network, system.resolve_rules(configuration.rules)


def layers(network):
    """Every dense layer's (inputs, outputs, bias)."""
    linear = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
    return [(layer.in_features, layer.out_features, layer.bias is not None) for layer in linear]


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_baseline_is_the_published_one():
    network, rules = build("train", 315)
    assert layers(network) == [(2669, 256, True), (256, 315, True)]
    assert parameters(network) == 764_475
    assert rules == find_system("essentia").rules


def test_jku_2017():
    network, rules = build("train-jku", 315)
    assert layers(network) == [(2669, 4000, True)] * 3 + [(12000, 8000, False), (8000, 315, True)]
    assert [type(branch[1]).__name__ for branch in network.branches] == ["ReLU", "Tanh", "Sigmoid"]
    # Three branches with biases; the hidden layer without; scale and shift of batch normalisation; the output.
    assert parameters(network) == 3 * (2669 * 4000 + 4000) + 12000 * 8000 + 2 * 8000 + 8000 * 315 + 315
    assert [type(layer).__name__ for layer in network.hidden] == ["Dropout", "Linear", "Dropout", "BatchNorm1d", "ReLU"]
    assert [network.hidden[0].p, network.hidden[2].p, network.head[0].p, network.input_dropout.p] == [
        0.5,
        0.6,
        0.0,
        0.0,
    ]
    assert (rules.batch, rules.learning_rate) == (500, 1e-3)


def test_three_parallel_2048():
    network, _ = build("train-parallel-2048", 766)
    assert layers(network) == [(2669, 2048, True)] * 3 + [(6144, 1024, True), (1024, 766, True)]
    assert [type(branch[1]).__name__ for branch in network.branches] == ["ReLU", "Tanh", "Sigmoid"]
    assert parameters(network) == 3 * (2669 * 2048 + 2048) + 6144 * 1024 + 1024 + 1024 * 766 + 766
    assert [type(layer).__name__ for layer in network.hidden] == ["Dropout", "Linear", "ReLU"]
    assert [network.hidden[0].p, network.head[0].p, network.input_dropout.p] == [0.5, 0.5, 0.0]
