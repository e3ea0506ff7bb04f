"""The split is decided by the path alone, and only ordinary library code is taken."""

from pathlib import Path

import pytest

from daemon.embedded.train.corpus import Module, gather, is_held_out, is_wanted, split


def test_the_split_ignores_the_text_and_the_order() -> None:
    paths = [f"package/module_{number}.py" for number in range(300)]
    one = split(Module(path, "a") for path in paths)
    other = split(Module(path, "b") for path in reversed(paths))
    assert [module.path for module in one.held_out] == [module.path for module in other.held_out]
    assert all(is_held_out(module.path) for module in one.held_out)
    assert not any(is_held_out(module.path) for module in one.train)
    assert 10 <= len(one.held_out) <= 50


def test_the_split_is_the_one_the_models_were_trained_with() -> None:
    # Another hash would put these into training and void the recorded numbers.
    assert all(map(is_held_out, ("ast.py", "enum.py", "textwrap.py", "asyncio/streams.py")))
    assert not any(map(is_held_out, ("abc.py", "os.py", "asyncio/tasks.py")))


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("os.py", True),
        ("asyncio/tasks.py", True),
        ("test/test_os.py", False),
        ("unittest/test/test_case.py", False),
        ("lib2to3/tests/data/bom.py", False),
        ("encodings/cp037.py", False),
        ("_sysconfigdata__linux_x86_64-linux-gnu.py", False),
        ("config-3.11-x86_64-linux-gnu/python-config.py", False),
        ("site-packages/numpy/core.py", False),
        ("pydoc.pyc", False),
    ],
)
def test_which_files_are_wanted(path: str, wanted: bool) -> None:
    assert is_wanted(path) is wanted


def test_gather_reads_text_and_skips_what_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "a.py").write_text("no")
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "plain.py").write_bytes(b"x = 1\r\n")
    corpus = gather(tmp_path)
    assert (*corpus.train, *corpus.held_out) == (Module("plain.py", "x = 1\n"),)


def test_the_digest_tells_corpora_apart() -> None:
    assert split([Module("a.py", "x")]).digest() != split([Module("a.py", "y")]).digest()
