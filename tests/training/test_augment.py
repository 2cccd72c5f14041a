"""Mixed images, and steps that a recipe asks for."""

import typing

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.data import astronaut
from torchvision.transforms import InterpolationMode, v2

from mien.recipe.load import load_recipe
from mien.recipe.settings import Augment, RandAugment
from mien.training.augment import Resample, UnsharpMask, augmentation_steps, make_augmentation, mix
from mien.training.data import Augmented, FaceSamples
from mien.training.heads import HEADS


def batch(n=8, size=16):
    return torch.arange(n, dtype=torch.uint8).mul(20).view(n, 1, 1, 1).expand(n, 3, size, size).contiguous()


def test_mixup_is_the_weighted_mean_of_an_image_and_its_partner():
    torch.manual_seed(3)
    images = batch()
    mixed, partner, share = mix(images, Augment(mixup=1.0))
    expected = images.double() * share.double() + images[partner].double() * (1 - share.double())
    assert mixed.dtype == torch.uint8 and 0 <= share <= 1
    assert (mixed.double() - expected).abs().max() <= 0.51
    assert sorted(partner.tolist()) == list(range(8))


def test_cutmix_pastes_a_box_of_the_partner_whose_area_is_the_rest_of_the_share():
    for seed in range(20):
        torch.manual_seed(seed)
        images = batch(size=40)
        mixed, partner, share = mix(images, Augment(cutmix=1.0))
        moved = [row for row in range(8) if partner[row] != row]
        for row in moved:
            pasted = (mixed[row, 0] == images[partner[row], 0, 0, 0]).float().mean()
            assert abs(float(pasted) - (1 - float(share))) < 1e-6
            own = (mixed[row, 0] == images[row, 0, 0, 0]).float().mean()
            assert abs(float(own) - float(share)) < 1e-6


def test_with_both_a_batch_gets_either():
    kinds = set()
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, _, _ = mix(batch(), Augment(mixup=1.0, cutmix=1.0))
        values = {int(value) for value in mixed.unique()}
        kinds.add(values <= {20 * k for k in range(8)})
    assert kinds == {True, False}


def test_the_loss_of_mixed_images_counts_both_labels_by_their_shares():
    torch.manual_seed(0)
    recipe = load_recipe({})
    head = HEADS["gender"](recipe.tasks.gender, 5, recipe.model)
    logits, target = torch.randn(4, 1), torch.tensor([0.0, 1.0, 1.0, float("nan")])
    partner, share = torch.tensor([1, 0, 3, 2]), 0.7
    weight = torch.cat([torch.full((4,), share), torch.full((4,), 1 - share)])
    got = head.loss(torch.cat([logits] * 2), torch.cat([target, target[partner]]), weight)
    female = torch.tensor([1.0, 0.0, 0.0])  # code 0 is female
    each = [
        (share, 0, female[0]), (share, 1, female[1]), (share, 2, female[2]),
        (1 - share, 0, female[1]), (1 - share, 1, female[0]), (1 - share, 3, female[2]),
    ]  # fmt: skip
    p = torch.sigmoid(logits[:, 0])
    losses = [-w * (y * torch.log(p[i]) + (1 - y) * torch.log(1 - p[i])) for w, i, y in each]
    assert torch.isclose(got, sum(losses) / sum(w for w, _, _ in each), atol=1e-6)


class Plain:
    size = 16

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return batch(6)[index].permute(1, 2, 0).numpy()


def test_a_mixed_batch_depends_on_seed_epoch_and_faces_alone():
    samples = FaceSamples(Plain(), {"gender": torch.zeros(6)}, None, 1, Augment(mixup=0.4))
    keys = [(0, index) for index in range(6)]
    one = samples.collate([samples[key] for key in keys])
    torch.rand(5)
    other = samples.collate([samples[key] for key in keys])
    later = samples.collate([samples[1, index] for _, index in keys])
    assert torch.equal(one["images"], other["images"]) and one["share"] == other["share"]
    assert one["share"] != later["share"]
    assert {"partner", "share"} <= set(one)


def test_steps_are_those_that_are_asked_for_in_their_order():
    nothing = Augment(flip=0.0)
    assert isinstance(make_augmentation(nothing, 32), v2.Identity)
    some = dict.fromkeys(("gray", "blur", "resample", "sharpen", "jpeg", "erase", "brightness"), 0.1)
    everything = Augment(rotate=5, randaugment=RandAugment(), **some)
    names = [name for name, _ in augmentation_steps(everything, 32)]
    assert names == ["flip", "affine", "colour", "gray", "blur", "resample", "sharpen", "JPEG", "RandAugment", "erase"]
    out = make_augmentation(everything, 32)(torch.zeros(3, 32, 32, dtype=torch.uint8))
    assert out.shape == (3, 32, 32) and out.dtype == torch.uint8


def test_unsharp_masking_adds_the_difference_from_a_blurred_copy():
    image = torch.from_numpy(astronaut()[:64, 200:264]).permute(2, 0, 1)
    got = UnsharpMask(64).transform(image, {"sigma": 1.0, "amount": 0.8})
    blurred = gaussian_filter(image.double().numpy(), (0, 1, 1), truncate=2, mode="mirror")
    expected = (image.numpy() + 0.8 * (image.numpy() - blurred)).round().clip(0, 255)
    assert np.abs(got.numpy() - expected).max() <= 1
    assert got.float().std() > image.float().std()


def test_resampling_takes_detail_away_and_keeps_the_rest():
    image = torch.from_numpy(astronaut()[:64, 200:264]).permute(2, 0, 1)
    got = Resample(64).transform(image, {"side": 24, "enlarge": InterpolationMode.BILINEAR}).float()
    assert got.shape == image.shape and abs(float(got.mean() - image.float().mean())) < 1
    assert got.diff(dim=2).abs().mean() < 0.8 * image.float().diff(dim=2).abs().mean()
    torch.manual_seed(0)
    sides = [Resample(64).make_params([])["side"] for _ in range(200)]
    assert min(sides) >= 24 and max(sides) <= 64 and len(set(sides)) > 20


NOT_STEPS = {"mixup", "cutmix", "evaluation"}  # of a whole batch; whether evaluation is augmented too


def strong(name):
    """Augmentation by one setting alone, as strong as its bounds allow within reason."""
    field = Augment.model_fields[name]
    kinds = [kind for kind in (field.annotation, *typing.get_args(field.annotation)) if hasattr(kind, "model_fields")]
    if kinds:
        return Augment.model_validate({"flip": 0.0, name: kinds[0]()})
    if isinstance(field.default, tuple):
        return Augment.model_validate({"flip": 0.0, name: (0.5, 0.6)})
    most = next(bound.le for bound in field.metadata if hasattr(bound, "le"))
    return Augment.model_validate({"flip": 0.0, name: float(most) if most <= 1 else most / 2})


@pytest.mark.parametrize("name", sorted(set(Augment.model_fields) - NOT_STEPS))
def test_every_setting_changes_images_and_keeps_their_form(name):
    torch.manual_seed(0)
    transform = make_augmentation(strong(name), 32)
    plain = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    found = [transform(plain) for _ in range(20)]
    assert all(image.shape == plain.shape and image.dtype == torch.uint8 for image in found)
    assert any(not torch.equal(image, plain) for image in found), f"augment.{name} has no step in training/augment.py"
    assert not augmentation_steps(Augment(flip=0.0), 32)


def test_augmented_pixels_are_the_same_each_time_and_differ_from_the_plain_ones():
    pixels = Augmented(Plain(), v2.RandomErasing(1.0), 0)
    assert (pixels[3] == pixels[3]).all() and (pixels[3] != Plain()[3]).any()
    assert len(pixels) == 6 and pixels.size == 16
