"""Archives: what the standard library reads of them we read, and nothing that a hostile one says is believed."""

import io
import os
import random
import stat
import struct
import tarfile
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep import tars, zips
from data_prep.sources import list_sources, read
from data_prep.store import BadInput
from tests.conftest import SOAK

LETTERS = st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="/\\:")
NAMES = st.text(LETTERS, min_size=1, max_size=20)
FORMS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}
METHODS = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])


def found_in(path):
    """Content by name, or why it cannot be read."""
    found = {}
    for file in list_sources([path]).files:
        try:
            found[os.fsdecode(file.name)] = read(file)
        except ValueError as error:
            found[os.fsdecode(file.name)] = str(error)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members=st.dictionaries(NAMES, st.tuples(st.binary(max_size=300), METHODS), min_size=1), comment=st.binary())
def test_a_zip_is_what_zipfile_says(tmp_path, members, comment):
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name, (content, method) in members.items():
            file.writestr(f"{name}.png", content, method)
        file.comment = comment
    shown = {f"{name}.png": content for name, (content, _) in members.items() if not name.startswith(".")}
    if shown:
        assert found_in(path) == shown


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("form", FORMS)
def test_a_tar_is_what_was_put_in(tmp_path, ending, form):
    path, members = tmp_path / f"t.{ending}", {f"{'deep/' * 20}é{k}.png": bytes([k]) * 700 * k for k in range(5)}
    mode = {"tar": "w", "tgz": "w:gz"}.get(ending, f"w:{ending.partition('.')[2]}")
    with tarfile.open(path, mode, format=FORMS[form]) as file:
        for name, content in members.items():
            add(file, name, content)
    assert found_in(path) == members


def add(file, name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    file.addfile(info, io.BytesIO(content))


def test_a_zip_of_64_bits_and_one_that_unpacks_itself(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as file, file.open("a.png", "w", force_zip64=True) as member:
        member.write(b"a" * 1000)
    (tmp_path / "x.zip").write_bytes(b"#!/bin/sh\n" * 50 + (tmp_path / "z.zip").read_bytes())
    assert found_in(tmp_path / "z.zip") == found_in(tmp_path / "x.zip") == {"a.png": b"a" * 1000}


def test_more_members_than_16_bits_count_are_listed(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as file:
        for k in range(66_000):
            file.writestr(f"{k:06d}.png", b"")
    files = list_sources([tmp_path / "z.zip"]).files
    assert (len(files), files.names[0], files.names[-1]) == (66_000, b"000000.png", b"065999.png")


def test_members_that_share_their_bytes_are_refused(tmp_path):
    """The bomb of Fifield, "A better zip bomb", WOOT 2019: one kernel, quoted by many entries."""
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", b"\0" * 100_000)
        file.writestr("b.png", b"\0" * 100_000)
        file.writestr("c.png", b"whole")
    raw = bytearray((tmp_path / "z.zip").read_bytes())
    second = raw.index(b"PK\x01\x02", raw.index(b"PK\x01\x02") + 1)
    raw[second + 42 : second + 46] = struct.pack("<L", 0)  # b begins where a does
    (tmp_path / "z.zip").write_bytes(raw)
    refused = "it overlaps another member of its archive"
    assert found_in(tmp_path / "z.zip") == {"a.png": refused, "b.png": refused, "c.png": b"whole"}


def test_a_member_that_unpacks_to_too_much_is_refused_unpacked_or_not(tmp_path, monkeypatch):
    monkeypatch.setattr(zips, "RATIO_FROM", 10_000)
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", b"\0" * 100_000)
        packed = file.getinfo("a.png").compress_size
    assert found_in(tmp_path / "z.zip") == {
        "a.png": f"it unpacks {packed} bytes to 100000, more than 200 times as many"
    }
    raw = bytearray((tmp_path / "z.zip").read_bytes())
    listed = raw.index(b"PK\x01\x02")
    raw[listed + 24 : listed + 28] = struct.pack("<L", 50)  # says that it is small
    (tmp_path / "z.zip").write_bytes(raw)
    assert found_in(tmp_path / "z.zip") == {"a.png": "its content and its CRC-32 do not agree"}


@pytest.mark.parametrize(
    ("at", "change", "words"),
    [(8, struct.pack("<H", 1), "it is encrypted"), (10, struct.pack("<H", 14), "packed by method 14")],
    ids=["encrypted", "lzma"],
)
def test_members_that_cannot_be_unpacked_say_why(tmp_path, at, change, words):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as file:
        file.writestr("a.png", b"x")
    raw = bytearray((tmp_path / "z.zip").read_bytes())
    listed = raw.index(b"PK\x01\x02")
    raw[listed + at : listed + at + 2] = change
    (tmp_path / "z.zip").write_bytes(raw)
    assert words in found_in(tmp_path / "z.zip")["a.png"]


def test_links_in_archives_are_not_followed(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as file:
        info = zipfile.ZipInfo("a.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    with tarfile.open(tmp_path / "t.tar", "w") as file:
        add(file, "a.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(file, "b.png", type=tarfile.LNKTYPE, linkname="a.png")
    assert all("it is a link" in why for path in ("z.zip", "t.tar") for why in found_in(tmp_path / path).values())


def header(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.type = kind
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    raw[124:136] = size
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def after_pax(record, *blocks):
    """A header that describes the member after it, and that member."""
    return header("pax", b"%011o\0" % len(record), tarfile.XHDTYPE) + record.ljust(512, b"\0") + b"".join(blocks)


ONE = b"00000000001\0"
NEGATIVE = b"\xff" * 10 + struct.pack(">h", -1024)


@pytest.mark.parametrize(
    "content",
    [
        header("a.png", NEGATIVE) + bytes(2048),
        header("a.png", ONE) + b"x" + bytes(511) + header("b.png", NEGATIVE) + bytes(2048),
        header("a.png", b"\x80" + b"\x7f" * 11) + bytes(2048),
        header("a.png", b"77777777777\0", tarfile.GNUTYPE_LONGNAME) + bytes(2048),
        header("a.png", b"77777777777\0", tarfile.XHDTYPE) + bytes(2048),
        header("a.png", ONE) + b"x" + bytes(511) + b"no header" * 100,
        header("a.png", b"00000010000\0") + bytes(512),
        header("a.png", ONE) + bytes(512) + after_pax(b"14 size=-1536\n", header("b.png", ONE), bytes(2048)),
        header("a", b"00000200000\0", tarfile.GNUTYPE_LONGNAME) + b"x" * 65536 + header("a.png", b"0" * 11 + b"\0"),
    ],
    ids=[
        *("negative", "negative later", "beyond any disk", "long name", "pax header", "broken later", "cut short"),
        *("negative by pax", "endless name"),
    ],
)
def test_a_hostile_tar_is_bad_input_and_no_hang(tmp_path, content):
    (tmp_path / "t.tar").write_bytes(content)
    with pytest.raises(BadInput, match=r"t\.tar is a damaged tar archive"):
        list_sources([tmp_path / "t.tar"])


def test_a_compressed_tar_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tars, "RATIO_FROM", 10_000)
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as file:
        add(file, "a.png", bytes(10_000_000))
    with pytest.raises(BadInput, match="more than 200 times its size"):
        list_sources([tmp_path / "t.tar.gz"])


def test_a_compressed_tar_that_is_cut_short_is_bad_input(tmp_path):
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as file:
        for k in range(20):
            add(file, f"{k}.png", random.Random(k).randbytes(5000))
    raw = (tmp_path / "t.tar.gz").read_bytes()
    (tmp_path / "t.tar.gz").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(BadInput, match=r"t\.tar\.gz is a damaged tar archive"):
        list_sources([tmp_path / "t.tar.gz"])


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_no_mutation_of_an_archive_crashes_hangs_or_is_read_as_another_image(tmp_path, kind):
    whole = tmp_path / f"a.{kind}"
    contents = {f"{k}.png": random.Random(k).randbytes(3000) for k in range(4)}
    if kind == "zip":
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in contents.items():
                file.writestr(name, content)
    else:
        with tarfile.open(whole, "w:gz" if kind.endswith("gz") else "w") as file:
            for name, content in contents.items():
                add(file, name, content)
    chance, raw = random.Random(20261122), whole.read_bytes()
    for _ in range(20_000 if SOAK else 1000):
        whole.write_bytes(mutated(raw, chance))
        try:
            found = found_in(whole)
        except BadInput:
            continue
        if kind == "zip":  # which has checksums
            assert all(isinstance(content, str) or content in contents.values() for content in found.values())


def mutated(raw, chance):
    """Some bytes flipped, set to extremes, cut out or doubled."""
    raw = bytearray(raw)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(raw) if chance.random() < 0.5 else min(400, len(raw)))
        at = at if chance.random() < 0.5 else len(raw) - 1 - at  # more often near the ends, where the lists are
        what = chance.randrange(4)
        if what == 0:
            raw[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            raw[at : at + 4] = chance.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"])
        elif what == 2 and len(raw) > 200:
            del raw[at : at + chance.randrange(1, 100)]
        else:
            raw[at:at] = raw[at : at + chance.randrange(1, 100)]
    return bytes(raw)


def test_a_zip_that_changes_while_it_is_read_gives_no_other_image(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as file:
        file.writestr("a.png", b"first")
    (listed,) = list_sources([tmp_path / "z.zip"]).files
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as file:
        file.writestr("a.png", b"other")
    with pytest.raises(ValueError, match="do not agree"):
        read(listed)


def test_a_compressed_tar_is_read_from_front_to_back(tmp_path, monkeypatch):
    names = [f"{k}.png" for k in (3, 1, 2, 0)]
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as file:
        for name in names:
            add(file, name, name.encode())
    files = list_sources([tmp_path / "t.tar.gz"]).files
    assert [os.fsdecode(files[k].name) for k in files.places()] == names


def test_names_are_kept_to_the_byte(tmp_path):
    raws = [b"a b.png", b"new\nline.png", b"\xff\xfe.png", b"x" * 251 + b".png", "é.png".encode()]
    (tmp_path / "f").mkdir()
    for raw in raws:
        (tmp_path / "f" / os.fsdecode(raw)).write_bytes(raw)
    with tarfile.open(tmp_path / "t.tar", "w") as file:
        file.add(tmp_path / "f", ".")
    for source in (tmp_path / "f", tmp_path / "t.tar"):
        assert list_sources([source]).files.names == sorted(raws)
    assert list_sources([tmp_path / "f", tmp_path / "t.tar"]).files.names == sorted(raws * 2)
