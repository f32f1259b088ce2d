"""S0's networks have the published sizes and initial weights, and an embedding is taken with dropout off."""

import pytest
import torch

from genre_ray.errors import ConfigurationError
from genre_ray.models.essentia import EssentiaNetwork, EssentiaSettings


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("labels", "published"),
    [(766, 880_382), (315, 764_475), (327, 767_559), (296, 759_592)],
    ids=["AllMusic", "Discogs", "Lastfm", "Tagtraum"],
)
def test_published_parameter_counts(labels, published):
    assert parameters(EssentiaNetwork(2669, labels, EssentiaSettings())) == published


def test_published_layers_in_order():
    network = EssentiaNetwork(2669, 315, EssentiaSettings()).eval()
    (branch,), head = network.branches, network.head[1]
    rows = torch.randn(5, 2669)
    activations = torch.relu(rows @ branch[0].weight.T + branch[0].bias)
    torch.testing.assert_close(network(rows), activations @ head.weight.T + head.bias)
    assert [network.input_dropout.p, network.head[0].p] == [0.5, 0.5]


def test_initial_weights_are_uniform_and_biases_zero():
    torch.manual_seed(0)
    network = EssentiaNetwork(2669, 766, EssentiaSettings())
    for name, tensor in network.named_parameters():
        if name.endswith("bias"):
            assert not tensor.any()
        else:
            # The deviation of uniform(-a, a) is a / sqrt(3).
            assert -0.05 <= tensor.min() < -0.0499
            assert 0.0499 < tensor.max() <= 0.05
            assert tensor.std().item() == pytest.approx(0.05 / 3**0.5, rel=0.01)


def test_glorot_weights_are_bounded_by_both_widths():
    network = EssentiaNetwork(300, 10, EssentiaSettings(initial="glorot"))
    bound = (6 / (300 + 256)) ** 0.5
    assert 0.95 * bound < network.branches[0][0].weight.abs().max() <= bound


def test_embedding_is_the_activations_after_relu_without_dropout():
    network = EssentiaNetwork(20, 3, EssentiaSettings()).eval()
    rows = torch.randn(7, 20)
    embedding = network.embed(rows)
    assert embedding.shape == (7, 256)
    assert embedding.min() == 0
    torch.testing.assert_close(embedding, torch.relu(network.branches[0][0](rows)))
    torch.testing.assert_close(network.embed(rows), embedding, rtol=0, atol=0)


def test_dropout_works_in_training_only():
    network = EssentiaNetwork(20, 3, EssentiaSettings())
    rows = torch.randn(4, 20)
    assert not torch.equal(network.train()(rows), network(rows))
    assert torch.equal(network.eval()(rows), network(rows))


def test_batch_norm_comes_after_the_hidden_layers_dropout_and_before_its_relu():
    settings = EssentiaSettings.from_mapping(
        {
            "branches": {"units": 4, "activations": ["relu", "tanh", "sigmoid"]},
            "hidden": {"units": 5, "bias": False, "batch_norm": True, "dropout": 0.6},
        }
    )
    network = EssentiaNetwork(6, 2, settings)
    kinds = [type(layer).__name__ for layer in network.hidden]
    assert kinds == ["Dropout", "Linear", "Dropout", "BatchNorm1d", "ReLU"]
    assert [network.hidden[0].p, network.hidden[2].p, network.head[0].p] == [0.5, 0.6, 0.0]
    rows = torch.randn(9, 6)
    relu, tanh, sigmoid = (branch[0] for branch in network.eval().branches)
    wide = torch.cat([relu(rows).relu(), tanh(rows).tanh(), sigmoid(rows).sigmoid()], dim=1)
    # Fresh running statistics: mean 0, variance 1, epsilon 1e-5.
    embedding = torch.relu(wide @ network.hidden[1].weight.T / (1 + 1e-5) ** 0.5)
    torch.testing.assert_close(network.embed(rows), embedding)


def test_unknown_activation_is_refused():
    with pytest.raises(ConfigurationError, match=r"network: 'branches.activations.0'"):
        EssentiaSettings.from_mapping({"branches": {"activations": ["gelu"]}}, "network")
