"""The offline benchmark's sets as tasks of mteb.

Their revision is Debian's edition, so results of another one are not taken for these.
"""

from typing import Any, cast

from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTask, AbsTaskBitextMining, AbsTaskClassification, AbsTaskRetrieval
from mteb.abstasks.clustering import AbsTaskClustering
from mteb.abstasks.task_metadata import TaskMetadata
from sklearn.neighbors import NearestCentroid

from polyvec.errors import DownloadError
from polyvec.evaluate import offline_sets as sets
from polyvec.sources.descriptions import Descriptions, descriptions
from polyvec.sources.help_pages import HelpPages, help_pages

CODES = {
    "ca": "cat-Latn", "cs": "ces-Latn", "da": "dan-Latn", "de": "deu-Latn", "el": "ell-Grek",
    "en": "eng-Latn", "es": "spa-Latn", "et": "est-Latn", "fi": "fin-Latn", "fr": "fra-Latn",
    "hu": "hun-Latn", "id": "ind-Latn", "it": "ita-Latn", "ja": "jpn-Jpan", "ko": "kor-Hang",
    "nl": "nld-Latn", "pl": "pol-Latn", "pt": "por-Latn", "pt-BR": "por-Latn", "ru": "rus-Cyrl",
    "sk": "slk-Latn", "sr": "srp-Cyrl", "sv": "swe-Latn", "tr": "tur-Latn", "uk": "ukr-Cyrl",
    "vi": "vie-Latn", "zh-CN": "zho-Hans",
}  # fmt: skip
"""Languages as mteb names them: ISO 639-3 and script."""


def _metadata(
    name: str,
    kind: str,
    about: str,
    languages: tuple[str, ...],
    main_score: str,
    prompt: Any,  # noqa: ANN401 (a text, or one a side)
    *,
    with_english: bool = False,
) -> TaskMetadata:
    codes = {x: [CODES[x], *(["eng-Latn"] if with_english else [])] for x in languages}
    return TaskMetadata.model_validate(
        {
            "name": name,
            "description": about,
            "dataset": {"path": "polyvec/debian", "revision": "unknown"},
            "reference": "https://www.debian.org/international/l10n/ddtp",
            "type": kind,
            "category": "t2c" if kind in ("Classification", "Clustering") else "t2t",
            "modalities": ["text"],
            "eval_splits": ["test"],
            "eval_langs": codes,
            "main_score": main_score,
            "date": ("2000-01-01", "2026-01-01"),
            "domains": ["Written", "Engineering"],
            "task_subtypes": [],
            "license": "not specified",
            "annotations_creators": "derived",
            "dialect": [],
            "sample_creation": "found",
            "bibtex_citation": "",
            "prompt": prompt,
            "is_public": True,
        }
    )


class _Offline:
    """What all of them share: texts given at the start, an edition for a revision."""

    metadata: TaskMetadata
    data_loaded: bool

    def with_edition(self, edition: str) -> None:
        """State which edition of the source the texts are from."""
        dataset = {**self.metadata.dataset, "revision": edition}
        self.metadata = self.metadata.model_copy(update={"dataset": dataset})


class HelpBitextMining(_Offline, AbsTaskBitextMining):
    """LibreOffice's help: which of 150 English paragraphs is this one's translation?"""

    metadata = _metadata(
        "LibreOfficeHelpBitextMining",
        "BitextMining",
        "Paragraphs of LibreOffice's help in 22 languages, each to its English original among 150.",
        sets.HELP_LANGUAGES,
        "accuracy",
        "Retrieve parallel sentences",
        with_english=True,
    )

    def __init__(self, pages: HelpPages) -> None:
        super().__init__()
        self.pages = pages

    def load_data(self, *_: object, **__: object) -> None:
        """Build the pairs."""
        self.dataset = {
            language: DatasetDict(
                test=Dataset.from_dict({"sentence1": pairs.other, "sentence2": pairs.english})
            )
            for language, pairs in sets.help_pairs(self.pages).items()
        }
        self.data_loaded = True


class _DescriptionRetrieval(_Offline, AbsTaskRetrieval):
    def __init__(self, texts: Descriptions) -> None:
        super().__init__()
        self.tests = texts.of("test")

    def build(self) -> dict[str, sets.Search]:
        """Return queries, documents and what is right, by language."""
        raise NotImplementedError

    def load_data(self, *_: object, **__: object) -> None:
        """Build queries, documents and what is right."""
        found = self.build()
        self.hf_subsets = [language for language, search in found.items() if search.queries]
        self.dataset = {x: {"test": cast("Any", _split(found[x]))} for x in self.hf_subsets}
        self.data_loaded = True


def _split(search: sets.Search) -> dict[str, Any]:
    def rows(texts: dict[str, str]) -> Dataset:
        return Dataset.from_dict({"id": list(texts), "text": list(texts.values())})

    right = {query: {document: 1} for query, document in search.right.items()}
    documents = rows(search.documents).add_column("title", [""] * len(search.documents))
    return {
        "queries": rows(search.queries),
        "corpus": documents,
        "relevant_docs": right,
        "top_ranked": None,
    }


_SHORT = "Given a one-line description of a software package, retrieve its translation"
_LONG = "Given a one-line description of a software package, retrieve its full description"


class ShortRetrieval(_DescriptionRetrieval):
    """One-line descriptions to their English originals among 2,000."""

    metadata = _metadata(
        "DebianShortDescriptionRetrieval",
        "Retrieval",
        "Debian's one-line package descriptions in 18 languages, each to the English one.",
        sets.LANGUAGES,
        "ndcg_at_1",
        {"query": _SHORT, "document": _SHORT},
        with_english=True,
    )

    def build(self) -> dict[str, sets.Search]:
        """Return the set."""
        return sets.shorts(self.tests)


class CrosslingualRetrieval(_DescriptionRetrieval):
    """One-line descriptions to English long ones among 2,000."""

    metadata = _metadata(
        "DebianCrosslingualRetrieval",
        "Retrieval",
        "Debian's one-line package descriptions in 18 languages to English long ones.",
        sets.LANGUAGES,
        "ndcg_at_10",
        {"query": _LONG},
        with_english=True,
    )

    def build(self) -> dict[str, sets.Search]:
        """Return the set."""
        return sets.crosslingual(self.tests)


class CrosslingualHardRetrieval(_DescriptionRetrieval):
    """The same, where BM25 fails: names and English words give nothing away."""

    metadata = _metadata(
        "DebianCrosslingualHardRetrieval",
        "Retrieval",
        "DebianCrosslingualRetrieval's queries whose document is not among BM25's first ten.",
        sets.LANGUAGES,
        "ndcg_at_10",
        {"query": _LONG},
        with_english=True,
    )

    def build(self) -> dict[str, sets.Search]:
        """Build all and keep the hard ones."""
        return sets.hard(sets.crosslingual(self.tests))


class EnglishRetrieval(_DescriptionRetrieval):
    """One-line descriptions to long ones among 2,000, in English."""

    metadata = _metadata(
        "DebianEnglishRetrieval",
        "Retrieval",
        "Debian's one-line package descriptions to the long ones, in English.",
        ("en",),
        "ndcg_at_10",
        {"query": _LONG},
    )

    def build(self) -> dict[str, sets.Search]:
        """Return the set."""
        return sets.english(self.tests)


class MonolingualRetrieval(_DescriptionRetrieval):
    """One-line descriptions to long ones among 200, in four languages."""

    metadata = _metadata(
        "DebianMonolingualRetrieval",
        "Retrieval",
        "Debian's one-line package descriptions to the long ones, inside de, it, ja and ru.",
        sets.MONOLINGUAL,
        "ndcg_at_10",
        {"query": _LONG},
    )

    def build(self) -> dict[str, sets.Search]:
        """Return the set."""
        return sets.monolingual(self.tests)


_TOPIC = "Given the description of a software package, classify its topic"


class SectionClassification(_Offline, AbsTaskClassification):
    """The nearest of 16 sections, each the mean of 40 English texts; scored by mean recall."""

    metadata = _metadata(
        "DebianSectionClassification",
        "Classification",
        "Debian's sections: 16 topics learned from English descriptions, told in six languages.",
        sets.SECTION_LANGUAGES,
        "recall",
        _TOPIC,
    )
    evaluator_model = NearestCentroid()
    samples_per_label = sets.EXAMPLES_EACH
    n_experiments = 1

    def __init__(self, texts: Descriptions) -> None:
        super().__init__()
        self.texts = texts

    def load_data(self, *_: object, **__: object) -> None:
        """Draw examples and tests."""
        examples = sets.section_examples(self.texts.of("train"))
        train = Dataset.from_dict({"text": examples.texts, "label": examples.labels})
        tests = sets.section_tests(self.texts.of("test"))
        self.dataset = {
            language: DatasetDict(
                train=train,
                test=Dataset.from_dict({"text": found.texts, "label": found.labels}),
            )
            for language, found in tests.items()
        }
        self.data_loaded = True


class SectionClustering(_Offline, AbsTaskClustering):
    """Do descriptions of one section lie together?"""

    metadata = _metadata(
        "DebianSectionClustering",
        "Clustering",
        "Debian's sections: 16 topics, found without examples, in six languages.",
        sets.SECTION_LANGUAGES,
        "v_measure",
        "Identify the topic of software packages based on their descriptions",
    )
    max_fraction_of_documents_to_embed = None

    def __init__(self, texts: Descriptions) -> None:
        super().__init__()
        self.tests = texts.of("test")

    def load_data(self, *_: object, **__: object) -> None:
        """Draw the texts."""
        self.dataset = {
            language: DatasetDict(
                test=Dataset.from_dict({"sentences": found.texts, "labels": found.labels})
            )
            for language, found in sets.section_tests(self.tests).items()
        }
        self.data_loaded = True


_ON_DESCRIPTIONS: tuple[Any, ...] = (
    ShortRetrieval,
    CrosslingualRetrieval,
    CrosslingualHardRetrieval,
    EnglishRetrieval,
    MonolingualRetrieval,
    SectionClassification,
    SectionClustering,
)
TASKS = tuple(task.metadata.name for task in (HelpBitextMining, *_ON_DESCRIPTIONS))
VERSION = "1"
"""Of the definitions here; a change makes old results another revision's."""


def offline_tasks() -> tuple[list[AbsTask], dict[str, str]]:
    """Return the tasks whose texts can be had, and by name why the others cannot.

    Raises:
        DiskFullError: There is no room for the texts.
    """
    tasks: list[AbsTask] = []
    skipped: dict[str, str] = {}
    try:
        pages = help_pages(sets.HELP_LANGUAGES, split="test")
        tasks.append(_revised(HelpBitextMining(pages), "libreoffice-help"))
    except DownloadError as error:
        skipped[HelpBitextMining.metadata.name] = str(error)
    try:
        texts = descriptions(sets.LANGUAGES)
        tasks += [_revised(kind(texts), texts.edition) for kind in _ON_DESCRIPTIONS]
    except DownloadError as error:
        skipped |= {kind.metadata.name: str(error) for kind in _ON_DESCRIPTIONS}
    return tasks, skipped


def _revised(task: Any, edition: str) -> AbsTask:  # noqa: ANN401 (one of the classes above)
    task.with_edition(f"{edition}, definition {VERSION}")
    return cast("AbsTask", task)
