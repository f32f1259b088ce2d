"""Label names made comparable between taxonomies that spell the same genre in their own ways.

The rule of the melband system (Schreiber, MediaEval 2018, subtask 2): of each level's name only the letters are
kept, in lower case.
"""

import unicodedata

from genre_ray.errors import InputError
from genre_ray.labels.taxonomy import SEPARATOR

# AllMusic has `pop/rock---europop` too, and they are two genres there.
EXCEPTIONS = {"pop/rock---euro-pop": "poprock---euro-pop"}


def normalise(label: str) -> str:
    """The name that labels of several taxonomies share. Digits go, accents stay.

    >>> normalise("Folk, World, & Country---Música 2-Step")
    'folkworldcountry---músicastep'

    Raises:
        InputError: a level of the label has no letter.
    """
    if label in EXCEPTIONS:
        return EXCEPTIONS[label]
    # An accent that is a character of its own is no letter: it is put on its letter first.
    levels = unicodedata.normalize("NFC", label).split(SEPARATOR)
    names = ["".join(character for character in level.lower() if character.isalpha()) for level in levels]
    if not all(names):
        raise InputError(
            f"expected a letter in every level of a label that is joined to other taxonomies, found {label!r}; "
            "rename the label"
        )
    return SEPARATOR.join(names)
