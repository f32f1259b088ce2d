"""The names of the 2669 feature columns of an AcousticBrainz low-level document.

The columns are all numbers under `lowlevel`, `rhythm` and `tonal`, and one-hot columns for the four strings. Two fields
are left out: `rhythm.beats_position`, because its length varies, and the median of `rhythm.beats_loudness_band_ratio`,
because some documents lack it. Columns are sorted by name as strings (`….dmean.1`, `….dmean.10`, `….dmean.2`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from genre_ray.features.spec import FeatureSpec
from genre_ray.sources.documents.parse import DocumentVersion

STATISTICS = ("dmean", "dmean2", "dvar", "dvar2", "max", "mean", "median", "min", "var")
KEYS = ("A", "A#", "B", "C", "C#", "D", "D#", "E", "F", "F#", "G", "G#")
SCALES = ("major", "minor")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A numeric field `<room>.<name>` of a document.

    Attributes:
        room: the section of the document: `lowlevel`, `rhythm` or `tonal`.
        name: name of the field.
        statistics: keys of the field, each with one value; empty if the field is a value itself.
        shape: shape of a value: () for a number, (n,) for a list, (n, n) for a matrix.
    """

    room: str
    name: str
    statistics: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()

    def columns(self) -> Iterator[str]:
        """Yield the names of its columns in the order of its values: by statistic, then row, then position."""
        base = f"{self.room}.{self.name}"
        for value in [f"{base}.{statistic}" for statistic in self.statistics] or [base]:
            for place in product(*map(range, self.shape)):
                yield ".".join([value, *map(str, place)])


@dataclass(frozen=True, slots=True)
class Category:
    """A string field `tonal.<name>`, with one column `tonal.<name>_<value>` for each possible value."""

    name: str
    values: tuple[str, ...]

    def columns(self) -> Iterator[str]:
        """Yield the names of its columns in the order of `values`."""
        return (f"tonal.{self.name}_{value}" for value in self.values)


_SCALARS = {
    "lowlevel": """
        barkbands_crest barkbands_flatness_db barkbands_kurtosis barkbands_skewness barkbands_spread
        dissonance erbbands_crest erbbands_flatness_db erbbands_kurtosis erbbands_skewness erbbands_spread hfc
        melbands_crest melbands_flatness_db melbands_kurtosis melbands_skewness melbands_spread pitch_salience
        silence_rate_20dB silence_rate_30dB silence_rate_60dB spectral_centroid spectral_complexity
        spectral_decrease spectral_energy spectral_energyband_high spectral_energyband_low
        spectral_energyband_middle_high spectral_energyband_middle_low spectral_entropy spectral_flux
        spectral_kurtosis spectral_rms spectral_rolloff spectral_skewness spectral_spread spectral_strongpeak
        zerocrossingrate
    """,
    "rhythm": """
        beats_loudness bpm_histogram_first_peak_bpm bpm_histogram_first_peak_spread
        bpm_histogram_first_peak_weight bpm_histogram_second_peak_bpm bpm_histogram_second_peak_spread
        bpm_histogram_second_peak_weight
    """,
    "tonal": "chords_strength hpcp_entropy",
}
_SINGLE = {
    "lowlevel": "average_loudness dynamic_complexity",
    "rhythm": "beats_count bpm danceability onset_rate",
    "tonal": """
        chords_changes_rate chords_number_rate key_strength tuning_diatonic_strength
        tuning_equal_tempered_deviation tuning_frequency tuning_nontempered_energy_ratio
    """,
}
_VECTORS = {
    "lowlevel": {
        "barkbands": 27,
        "erbbands": 40,
        "melbands": 40,
        "spectral_contrast_coeffs": 6,
        "spectral_contrast_valleys": 6,
    },
    "tonal": {"hpcp": 36},
}

DESCRIPTORS: tuple[Descriptor, ...] = (
    *(Descriptor(room, name, STATISTICS) for room, names in _SCALARS.items() for name in names.split()),
    *(Descriptor(room, name) for room, names in _SINGLE.items() for name in names.split()),
    *(
        Descriptor(room, name, STATISTICS, (bands,))
        for room, names in _VECTORS.items()
        for name, bands in names.items()
    ),
    Descriptor("rhythm", "beats_loudness_band_ratio", tuple(s for s in STATISTICS if s != "median"), (6,)),
    Descriptor("tonal", "chords_histogram", (), (24,)),
    Descriptor("tonal", "thpcp", (), (36,)),
    *(Descriptor("lowlevel", name, ("mean",), (13,)) for name in ("gfcc", "mfcc")),
    *(Descriptor("lowlevel", name, ("cov", "icov"), (13, 13)) for name in ("gfcc", "mfcc")),
)
"""All numeric fields, in the order in which `flatten` reads them."""

CATEGORIES: tuple[Category, ...] = (
    Category("chords_key", KEYS),
    Category("chords_scale", SCALES),
    Category("key_key", KEYS),
    Category("key_scale", SCALES),
)
"""All string fields. `flatten` reads them after the numbers."""

READING_ORDER: tuple[str, ...] = tuple(
    column for fields in (DESCRIPTORS, CATEGORIES) for field in fields for column in field.columns()
)
"""The columns in the order in which `flatten` reads them."""

FEATURE_COLUMNS: tuple[str, ...] = tuple(sorted(READING_ORDER))
"""The columns in the order of the features table: 2669 sorted names."""

ESSENTIA = FeatureSpec.of_columns("essentia-2669", FEATURE_COLUMNS)
"""The specification of the features tables that `ingest` writes."""

ABSENT_PEAK = "bpm_histogram_first_peak_spread"
"""The descriptor under `rhythm` that documents of version "music 2.0" lack."""

LONE_PEAKS: tuple[str, ...] = tuple(
    name for name in _SCALARS["rhythm"].split() if "_peak_" in name and name != ABSENT_PEAK
)
"""The descriptors under `rhythm` that are single numbers in documents of version "music 2.0"."""


def missing_columns(version: DocumentVersion) -> tuple[str, ...]:
    """Return the columns that documents of a version lack. They are NaN in the features table."""
    if version is DocumentVersion.MUSIC_1:
        return ()
    return tuple(column for column in FEATURE_COLUMNS if column.startswith(f"rhythm.{ABSENT_PEAK}."))
