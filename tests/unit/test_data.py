"""Data: every form in which batches come, and every way in which they can be wrong, each with its message."""

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from onnxq.data import held_out, open_data
from onnxq.errors import DataError
from onnxq.session import InputSpec

X = InputSpec("x", np.dtype(np.float32), ("N", 3))
IDS = InputSpec("ids", np.dtype(np.int64), (1, "S"))
STATE = InputSpec("h", np.dtype(np.float32), (1, 2))


def good(rows: int = 2) -> np.ndarray:
    return np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)


def read(origin, inputs=(X,), **options) -> list[dict]:
    return list(open_data(str(origin), inputs, **options).batches())


def refuse(origin, message: str, inputs=(X,), **options) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(origin, inputs, **options)
    assert "\n" not in str(caught.value)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module of readers and gives its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(body: str) -> str:
        name = f"reader_{len(list(tmp_path.glob('reader_*.py')))}_{abs(hash(body)) % 10**8}"
        (tmp_path / f"{name}.py").write_text(f"import numpy as np\n{body}\n")
        sys.modules.pop(name, None)
        return name

    return write


class TestForms:
    def test_a_folder_of_npz_in_natural_order(self, tmp_path):
        for index in (10, 2, 1):
            np.savez(tmp_path / f"batch{index}.npz", x=good(index), ids=np.full((1, 4), index, np.int64))
        batches = read(tmp_path, (X, IDS))
        assert [batch["ids"][0, 0] for batch in batches] == [1, 2, 10]
        assert [len(batch["x"]) for batch in batches] == [1, 2, 10]  # ragged

    def test_a_folder_of_npy(self, tmp_path):
        np.save(tmp_path / "a.npy", good())
        np.save(tmp_path / "b.npy", good(0))  # no rows at all
        assert [batch["x"].shape for batch in read(tmp_path)] == [(2, 3), (0, 3)]

    def test_stacked_samples(self, tmp_path):
        np.savez(tmp_path / "all.npz", x=np.stack([good(), good() + 1]), ids=np.zeros((2, 7), np.int64))
        batches = read(tmp_path / "all.npz", (X, IDS))
        assert [batch["x"].shape for batch in batches] == [(2, 3)] * 2
        assert [batch["ids"].shape for batch in batches] == [(1, 7)] * 2

    @pytest.mark.parametrize("inside", ["", "test_data_set_0"])
    def test_onnx_test_data(self, tmp_path, inside):
        folder = tmp_path / inside
        folder.mkdir(exist_ok=True)
        for index, (name, array) in enumerate({"": good(), "ids": np.zeros((1, 2), np.int64)}.items()):
            (folder / f"input_{index}.pb").write_bytes(numpy_helper.from_array(array, name).SerializeToString())
        (batch,) = read(tmp_path, (X, IDS))
        np.testing.assert_array_equal(batch["x"], good())

    def test_a_function_is_called_again_for_every_pass(self, module):
        name = module("def feeds():\n  for i in range(3): yield {'x': np.full((1, 3), i, np.float32)}")
        data = open_data(f"{name}:feeds", (X,))
        assert data.count() == data.count() == 3

    def test_state_inputs_may_be_left_out_of_any_batch(self, module):
        name = module(
            "def feeds():\n"
            "  yield {'x': np.ones((1, 3), np.float32), 'h': np.ones((1, 2), np.float32)}\n"
            "  yield {'x': np.ones((1, 3), np.float32)}"
        )
        batches = read(f"{name}:feeds", (X, STATE), state_inputs={"h"})
        assert [sorted(batch) for batch in batches] == [["h", "x"], ["x"]]
        refuse(f"{name}:feeds", "batch 1: input 'h' is missing", (X, STATE))  # without the pair it may not

    def test_npy_files_feed_the_one_input_that_is_no_state(self, tmp_path):
        np.save(tmp_path / "a.npy", good())
        assert [sorted(batch) for batch in read(tmp_path, (X, STATE), state_inputs={"h"})] == [["x"]]

    @pytest.mark.parametrize(("total", "kept"), [(1, 1), (4, 1), (5, 1), (10, 2), (64, 12)])
    def test_the_last_fifth_is_held_out(self, tmp_path, total, kept):
        np.savez(tmp_path / "all.npz", x=np.arange(total * 6, dtype=np.float32).reshape(total, 2, 3))
        data, count, every = held_out(open_data(str(tmp_path / "all.npz"), (X,)))
        assert (count, every) == (kept, total)
        assert data.count() == kept
        assert next(data.batches())["x"][0, 0] == (total - kept) * 6


STRINGS = InputSpec("x", np.dtype("str"), (2,))


@pytest.mark.parametrize("array", ["['a', 'ü']", "['a', 'ü'], dtype=object", "['a', 'ü'.encode()], dtype=object"])
def test_strings_of_any_length_and_bytes_become_objects(module, array):
    (feed,) = read(module(f"def feeds(): yield {{'x': np.array({array})}}") + ":feeds", (STRINGS,))
    assert (feed["x"].dtype, feed["x"].tolist()) == (np.dtype(object), ["a", "ü"])


def test_other_things_are_no_strings(module):
    origin = module("def feeds(): yield {'x': np.array([1, 2])}") + ":feeds"
    refuse(origin, r"input 'x' has dtype int64, expected strings; .*astype\(str\)", (STRINGS,))
    origin = module("def more(): yield {'x': np.array([b'\\xff', b''])}") + ":more"
    refuse(origin, "input 'x' holds bytes that are no UTF-8", (STRINGS,))


def test_a_dim_fixed_at_0_is_fixed(module):
    origin = module("def feeds(): yield {'x': np.ones((2, 3), np.float32)}") + ":feeds"
    refuse(origin, r"has shape \[2, 3\], expected \[0, 3\]", (InputSpec("x", np.dtype(np.float32), (0, 3)),))


class TestBadBatches:
    @pytest.mark.parametrize(
        ("batch", "message"),
        [
            ("{}", "batch 1: input 'x' is missing; got nothing"),
            ("{'y': good, 'z': good}", "batch 1: input 'x' is missing; got y, z"),
            ("[good]", "batch 1: a list, expected a dict of arrays by input name"),
            ("{'x': good.astype(np.float64)}", r"input 'x' has dtype float64, expected float32; .*astype\('float32'\)"),
            ("{'x': good[0]}", r"batch 1: input 'x' has shape \[3\], expected \[N, 3\]; reshape it"),
            ("{'x': good.T}", r"input 'x' has shape \[3, 2\], expected \[N, 3\]"),
            ("{'x': good * np.nan}", "batch 1: input 'x' holds NaN or infinity; remove that sample"),
            ("{'x': good * np.inf}", "batch 1: input 'x' holds NaN or infinity"),
            ("{'x': [[1, 2], [3]]}", "input 'x' is a list that makes no array"),
            ("{'x': None}", "input 'x' has dtype object, expected float32"),
        ],
    )
    def test_name_input_batch_expected_and_got(self, module, batch, message):
        body = "good = np.ones((2, 3), np.float32)\ndef feeds():\n  yield {'x': good}\n  yield " + batch
        refuse(f"{module(body)}:feeds", message)

    def test_the_first_batch_is_checked_at_once(self, module):
        with pytest.raises(DataError, match="batch 0: input 'x' is missing"):
            open_data(module("def feeds(): yield dict()") + ":feeds", (X,))

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (
                "def feeds():\n  return iter([])",
                "no batches at all; give at least one, and let the function start afresh",
            ),
            ("def feeds():\n  yield {'x': np.ones((1, 3), np.float32)}\n  raise KeyError('gone')", "raised KeyError: "),
            ("def feeds():\n  return 3", "raised TypeError: 'int' object is not iterable"),
            ("def feeds(path):\n  return []", "raised TypeError: .*missing 1 required positional argument"),
            ("feeds = 3", "is a int, not a function that yields feeds"),
            ("raise RuntimeError('no dataset here')", "RuntimeError: no dataset here; check the module"),
            ("", "AttributeError: .*has no attribute 'feeds'"),
        ],
    )
    def test_functions_that_fail(self, module, body, message):
        refuse(f"{module(body)}:feeds", message)

    def test_a_function_that_hands_out_one_iterator_twice(self, module):
        name = module("one = iter([{'x': np.ones((1, 3), np.float32)}] * 2)\ndef feeds():\n  return one")
        data = open_data(f"{name}:feeds", (X,))
        list(data.batches())
        with pytest.raises(DataError, match="let the function start afresh on every call"):
            list(data.batches())

    def test_a_module_that_does_not_exist(self):
        refuse("no_such_module:feeds", "ModuleNotFoundError")


class TestBadFiles:
    def test_paths_that_are_nothing(self, tmp_path):
        refuse(tmp_path / "none", "no such file or folder, and not module:function")
        (tmp_path / "a.csv").write_text("1,2")
        refuse(tmp_path / "a.csv", "a .csv file; give a .npz, a folder or module:function")

    def test_an_empty_folder(self, tmp_path):
        refuse(tmp_path, "the folder has no .npz, .npy or test_data_set_")

    def test_two_kinds_in_one_folder(self, tmp_path):
        np.save(tmp_path / "a.npy", good())
        np.savez(tmp_path / "a.npz", x=good())
        refuse(tmp_path, "holds both .npz and .npy files")

    def test_npy_for_several_inputs(self, tmp_path):
        np.save(tmp_path / "a.npy", good())
        refuse(tmp_path, r"feed a model with one input, this one has 2 \(x, ids\)", (X, IDS))

    def test_pickled_arrays_are_refused_unread(self, tmp_path):
        class Bomb:
            def __reduce__(self):
                return print, ("unpickled!",)

        np.savez(tmp_path / "a.npz", x=np.array([Bomb()], dtype=object))
        refuse(tmp_path, "a.npz: holds pickled objects, which are refused; save plain arrays with numpy.savez")
        (tmp_path / "a.npz").unlink()
        np.save(tmp_path / "a.npy", np.array([Bomb()], dtype=object))
        refuse(tmp_path, "a.npy: holds pickled objects, which are refused")

    @pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut off"])
    @pytest.mark.parametrize("name", ["a.npz", "a.npy"])
    def test_damaged_files(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        refuse(tmp_path, rf"{name}: (cannot be read|holds pickled)")

    def test_a_damaged_member(self, tmp_path):
        """Bytes changed inside the compressed stream."""
        path = tmp_path / "a.npz"
        np.savez_compressed(path, x=np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32))
        content = bytearray(path.read_bytes())
        content[200:220] = bytes(20)
        path.write_bytes(content)
        refuse(tmp_path, "a.npz: cannot be read")

    def test_names_that_hide_another_format(self, tmp_path):
        with (tmp_path / "a.npz").open("wb") as file:
            np.save(file, good())
        refuse(tmp_path, "a.npz: cannot be read")
        (tmp_path / "a.npz").unlink()
        archive = io.BytesIO()
        np.savez(archive, x=good())
        (tmp_path / "a.npy").write_bytes(archive.getvalue())
        refuse(tmp_path, "a.npy: cannot be read: holds several arrays; name it .npz")

    def test_a_member_that_is_no_array(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("x", "text")
        refuse(tmp_path, "input 'x' (has dtype|is missing)")

    def test_stacked_arrays_of_two_lengths(self, tmp_path):
        np.savez(tmp_path / "all.npz", x=np.zeros((2, 2, 3), np.float32), ids=np.zeros((3, 7), np.int64))
        refuse(tmp_path / "all.npz", "stacked arrays differ in length", (X, IDS))

    def test_an_archive_of_nothing(self, tmp_path):
        np.savez(tmp_path / "all.npz")
        refuse(tmp_path / "all.npz", "no batches at all; give at least one$")

    def test_onnx_test_data_without_an_input(self, tmp_path):
        folder: Path = tmp_path / "test_data_set_0"
        folder.mkdir()
        (folder / "input_0.pb").write_bytes(numpy_helper.from_array(good(), "x").SerializeToString())
        refuse(tmp_path, r"input_1.pb \(for 'ids'\) is missing", (X, IDS))
        (folder / "input_1.pb").write_bytes(b"\xff\xff")
        refuse(tmp_path, "input_1.pb: not a tensor", (X, IDS))
