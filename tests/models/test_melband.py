"""The melband network has the published size and computes what its Keras layers compute, restated in NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from genre_ray.features.essentia.melbands import BANDS, STATISTICS
from genre_ray.models.dropout import Dropout
from genre_ray.models.melband import MelbandNetwork, MelbandSettings

INPUTS = len(STATISTICS) * BANDS


def network(labels=7, **settings):
    torch.manual_seed(3)
    return MelbandNetwork(INPUTS, labels, MelbandSettings(**settings))


@pytest.mark.parametrize(
    ("labels", "published"), [(315, 685_479), (766, 918_646), (327, 691_683), (296, 675_656), (1423, 1_258_315)]
)
def test_published_parameter_counts(labels, published):
    with torch.device("meta"):
        built = MelbandNetwork(INPUTS, labels, MelbandSettings())
    # Keras counts the moving statistics; torch's counter of batches is not among them.
    state = [tensor for name, tensor in built.state_dict().items() if not name.endswith("num_batches_tracked")]
    assert sum(tensor.numel() for tensor in state) == published == 522_624 + 517 * labels


def restated(built, inputs):
    """The published layers, bands by channels as in Keras, in float64."""
    state = {name: tensor.double().numpy() for name, tensor in built.state_dict().items()}

    def convolution(values, name):  # values (bands, channels)
        kernel = state[f"{name}.weight"]  # (filters, channels, width)
        margin = kernel.shape[2] // 2
        padded = np.pad(values, ((margin, margin), (0, 0)))
        windows = [padded[start : start + kernel.shape[2]] for start in range(len(values))]
        return np.stack([np.einsum("kc,fck->f", window, kernel) for window in windows]) + state[f"{name}.bias"]

    def elu(values):
        return np.where(values > 0, values, np.exp(np.minimum(values, 0)) - 1)

    def normalised(values, name):
        scale = state[f"{name}.weight"] / np.sqrt(state[f"{name}.running_var"] + 1e-3)
        return (values - state[f"{name}.running_mean"]) * scale + state[f"{name}.bias"]

    logits = []
    for row in inputs.double().numpy():
        values = row.reshape(9, 40).T
        place = 0
        for block in range(4):
            values = elu(convolution(values, f"body.{place}"))
            place += 3
            if block < 3:
                values = (values[0::2] + values[1::2]) / 2
                place += 1
            values = normalised(values, f"body.{place}")
            place += 1
        assert values.shape == (5, 512)
        logits.append(normalised(elu(convolution(values, "head.0")), "head.2").mean(axis=0))
    return np.stack(logits)


def test_equals_the_published_layers_restated():
    built = network()
    generator = torch.Generator().manual_seed(5)
    for module in built.modules():
        if isinstance(module, nn.BatchNorm1d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    inputs = torch.rand(3, INPUTS, generator=generator)
    with torch.no_grad():
        found = built.eval()(inputs)
    assert found.shape == (3, 7)
    np.testing.assert_allclose(found.numpy(), restated(built, inputs), rtol=1e-4, atol=1e-4)


def test_moving_averages_keep_99_hundredths():
    built = network(dropout=0.0)
    first = next(module for module in built.modules() if isinstance(module, nn.BatchNorm1d))
    seen = []
    first.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    built.train()(torch.rand(20, INPUTS))
    torch.testing.assert_close(first.running_mean, 0.01 * seen[0].mean(dim=(0, 2)))
    torch.testing.assert_close(first.running_var, 0.99 + 0.01 * seen[0].var(dim=(0, 2)))


def test_glorot_uniform_and_zero_biases():
    for module in network().modules():
        if isinstance(module, nn.Conv1d):
            fan_in, fan_out = (
                channels * module.kernel_size[0] for channels in (module.in_channels, module.out_channels)
            )
            bound = (6 / (fan_in + fan_out)) ** 0.5
            assert 0.9 * bound < module.weight.abs().max() <= bound
            assert not module.bias.any()


def test_dropout_is_before_the_mean_of_bands_and_off_in_evaluation():
    kinds = [type(module).__name__ for module in network().body]
    block = ["Conv1d", "ELU", "Dropout", "AvgPool1d", "BatchNorm1d"]
    assert kinds == block * 3 + ["Conv1d", "ELU", "Dropout", "BatchNorm1d"]
    assert {module.p for module in network().modules() if isinstance(module, Dropout)} == {0.2}
    built, inputs = network().eval(), torch.rand(4, INPUTS)
    torch.testing.assert_close(built(inputs), built(inputs), rtol=0, atol=0)


def test_other_inputs_are_refused():
    with pytest.raises(ValueError, match="expected 9 statistics of 40 bands, found 2669 inputs"):
        MelbandNetwork(2669, 3, MelbandSettings())
