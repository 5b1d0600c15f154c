"""Augmentation: labels follow their clips; all inputs and frames of a clip are changed alike."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model_export.datasets import Symmetry
from model_export.training.augmentation.augment import augment, cut_out, plain_inputs, transform
from model_export.training.clips.batches import Batch
from model_export.training.config import Augmentation
from service.clip.spec import Frames, InputSpec

FRAMES = 8
INPUTS = (InputSpec("little", Frames.EVEN, 16, 16), InputSpec("big", Frames.ODD, 8, 8))
SWAP = Symmetry(mirrored=(1, 0, 2), reversed=(1, 0, None))


def numbered(count: int) -> list[Tensor]:
    """Clips whose frame k is k everywhere, at both sizes."""
    number = torch.arange(FRAMES, dtype=torch.uint8)[None, :, None, None, None]
    return [number.expand(count, FRAMES, item.size, item.size, 3).clone() for item in INPUTS]


def noisy(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    shapes = [(count, FRAMES, item.size, item.size, 3) for item in INPUTS]
    return [torch.randint(256, shape, generator=generator, dtype=torch.uint8) for shape in shapes]


def variants(
    frames: list[Tensor], labels: list[int], seed: int = 0, **strength: float
) -> tuple[list[Tensor], list[int]]:
    chosen = Augmentation(**{**vars(Augmentation.none()), **strength})
    generator = torch.Generator().manual_seed(seed)
    batch = Batch(tuple(frames), torch.tensor(labels), torch.arange(len(labels)))
    inputs, changed = augment(batch, INPUTS, SWAP, chosen, generator, len(labels))
    return inputs, changed.tolist()


def frame_numbers(pixels: Tensor) -> list[int]:
    return [round(255 * value) for value in pixels[0, :, 0, 0, 0].tolist()]


def test_reversed_clip_gives_each_input_the_frames_of_the_other_parity() -> None:
    inputs, labels = variants(numbered(1), [0], reverse=1.0)
    assert labels == [1]
    assert frame_numbers(inputs[0]) == [7, 5, 3, 1]
    assert frame_numbers(inputs[1]) == [6, 4, 2, 0]


def test_clip_without_counterpart_is_never_reversed() -> None:
    inputs, labels = variants(numbered(1), [2], reverse=1.0)
    assert labels == [2]
    assert frame_numbers(inputs[0]) == [0, 2, 4, 6]


def test_mirrored_clip_is_flipped_and_relabelled() -> None:
    frames = noisy(1)
    inputs, labels = variants(frames, [0], mirror=1.0)
    plain = plain_inputs(frames, INPUTS)
    assert labels == [1]
    for pixels, original in zip(inputs, plain, strict=True):
        torch.testing.assert_close(pixels, original.flip(-1), atol=1e-5, rtol=0)


def test_no_augmentation_changes_nothing_but_rounding() -> None:
    frames = noisy(4)
    inputs, labels = variants(frames, [0, 1, 2, 0])
    assert labels == [0, 1, 2, 0]
    for pixels, original in zip(inputs, plain_inputs(frames, INPUTS), strict=True):
        torch.testing.assert_close(pixels, original, atol=1e-5, rtol=0)


def test_only_some_clips_are_reversed_and_each_label_follows_its_clip() -> None:
    inputs, labels = variants(numbered(64), [0] * 64, reverse=0.5)
    backwards = (inputs[0][:, 0, 0, 0, 0] > 0).int().tolist()
    assert labels == backwards
    assert 16 < sum(backwards) < 48


def test_both_inputs_get_the_same_shift_and_zoom() -> None:
    """The bright block has the same position, relative to the side, in both inputs."""
    frames = [torch.zeros(16, FRAMES, item.size, item.size, 3, dtype=torch.uint8) for item in INPUTS]
    for clip, item in zip(frames, INPUTS, strict=True):
        block = slice(item.size // 4, item.size // 2)
        clip[:, :, block, block] = 255
    inputs, _ = variants(frames, [2] * 16, geometry=1.0, zoom=0.1, shift=0.1)
    little, big = (centres(pixels) for pixels in inputs)
    assert (little - little[:1]).abs().max() > 0.02
    torch.testing.assert_close(little, big, atol=0.02, rtol=0)


def centres(pixels: Tensor) -> Tensor:
    """Centre of brightness `(N, 2)` of each clip, from 0 to 1."""
    brightness = pixels.mean(dim=(1, 2))  # [N, H, W]
    place = (torch.arange(pixels.shape[-1]) + 0.5) / pixels.shape[-1]
    total = brightness.sum(dim=(1, 2))
    return torch.stack(
        [(brightness.sum(1) * place).sum(1) / total, (brightness.sum(2) * place).sum(1) / total], 1
    )


def test_all_frames_of_a_clip_are_augmented_alike() -> None:
    still = [clip[:, :1].expand_as(clip).contiguous() for clip in noisy(8)]
    strength = vars(Augmentation()) | {"noise": 0.0}
    inputs, _ = variants(still, [2] * 8, **strength)
    for pixels in inputs:
        assert torch.equal(pixels, pixels[:, :1].expand_as(pixels))
    assert not torch.equal(inputs[0], plain_inputs(still, INPUTS)[0])


def test_noise_differs_in_every_pixel_and_pixels_stay_in_range() -> None:
    grey = [torch.full_like(clip, 128) for clip in numbered(2)]
    inputs, _ = variants(grey, [2, 2], noise=0.1)
    assert inputs[0].std() > 0.001
    assert all(pixels.min() >= 0 and pixels.max() <= 1 for pixels in inputs)


def test_same_generator_state_gives_the_same_batch() -> None:
    strength = vars(Augmentation())
    first, first_labels = variants(noisy(4), [0, 1, 2, 0], seed=3, **strength)
    again, again_labels = variants(noisy(4), [0, 1, 2, 0], seed=3, **strength)
    other, _ = variants(noisy(4), [0, 1, 2, 0], seed=4, **strength)
    assert first_labels == again_labels
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_colourless_clip_has_equal_channels() -> None:
    inputs, _ = variants(noisy(2), [2, 2], grey=1.0)
    red, green, blue = inputs[0].unbind(2)
    torch.testing.assert_close(red, green, atol=1e-5, rtol=0)
    torch.testing.assert_close(green, blue, atol=1e-5, rtol=0)


def test_shuffled_colours_are_the_same_channels_in_another_order() -> None:
    frames = noisy(8)
    inputs, _ = variants(frames, [2] * 8, shuffle_colours=1.0)
    original = plain_inputs(frames, INPUTS)[0]
    torch.testing.assert_close(inputs[0].sort(2).values, original.sort(2).values, atol=1e-5, rtol=0)
    assert not torch.equal(inputs[0], original)


@pytest.mark.parametrize("side", [8, 16])
def test_cut_out_greys_the_same_part_at_every_size(side: int) -> None:
    pixels = torch.ones(1, 2, 3, side, side)
    box = torch.tensor([[-1.0, -0.5, 0.0, 0.5]])
    cut = cut_out(pixels, box)
    quarter, half = side // 4, side // 2
    assert (cut[..., quarter : side - quarter, :half] == 0.5).all()
    assert cut.sum() == pixels.sum() - 0.5 * 6 * half * half


def test_identity_view_returns_the_pixels() -> None:
    pixels = plain_inputs(noisy(1), INPUTS)[0]
    identity = torch.eye(2, 3)[None]
    torch.testing.assert_close(transform(pixels, identity), pixels, atol=1e-5, rtol=0)


def test_all_labels_of_a_clip_follow_it_and_one_without_a_counterpart_keeps_it_as_it_is() -> None:
    """Labels 0 and 1 are each other's reverse; label 2 has none."""
    labels = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 1]])
    strength = Augmentation(**{**vars(Augmentation.none()), "reverse": 1.0})
    batch = Batch(tuple(numbered(3)), labels, torch.arange(3))
    inputs, changed = augment(batch, INPUTS, SWAP, strength, torch.Generator().manual_seed(0), 3)
    assert changed.tolist() == [[0, 1, 0], [1, 1, 0], [0, 1, 1]]
    first_frames = (255 * inputs[0][:, 0, 0, 0, 0]).round().int().tolist()
    assert first_frames == [7, 7, 0]


def test_several_labels_are_mirrored_by_their_own_table() -> None:
    labels = torch.tensor([[1, 0, 1], [0, 0, 1]])
    strength = Augmentation(**{**vars(Augmentation.none()), "mirror": 1.0})
    batch = Batch(tuple(noisy(2)), labels, torch.arange(2))
    _, changed = augment(batch, INPUTS, SWAP, strength, torch.Generator().manual_seed(0), 2)
    assert changed.tolist() == [[0, 1, 1], [0, 0, 1]]
