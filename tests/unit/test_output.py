"""Output: the files appear whole under their final names, or the folder stays as it was."""

import errno
import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import graph, model, node, relative_error, run, value

from onnxq import output as output_module
from onnxq.errors import OutputError
from onnxq.output import INLINE_LIMIT, ModelWriter, write_text

K = 600  # a float32 [K, K] weight is above INLINE_LIMIT
RNG = np.random.default_rng(0)
FEED = {"X": RNG.standard_normal((2, K)).astype(np.float32)}


def network(k: int = K, *, seed: int = 0) -> ir.Model:
    """Two matmuls and two biases."""
    rng = np.random.default_rng(seed)
    return ir.from_proto(
        model(
            graph(
                [
                    node("MatMul", ["X", "W1"], ["H"], name="one"),
                    node("Add", ["H", "b1"], ["B"]),
                    node("MatMul", ["B", "W2"], ["Y"], name="two"),
                ],
                [value("X", ["M", k])],
                [value("Y", ["M", k])],
                {
                    "W1": (rng.standard_normal((k, k)) / k**0.5).astype(np.float32),
                    "W2": (rng.standard_normal((k, k)) / k**0.5).astype(np.float32),
                    "b1": rng.standard_normal(k).astype(np.float32),
                },
            )
        )
    )


def save(path: Path, made: ir.Model | None = None, *, overwrite: bool = False) -> tuple[Path, ...]:
    with ModelWriter(path, overwrite=overwrite) as writer:
        writer.write(made if made is not None else network())
        return writer.commit()


def entries(path: Path) -> list[onnx.TensorProto]:
    """Initializers that lie in the data file."""
    proto = onnx.load(path, load_external_data=False)
    return [item for item in proto.graph.initializer if item.external_data]


def place(tensor: onnx.TensorProto) -> tuple[int, int]:
    """(offset, length) of an external tensor."""
    found = {entry.key: entry.value for entry in tensor.external_data}
    return int(found["offset"]), int(found["length"])


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} | {
        path.name: b"folder" for path in folder.iterdir() if path.is_dir()
    }


def test_a_large_model_is_a_pair_that_computes_the_same(tmp_path):
    files = save(tmp_path / "out.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in files)
    assert files[0].name == "out.onnx"
    assert files[1].name.startswith("out.")
    assert files[1].suffix == ".data"
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)
    (expected,), (got,) = run(network(), FEED), run(tmp_path / "out.onnx", FEED)
    assert relative_error(got, expected) == 0


def test_a_small_model_is_one_file(tmp_path):
    files = save(tmp_path / "out.onnx", network(100))
    assert [path.name for path in files] == ["out.onnx"] == [path.name for path in tmp_path.iterdir()]
    assert files[0].stat().st_size < INLINE_LIMIT
    assert not entries(files[0])


def test_strings_stay_in_the_model_however_many(tmp_path):
    made = network()
    words = ir.StringTensor([b"word"] * 3000, shape=ir.Shape([3000]), name="words")
    made.graph.register_initializer(ir.Value(name="words", const_value=words))
    save(tmp_path / "out.onnx", made)
    stored = {item.name: item for item in onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.initializer}
    assert list(stored["words"].string_data) == [b"word"] * 3000
    assert [item.name for item in entries(tmp_path / "out.onnx")] == ["W1", "W2", "b1"]


def test_large_tensors_start_on_pages_small_ones_on_cache_lines_and_no_byte_is_without_owner(tmp_path):
    _, data = save(tmp_path / "out.onnx")
    ranges = sorted(place(item) for item in entries(tmp_path / "out.onnx"))
    end = 0
    for offset, length in ranges:
        alignment = 4096 if length >= 1 << 20 else 64
        assert offset % alignment == 0
        assert 0 <= offset - end < alignment, "a gap longer than padding: bytes that nobody reads"
        end = offset + length
    assert end == data.stat().st_size


def test_tensors_stored_while_rewriting_are_found_in_the_final_file(tmp_path):
    made = network()
    with ModelWriter(tmp_path / "out.onnx", overwrite=False) as writer:
        weight = made.graph.initializers["W1"]
        weight.const_value = writer.store(weight.const_value, "W1")
        writer.write(made)
        writer.commit()
    assert relative_error(run(tmp_path / "out.onnx", FEED)[0], run(network(), FEED)[0]) == 0


@pytest.mark.parametrize("k", [100, K], ids=["one file", "with data"])
def test_one_tensor_under_two_names_is_stored_once_and_keeps_both(tmp_path, k):
    made = network(k)
    weights = made.graph.initializers
    weights["W2"].const_value = weights["W1"].const_value
    save(tmp_path / "out.onnx", made)
    proto = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    assert {item.name for item in proto.graph.initializer} == {"W1", "W2", "b1"}
    external = {item.name: place(item) for item in entries(tmp_path / "out.onnx")}
    assert k == 100 or external["W1"] == external["W2"]
    run(tmp_path / "out.onnx", {"X": FEED["X"][:, :k]})


def test_leaving_without_commit_leaves_nothing(tmp_path):
    with ModelWriter(tmp_path / "out.onnx", overwrite=False) as writer:
        writer.write(network())
    assert listing(tmp_path) == {}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("existing", [False, True])
def test_a_raise_leaves_nothing_and_overwrites_nothing(tmp_path, error, existing):
    if existing:
        save(tmp_path / "out.onnx", network(seed=1))
    before = listing(tmp_path)
    with pytest.raises(error), ModelWriter(tmp_path / "out.onnx", overwrite=True) as writer:  # noqa: PT012
        writer.write(network())
        raise error
    assert listing(tmp_path) == before


class FullDisk:
    """A file that takes `room` bytes and then says that the disk is full."""

    def __init__(self, file, room: int) -> None:
        self._file, self._room = file, room

    def write(self, content: bytes) -> int:
        self._room -= len(content)
        if self._room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(content)

    def __getattr__(self, name: str):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self._file.close()


@pytest.fixture
def full_disk(monkeypatch):
    """Every file opened for writing through pathlib takes `room` bytes."""

    def fill(room: int) -> None:
        real = Path.open

        def limited(self, mode="r", *rest, **options):
            file = real(self, mode, *rest, **options)
            return FullDisk(file, room) if "w" in mode else file

        monkeypatch.setattr(Path, "open", limited)
        monkeypatch.setattr(Path, "write_bytes", lambda self, content: limited(self, "wb").write(content))

    return fill


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("room", [0, 1000, 2_000_000], ids=["at once", "at the model file", "in the second weight"])
def test_a_full_disk_leaves_nothing_and_overwrites_nothing(tmp_path, full_disk, existing, room):
    if existing:
        save(tmp_path / "out.onnx", network(seed=1))
    before = listing(tmp_path)
    made = network()
    full_disk(room)
    with pytest.raises(OutputError, match=r"out\.onnx: cannot be written: No space left.*free some space"):
        save(tmp_path / "out.onnx", made, overwrite=True)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("failing", [1, 2], ids=["data file", "model file"])
def test_a_failing_rename_leaves_nothing_and_overwrites_nothing(tmp_path, monkeypatch, existing, failing):
    if existing:
        save(tmp_path / "out.onnx", network(seed=1))
    before, calls, real = listing(tmp_path), [], os.replace

    def replace(source, target):
        calls.append(source)
        if len(calls) == failing:
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(output_module.os, "replace", replace)
    with pytest.raises(OutputError, match="Input/output error"):
        save(tmp_path / "out.onnx", overwrite=True)
    assert listing(tmp_path) == before


def test_overwriting_replaces_the_pair_and_nothing_else(tmp_path):
    _, old_data = save(tmp_path / "out.onnx", network(seed=1))
    (tmp_path / "out.12345678.data").write_text("of somebody else: the model does not refer to it")
    (tmp_path / "out.txt").write_text("a note")
    files = save(tmp_path / "out.onnx", overwrite=True)
    assert not old_data.exists()
    assert sorted(listing(tmp_path)) == sorted([*(path.name for path in files), "out.12345678.data", "out.txt"])


def test_overwriting_with_the_same_model_keeps_its_data(tmp_path):
    first = save(tmp_path / "out.onnx")
    content = listing(tmp_path)
    assert save(tmp_path / "out.onnx", overwrite=True) == first
    assert listing(tmp_path) == content


def test_a_small_model_over_a_large_one_takes_its_data_away(tmp_path):
    save(tmp_path / "out.onnx")
    save(tmp_path / "out.onnx", network(100), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]


def test_old_data_that_only_a_branch_refers_to_is_removed(tmp_path):
    def branching(seed: int) -> ir.Model:
        weight = np.random.default_rng(seed).standard_normal((K, K)).astype(np.float32)
        branches = {
            "then_branch": graph([node("MatMul", ["X", "W"], ["T"])], [], [value("T", ["M", K])], {"W": weight}),
            "else_branch": graph([node("Neg", ["X"], ["E"])], [], [value("E", ["M", K])]),
        }
        main = graph(
            [node("If", ["flag"], ["Y"], **branches)],
            [value("X", ["M", K]), value("flag", [], np.bool_)],
            [value("Y", ["M", K])],
        )
        return ir.from_proto(model(main))

    _, old_data = save(tmp_path / "out.onnx", branching(0))
    files = save(tmp_path / "out.onnx", branching(1), overwrite=True)
    assert old_data not in files
    assert not old_data.exists()
    run(tmp_path / "out.onnx", {**FEED, "flag": np.array(True)})


def test_data_of_another_model_is_never_removed(tmp_path):
    """An existing file that refers to a data file without our name for it."""
    onnx.save(ir.to_proto(network()), tmp_path / "out.onnx", save_as_external_data=True, location="shared.data")
    save(tmp_path / "out.onnx", overwrite=True)
    assert (tmp_path / "shared.data").exists()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: path.write_text("here first"), "exists already; pass --overwrite"),
        (lambda path: path.mkdir(), "is a folder"),
    ],
    ids=["file", "folder"],
)
def test_what_is_there_stays(tmp_path, prepare, message):
    prepare(tmp_path / "out.onnx")
    before = listing(tmp_path)
    with pytest.raises(OutputError, match=message):
        ModelWriter(tmp_path / "out.onnx", overwrite=False)
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("parent", "hint"), [("nowhere", "create the folder first"), ("a_file", "choose another place with -o")]
)
def test_a_folder_that_cannot_be_written(tmp_path, parent, hint):
    (tmp_path / "a_file").write_text("")
    with pytest.raises(OutputError, match=hint):
        ModelWriter(tmp_path / parent / "out.onnx", overwrite=False)


def test_text_files_are_renamed_into_place(tmp_path):
    write_text(tmp_path / "report.json", "old")
    write_text(tmp_path / "report.json", "neu ✓")
    assert (tmp_path / "report.json").read_text(encoding="utf8") == "neu ✓"
    assert len(listing(tmp_path)) == 1


def test_text_files_may_be_read_by_whoever_may_read_the_model(tmp_path):
    write_text(tmp_path / "report.json", "{}")
    save(tmp_path / "out.onnx", network(100))
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert modes["report.json"] == modes["out.onnx"]


def test_a_text_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "report.json").mkdir()
    with pytest.raises(OutputError, match=r"report\.json"):
        write_text(tmp_path / "report.json", "{}")
    assert listing(tmp_path) == {"report.json": b"folder"}
