"""An inbox may be at a URL, which is not ours to change."""

import fsspec
import pytest
from inboxes import png, put, run

from ae_pipeline.errors import ConfigError


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def test_an_inbox_may_be_a_url(codec, memory, tmp_path):
    put(tmp_path / "a.parquet", 1)
    memory.pipe("/bucket/in/a.parquet", (tmp_path / "a.parquet").read_bytes())
    memory.pipe("/bucket/in/sub/a.parquet", b"not Parquet")
    memory.pipe("/bucket/in/.hidden/b.parquet", b"not Parquet")
    settings = {"location": "memory://bucket/in", "settle_seconds": 0.0}
    assert run(tmp_path, codec, **{**settings, "settle_seconds": 60.0}).waiting == 2
    done = run(tmp_path, codec, **settings)
    assert (done.files, list(done.quarantined)) == (["a.parquet"], ["sub/a.parquet"])
    assert done.quarantined["sub/a.parquet"].startswith("sub/a.parquet is not a readable Parquet file")
    assert (tmp_path / "data" / "quarantine" / "sub" / "a.parquet").read_bytes() == b"not Parquet"
    # It is still in the inbox, which is not ours to change; and is not tried again, also without the ledger.
    assert memory.exists("/bucket/in/sub/a.parquet")
    for _ in range(2):
        done = run(tmp_path, codec, **settings)
        assert (done.files, done.known, done.quarantined) == ([], 1, {})
        (tmp_path / "data" / "growing" / ".inbox" / "ledger.json").unlink()
    assert not (tmp_path / "data" / "growing" / ".inbox" / "files").exists()
    memory.pipe("/bucket/in/c.png", png())
    assert list(run(tmp_path, codec, **settings).quarantined) == ["c.png"]


def test_an_inbox_url_may_be_empty(codec, memory, tmp_path):
    assert run(tmp_path, codec, location="memory://nothing/here").files == []


def test_an_inbox_that_cannot_be_opened_says_so(codec, tmp_path):
    with pytest.raises(ConfigError, match=r"inbox\.location 'nope://x' cannot be opened: Protocol not known: nope; "):
        run(tmp_path, codec, location="nope://x")
    with pytest.raises(ConfigError, match=r"inbox\.quarantine 'in/bad' is in the inbox 'in', whose files are taken"):
        run(tmp_path, codec, location="in", quarantine="in/bad")
    assert run(tmp_path, codec, location="in", quarantine="in/_bad").files == []
