"""The examples run, and show what they say."""

import csv
import io
import re
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from PIL import Image

from data_prep.drawn import draw_faces, save_faces
from tests.conftest import save_png

EXAMPLES = Path(__file__).parents[1] / "examples"


def shown(name, *arguments):
    """What an example prints, run in this process: one of its own takes two seconds to load."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        except SystemExit as ended:  # click says so where all went well, too
            assert not ended.code, f"{name} ended with {ended.code}"  # noqa: PT017
    return said.getvalue()


def test_the_films_fall_into_two_kinds_and_the_missing_rating_is_near_what_was_given():
    told = shown("movies.py").splitlines()
    kinds = [set(line.partition(": ")[2].replace(": ", " ").split(", ")) for line in told[:2]]
    assert sorted(sorted({film.split()[0] for film in kind}) for kind in kinds) == [["Avengers", "Spiderman"], ["LotR"]]
    prefer = [line[-1] for line in told[2:8]]
    assert prefer[0] == prefer[2] == prefer[4] != prefer[1] == prefer[3] == prefer[5]
    assert 3.5 < float(told[8].split()[7]) < 4.7


def test_the_sentences_of_each_subject_are_a_topic():
    told = shown("topics.py").splitlines()
    found = {line.split()[0]: sorted(line.strip().split(", ")) for line in told[1::2]}
    assert found == {subject: [f"{subject} {k}" for k in range(1, 9)] for subject in ("kitchen", "sea", "music")}
    words = dict(zip(found, told[0::2], strict=True))
    assert all(
        word in words[subject] for subject, word in (("kitchen", "butter"), ("sea", "sail"), ("music", "violin"))
    )


@pytest.fixture
def people(tmp_path, rng):
    """Folders of five people, each made of parts in amounts of their own that vary by a tenth: 12 known, 3 new each."""
    parts = draw_faces(5, 0).parts
    amounts = rng.random((parts.shape[1], 5)) ** 3
    for person in range(5):
        for k in range(15):
            column = parts @ (amounts[:, person] * rng.uniform(0.9, 1.1, len(amounts)))
            pixels = (255 * column / (parts @ amounts).max() / 1.1).astype(np.uint8).reshape(48, 40)
            save_png(tmp_path / ("known" if k < 12 else "new") / f"person{person}" / f"{k}.png", pixels)
    return tmp_path


def test_faces_are_recognised(people):
    said = shown(
        "recognition.py", people / "known", people / "new", "--out", people / "s.zarr", "-d", "10"
    ).splitlines()
    assert len(said) == 15
    assert all(line.split(":")[0].split("/")[0] in line.split(": ")[1] for line in said)


def test_faces_are_made_of_parts_and_a_larger_d_rebuilds_them_better(tmp_path):
    save_faces(draw_faces(200, 0), tmp_path / "faces")
    told = shown("cbcl.py", tmp_path / "faces", "--out", tmp_path / "cbcl", "-d", "12")
    error, principal, centres = (float(one) for one in re.findall(r"0\.\d{4}", told))
    assert principal < error < centres
    assert int(told.split("%")[0].split()[-1]) > 50
    told = shown("celeba.py", tmp_path / "faces", "--out", tmp_path / "celeba", "-d", "4", "-d", "16", "--scale", "0.5")
    few, many = (float(one) for one in re.findall(r"error (\S+),", told))
    assert many < few / 2
    with Image.open(tmp_path / "celeba" / "rebuilt.png") as rebuilt:
        assert rebuilt.size[1] > 3 * 96
    with Image.open(tmp_path / "celeba" / "basis.png") as basis:
        assert basis.size == (4 * (11 * 20 + 2) + 2, 4 * (11 * 24 + 2) + 2)  # 4 × 4 of 24 × 20 pixels, enlarged


def test_noise_is_removed_best_by_the_d_of_what_is_shown_and_opacity_stays(tmp_path, rng):
    shapes = np.kron(rng.random((4, 4, 4, 3)), np.ones((1, 3, 3, 1)))
    mixed = np.tensordot(rng.dirichlet(np.full(4, 0.3), 200), shapes, axes=1)
    opacity = np.broadcast_to(np.indices((12, 12)).sum(axis=0)[..., None] > 5, (200, 12, 12, 1))
    np.save(tmp_path / "punks.npy", np.rint(255 * np.concatenate([mixed * opacity, opacity], axis=3)).astype(np.uint8))
    ranks = ("-d", "2", "-d", "4", "-d", "24")
    told = shown("cryptopunks.py", tmp_path / "punks.npy", "--out", tmp_path, *ranks, "--n", "200")
    assert re.search(r"d = 4: \S+ to those without noise, \S+ to those with it  <- least", told)
    assert "opacity is the same" in told


def test_the_gaussians_are_found():
    told = shown("gaussians.py", "--samples", "2000")
    assert min(float(one) for one in re.findall(r"cosine (\S+),", told)) > 0.99
    assert all(abs(int(found) - int(true)) < 5 for found, true in re.findall(r"peak at (\d+) for (\d+)", told))


KINDS = ("comedy", "drama", "western")


@pytest.fixture
def ratings(tmp_path, rng):
    """Of fifteen people five like each of three kinds of films, and no other; they rated three in four of 24 films."""
    titles = [f"{kind}{k}" for kind in KINDS for k in range(8)]
    likes = np.kron(3.5 * np.eye(3) + 1, np.ones((8, 5)))
    rated = [
        (j, 100 + i, likes[i, j] + rng.choice([-0.5, 0, 0.5])) for i, j in np.ndindex(24, 15) if rng.random() < 0.75
    ]
    rows = {"ratings.csv": [("userId", "movieId", "rating"), *rated]}
    rows["movies.csv"] = [("movieId", "title"), *enumerate(titles, 100)]
    for name, lines in rows.items():
        with open(tmp_path / name, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(lines)
    return tmp_path, set(titles) - {titles[film - 100] for person, film, _ in rated if person == 7}


def test_films_that_somebody_has_not_rated_are_listed_best_first_and_components_are_kinds(ratings):
    folder, unseen = ratings
    files = (folder / "ratings.csv", "--titles", folder / "movies.csv", "--out", folder / "r.zarr")
    told = shown("ratings.py", *files, "-d", "3", "--user", "7", "--least", "3").splitlines()
    error, spread = (float(one) for one in re.findall(r"\d\.\d{3}", told[0]))
    assert error < 0.5 * spread
    listed = re.findall(r"([a-z]+\d) (\S)\.", told[1])
    assert {film for film, _ in listed} <= unseen
    assert listed[0][0].startswith("drama")
    assert all(film.startswith("drama") == (int(stars) > 2) for film, stars in listed)
    assert sorted(sorted(set(re.findall("|".join(KINDS), line))) for line in told[2:]) == [[kind] for kind in KINDS]


def test_words_of_a_subject_are_a_topic_of_its_documents(tmp_path, rng):
    rates = np.kron(np.eye(3), np.full((40, 10), 2.0))[:100] + 0.02
    scipy.sparse.save_npz(tmp_path / "counts.npz", scipy.sparse.csr_array(rng.poisson(rates)))
    (tmp_path / "words.txt").write_text("\n".join(f"{word}{k}" for word in "abc" for k in range(10)), encoding="utf-8")
    files = (tmp_path / "counts.npz", "--vocabulary", tmp_path / "words.txt", "--out", tmp_path / "w.zarr")
    told = shown("text.py", *files, "-d", "3").splitlines()
    found = {frozenset(re.findall(r"([abc])\d", told[k])): told[k + 1].split()[3] for k in (1, 3, 5)}
    assert found == {frozenset("a"): "40", frozenset("b"): "40", frozenset("c"): "20"}
