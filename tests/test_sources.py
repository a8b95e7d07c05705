"""Texts from Debian's packages: parsing, joining, the split, and what fails offline."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from polyvec.errors import DownloadError, InputError
from polyvec.sources import apt
from polyvec.sources.descriptions import descriptions, read_stanzas
from polyvec.sources.help_pages import help_pages, parallel_paragraphs
from polyvec.sources.split import HeldOut, page_split, source_split

TEST_SOURCE = next(f"s{i}" for i in range(99) if source_split(f"s{i}") == "test")
TEST_PAGE = next(f"p{i}.html" for i in range(99) if page_split(f"p{i}.html") == "test")
TRAIN_PAGE = next(f"p{i}.html" for i in range(99) if page_split(f"p{i}.html") == "train")
TRAIN_SOURCE = next(f"s{i}" for i in range(99) if source_split(f"s{i}") == "train")
ENGLISH = """Package: game
Description-md5: 11
Description-en: A game
 Run and
 jump.
 .
  * one
  * two

Package: held
Description-md5: 22
Description-en: Held out
 Test only.

Package: copy
Description-md5: 33
Description-en: A copy
 TEST  only.

"""
GERMAN = """Package: game
Description-md5: 11
Description-de: Ein Spiel
 Laufen.
 .
 Springen.

Package: held
Description-md5: stale
Description-de: Alt
 Veraltet.

"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path))
    return tmp_path / "sources"


@pytest.fixture
def lists(cache: Path) -> Path:
    folder = cache / "debian"
    folder.mkdir(parents=True)
    packages = (
        f"Package: game\nSource: {TRAIN_SOURCE} (1.2-3)\nSection: contrib/games\n"
        "Tag: a::b,\n c::d\nDescription-md5: 11\n\n"
        f"Package: held\nSource: {TEST_SOURCE}\nSection: libs\nDescription-md5: 22\n\n"
        f"Package: copy\nSource: {TRAIN_SOURCE}\nSection: libs\nDescription-md5: 33\n"
    )
    base = "mirror_dists_bookworm_main"
    (folder / f"{base}_binary-amd64_Packages").write_text(packages)
    (folder / f"{base}_i18n_Translation-en").write_text(ENGLISH)
    (folder / f"{base}_i18n_Translation-de").write_text(GERMAN)
    (folder / "mirror_dists_bookworm_InRelease").write_text("Codename: bookworm\nVersion: 12.15\n")
    return folder


@pytest.mark.usefixtures("lists")
def test_descriptions_are_joined_by_the_english_texts_md5() -> None:
    found = descriptions(["de"])
    assert found.edition == "bookworm 12.15"
    assert set(found.by_language) == {"en", "de"}
    game = found.english["game"]
    assert (game.short, game.paragraphs) == ("A game", ("Run and jump.", "* one * two"))
    assert (game.source, game.section, game.long) == (
        TRAIN_SOURCE,
        "games",
        "Run and jump.\n\n* one * two",
    )
    assert set(found.by_language["de"]) == {"game"}  # the other one is of an older English text
    assert found.by_language["de"]["game"].paragraphs == ("Laufen.", "Springen.")


@pytest.mark.usefixtures("lists")
def test_training_has_no_held_out_source_and_no_text_equal_to_a_held_out_one() -> None:
    found = descriptions(["de"])
    assert set(found.of("test").english) == {"held"}
    assert set(found.of("train").english) == {"game"}  # `copy` says "TEST  only."
    assert "test only." in found.held_out()
    assert "A game" not in found.held_out()


def test_the_split_is_the_stated_hash() -> None:
    for name in ("glibc", "linux", "swriter/01/01120000.html"):
        number = int(hashlib.md5(name.encode()).hexdigest(), 16)
        assert (source_split(name) == "test") == (number % 5 == 0)
        assert (page_split(name) == "test") == (number % 10 == 0)


def test_held_out_texts_are_compared_without_case_blanks_and_decomposition() -> None:
    held_out = HeldOut(["Ca\N{LATIN SMALL LETTER E WITH ACUTE}  noir", ""]) | HeldOut(["x"])
    assert "cae\N{COMBINING ACUTE ACCENT} NOIR" in held_out
    assert "" not in held_out
    assert len(held_out) == 2


def test_a_stanzas_folded_lines_stay_with_their_field(tmp_path: Path) -> None:
    (tmp_path / "control").write_text("A: 1\n 2\nB: x\n y\n\n\nA: 3")
    assert list(read_stanzas(tmp_path / "control", ["A"])) == [{"A": "1\n 2"}, {"A": "3"}]


def _write_help(folder: Path, package: str, pages: dict[str, str]) -> None:
    """Build a Debian package with help pages, by path below ``help/``."""
    root = folder / f"root-{package}"
    for name, html in pages.items():
        path = root / "usr/share/libreoffice/help" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html)
    control = root / "DEBIAN" / "control"
    control.parent.mkdir()
    control.write_text(
        f"Package: {package}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\n"
        "Description: x\n"
    )
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", root, folder / f"{package}_1_all.deb"],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _page(title: str, *paragraphs: str) -> str:
    body = "".join(f'<p id="par_id{i}" class="x">{x}</p>' for i, x in enumerate(paragraphs))
    return f'<html><title>{title}</title>{body}<p class="related" id="par_id99">See</p></html>'


@pytest.fixture
def help_packages(cache: Path) -> Path:
    folder = cache / "packages"
    folder.mkdir(parents=True)
    english = {
        f"en-US/text/{TRAIN_PAGE}": _page("Save", "Saves\n a <b>file</b>.", "OK", "Shared text"),
        f"en-US/text/{TEST_PAGE}": _page("Open", "Opens.", "Shared text"),
        "en-US/noscript.html": _page("No", "page"),
    }
    _write_help(folder, "libreoffice-help-en-us", english)
    catalan = {
        f"{language}/text/{TRAIN_PAGE}": _page(f"Desa {language}", "Desa un fitxer.", "OK", "Text")
        for language in ("ca", "ca-valencia")
    }
    _write_help(folder, "libreoffice-help-ca", catalan)
    return folder


@pytest.mark.usefixtures("help_packages")
def test_help_pages_are_parallel_by_page_and_paragraph() -> None:
    pages = help_pages(["ca", "ca-valencia"])
    english, catalan = pages.by_language["en-US"], pages.by_language["ca"]
    assert set(english) == {TRAIN_PAGE, TEST_PAGE}
    assert english[TRAIN_PAGE].title == "Save"
    assert english[TRAIN_PAGE].body == "Saves a file. OK Shared text"
    assert catalan[TRAIN_PAGE].title == "Desa ca"  # and not its sister's from the same package
    pairs = {"Saves a file.": "Desa un fitxer.", "Shared text": "Text"}
    assert parallel_paragraphs(english, catalan) == pairs


@pytest.mark.usefixtures("help_packages")
def test_training_pages_lose_paragraphs_that_are_held_out() -> None:
    pages = help_pages(["ca"])
    train = pages.of("train").by_language
    assert set(train["en-US"]) == {TRAIN_PAGE}
    assert list(train["en-US"][TRAIN_PAGE].paragraphs.values()) == ["Saves a file.", "OK"]
    assert set(help_pages([], split="test").by_language["en-US"]) == {TEST_PAGE}


def test_unknown_languages_are_named_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"not read in tlh\. Languages: en, da, it"):
        descriptions(["tlh"])
    with pytest.raises(InputError, match=r"not read in tlh\. Languages: en-US, ca"):
        help_pages(["tlh"])


def test_a_broken_package_says_what_to_do(help_packages: Path) -> None:
    (help_packages / "libreoffice-help-en-us_1_all.deb").write_bytes(b"no package")
    with pytest.raises(DownloadError, match="delete it to fetch it anew"):
        help_pages([])


@pytest.mark.usefixtures("cache")
def test_without_apt_the_error_says_what_is_missing_and_where_to_put_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DownloadError, match=r"descriptions come from Debian and there is no apt"):
        descriptions(["de"])
    with pytest.raises(DownloadError, match=r"libreoffice-help-en-us come from Debian"):
        help_pages([])


def _fake_apt(folder: Path, script: str) -> None:
    path = folder / "apt-get"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


SOURCES = (
    'if [ "$1" = indextargets ]; then '
    'echo "/etc/apt/sources.list:1|http://deb.debian.org/debian/|bookworm"; exit 0; fi'
)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f"{SOURCES}; echo 'E: Could not resolve mirror' >&2; exit 100", "Could not resolve"),
        (f"{SOURCES}; echo 'W: Failed to fetch http://x' >&2; exit 0", "Failed to fetch"),
        (f"{SOURCES}; exit 0", r"came without .*da.*hu"),
        ("exit 0", "no source of this machine's apt is Debian's main archive"),
    ],
)
def test_offline_the_error_says_what_apt_said_and_keeps_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    _fake_apt(tmp_path, script)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(DownloadError, match=words):
        descriptions(["de"])
    assert not list((cache / "debian").glob("*Packages"))


def test_apt_runs_on_a_private_state_and_the_machines_debian_sources(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = '$(sed -n \'s/^Dir::State::lists "\\(.*\\)";/\\1/p\' "$3")'
    files = " ".join(
        f"x_dists_bookworm_main_i18n_Translation-{x.replace('-', '%5f')}"
        for x in ("en", *apt.LANGUAGES)
    )
    script = (
        f"{SOURCES}; cd {lists}; touch {files} x_dists_bookworm_main_binary-amd64_Packages "
        "x_dists_bookworm-updates_main_binary-amd64_Packages x_dists_bookworm_InRelease"
    )
    _fake_apt(tmp_path, script)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    folder = apt.lists()
    assert folder == cache / "debian"
    assert [path.name for path in folder.glob("*Packages")] == [
        "x_dists_bookworm_main_binary-amd64_Packages"
    ]
    assert apt.translation_file(folder, "pt-BR").is_file()
    settings = (folder / ".fetch" / "apt.conf").read_text()
    assert 'Dir::Etc::sourcelist "/etc/apt/sources.list";' in settings
    assert f'Dir::State::lists "{folder}/.fetch/lists";' in settings
    _fake_apt(tmp_path, "exit 100")
    assert apt.lists() == folder  # nothing is fetched twice
