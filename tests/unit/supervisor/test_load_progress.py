"""How far a model is loaded."""

import mmap
import os
from pathlib import Path

from parley.supervisor import load_progress

SIZE = 64 * mmap.PAGESIZE


def test_pages_of_a_mapped_file_count_when_they_are_read(tmp_path: Path) -> None:
    """Of a file that is mapped, the pages that the process has touched are loaded."""
    file = tmp_path / "model.gguf"
    file.write_bytes(bytes(SIZE))
    other = tmp_path / "other.gguf"
    other.write_bytes(bytes(SIZE))
    own = tmp_path / "proc"
    (own / "1").mkdir(parents=True)
    (own / "1" / "io").write_text("rchar: 0\nwchar: 0\n")
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), SIZE, access=mmap.ACCESS_READ) as mapped:
        mapped.madvise(mmap.MADV_RANDOM)  # without it, the kernel maps neighbours of a page
        mapped[:1]
        shares = []
        for _ in range(2):
            (own / "1" / "smaps").write_bytes(Path(f"/proc/{os.getpid()}/smaps").read_bytes())
            shares.append(load_progress.loaded_share(1, file, own))
            bytes(mapped[:])
        assert 0.0 == load_progress.loaded_share(1, other, own)
    assert shares[0] is not None
    assert shares[0] < 1.0
    assert 1.0 == shares[1]


def test_a_file_that_is_read_counts_by_its_bytes(tmp_path: Path) -> None:
    """Without a mapping, what the process has read counts; never more than all of it."""
    file = tmp_path / "model.gguf"
    file.write_bytes(bytes(1000))
    process = tmp_path / "1"
    process.mkdir()
    (process / "smaps").write_text("")
    for read, share in ((0, 0.0), (250, 0.25), (5000, 1.0)):
        (process / "io").write_text(f"rchar: {read}\nwchar: 7\n")
        assert share == load_progress.loaded_share(1, file, tmp_path)


def test_a_process_that_has_ended_has_no_share(tmp_path: Path) -> None:
    """Neither a process nor a file needs to exist, and other systems than Linux have no such files."""
    assert load_progress.loaded_share(1, tmp_path / "model.gguf", tmp_path) is None


def test_the_step_names_the_file(tmp_path: Path) -> None:
    """One model has its file and size, several have their number; a missing file is no error here."""
    file = tmp_path / "model.gguf"
    file.write_bytes(bytes(3 << 20))
    assert "Loading model.gguf, 3 MiB" == load_progress.title([file])
    assert "Loading 2 models" == load_progress.title([file, file])
    assert "Loading gone.gguf" == load_progress.title([tmp_path / "gone.gguf"])
