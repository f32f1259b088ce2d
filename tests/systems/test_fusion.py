"""A fusion's inputs are L2-normalised embeddings, and 0 for what a row lacks."""

import numpy as np
import pytest
import torch

from genre_ray.features.scaling import Scaling
from genre_ray.models.description import PreparationDescription
from genre_ray.models.outputs import Sigmoid
from genre_ray.models.preparation import Standardise
from genre_ray.systems.fusion import Embeddings
from genre_ray.systems.model import Model
from genre_ray.systems.system import find_system


def model_of(labels):
    system = find_system("essentia")
    preparation = Standardise.of(Scaling(np.arange(6.0), np.full(6, 0.5)), clip_sd=4.0)
    return Model(system, system.resolve_network({}), preparation, {"genres": Sigmoid(labels)})


@pytest.fixture
def models():
    torch.manual_seed(1)
    return [model_of(3), model_of(5)]


def test_each_embedding_has_length_one(models):
    embeddings = Embeddings(models, [0, 0])
    rows = torch.randn(8, 6) * 5
    prepared = embeddings(rows)
    assert prepared.shape == (8, *embeddings.shape) == (8, 512)
    for place, model in enumerate(models):
        part = prepared[:, 256 * place : 256 * (place + 1)]
        torch.testing.assert_close(part.norm(dim=1), torch.ones(8))
        raw = model.network.embed(((rows - torch.arange(6)) * 0.5).clamp(-4, 4))
        torch.testing.assert_close(part, raw / raw.norm(dim=1, keepdim=True))


def test_embeddings_stay_without_dropout_and_gradient(models):
    embeddings = Embeddings(models, [0, 0])
    rows = torch.randn(4, 6)
    torch.testing.assert_close(embeddings.train()(rows), embeddings(rows), rtol=0, atol=0)
    assert not embeddings(rows).requires_grad


def test_a_modality_that_a_row_lacks_is_zero_and_changes_no_other(models):
    embeddings = Embeddings(models, [1, 0])
    one, other = torch.randn(4, 6), torch.randn(4, 6)
    whole = embeddings(one, other)
    lacking = one.clone()
    lacking[2] = torch.nan
    found = embeddings(lacking, other)
    assert not found[2, 256:].any()
    found[2, 256:] = whole[2, 256:]
    torch.testing.assert_close(found, whole, rtol=0, atol=0)


def test_a_description_and_the_tensors_make_it_again(models):
    original = Embeddings(models, [1, 0])
    described = PreparationDescription.model_validate_json(original.describe().model_dump_json(), strict=True)
    again = Embeddings.from_description(described)
    again.load_state_dict(original.state_dict())
    one, other = torch.randn(4, 6), torch.randn(4, 6)
    torch.testing.assert_close(again(one, other), original(one, other), rtol=0, atol=0)
    assert (again.describe(), again.shape) == (original.describe(), original.shape)
