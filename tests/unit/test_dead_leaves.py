"""Dead leaves: pictures have the statistics that their looks ask for, and nothing else decides them."""

from dataclasses import replace

import numpy as np
import pytest

from onnxq.dead_leaves import Look, mutated, paint, random_look

LOOK = Look(3, slope=1.0, leaves=20, texture=0.5, saturation=0.3, contrast=2.0, brightness=0.5, tint=(0.0, 0.1, -0.1))


def test_the_same_look_is_the_same_picture():
    np.testing.assert_array_equal(paint(LOOK, (1, 3, 40, 30)), paint(LOOK, (1, 3, 40, 30)))
    assert (paint(LOOK, (1, 3, 40, 30)) != paint(replace(LOOK, seed=4), (1, 3, 40, 30))).any()


@pytest.mark.parametrize("shape", [(1, 3, 40, 30), (1, 3, 500), (1, 3, 1, 1), (1, 3, 8, 9)])
def test_shape_contrast_and_brightness(shape):
    picture = paint(LOOK, shape)
    assert (picture.shape, picture.dtype) == (shape, np.float32)
    assert np.isfinite(picture).all()
    if np.prod(shape[2:]) > 1:
        plain = paint(replace(LOOK, tint=(0.0, 0.0, 0.0)), shape)
        assert plain.std() == pytest.approx(2.0, rel=1e-4)
        assert plain.mean() == pytest.approx(0.5 * 2.0, rel=1e-3)


def test_tint_moves_channels_apart():
    difference = paint(LOOK, (1, 3, 40, 30)) - paint(replace(LOOK, tint=(0.0, 0.0, 0.0)), (1, 3, 40, 30))
    assert difference.mean(axis=(0, 2, 3)) == pytest.approx([0.0, 0.2, -0.2], abs=1e-4)


def test_channels_agree_without_saturation():
    def agreement(saturation: float) -> float:
        picture = paint(replace(LOOK, saturation=saturation, tint=(0.0,) * 3), (1, 3, 64, 64))[0].reshape(3, -1)
        return float(np.corrcoef(picture)[0, 1])

    assert agreement(0.0) > 0.999 > 0.9 > agreement(0.9)


def test_energy_falls_with_frequency_by_the_slope():
    def roughness(slope: float) -> float:
        picture = paint(replace(LOOK, slope=slope, leaves=0), (1, 3, 64, 64))[0, 0]
        return float(np.diff(picture, axis=1).std() / picture.std())

    assert roughness(0.5) > 1.5 * roughness(1.0) > 2 * roughness(2.0)


def test_random_and_mutated_looks_stay_paintable():
    rng = np.random.default_rng(0)
    look = random_look(rng, channels=2, contrast=1.0, brightness=0.0)
    for _ in range(200):
        look = mutated(look, rng)
        assert 0 <= look.texture <= 1
        assert 0 <= look.saturation <= 1
        assert look.leaves >= 1
    assert np.isfinite(paint(look, (1, 2, 16, 16))).all()
