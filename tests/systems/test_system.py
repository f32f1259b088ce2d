"""A system's defaults are its published rules, and what is not understood in an override is refused."""

import pytest

from genre_ray.errors import ConfigurationError
from genre_ray.systems.system import find_system


def test_published_rules():
    for name in ("essentia", "fusion"):
        assert find_system(name).rules.model_dump() == {
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "batch": 32,
            "max_epochs": 100,
            "patience": 4,
            "seed": 0,
        }


def test_published_rules_of_the_melband_network():
    rules = find_system("melband").rules
    assert (rules.learning_rate, rules.batch, rules.max_epochs, rules.patience) == (1e-3, 1000, 500, 50)
    assert rules.weight_decay == 0


def test_overrides_replace_only_what_they_name():
    rules = find_system("essentia").resolve_rules({"batch": 500})
    assert (rules.batch, rules.max_epochs) == (500, 100)


@pytest.mark.parametrize("overrides", [{"bach": 500}, {"batch": 0}, {"learning_rate": -1}])
def test_wrong_overrides_are_refused(overrides):
    with pytest.raises(ConfigurationError, match=f"rules.*{next(iter(overrides))}"):
        find_system("essentia").resolve_rules(overrides)


def test_unknown_system_is_refused():
    with pytest.raises(ConfigurationError, match="unknown system 'S9'; known are essentia, fusion, melband"):
        find_system("S9")
