import os
import zipfile
from pathlib import Path

import pytest

from data_prep import sources
from data_prep.listing import original_bytes, printable
from data_prep.sources import read
from data_prep.store import BadInput


def list_sources(given, lists=()):
    return sources.list_sources([str(source) for source in given], lists)


def names_of(listing):
    return [os.fsdecode(name) for name in listing.files.names]


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*"), reverse=True):
            file.write(path, path.relative_to(folder))
    return archive


def test_files_are_sorted_by_the_bytes_of_their_names(tmp_path):
    folder = tree(tmp_path, "b.png", "a/z.png", "B.png", "é.png", "a.png", "a/1/x.jpg")
    names = names_of(list_sources([folder]))
    assert names == ["B.png", "a.png", "a/1/x.jpg", "a/z.png", "b.png", "é.png"]


def test_a_folder_and_a_zip_of_it_list_and_read_alike(tmp_path):
    folder = tree(tmp_path / "f", "b.png", "a/z.png", "é.png")
    archive = zipped(folder, tmp_path / "f.zip")
    from_folder, from_zip = (list_sources([source]).files for source in (folder, archive))
    assert [file.name for file in from_folder] == [file.name for file in from_zip]
    assert [read(file) for file in from_folder] == [read(file) for file in from_zip]


def test_what_promises_no_image_is_passed_over_and_named(tmp_path):
    others = ["README.txt", "Thumbs.db", "._a.png", ".hidden/b.png", "__MACOSX/c.png", "noending"]
    listing = list_sources([tree(tmp_path, "a.PNG", *others)])
    assert names_of(listing) == ["a.PNG"]
    assert sorted(os.fsdecode(one.name) for one in listing.passed) == sorted(others)


def test_a_single_file_and_several_sources(tmp_path):
    folder = tree(tmp_path / "f", "b.png")
    tree(tmp_path / "g", "a.png", "c.png")
    names = names_of(list_sources([folder, tmp_path / "g" / "a.png"]))
    assert names == ["a.png", "b.png"]


def test_a_zip_that_is_cut_short_is_no_archive(tmp_path):
    archive = zipped(tree(tmp_path / "f", "a.png"), tmp_path / "f.zip")
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(BadInput, match=r"f\.zip is neither a folder, an image, an array nor a whole zip"):
        list_sources([tmp_path / "f", archive])


def test_a_member_above_its_archive_is_a_name_like_any_other(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as file:
        file.writestr("../../a.png", b"x")
    assert names_of(list_sources([tmp_path / "z.zip"])) == ["../../a.png"]


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(BadInput, match="missing does not exist"):
        list_sources([tmp_path / "missing"])


def test_sources_without_images_are_named(tmp_path):
    with pytest.raises(BadInput, match=r"no images in .*empty"):
        list_sources([tree(tmp_path / "empty", "README.md")])


def test_a_name_that_stands_twice_in_a_zip_is_two_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as file:
        file.writestr("a.png", b"first")
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("a.png", b"second")
    assert [read(file) for file in list_sources([tmp_path / "z.zip"]).files] == [b"first", b"second"]


def test_a_zip_that_was_replaced_is_read_anew(tmp_path):
    for content in (b"old", b"newer"):
        with zipfile.ZipFile(tmp_path / "z.zip", "w") as file:
            file.writestr("a.png", content)
        (found,) = list_sources([tmp_path / "z.zip"]).files
        assert read(found) == content


def test_links_are_files_or_named(tmp_path):
    folder = tree(tmp_path / "f", "a.png", "deep/b.png")
    (folder / "ring").symlink_to(folder)
    (folder / "lost.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "pipe.png")
    listing = list_sources([folder])
    assert names_of(listing) == ["a.png", "deep/b.png", "lost.png"]
    assert [one.name for one in listing.passed] == [b"pipe.png", b"ring"]


def test_a_damaged_zip_is_named(tmp_path):
    folder = tree(tmp_path / "f", "a.png")
    archive = zipped(folder, tmp_path / "f.zip")
    raw = archive.read_bytes()
    archive.write_bytes(raw[:-60].replace(b"PK\x01\x02", b"PK\x09\x09") + raw[-60:])
    with pytest.raises(BadInput, match=r"f\.zip"):
        list_sources([archive])


@pytest.mark.parametrize(
    "raw", [b"plain.png", "é ü.png".encode(), b"100%.png", b"\xff\xfe 1%.png", b"new\nline\x1b[31m.png"]
)
def test_a_printed_name_gives_its_bytes_back(raw):
    name = printable(raw)
    name.encode("utf-8")
    assert original_bytes(name) == raw


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_file_over_the_limit_is_refused_before_it_fills_memory(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(sources, "MAX_FILE_NBYTES", 4)
    folder = tree(tmp_path / "f", "a.png")
    (file,) = list_sources([folder if kind == "folder" else zipped(folder, tmp_path / "f.zip")]).files
    with pytest.raises(ValueError, match="more than 4"):
        read(file)
