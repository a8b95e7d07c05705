"""The default model as the package ships it: trained, and the same in sentence-transformers."""

import numpy as np
import pytest

import polyvec
from polyvec.engine.embedder import Embedder
from polyvec.hub import TRAINED, resolve

ENGLISH = [
    "a program that plays music files",
    "The file could not be saved because the disk is full.",
    "text editor for programmers",
    "Choose the font and the size of the characters.",
    "library to read and write pictures",
    "Inserts a new row above the selected cell.",
    "game of chess against the computer",
    "checks the spelling of a document",
]
OTHERS = {
    "de": [
        "ein Programm, das Musikdateien abspielt",
        "Die Datei konnte nicht gespeichert werden, weil die Festplatte voll ist.",
        "Texteditor für Programmierer",
        "Wählen Sie die Schriftart und die Größe der Zeichen.",
        "Bibliothek zum Lesen und Schreiben von Bildern",
        "Fügt eine neue Zeile über der ausgewählten Zelle ein.",
        "Schachspiel gegen den Computer",
        "prüft die Rechtschreibung eines Dokuments",
    ],
    "fr": [
        "un programme qui joue des fichiers de musique",
        "Le fichier n'a pas pu être enregistré car le disque est plein.",
        "éditeur de texte pour programmeurs",
        "Choisissez la police et la taille des caractères.",
        "bibliothèque pour lire et écrire des images",
        "Insère une nouvelle ligne au-dessus de la cellule sélectionnée.",
        "jeu d'échecs contre l'ordinateur",
        "vérifie l'orthographe d'un document",
    ],
    "ja": [
        "音楽ファイルを再生するプログラム",
        "ディスクがいっぱいのため、ファイルを保存できませんでした。",
        "プログラマ向けのテキストエディタ",
        "フォントと文字のサイズを選択します。",
        "画像を読み書きするライブラリ",
        "選択したセルの上に新しい行を挿入します。",
        "コンピュータと対戦するチェスゲーム",
        "文書のスペルをチェックします",
    ],
}


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return polyvec.load("default", precision="fp32")


@pytest.mark.parametrize("language", OTHERS)
def test_a_text_finds_its_translation(embedder: Embedder, language: str) -> None:
    """By chance one of eight would; the untrained backbone finds two to three."""
    scores = embedder.encode_query(OTHERS[language]) @ embedder.encode_document(ENGLISH).T
    assert int((scores.argmax(1) == np.arange(len(ENGLISH))).sum()) >= 6


def test_sentence_transformers_has_the_same_vectors(embedder: Embedder) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(resolve("default").path), device="cpu")
    theirs = model.float().encode(OTHERS["ja"] + ENGLISH, normalize_embeddings=True)
    ours = embedder.encode_document(OTHERS["ja"] + ENGLISH)
    assert np.abs(ours - theirs).max() < 1e-5


def test_what_the_package_carries_is_small_enough() -> None:
    files = list((TRAINED / "default").iterdir())
    assert {file.name for file in files} == {"delta.json", "delta.safetensors", "README.md"}
    assert sum(file.stat().st_size for file in files) <= 40_000_000
