"""S0's fusion head is one dense layer over the side-by-side embeddings."""

import pytest
import torch

from genre_ray.models.fusion import FusionNetwork, FusionSettings


@pytest.mark.parametrize("labels", [766, 315, 327, 296])
def test_published_fusion_of_four_embeddings(labels):
    network = FusionNetwork(4 * 256, labels, FusionSettings())
    assert sum(parameter.numel() for parameter in network.parameters()) == 1024 * labels + labels
    weight, bias = network.head[1].weight, network.head[1].bias
    assert weight.abs().max() <= 0.05
    assert not bias.any()
    rows = torch.randn(3, 1024)
    torch.testing.assert_close(network.eval()(rows), rows @ weight.T + bias)
    assert network.head[0].p == 0.5
