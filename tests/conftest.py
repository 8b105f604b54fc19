"""Small named data, and the ways of running that every result must be the same for."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster
from PIL import Image

from data_prep import store
from data_prep.arrays import write_matrix

SOAK = bool(os.environ.get("NMF_BATCH_SOAK"))
"""Whether the long forms are asked for: `make soak`."""
DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261122)


@pytest.fixture
def synchronous() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 1 KiB, so that small matrices have many of them."""
    monkeypatch.setattr(store, "CHUNK_NBYTES", 1024)


@pytest.fixture
def planted(tmp_path: Path, rng: np.random.Generator, small_chunks: None) -> Path:
    """A store of 40 × 300 float32 = W H, d = 4, in 19 chunks of 16 columns."""
    path = tmp_path / "planted.zarr"
    W, H = sparse(rng, 40, 4), sparse(rng, 4, 300)
    write_matrix(path, (W @ H).astype(np.float32))
    return path


@pytest.fixture
def faces(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder of faces, see `save_faces`."""
    save_faces(tmp_path / "images", rng)
    return tmp_path / "images"


@pytest.fixture(scope="session")
def scheduler_of() -> Iterator[Callable[[int], str]]:
    """Addresses of local clusters of so many processes, each started once."""
    clusters: dict[int, LocalCluster] = {}

    def start(workers: int) -> str:
        if workers not in clusters:
            clusters[workers] = LocalCluster(
                n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
            )
        return clusters[workers].scheduler_address

    yield start
    for cluster in clusters.values():
        cluster.close()


@pytest.fixture
def cluster_of(scheduler_of: Callable[[int], str]) -> Callable[[int], Client]:
    """Clients of these clusters, to be used in a with statement: one left open is where later tests would run."""
    return lambda workers: Client(scheduler_of(workers))


def sparse(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Uniform numbers, half of them zero, so that the factorization is unique."""
    return rng.random((rows, columns)) * (rng.random((rows, columns)) < 0.5)


def save_faces(folder: Path, rng: np.random.Generator) -> None:
    """Save 30 gray PNG files of 6 × 5 pixels, a third of them in a folder inside."""
    for k in range(30):
        save_png(folder / ("" if k % 3 else "deep") / f"{k:02d}.png", rng.integers(0, 256, (6, 5), dtype=np.uint8))


def save_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def real(name: str) -> Path:
    """A file of real data; the test is skipped, and says so, where it is absent."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not on this machine")
    return path
