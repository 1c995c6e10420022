"""Recipe: one set of words, checked whole, with errors that name the key and what to write instead."""

import pytest

from onnxq import api
from onnxq.errors import RecipeError
from onnxq.recipe import Override, Recipe, parse_override, recipe_from, recipe_from_file


def test_none_means_the_default():
    assert recipe_from(bits=None, method=None) == Recipe()
    assert recipe_from(bits=8, method=None) == Recipe(bits=8)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"bitz": 4}, r"unknown key 'bitz'; did you mean 'bits'\?"),
        ({"blocksize": 32}, r"unknown key 'blocksize'; did you mean 'block_size'\?"),
        ({"interval": 3}, r"unknown key 'interval'; known keys: format, bits"),
        ({"bits": 7}, r"bits=7: is not one of 2, 3, 4, 5, 6, 8"),
        ({"bits": "4"}, r"bits='4': is not one of 2, 3, 4, 5, 6, 8"),
        ({"block_size": 48}, r"block_size=48: is not one of 16, 32, 64, 128, 256 or 'channel'"),
        ({"table_bits": 5}, r"table_bits=5: is not one of 2, 4, 8"),
        ({"target": "tpu"}, r"target='tpu': .*'cpu', 'cuda' or 'portable'"),
        ({"compute": "fp8"}, r"compute='fp8': .*'int8', 'bf16' or 'float'"),
        ({"seed": -1}, r"seed=-1: .*greater than or equal to 0"),
        ({"skip": ("(",)}, r"skip.*is not a regular expression"),
        ({"skip": "lm_head"}, r"skip='lm_head'"),
        ({"codebook": "nf4", "bits": 8}, r"codebook nf4 has 4 bits, not 8; drop one of the two"),
        ({"codebook": "nf4", "block_size": "channel"}, r"codebook nf4 goes by blocks; give a block_size of 16 or more"),
        ({"codebook": "nf4", "method": "gptq"}, r"codebook nf4 is a method of its own; drop --method gptq"),
        ({"method": "nf4"}, r"method nf4 gives indices into a codebook; use --codebook nf4"),
        ({"override": ({"nodes": "x", "method": "nf4"},)}, r"use --codebook nf4"),
        ({"override": ({"nodes": "x", "bit": 8},)}, r"unknown key 'override.0.bit'; did you mean 'bits'\?"),
        ({"override": ({"nodes": "x", "bits": 7},)}, r"override.0.bits=7: is not one of 2, 3, 4, 5, 6, 8"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_errors_name_the_key_and_the_next_step(wishes, message):
    with pytest.raises(RecipeError, match=message):
        recipe_from(**wishes)


def test_every_error_is_one_line():
    for wishes in ({"bits": 7}, {"target": "x"}, {"override": "x"}, {"skip": 3}, {"symmetric": "perhaps"}):
        with pytest.raises(RecipeError) as caught:
            recipe_from(**wishes)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fc=bits:8", Override(nodes="fc", bits=8)),
        (
            "layers.0/=bits:8,method:mse,block-size:64",
            Override(nodes="layers.0/", bits=8, method="mse", block_size=64),
        ),
        ("head=block_size:channel, symmetric:true", Override(nodes="head", block_size="channel", symmetric=True)),
        ("a=b=symmetric:False", Override(nodes="a=b", symmetric=False)),  # the last = separates
        (r"^/fc\d:0$=bits:2", Override(nodes=r"^/fc\d:0$", bits=2)),
    ],
)
def test_override_text(text, expected):
    assert parse_override(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fc", "is not REGEX=key:value"),
        ("=bits:8", "is not REGEX=key:value"),
        ("fc=bits", "'bits' is not key:value"),
        ("fc=", "'' is not key:value"),
        ("fc=bits:7", "bits=7: is not one of 2, 3, 4, 5, 6, 8"),
        ("fc=blocksize:32", r"unknown key 'blocksize'; did you mean 'block_size'\?"),
        ("(=bits:8", "is not a regular expression"),
        ("fc=nodes:other", "unknown key 'nodes'"),
    ],
)
def test_override_errors_quote_the_text(text, message):
    with pytest.raises(RecipeError, match=message) as caught:
        parse_override(text)
    assert f"'{text}'" in str(caught.value)


def test_toml_uses_the_same_words_and_wishes_are_laid_over_it(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        'bits = 2\nblock_size = 64\nskip = ["lm_head"]\n[[override]]\nnodes = "layers\\\\.0/"\nbits = 8\n',
        encoding="utf8",
    )
    expected = Recipe(bits=2, block_size=64, skip=("lm_head",), override=(Override(nodes=r"layers\.0/", bits=8),))
    assert recipe_from_file(path) == expected
    assert recipe_from_file(path, bits=4, method=None) == expected.model_copy(update={"bits": 4})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"bits = = 4", "not a TOML file"),
        (b"\xff\xfe", "not a TOML file"),
        (b"bit = 4", "unknown key 'bit'"),
        (b"bits = '4'", "bits='4'"),
    ],
)
def test_toml_errors_name_the_file(tmp_path, content, message):
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=message) as caught:
        recipe_from_file(path)
    assert str(path) in str(caught.value)


def test_a_missing_toml_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"nowhere\.toml: no such file"):
        recipe_from_file(tmp_path / "nowhere.toml")


def test_all_bits_are_what_the_recipe_may_produce():
    assert Recipe().all_bits == {4, 8}
    assert Recipe(table_bits="float", override=(Override(nodes="x", bits=2),)).all_bits == {2, 4}


def test_lists_of_a_file_are_added_to_so_that_the_command_line_wins(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('skip = ["a"]\n[[override]]\nnodes = "x"\nbits = 8\n', encoding="utf8")
    recipe = recipe_from_file(path, skip=("b",), override=(Override(nodes="x", bits=4),))
    assert recipe.skip == ("a", "b")
    assert [rule.bits for rule in recipe.override] == [8, 4]


def test_wishes_over_a_recipe_do_not_make_its_defaults_wishes():
    """Asking for a method is a wish (integer kernels follow it, a codebook refuses it); not asking is none."""
    laid = api._recipe(Recipe(codebook="nf4"), {"seed": 1})
    assert (laid.codebook, laid.seed) == ("nf4", 1)
    assert "method" not in laid.model_fields_set


def test_a_target_chooses_the_bits_itself():
    assert Recipe(target_bpw=3.5).all_bits == {2, 3, 4, 5, 6, 8}
    with pytest.raises(
        RecipeError, match="target_bpw chooses the bits; drop bits 4, or fix those of some nodes by an o"
    ):
        recipe_from(target_bpw=3.5, bits=4)
    with pytest.raises(RecipeError, match="codebook nf4 has 4 bits; drop target_bpw"):
        recipe_from(target_bpw=3.5, codebook="nf4")
    with pytest.raises(RecipeError, match=r"target_bpw=0"):
        recipe_from(target_bpw=0)
    with pytest.raises(RecipeError, match=r"target_size='small': size 'small' is not a number with a unit; e.g. 8GB"):
        recipe_from(target_size="small")
