"""Names of several taxonomies become comparable by the published rule, letter by letter."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre_ray.errors import InputError
from genre_ray.labels.names import normalise


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("rock", "rock"),
        ("Funk / Soul", "funksoul"),
        ("folk, world, & country---raï", "folkworldcountry---raï"),
        ("hip hop---trip-hop", "hiphop---triphop"),
        ("electronic---2-step", "electronic---step"),
        ("rock---70s", "rock---s"),
        ("pop/rock---rock en español", "poprock---rockenespañol"),
        ("electronic---musique concrète", "electronic---musiqueconcrète"),
        ("pop/rock---europop", "poprock---europop"),
        ("pop/rock---euro-pop", "poprock---euro-pop"),
        # The exception is this one label, not the name.
        ("electronic---euro-pop", "electronic---europop"),
        ("Pop/Rock---Euro-Pop", "poprock---europop"),
        ("日本---演歌", "日本---演歌"),
    ],
)
def test_published_rule(label, name):
    assert normalise(label) == name


@pytest.mark.parametrize("label", ["rock---1990", "80", "&---rock", "rock---"])
def test_a_level_without_letters_is_refused(label):
    with pytest.raises(InputError, match=r"each of its levels needs at least one letter; rename the label"):
        normalise(label)


LEVELS = st.lists(st.text(st.characters(exclude_characters="-"), min_size=1), min_size=1, max_size=3)


@given(LEVELS)
def test_only_letters_remain_and_spelling_of_accents_does_not_matter(levels):
    label = "---".join(levels)
    try:
        name = normalise(label)
    except InputError:
        assert any(not any(map(str.isalpha, unicodedata.normalize("NFC", level).lower())) for level in levels)
        return
    assert len(name.split("---")) == len(levels)
    assert all(level.isalpha() for level in name.split("---"))
    for form in ("NFC", "NFD"):
        assert normalise(unicodedata.normalize(form, label)) == name
