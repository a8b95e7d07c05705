"""Strings, words and meanings from packages: what is read, cleaned and left out."""

import base64
import gzip
import json
import struct
import subprocess
import unicodedata
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from polyvec.errors import DownloadError, InputError
from polyvec.sources import home
from polyvec.sources.catalogs import read_mo, ui_strings
from polyvec.sources.dictionaries import parse_entry, word_pairs
from polyvec.sources.home import home_strings
from polyvec.sources.split import HeldOut
from polyvec.sources.strings import plain_string, string_pairs
from polyvec.sources.wordnet import (
    Gloss,
    example_definitions,
    glosses,
    synonyms,
    word_definitions,
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path))
    for folder in ("packages", "wheels"):
        (tmp_path / "sources" / folder).mkdir(parents=True)
    return tmp_path / "sources"


def _deb(cache: Path, package: str, contents: Mapping[str, bytes]) -> Path:
    root = cache / f"root-{package}"
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        f"Package: {package}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\n"
        "Description: x\n"
    )
    target = cache / "packages" / f"{package}_1_all.deb"
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", root, target],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return target


def _mo(strings: Mapping[str, str], order: str = "<") -> bytes:
    count, at = len(strings), 28 + 16 * len(strings)
    tables, texts = b"", b""
    for text in (*strings, *strings.values()):
        data = text.encode()
        tables += struct.pack(f"{order}2I", len(data), at + len(texts))
        texts += data + b"\0"
    head = struct.pack(f"{order}7I", 0x950412DE, 0, count, 28, 28 + 8 * count, 0, 0)
    return head + tables + texts


STRINGS = {
    "": "Content-Type: text/plain; charset=UTF-8\n",
    "menu\x04~Save As...": "Speichern ~unter...",
    "menu\x04Save _As": "Sichern",
    "one\0many": "eins\0viele",
    "Page %1 of %2": "Seite %1 von %2",
    "OK": "OK",
    "Cut": "",
}


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_catalog_is_read_without_contexts_plurals_header_and_untranslated(order: str) -> None:
    assert list(read_mo(_mo(STRINGS, order))) == [
        ("~Save As...", "Speichern ~unter..."),
        ("Save _As", "Sichern"),
        ("Page %1 of %2", "Seite %1 von %2"),
        ("OK", "OK"),
    ]


def test_ui_strings_are_pairs_of_plain_text_of_their_own_folder(cache: Path) -> None:
    where = "usr/lib/libreoffice/program/resource"
    _deb(cache, "libreoffice-l10n-de", {f"{where}/de/LC_MESSAGES/a.mo": _mo(STRINGS)})
    _deb(
        cache,
        "libreoffice-l10n-sr",
        {
            f"{where}/sr/LC_MESSAGES/a.mo": _mo({"Save": "Сачувај"}),
            f"{where}/sr@latin/LC_MESSAGES/a.mo": _mo({"Save": "Sačuvaj"}),
        },
    )
    assert ui_strings(["de", "sr-Latn", "sr"]) == {
        "de": {"Save As": "Speichern unter"},  # the second `Save As` is no second pair
        "sr-Latn": {"Save": "Sačuvaj"},
        "sr": {"Save": "Сачувај"},
    }


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("保存(~S)", "保存"),
        ("~Insert  a\n row:", "Insert a row"),
        ("Cut & paste", "Cut & paste"),
        ("100% of the page", "100% of the page"),
        ("e\N{COMBINING ACUTE ACCENT}te\N{COMBINING ACUTE ACCENT}", "été"),
        ("Hello {name}", ""),
        ("$(ARG1) is gone", ""),
        ("%PRODUCTNAME Help", ""),
        ("<b>Bold</b>", ""),
        ("See https://example.org", ""),
        ("[this](page)", ""),
        ("x", ""),
        ("12 / 7", ""),
    ],
)
def test_strings_lose_their_marks_and_those_that_are_no_text_go(text: str, plain: str) -> None:
    assert plain_string(text) == plain


def test_pairs_can_be_held_out_whatever_their_case() -> None:
    pairs = string_pairs([("Save a File", "Datei sichern"), ("Open", "Öffnen")])
    held_out = HeldOut(["save a  file"])
    assert [text for text in pairs if text not in held_out] == ["Open"]


def test_a_cut_catalog_says_which_file_and_what_to_do(cache: Path) -> None:
    name = "usr/lib/libreoffice/program/resource/de/LC_MESSAGES/a.mo"
    package = _deb(cache, "libreoffice-l10n-de", {name: _mo(STRINGS)[:150]})
    with pytest.raises(DownloadError, match=r"a\.mo in .*is broken.*delete it"):
        ui_strings(["de"])
    package.write_bytes(b"no package")
    with pytest.raises(DownloadError, match="delete it to fetch it anew"):
        ui_strings(["de"])


def _wheel(cache: Path, texts: Mapping[str, object]) -> Path:
    path = cache / "wheels" / f"homeassistant-{home.VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in texts.items():
            archive.writestr(f"homeassistant/components/{name}.json", json.dumps(content))
    return path


def test_home_strings_are_joined_by_component_and_key(cache: Path) -> None:
    english = {"state": {"on": "Turned on", "off": "Off {now}"}, "title": "Lamp"}
    texts = {
        "lamp/translations/en": english,
        "lamp/translations/de": {"state": {"on": "Eingeschaltet", "off": "Aus"}, "title": "Lamp"},
        "door/translations/en": {"title": "Door"},
        "gate/translations/de": {"title": "Tor"},
        "lamp/strings": {"title": "no translation"},
    }
    _wheel(cache, texts)
    assert home_strings(["de", "fr"]) == {"de": {"Turned on": "Eingeschaltet"}, "fr": {}}


def test_a_wheel_without_translations_or_broken_says_what_to_do(cache: Path) -> None:
    path = _wheel(cache, {"lamp/manifest": {}})
    with pytest.raises(DownloadError, match="holds no translations; delete it"):
        home_strings(["de"])
    path.write_bytes(b"PK no wheel")
    with pytest.raises(DownloadError, match="is broken"):
        home_strings(["de"])


def test_pip_is_asked_for_the_pinned_wheel_and_what_it_said_is_told(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = tmp_path / "python"
    monkeypatch.setattr("sys.executable", str(pip))
    pip.write_text("#!/bin/sh\necho 'ERROR: no such version' >&2\nexit 1\n")
    pip.chmod(0o755)
    with pytest.raises(DownloadError, match=r"homeassistant==2026.*no such version.*Check"):
        home_strings(["de"])
    assert not list((cache / "wheels").iterdir())
    made = _wheel(cache, {"a/translations/en": {"x": "Door"}, "a/translations/de": {"x": "Tür"}})
    stored = made.rename(tmp_path / made.name)
    pip.write_text(
        '#!/bin/sh\nfor x; do test "$last" = --dest && cp ' + f'{stored} "$x"; last=$x; done\n'
        'case "$*" in *"--python-version 3.14.2"*"homeassistant==2026.11.0") exit 0; esac; exit 1\n'
    )
    assert home_strings(["de"])["de"] == {"Door": "Tür"}
    pip.write_text("#!/bin/sh\nexit 1\n")
    assert home_strings(["de"])["de"] == {"Door": "Tür"}  # nothing is fetched twice


DATA = """  1 This software is licensed
00115803 04 n 02 pulling_out 1 Cafe 0 000 | the act of pulling; ending; "a pull"; "it was; is not"
00089355 00 a 01 galore(ip) 0 000 | (informal) in great numbers
"""


def test_meanings_have_words_definition_and_examples(cache: Path) -> None:
    data = unicodedata.normalize("NFD", DATA.replace("Cafe", "Café"))
    _deb(cache, "wordnet-base", {"usr/share/wordnet/data.noun": data.encode()})
    first, second = glosses()
    assert first == Gloss(
        ("pulling out", "Café"),
        "the act of pulling; ending",
        ("a pull", "it was; is not"),
        "noun",
    )
    assert (second.lemmas, second.definition) == (("galore",), "(informal) in great numbers")
    assert word_definitions([first]) == [("pulling out, Café", "the act of pulling; ending")]
    assert example_definitions([first, second])[1] == ("it was; is not", first.definition)
    assert synonyms([first, second, first]) == [("pulling out", "Café")]


def test_a_broken_wordnet_says_what_to_do(cache: Path) -> None:
    _deb(cache, "wordnet-base", {"usr/share/wordnet/data.noun": b"0011 04 n zz x | y\n"})
    with pytest.raises(DownloadError, match=r"data\.noun in .* is broken.*delete it"):
        glosses()


@pytest.mark.parametrize(
    ("entry", "headword", "senses"),
    [
        (
            "Aalsuppe /ˈɑːlzʊpə/ <fem, n, sg>\n [cook.] eel soup <n>, eel stew, broth, dish\n"
            " see: {Aalsuppen}\n",
            "Aalsuppe",
            ["eel soup, eel stew, broth"],
        ),
        ("aposentado /ˌɐp/\n1. retired\n2. retired person\n3. x y\n", "aposentado",
         ["retired", "retired person"]),
        ("Aiolis <pn>\nAeolis\nmuinaisen Anatolian alue\n", "Aiolis", ["Aeolis"]),
        ("行けない /ke̞/, いけない /ˌi/\n1. (expressions (phrases, etc.))\n\n"
         "   Note: word usually written using kana alonewrong, bad\n2. past hope\n",
         "行けない", ["wrong, bad", "past hope"]),
        ("Libra <pn>\n1.\nstars\n2. timbangan\na sign\n", "Libra", ["timbangan"]),
        ("amid /ɐm/ <Prep>\n1. बीच~में ही\n   \"The firm collapsed.\"\n", "amid", ["बीच में ही"]),
        ("angelic /andʒ/\n\nαγγελικός\n", "angelic", ["αγγελικός"]),
        ("-ation /eɪʃən/\nasi, sasi\n", "-ation", []),
        ("empty\n", "empty", []),
        ("", "", []),
    ],
)  # fmt: skip
def test_an_entry_is_its_headword_and_first_senses(
    entry: str, headword: str, senses: list[str]
) -> None:
    assert parse_entry(entry) == (headword, senses)


def _dictd(name: str, *entries: str) -> dict[str, bytes]:
    """Build dictd's two files; the numbers are base 64 of three bytes, so four digits."""
    text, lines = b"", []
    for entry in ("00-database-info\nnot an entry\n", *entries):
        data = entry.encode()
        number = (base64.b64encode(x.to_bytes(3, "big")).decode() for x in (len(text), len(data)))
        head = "00databaseinfo" if entry.startswith("00-") else entry.split()[0]
        lines.append("\t".join((head, *number)))
        text += data
    lines.append(lines[-1].replace(lines[-1].split("\t")[0], "another headword"))
    index = "\n".join(lines).encode()
    folder = "usr/share/dictd/freedict-"
    return {f"{folder}{name}.index": index, f"{folder}{name}.dict.dz": gzip.compress(text)}


def test_word_pairs_of_both_directions_are_foreign_then_english(cache: Path) -> None:
    long = "x" * 5_000  # so that a place takes more than one digit
    first = _dictd("spa-eng", f"{long} /a/\nlong\n", "casa /k/ <f>\nhouse, home\n", "no\nno\n")
    _deb(cache, "dict-freedict-spa-eng", first)
    _deb(cache, "dict-freedict-eng-spa", _dictd("eng-spa", "house, home\ncasa\n", "dog\nperro\n"))
    assert word_pairs(["es"])["es"] == [
        (long, "long"),
        ("casa", "house, home"),
        ("casa", "house"),
        ("perro", "dog"),
    ]


def test_a_broken_dictionary_says_what_to_do(cache: Path) -> None:
    contents = _dictd("isl-eng", "hús\nhouse\n")
    name = "usr/share/dictd/freedict-isl-eng.dict.dz"
    _deb(cache, "dict-freedict-isl-eng", {**contents, name: contents[name][:-9]})
    with pytest.raises(DownloadError, match=r"isl-eng.* is broken .*delete it"):
        word_pairs(["is"])


def test_unknown_languages_are_named_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"not read in tlh\. Languages: af, am"):
        ui_strings(["tlh", "de"])
    with pytest.raises(InputError, match=r"not read in tlh\. Languages: ar, bg"):
        home_strings(["tlh"])
    with pytest.raises(InputError, match=r"no dictionary of tlh\. Languages: af, ar"):
        word_pairs(["tlh"])
