import json
import os
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from data_prep import columns, images, store
from data_prep.columns import Unreadable
from data_prep.decode import Decoding
from data_prep.folders import folder
from data_prep.images import Options, StoreDiffers, prepare
from data_prep.lock import HeldError
from tests.conftest import save_png


def prep(source, path, threads=2, executor=None, **settings):
    decoding = Decoding(**{name: settings.pop(name) for name in ("mode", "scale", "size") if name in settings})
    options = Options(decoding=decoding, **settings)
    if executor is not None:
        return prepare([source], path, options, executor)
    with ThreadPoolExecutor(threads) as pool:
        return prepare([source], path, options, pool)


class OneTask(ThreadPoolExecutor):
    """Runs the first task that it did not find done, and fails all others, as a machine does that goes down."""

    def __init__(self):
        super().__init__(1)
        self.done = 0

    def submit(self, write, chunk):
        known = (chunk.path / columns.RECORDS).read(f"{chunk.number}.json") is not None
        self.done += not known
        return super().submit(write, chunk) if self.done <= 1 else super().submit(go_down)


def go_down():
    raise OSError("gone")


def count_calls(monkeypatch, module, name):
    calls, original = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given: calls.append(given) or original(*given))
    return calls


def content(path):
    """Every file below the root, by name; the root's attributes tell the sources apart."""
    files = [file for file in path.rglob("*/*") if file.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def same_from_any_source(path):
    """The arrays that do not say where the images came from."""
    arrays = ("A", "image", "ok", "checksum", "norm", "pixel_sum", "sample", "sample_column")
    return {name: found for name, found in content(path).items() if name.split("/")[0] in arrays}


def test_a_column_is_an_image_in_the_order_of_the_names(faces, tmp_path):
    prepared = prep(faces, tmp_path / "f.zarr")
    A, names = store.open_array(prepared.path, "A")[...], store.read_array(prepared.path, "image")
    assert A.shape == (30, 30)
    assert names.tolist() == sorted(str(file.relative_to(faces)) for file in faces.rglob("*.png"))
    for column, name in zip(A.T, names, strict=True):
        np.testing.assert_array_equal(column, np.asarray(Image.open(faces / name)).ravel())


def test_attributes_say_what_a_is(faces, tmp_path):
    matrix = store.open_matrix(prep(faces, tmp_path / "f.zarr").path)
    A = store.open_array(matrix.path, "A")[...]
    assert matrix.norm_squared == pytest.approx(np.linalg.norm(A / 255) ** 2, rel=1e-12)
    assert matrix.attributes["image_shape"] == [6, 5, 1]
    assert (matrix.attributes["mode"], matrix.n_ok, matrix.scale) == ("L", 30, 1 / 255)


def test_the_same_bytes_for_any_threads_processes_and_archives(faces, tmp_path, small_chunks, cluster_of):
    archives = [tmp_path / f"f.{kind}" for kind in ("zip", "tar", "tar.gz")]
    with zipfile.ZipFile(archives[0], "w") as file:
        for path in faces.rglob("*.png"):
            file.write(path, path.relative_to(faces))
    for archive, mode in zip(archives[1:], ("w", "w:gz"), strict=True):
        with tarfile.open(archive, mode) as file:
            file.add(faces, ".")
    stores = [tmp_path / f"{k}.zarr" for k in range(6)]
    prep(faces, stores[0], threads=1)
    prep(faces, stores[1], threads=4)
    for archive, path in zip(archives, stores[2:5], strict=True):
        prep(archive, path)
    with cluster_of(2) as client:
        prep(faces, stores[5], executor=client.get_executor(pure=False))
    first, *others = [same_from_any_source(path) for path in stores]
    assert all(other == first for other in others)


def test_an_unreadable_image_is_a_zero_column_with_its_reason(faces, tmp_path):
    (faces / "07.png").write_bytes(b"no image")
    prepared = prep(faces, tmp_path / "f.zarr", max_skip=0.1)
    assert [broken.name for broken in prepared.unreadable] == ["07.png"]
    assert "no image of a known format" in prepared.unreadable[0].reason
    column = store.read_array(prepared.path, "image").tolist().index("07.png")
    assert not store.read_array(prepared.path, "ok")[column]
    assert store.open_array(prepared.path, "A")[:, column].max() == 0
    assert column not in store.read_array(prepared.path, "sample_column")


def test_an_image_of_another_size_names_its_size_and_the_way_on(faces, tmp_path):
    save_png(faces / "08.png", np.zeros((7, 5), np.uint8))
    prepared = prep(faces, tmp_path / "f.zarr", max_skip=0.1)
    reason = "it is 7 × 5, the others are 6 × 5; --size 6x5 would fit it"
    assert prepared.unreadable == [Unreadable("08.png", reason)]
    assert prep(faces, tmp_path / "g.zarr", size=(6, 5)).unreadable == []


def test_a_chunk_of_unreadable_images_only_is_stored_as_zeros(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CHUNK_NBYTES", 300)
    for file in sorted(faces.rglob("*.png"), key=lambda file: str(file.relative_to(faces)))[8:16]:
        file.write_bytes(b"no image")
    A = store.open_array(prep(faces, tmp_path / "f.zarr", max_skip=0.5).path, "A")
    assert A.chunks == (30, 8)
    assert not store.read_chunk(A, 0, 1).any()
    assert store.read_chunk(A, 0, 0).any()


def test_more_unreadable_images_than_allowed_publish_nothing(faces, tmp_path):
    (faces / "07.png").write_bytes(b"no image")
    with pytest.raises(store.BadInput, match=r"1 of 30 images cannot be used.*07\.png"):
        prep(faces, tmp_path / "f.zarr", max_skip=0.01)
    assert not (tmp_path / "f.zarr").exists()


def test_no_readable_image_at_all_is_bad_input(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(store.BadInput, match="none of 1 images can be read"):
        prep(tmp_path, tmp_path / "f.zarr")


def test_the_first_image_that_can_be_read_decides(faces, tmp_path):
    (faces / "01.png").write_bytes(b"no image")
    save_png(faces / "02.png", np.zeros((6, 5, 4), np.uint8))
    prepared = prep(faces, tmp_path / "f.zarr", max_skip=0.1)
    assert (prepared.mode, prepared.image_shape) == ("RGBA", (6, 5, 4))


def test_a_preparation_that_was_interrupted_starts_over(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "write_sample", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prep(faces, tmp_path / "f.zarr")
    monkeypatch.undo()
    prep(faces, tmp_path / "f.zarr")
    prep(faces, tmp_path / "g.zarr")
    assert content(tmp_path / "f.zarr") == content(tmp_path / "g.zarr")


def test_the_same_again_does_nothing(faces, tmp_path):
    prep(faces, tmp_path / "f.zarr")
    before = content(tmp_path / "f.zarr")
    assert prep(faces, tmp_path / "f.zarr").n_new == 0
    assert content(tmp_path / "f.zarr") == before


def test_other_settings_or_images_are_refused_with_the_difference(faces, tmp_path):
    prep(faces, tmp_path / "f.zarr")
    before = content(tmp_path / "f.zarr")
    with pytest.raises(StoreDiffers, match="mode: None → RGB"):
        prep(faces, tmp_path / "f.zarr", mode="RGB")
    (faces / "01.png").unlink()
    with pytest.raises(StoreDiffers, match="not there any more: 1 "):
        prep(faces, tmp_path / "f.zarr")
    assert content(tmp_path / "f.zarr") == before


def test_other_images_of_the_same_names_are_noticed(faces, tmp_path, rng):
    prep(faces, tmp_path / "f.zarr")
    save_png(faces / "01.png", rng.integers(0, 256, (6, 5), dtype=np.uint8))
    with pytest.raises(StoreDiffers, match="have changed since: 1 "):
        prep(faces, tmp_path / "f.zarr")


def test_two_preparations_of_one_store_do_not_mix(faces, tmp_path, monkeypatch):
    def second(*_):
        prep(faces, tmp_path / "f.zarr")

    monkeypatch.setattr(images, "write_sample", second)
    with pytest.raises(HeldError, match="another process is writing"):
        prep(faces, tmp_path / "f.zarr")


def test_what_a_kill_within_publishing_leaves_is_no_obstacle(faces, tmp_path):
    store.begin(folder(tmp_path / "f.zarr"), expendable=())
    (tmp_path / "f.zarr" / ".aside-0123").write_text("half")
    assert prep(faces, tmp_path / "f.zarr").n_new == 30
    assert not list((tmp_path / "f.zarr").glob(".aside-*"))


def test_a_failure_stops_what_waits(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CHUNK_NBYTES", 30)
    monkeypatch.setattr(columns, "AHEAD", 2)
    begun = []

    def failing(chunk):
        begun.append(chunk.number)
        raise OSError("disk full")

    monkeypatch.setattr(columns, "write_chunk", failing)
    with pytest.raises(OSError, match="disk full"):
        prep(faces, tmp_path / "f.zarr", threads=1)
    assert len(begun) <= 3


def test_the_first_so_many(faces, tmp_path):
    assert prep(faces, tmp_path / "f.zarr", limit=7).shape == (30, 7)


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_every_codec_keeps_a_checksum_on_every_chunk(faces, tmp_path, codec):
    path = prep(faces, tmp_path / "f.zarr", codec=codec).path.path
    for metadata in path.glob("*/zarr.json"):
        assert json.loads(metadata.read_text())["codecs"][-1]["name"] == "crc32c", metadata
    assert store.read_chunk(store.open_array(path, "A"), 0, 0).shape == (30, 30)


def test_progress_ends_with_every_image(faces, tmp_path, small_chunks):
    told = []
    with ThreadPoolExecutor(2) as pool:
        prepare([faces], tmp_path / "f.zarr", Options(decoding=Decoding()), pool, told.append)
    assert [(p.done, p.total) for p in told][-1] == (30, 30)


def test_an_interrupted_preparation_goes_on_to_the_same_bytes(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CHUNK_NBYTES", 30)  # chunks of one image
    decoded = count_calls(monkeypatch, columns, "decode_all")
    whole = prep(faces, tmp_path / "whole.zarr").path.path
    for _ in range(20):
        with pytest.raises(OSError, match="gone"):
            prep(faces, tmp_path / "parts.zarr", executor=OneTask())
    parts = prep(faces, tmp_path / "parts.zarr").path.path
    assert content(parts) == content(whole)
    assert store.group_attributes(parts) == store.group_attributes(whole)
    assert len(decoded) == 30 + 30  # no chunk twice


def test_a_chunk_that_was_lost_with_the_machine_is_made_again(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CHUNK_NBYTES", 8 * 30)
    whole = prep(faces, tmp_path / "whole.zarr").path.path
    with pytest.raises(OSError, match="gone"):
        prep(faces, tmp_path / "parts.zarr", executor=OneTask())
    chunk = tmp_path / "parts.zarr" / "A" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:100])
    assert content(prep(faces, tmp_path / "parts.zarr").path.path) == content(whole)


def test_a_task_of_another_preparation_leaves_a_alone(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CHUNK_NBYTES", 8 * 30)
    late = []
    write_chunk = columns.write_chunk
    monkeypatch.setattr(columns, "write_chunk", lambda chunk: late.append(chunk) or write_chunk(chunk))
    with pytest.raises(OSError, match="gone"):
        prep(faces, tmp_path / "f.zarr", executor=OneTask())
    os.utime(faces / "01.png", (0, 0))
    path = prep(faces, tmp_path / "f.zarr").path.path
    before = content(path)
    with pytest.raises(store.BadInput, match="another preparation"):
        columns.write_chunk(late[0])
    assert content(path) == before
