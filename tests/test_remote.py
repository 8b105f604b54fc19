"""Stores behind an address: a local S3 server with the real client, and any other file system of fsspec's."""

import functools
import http.server
import json
import os
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from obstore.exceptions import GenericError, PermissionDeniedError
from PIL import Image

from data_prep import lock, objects, remote, store
from data_prep.arrays import write_matrix
from data_prep.decode import Decoding
from data_prep.folders import folder
from data_prep.images import Options, prepare
from data_prep.lock import HeldError, only_writer
from data_prep.remote import Changed, Unreachable
from pipeline import factorize, open_factors
from tests.commands import nmf_batch, process
from tests.conftest import save_faces, sparse
from tests.test_factorize import bits
from tests.test_images import prep, same_from_any_source

SECRET = "a-secret-that-must-not-be-seen"


@pytest.fixture(scope="module")
def server():
    started = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    yield f"http://{host}:{port}"
    started.stop()


@pytest.fixture
def credentials(server, monkeypatch):
    """The usual environment of a user of S3."""
    environment = {
        "AWS_ENDPOINT_URL": server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "a-user",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    forget()
    return environment


def forget():
    """Open addresses anew: with the environment of now."""
    remote._open.cache_clear()
    remote.bucket_of.cache_clear()


@pytest.fixture
def bucket(credentials):
    """An empty bucket."""
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="bucket")
    yield s3
    for found in s3.list_objects_v2(Bucket="bucket").get("Contents", []):
        s3.delete_object(Bucket="bucket", Key=found["Key"])


def contents(bucket):
    return {
        found["Key"]: bucket.get_object(Bucket="bucket", Key=found["Key"])["Body"].read()
        for found in bucket.list_objects_v2(Bucket="bucket")["Contents"]
    }


@pytest.fixture
def planted_twice(bucket, tmp_path, rng, monkeypatch):
    """The same matrix here and in the bucket, in 5 chunks: the server takes most of the time of these tests."""
    monkeypatch.setattr(store, "CHUNK_NBYTES", 2**12)
    A = (sparse(rng, 40, 4) @ sparse(rng, 4, 300)).astype(np.float32)
    write_matrix(tmp_path / "here.zarr", A)
    write_matrix("s3://bucket/deep/there.zarr", A)
    return tmp_path / "here.zarr", "s3://bucket/deep/there.zarr"


def test_a_remote_store_gives_the_bits_of_a_local_one(planted_twice):
    results = []
    for path in planted_twice:
        factorize(path, 4, solver="hals", max_iter=5, tol=0)
        results.append(bits(path))
    assert results[0] == results[1]


def test_a_remote_store_has_the_files_of_a_local_one(planted_twice, bucket):
    here, _ = planted_twice
    there = {key.removeprefix("deep/there.zarr/"): content for key, content in contents(bucket).items()}
    assert {str(file.relative_to(here)): file.read_bytes() for file in here.rglob("*") if file.is_file()} == there


def test_a_remote_result_is_continued(planted_twice):
    _, there = planted_twice
    factorize(there, 4, solver="hals", max_iter=2, tol=0)
    result = factorize(there, 4, solver="hals", max_iter=5, tol=0)
    assert (result.n_new, len(result.factors.iterations)) == (3, 5)
    assert factorize(there, 4, solver="hals", max_iter=5, tol=0).n_new == 0


def test_workers_reach_a_remote_store(planted_twice, cluster_of, credentials):
    here, there = planted_twice
    factorize(here, 4, solver="hals", max_iter=9, tol=0)
    with cluster_of(2) as client:
        client.run(os.environ.update, credentials)
        factorize(there, 4, solver="hals", max_iter=9, tol=0)
    assert bits(here) == bits(there)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed"])
def test_damage_is_named(planted_twice, bucket, damage):
    _, there = planted_twice
    key = "deep/there.zarr/A/c/0/3"
    content = contents(bucket)[key]
    if damage == "removed":
        bucket.delete_object(Bucket="bucket", Key=key)
    else:
        content = bytes([content[0] ^ 1]) + content[1:] if damage == "flipped" else content[:100]
        bucket.put_object(Bucket="bucket", Key=key, Body=content)
    with pytest.raises(store.BadInput, match=r"^s3://bucket/deep/there.zarr/A/c/0/3 is (damaged|missing)"):
        factorize(there, 4, solver="hals", max_iter=2)


def test_the_commands_work_on_an_address_and_show_no_secret(faces, bucket, credentials):
    there = "s3://bucket/faces.zarr"
    shown = [
        process("prep", faces, "--zarr", there, "--workers", 2),
        process("plan", "--zarr", there, "-d", 3),
        process("run", "--zarr", there, "-d", 3, "--max-iter", 9, "--tol", 0, "--polish", 1, "--workers", 2),
        process("info", "--zarr", there, "--json"),
    ]
    assert [(s.returncode, s.stderr if s.returncode else "") for s in shown] == [(0, "")] * 4
    assert json.loads(shown[-1].stdout)["nmf"]["d3"]["n_iter"] == 9 + 1
    everything = "".join(s.stdout + s.stderr for s in shown).encode() + b"".join(contents(bucket).values())
    assert SECRET.encode() not in everything


def test_another_writer_of_a_remote_factorization_is_exit_11(planted_twice):
    _, there = planted_twice
    with only_writer(folder(there) / "nmf" / "d4"):
        shown = nmf_batch("run", "--zarr", there, "-d", 4)
    assert (shown.returncode, "another process is writing" in shown.stderr) == (11, True)
    assert factorize(there, 4, solver="hals", max_iter=1).n_new == 1


def test_the_lease_of_a_dead_writer_runs_out(planted_twice, monkeypatch):
    place = folder(planted_twice[1]) / "nmf" / "d4"
    place.replace_version(lock.LEASE, json.dumps({"until": time.time() + 0.5}).encode(), None)
    with pytest.raises(HeldError, match="another process"), only_writer(place):
        pass
    time.sleep(0.6)
    with only_writer(place):
        assert json.loads(place.read(lock.LEASE))["until"] > time.time() + 50


def test_who_lost_the_lease_changes_nothing_that_readers_see(planted_twice):
    """As after a long sleep: another writer has come and gone, or is still there."""
    _, there = planted_twice
    place = folder(there) / "nmf" / "d4"
    before = factorize(there, 4, solver="hals", max_iter=2, tol=0).factors.path

    def take_over(iterations):
        place.replace(lock.LEASE, json.dumps({"until": time.time() + 50}).encode())

    with pytest.raises(HeldError, match="another process is writing"):
        factorize(there, 4, solver="hals", max_iter=4, tol=0, on_iteration=take_over)
    assert open_factors(there, "d4").path == before
    assert [name for name in place.entries() if name.startswith("r")] == [before.name]


def test_a_refused_preparation_leaves_nothing_in_the_bucket(faces, bucket):
    (faces / "07.png").write_bytes(b"no image")
    shown = nmf_batch("prep", faces, "--zarr", "s3://bucket/f.zarr", "--max-skip", "0%")
    assert (shown.returncode, shown.stderr.count("\n")) == (4, 1)
    assert "Contents" not in bucket.list_objects_v2(Bucket="bucket")


def test_a_lease_is_kept_as_long_as_it_is_held(planted_twice, monkeypatch):
    monkeypatch.setattr(lock, "LEASE_S", 0.4)
    place = folder(planted_twice[1]) / "nmf" / "d4"
    with only_writer(place):
        for _ in range(6):
            time.sleep(0.15)
            with pytest.raises(HeldError), only_writer(place):
                pass


@pytest.mark.parametrize("where", ["s3://bucket/x", "memory://x"])
def test_what_somebody_else_replaced_is_not_replaced(bucket, where):
    place = folder(where)
    first = place.replace_version("pointer", b"1", None)
    place.replace_version("pointer", b"2", first)
    for stale in (first, None):
        with pytest.raises(Changed):
            place.replace_version("pointer", b"3", stale)
    assert place.read("pointer") == b"2"


def test_a_replacement_whose_answer_got_lost_counts_as_done(bucket):
    """The client asks again, and is told that the version it would replace is not there any more."""
    place = folder("s3://bucket/x")
    first = place.replace_version("pointer", b"1", None)
    second = place.replace_version("pointer", b"2", first)
    assert place.replace_version("pointer", b"2", first) == second


def test_what_somebody_removed_is_changed_too(credentials, monkeypatch):
    """S3 answers so; the local server makes the object anew."""

    class Gone:
        def get(self, key):
            raise FileNotFoundError

        def put(self, *given, **named):
            raise FileNotFoundError

    monkeypatch.setattr(remote, "bucket_of", lambda url: Gone())
    with pytest.raises(Changed):
        folder("s3://bucket/x").replace_version("pointer", b"2", "1")


def test_any_file_system_of_fsspec_holds_a_store(planted_twice, rng):
    here, _ = planted_twice
    write_matrix("memory://m.zarr", store.open_array(here, "A")[...])
    for path in (here, "memory://m.zarr"):
        factorize(path, 4, solver="hals", max_iter=3)
    assert open_factors("memory://m.zarr", "d4").loss.tobytes() == open_factors(here, "d4").loss.tobytes()


@pytest.mark.parametrize("scheme", ["nowhere", "s3"])
def test_an_address_that_nothing_opens_is_a_mistake(monkeypatch, scheme):
    monkeypatch.setattr(remote, "find_spec", lambda name: None)  # as if obstore were not installed
    with pytest.raises(ValueError, match=rf"^{scheme}://"):
        folder(f"{scheme}://bucket/x")


def test_no_answer_is_exit_75(planted_twice, credentials, monkeypatch):
    shown = process("info", "--zarr", planted_twice[1], AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert (shown.returncode, shown.stderr.count("\n")) == (75, 1)
    assert "s3://bucket/deep/there.zarr cannot be reached" in shown.stderr


def test_answers_that_fail_for_a_while_are_asked_for_again(planted_twice, monkeypatch):
    refused = []

    class Overloaded(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            refused.append(self.path)
            self.send_response(503 if len(refused) < 4 else 404)
            self.end_headers()

    with http.server.HTTPServer(("127.0.0.1", 0), Overloaded) as overloaded:
        threading.Thread(target=overloaded.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{overloaded.server_port}")
        forget()
        assert folder(planted_twice[1]).read("zarr.json") is None
        overloaded.shutdown()
    assert len(refused) == 4


def test_refused_credentials_and_silence_are_told_apart():
    with pytest.raises(remote.Forbidden, match="refused to these credentials"), remote.translated("s3://b/x"):
        raise PermissionDeniedError("403")
    with pytest.raises(Unreachable, match="run the same command again"), remote.translated("s3://b/x"):
        raise GenericError("timeout")


def test_images_are_appended_to_a_remote_store_as_to_a_local_one(faces, bucket, tmp_path, rng, monkeypatch):
    monkeypatch.setattr(store, "CHUNK_NBYTES", 8 * 30)
    here = tmp_path / "f.zarr"
    for place in ("s3://bucket/f.zarr", here):
        prep(faces, place)
    save_faces(faces / "later", rng)
    for place in ("s3://bucket/f.zarr", here):
        assert prep(faces, place).n_new == 30
    there = {key.removeprefix("f.zarr/"): content for key, content in contents(bucket).items() if lock.LEASE not in key}
    assert {str(file.relative_to(here)): file.read_bytes() for file in here.rglob("*") if file.is_file()} == there


def test_images_of_a_bucket_make_the_store_that_their_files_make(bucket, faces, tmp_path):
    for path in faces.rglob("*.png"):
        bucket.put_object(Bucket="bucket", Key=f"images/{path.relative_to(faces)}", Body=path.read_bytes())
    with zipfile.ZipFile(tmp_path / "f.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in faces.rglob("*.png"):
            archive.write(path, path.relative_to(faces))
    bucket.put_object(Bucket="bucket", Key="f.zip", Body=(tmp_path / "f.zip").read_bytes())
    prep(faces, tmp_path / "local.zarr")
    for source in ("s3://bucket/images", "s3://bucket/f.zip"):
        path = prep(source, tmp_path / f"{source[-3:]}.zarr").path.path
        assert same_from_any_source(path) == same_from_any_source(tmp_path / "local.zarr")
    assert prep("s3://bucket/images", tmp_path / "ges.zarr").n_new == 0


def test_a_server_that_fails_for_good_makes_no_image_unreadable(bucket, faces, tmp_path, monkeypatch):
    for path in faces.rglob("*.png"):
        bucket.put_object(Bucket="bucket", Key=f"images/{path.relative_to(faces)}", Body=path.read_bytes())
    read = objects.read_whole

    def failing(home, name, limit):
        if name.endswith("9.png"):
            raise Unreachable(f"{home} cannot be reached")
        return read(home, name, limit)

    monkeypatch.setattr(objects, "read_whole", failing)
    with pytest.raises(Unreachable):
        prep("s3://bucket/images", tmp_path / "f.zarr", max_skip=1.0)
    monkeypatch.undo()
    assert prep("s3://bucket/images", tmp_path / "f.zarr").unreadable == []


def test_images_of_a_web_server_are_read_from_a_list(faces, tmp_path):
    handler = functools.partial(Quiet, directory=str(faces))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{web.server_port}"
        (tmp_path / "list").write_text(f"{address}/deep/00.png\n{address}/lost.png\n")
        options = Options(decoding=Decoding(), lists=[str(tmp_path / "list")], max_skip=0.5)
        with ThreadPoolExecutor(2) as pool:
            prepared = prepare([], tmp_path / "f.zarr", options, pool)
        web.shutdown()
    assert [broken.name for broken in prepared.unreadable] == ["lost.png"]
    expected = np.asarray(Image.open(faces / "deep" / "00.png")).ravel()
    np.testing.assert_array_equal(store.open_array(prepared.path, "A")[:, 0], expected)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
