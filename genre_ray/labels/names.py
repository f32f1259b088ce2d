"""Normalise label names, so that different spellings of a genre in different taxonomies become equal.

The rule is that of the melband system (Schreiber, MediaEval 2018, subtask 2): keep only the letters of each level's
name, in lower case.
"""

import unicodedata

from genre_ray.errors import InputError
from genre_ray.labels.taxonomy import SEPARATOR

# AllMusic also has `pop/rock---europop`, which is another genre.
EXCEPTIONS = {"pop/rock---euro-pop": "poprock---euro-pop"}


def normalise(label: str) -> str:
    """Return the normalised name of a label: lower-case letters only, accents included.

    >>> normalise("Folk, World, & Country---Música 2-Step")
    'folkworldcountry---músicastep'

    Raises:
        InputError: a level of the label has no letter.
    """
    if label in EXCEPTIONS:
        return EXCEPTIONS[label]
    # A combining accent is not a letter, so it is first composed with its letter.
    levels = unicodedata.normalize("NFC", label).split(SEPARATOR)
    names = ["".join(character for character in level.lower() if character.isalpha()) for level in levels]
    if not all(names):
        raise InputError(
            f"cannot join the label {label!r} with other taxonomies: each of its levels needs at least one letter; "
            "rename the label"
        )
    return SEPARATOR.join(names)
