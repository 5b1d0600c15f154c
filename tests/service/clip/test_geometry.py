from __future__ import annotations

from math import cos, radians, sin

import pytest

from service.clip.geometry import Crop, Orientation, crop_boxes, orientation_of, scaled_size


@pytest.mark.parametrize(
    ("width", "height", "scale", "expected"),
    [
        (320, 240, 224, (298, 224)),  # 298.67 rounds down
        (240, 320, 224, (224, 298)),
        (427, 240, 224, (398, 224)),
        (1920, 1080, 224, (398, 224)),
        (1080, 1920, 112, (112, 199)),
        (224, 224, 224, (224, 224)),
        (16, 16, 224, (224, 224)),
        (1, 1, 224, (224, 224)),
        (1, 2, 64, (64, 128)),
        (340, 256, 256, (340, 256)),
    ],
)
def test_shorter_side_becomes_the_scale(
    width: int, height: int, scale: int, expected: tuple[int, int]
) -> None:
    assert scaled_size(width, height, scale) == expected


CENTRE = Crop(37, 0)


@pytest.mark.parametrize(
    ("width", "height", "crops", "expected"),
    [
        (298, 224, 1, [CENTRE]),
        (224, 298, 1, [Crop(0, 37)]),
        (298, 224, 3, [Crop(0, 0), CENTRE, Crop(74, 0)]),
        (224, 298, 3, [Crop(0, 0), Crop(0, 37), Crop(0, 74)]),
        (224, 224, 3, [Crop(0, 0)] * 3),
        (256, 226, 5, [Crop(0, 0), Crop(32, 0), Crop(0, 2), Crop(32, 2), Crop(16, 1)]),
        (225, 227, 1, [Crop(0, 2)]),  # halves go to the even side: 0.5 -> 0, 1.5 -> 2
    ],
)
def test_crops_are_those_of_the_published_evaluation(
    width: int, height: int, crops: int, expected: list[Crop]
) -> None:
    assert list(crop_boxes(width, height, 224, crops)) == expected


def test_ten_crops_are_the_five_and_their_mirror_images() -> None:
    five, ten = crop_boxes(256, 226, 224, 5), crop_boxes(256, 226, 224, 10)
    assert ten[:5] == five
    assert ten[5:] == tuple(Crop(crop.left, crop.top, mirrored=True) for crop in five)


@pytest.mark.parametrize("crops", [0, 2, 4, 11, -1])
def test_other_numbers_of_crops_are_refused(crops: int) -> None:
    with pytest.raises(ValueError, match="crops must be one of"):
        crop_boxes(256, 224, 224, crops)


@pytest.mark.parametrize(("width", "height"), [(223, 300), (300, 223)])
def test_a_crop_larger_than_the_frame_is_refused(width: int, height: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        crop_boxes(width, height, 224, 1)


def matrix(a: float, b: float, c: float, d: float) -> list[int]:
    """A display matrix as stored in files: 16.16 fixed point, the last column 2.30."""
    return [round(value * 65536) for value in (a, b, 0, c, d, 0, 0, 0)] + [1 << 30]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((1, 0, 0, 1), Orientation(0)),
        ((0, 1, -1, 0), Orientation(90)),  # a phone held upright: the coded right is shown below
        ((-1, 0, 0, -1), Orientation(180)),
        ((0, -1, 1, 0), Orientation(270)),
        ((-1, 0, 0, 1), Orientation(0, mirrored=True)),
        ((1, 0, 0, -1), Orientation(180, mirrored=True)),
        ((0, -1, -1, 0), Orientation(90, mirrored=True)),
        ((0, 1, 1, 0), Orientation(270, mirrored=True)),
        ((0, 0, 0, 0), Orientation(0)),
        ((2, 0, 0, 3), Orientation(0)),  # scaling is no turn
    ],
)
def test_display_matrix_gives_the_quarter_turn(
    parts: tuple[float, float, float, float], expected: Orientation
) -> None:
    assert orientation_of(matrix(*parts)) == expected


@pytest.mark.parametrize(
    ("degrees", "expected"), [(3, 0), (44, 0), (46, 90), (134, 90), (136, 180), (226, 270), (316, 0)]
)
def test_odd_angles_go_to_the_nearest_quarter_turn(degrees: float, expected: int) -> None:
    angle = radians(degrees)
    turned = matrix(cos(angle), sin(angle), -sin(angle), cos(angle))
    assert orientation_of(turned) == Orientation(expected)
