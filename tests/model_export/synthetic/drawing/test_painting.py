import numpy as np
import numpy.typing as npt
import pytest

from model_export.synthetic.drawing.painting import FrameSize, Painter, Sprite, fill_mask, sprite
from model_export.synthetic.drawing.shapes import rectangle, ring

FRAME_SIZE = FrameSize(160, 120)


def blank() -> npt.NDArray[np.float32]:
    return np.zeros((FRAME_SIZE.height, FRAME_SIZE.width, 3), dtype=np.float32)


def white_square(size_px: int = 48) -> Sprite:
    mask = fill_mask(list(rectangle("square", 1.0).outline), size_px)
    return sprite(np.full((*mask.shape, 3), 255, dtype=np.float32), mask)


def half_red_square() -> Sprite:
    """Its upper half is red, its lower half blue."""
    mask = fill_mask(list(rectangle("square", 1.0).outline), 60)
    colour = np.zeros((*mask.shape, 3), dtype=np.float32)
    colour[: len(mask) // 2, :, 0] = 255
    colour[len(mask) // 2 :, :, 2] = 255
    return sprite(colour, mask)


def box_of(image: npt.NDArray[np.float32]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom (exclusive) of the pixels that are more than half lit."""
    rows, columns = np.nonzero(image.max(axis=2) > 127)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize(
    ("x", "y", "size", "box"),
    [
        (0.0, 0.0, 0.4, (56, 36, 104, 84)),
        (0.25, -0.25, 0.4, (86, 6, 134, 54)),
        (0.0, 0.0, 0.1, (74, 54, 86, 66)),
        (-0.6, 0.0, 0.4, (0, 36, 32, 84)),
    ],
)
def test_sprite_is_drawn_at_its_coordinates(
    x: float, y: float, size: float, box: tuple[int, int, int, int]
) -> None:
    canvas = blank()
    Painter(canvas, FRAME_SIZE).put(white_square(), x, y, size)
    assert box_of(canvas) == pytest.approx(box, abs=1)


def test_sprite_outside_the_frame_draws_nothing() -> None:
    canvas = blank()
    Painter(canvas, FRAME_SIZE).put(white_square(), 3.0, 0.0, 0.4)
    assert not canvas.any()


def test_positive_angle_turns_clockwise_on_the_screen() -> None:
    canvas = blank()
    Painter(canvas, FRAME_SIZE).put(half_red_square(), 0, 0, 0.5, angle=90)
    red = np.nonzero(canvas[..., 0] > 127)[1].mean()
    blue = np.nonzero(canvas[..., 2] > 127)[1].mean()
    assert red > blue + 20  # what was on top is now on the right


def test_alpha_blends_with_the_canvas() -> None:
    canvas = blank() + np.float32(100)
    Painter(canvas, FRAME_SIZE).put(white_square(), 0, 0, 0.4, alpha=0.5)
    assert canvas[60, 80] == pytest.approx([177.5] * 3, abs=0.5)
    assert canvas[2, 2] == pytest.approx([100] * 3)


def test_camera_offset_shifts_what_is_drawn() -> None:
    canvas = blank()
    Painter(canvas, FRAME_SIZE, camera_x=0.05, camera_y=-0.05).put(white_square(), 0, 0, 0.4)
    assert box_of(canvas) == pytest.approx((62, 30, 110, 78), abs=1)


def test_quad_fills_its_corners() -> None:
    canvas = blank()
    image = np.full((6, 9, 4), 255, dtype=np.float32)
    image[..., 3] = 1
    Painter(canvas, FRAME_SIZE).quad(image, [(-0.25, -0.25), (0.25, -0.25), (0.25, 0.25), (-0.25, 0.25)])
    assert box_of(canvas) == pytest.approx((50, 30, 110, 90), abs=1)


def test_degenerate_quad_is_not_drawn() -> None:
    canvas = blank()
    Painter(canvas, FRAME_SIZE).quad(
        np.ones((4, 4, 4), dtype=np.float32), [(0, -0.2), (0, -0.2), (0, 0.2), (0, 0.2)]
    )
    assert not canvas.any()


def test_inner_contour_is_a_hole() -> None:
    mask = fill_mask(list(ring("ring", 0.5).outline), 80)
    assert mask[42, 42] == 0
    assert mask[42, 14] == 1


def test_small_sprites_use_a_smaller_level() -> None:
    look = white_square(96)
    assert [level.shape[0] for level in look.levels[:3]] == [100, 50, 25]
    level, scale = look.level_for(20)
    assert level.shape[0] * scale == pytest.approx(100 * 20 / 96, rel=0.05)
    assert 0.5 <= scale <= 1.0
