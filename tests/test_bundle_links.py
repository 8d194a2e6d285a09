"""Links and special files in a bundle."""

import os
from pathlib import Path

import numpy as np
import pytest

import bundles
from raskrank import BundleError, Corrupt, MissingFile, Reranker
from raskrank.bundle import open_bundle
from raskrank.manifest import FILES, MANIFEST
from raskrank.settings import bundle_path

HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not found</body></html>\n"


def test_a_link_to_the_folder_loads(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    with Reranker.load(link) as reranker, Reranker.load(folder) as direct:
        assert reranker.score("a", ["b"]) == direct.score("a", ["b"])


def link_away(folder: Path, names: tuple[str, ...]) -> Path:
    """Moves files into a store under names of its own, and leaves links, as a hub's cache has them. Returns the store."""
    store = folder.parent / "blobs"
    store.mkdir()
    for number, name in enumerate(names):
        (folder / name).rename(store / f"{number:064x}")
        (folder / name).symlink_to(Path("..", "blobs", f"{number:064x}"))
    return store


@pytest.mark.parametrize("names", [*((name,) for name in (*FILES, MANIFEST)), (*FILES, MANIFEST)], ids="+".join)
def test_a_bundle_of_links_as_in_a_hub_cache_loads(folder: Path, names: tuple[str, ...]) -> None:
    with Reranker.load(folder, threads=2) as direct:
        expected = direct.score("a", ["b", "c" * 900])
    store = link_away(folder, names)
    with Reranker.load(folder, threads=2) as reranker:
        assert np.array_equal(reranker.score("a", ["b", "c" * 900]), expected)
        # The second session, for runs that are spread, too.
        ids = np.arange(5, 60)[None]
        spread = [reranker._loaded.backend.logits(ids, np.zeros_like(ids), threads=2) for _ in range(2)]
        assert spread[0] == spread[1] == reranker._loaded.backend.logits(ids, np.zeros_like(ids))
    changed = store / f"{0:064x}"
    changed.write_bytes(HTML)
    with pytest.raises(Corrupt):
        Reranker.load(folder)


def test_the_embedded_model_in_an_environment_of_links_loads(tmp_path: Path) -> None:
    # As uv installs with its link mode "symlink": every file leads into a cache, under the name it has there.
    cache = bundles.copy_bundle(bundle_path(None), tmp_path / "cache")
    (tmp_path / "nano").mkdir()
    for name in (*FILES, MANIFEST):
        (tmp_path / "nano" / name).symlink_to(cache / name)
    with Reranker.load(tmp_path / "nano") as reranker, Reranker.load() as embedded:
        assert reranker.score("a", ["b"]) == embedded.score("a", ["b"])


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("target", ["absent", "itself", "folder", "/dev/zero"])
def test_links_that_lead_to_no_file(folder: Path, name: str, target: str) -> None:
    (folder.parent / "folder").mkdir()
    (folder / name).unlink()
    (folder / name).symlink_to(name if target == "itself" else folder.parent / target)
    with pytest.raises(MissingFile, match=name):
        Reranker.load(folder)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_pipe_is_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(MissingFile, match=name):
        Reranker.load(folder)


def test_a_loop_of_links_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(MissingFile, match="no bundle at"):
        Reranker.load(tmp_path / "loop")


def test_what_may_not_be_read_is_a_bundle_error(folder: Path) -> None:
    with pytest.raises(BundleError, match="File name too long"):
        Reranker.load(folder / ("x" * 300))
    if not Path("/proc/self/mem").exists():
        pytest.skip("needs Linux's /proc/self/mem, a file whose start cannot be read")
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).symlink_to("/proc/self/mem")
    with pytest.raises(BundleError, match="Input/output error"):
        Reranker.load(folder)


def test_other_files_in_the_folder_do_not_matter(folder: Path) -> None:
    before = open_bundle(folder)
    (folder / "README.md").write_text("mine")
    (folder / "onnx").mkdir()
    after = open_bundle(folder)
    assert (after.manifest, after.graph, after.tokenizer) == (before.manifest, before.graph, before.tokenizer)
