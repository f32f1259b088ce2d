"""The ROC AUC of an epoch is scikit-learn's to some thousandths, and adds up over workers."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genre_ray.models.outputs import UNKNOWN
from genre_ray.training.ranking import RankHistogram


@pytest.mark.parametrize("seed", range(3))
def test_it_is_close_to_sorting(seed):
    generator = np.random.default_rng(seed)
    targets = (generator.random((4000, 6)) < [0.3, 0.1, 0.02, 0.5, 0.7, 0.0]).astype(np.int8)
    logits = generator.normal(size=(4000, 6)) * 3 + targets * [0.5, 1, 3, 0.1, 0.0, 1] - 4
    scores = torch.sigmoid(torch.tensor(logits, dtype=torch.float32))
    histogram = RankHistogram(6, torch.device("cpu"))
    for rows in torch.arange(4000).split(900):
        histogram.add(scores[rows], torch.tensor(targets)[rows])
    found = histogram.roc_auc({"all": np.arange(6), "two": np.array([2, 0]), "none": np.array([5])})
    each = [roc_auc_score(targets[:, label], scores[:, label]) for label in range(5)]
    assert set(found) == {"all", "two"}
    assert found["all"] == pytest.approx(np.mean(each), abs=3e-3)
    assert found["two"] == pytest.approx(np.mean([each[0], each[2]]), abs=3e-3)


def test_unknown_targets_do_not_count_and_workers_add_up():
    scores = torch.tensor([[0.1], [0.9], [0.2], [0.8], [0.5]])
    targets = torch.tensor([[0], [1], [1], [0], [UNKNOWN]], dtype=torch.int8)
    one, other = (RankHistogram(1, torch.device("cpu")) for _ in range(2))
    one.add(scores[:2], targets[:2])
    other.add(scores[2:], targets[2:])
    one.counts += other.counts
    assert one.roc_auc({"t": np.array([0])}) == {"t": 0.75}


def test_equal_scores_count_half():
    histogram = RankHistogram(1, torch.device("cpu"))
    histogram.add(torch.full((4, 1), 0.3), torch.tensor([[0], [1], [1], [0]]))
    assert histogram.roc_auc({"t": np.array([0])}) == {"t": 0.5}
