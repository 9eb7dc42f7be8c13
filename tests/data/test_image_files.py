"""Pictures as they come: what pillow wrote is what is read, of one, 8 and 16 bits, grey and coloured, from folders and class
folders, in memory and as they are needed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.errors import BadArgument, EmptyData, MalformedFile
from thetahat.generative import Augmented, Erasures, Flips, ImageFolder, Images, Shifts

PIL = pytest.importorskip("PIL.Image")


def drawn(shape, high=256, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape, dtype=np.uint8)


@pytest.fixture
def pets(tmp_path):
    """Two class folders of three and two coloured pictures, 6 × 4."""
    arrays = {"cat": drawn((3, 6, 4, 3)), "dog": drawn((2, 6, 4, 3), seed=1)}
    for name, every in arrays.items():
        (tmp_path / name).mkdir()
        for i, array in enumerate(every):
            PIL.fromarray(array).save(tmp_path / name / f"{i}.png")
    return tmp_path, np.concatenate(list(arrays.values())).transpose(0, 3, 1, 2).reshape(5, -1)


def test_class_folders_are_read_with_their_names_as_labels_in_memory_and_streamed(pets):
    """The arrays that were written, channels first; cat is 0 and dog is 1, by the alphabet."""
    folder, pixels = pets
    held, streamed = Images(folder, labels="folders"), ImageFolder(folder, labels=True)
    whole = torch.cat([batch["y"] for batch in streamed.batches()])
    for source, y, label in (
        (held, held.whole["y"], held.whole["label"]),
        (streamed, whole, streamed.labels),
    ):
        assert source.shape == (3, 6, 4)
        assert source.levels == 256
        assert source.class_names == ["cat", "dog"]
        assert np.array_equal(y.numpy(), pixels)
        assert label.tolist() == [0, 0, 0, 1, 1]
    left, out = streamed.split(0.4, torch.Generator().manual_seed(0))
    assert (left.size, out.size, out.shape, out.levels) == (3, 2, (3, 6, 4), 256)
    assert held.fingerprint == Images(pixels.reshape(5, 3, 6, 4)).fingerprint
    assert "label" not in Images(folder).whole


def test_what_a_classifier_reads_of_them(pets):
    folder, pixels = pets
    batch = next(ImageFolder(folder, labels=True).for_classifier().batches())
    assert batch["y"].tolist() == [0, 0, 0, 1, 1]
    assert np.array_equal(batch["x"].numpy(), pixels)
    held = Images(folder, labels="folders").for_classifier().whole
    assert torch.equal(held["x"], batch["x"])
    assert torch.equal(held["y"], batch["y"])
    with pytest.raises(BadArgument, match="no labels"):
        Images(folder).for_classifier()
    with pytest.raises(BadArgument, match="no labels"):
        ImageFolder(folder).for_classifier()


def test_the_same_fit_of_pictures_in_memory_and_streamed(pets):
    """One step over all rows: the sum does not depend on where the pictures lie."""
    folder, _ = pets
    found = []
    for source in (Images(folder, labels="folders"), ImageFolder(folder, labels=True)):
        network = th.generative.ConvNet((3, 6, 4), 2, (4,), seed=0)
        model = th.models.Conditional(th.families.Categorical(2), network)
        solver = th.Stochastic(steps=2, batch_size=5, held_out=None)
        fit = th.fit(model, source.for_classifier(), solver=solver)
        found.append(fit.model.network.head.weight.detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("array", "levels"),
    [
        (drawn((5, 7), 2).astype(bool), 2),
        (drawn((5, 7)), 256),
        (drawn((5, 7)).astype(np.uint16) * 257, 65536),
    ],
)
def test_levels_are_those_of_the_file(tmp_path, array, levels):
    """Black and white, 8 and 16 bits: pillow's own bytes come back."""
    PIL.fromarray(array).save(tmp_path / "a.png")
    images = Images(tmp_path)
    assert images.levels == levels
    assert images.whole["y"].tolist() == [array.astype(int).reshape(-1).tolist()]
    assert ImageFolder(tmp_path).levels == levels
    assert next(ImageFolder(tmp_path).batches())["y"].tolist() == images.whole["y"].tolist()


def test_fewer_levels():
    """⌊y · 16/256⌋ is the upper four bits; ⌊y · 2/4⌋ of 0, 1, 2, 3 is 0, 0, 1, 1."""
    y = drawn((4, 3, 3))
    assert np.array_equal(Images(y).reduced(16).whole["y"].numpy(), (y >> 4).reshape(4, -1))
    images = Images(np.arange(4).reshape(1, 2, 2), levels=4, labels=[0]).reduced(2)
    assert images.whole["y"].tolist() == [[0, 0, 1, 1]]
    assert images.levels == 2
    assert images.classes == 1
    with pytest.raises(BadArgument, match=r"reduced\(5\).*2 … 4"):
        Images(np.zeros((1, 2, 2)), levels=4).reduced(5)


def test_size_and_colours_are_pillows(tmp_path):
    """Cut around the middle to the shape, then scaled: a picture of 4 × 8 becomes the middle 4 × 4, and grey is ITU-R 601's."""
    wide, tall = drawn((4, 8, 3)), drawn((8, 4, 3), seed=1)
    PIL.fromarray(wide).save(tmp_path / "a.png")
    PIL.fromarray(tall).save(tmp_path / "b.png")
    with pytest.raises(BadArgument, match=r"b.png has the shape \(3, 8, 4\).*size="):
        Images(tmp_path)
    y = Images(tmp_path, size=4).whole["y"].view(2, 3, 4, 4).numpy()
    assert np.array_equal(y, np.stack([wide[:, 2:6], tall[2:6]]).transpose(0, 3, 1, 2))
    grey = Images(tmp_path, size=(4, 4), colours="grey").whole["y"].view(2, 4, 4).numpy()
    by_hand = np.stack([wide[:, 2:6], tall[2:6]]) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey - by_hand).max() <= 1


@pytest.mark.parametrize(
    ("build", "error", "said"),
    [
        (lambda f: Images(f / "cat", labels="folders"), BadArgument, "holds pictures itself"),
        (lambda f: Images(f, labels="names"), BadArgument, "labels='names'"),
        (lambda f: Images(f, labels=[0, 1]), BadArgument, r"shape \(2,\) for 5 images"),
        (lambda f: Images(f, labels=[0, 1, 0.5, 1, 1]), BadArgument, "label 2 is 0.5"),
        (lambda f: Images(f, labels=[0, 1, -1, 1, 1]), BadArgument, "label 2 is -1"),
        (lambda f: Images(np.zeros((2, 3, 3)), size=4), BadArgument, "not to arrays"),
        (lambda f: Images(np.zeros((2, 3, 3)), labels="folders"), BadArgument, "needs a folder"),
        (lambda f: Images(f, size=0), BadArgument, "size=0"),
        (lambda f: Images(f, colours="blue"), BadArgument, "colours='blue'"),
        (lambda f: ImageFolder(f / "none"), MalformedFile, "not a folder"),
        (lambda f: ImageFolder(f / "empty"), EmptyData, "no pictures"),
    ],
)
def test_what_is_not_images_is_named(pets, build, error, said):
    folder, _ = pets
    (folder / "empty").mkdir()
    with pytest.raises(error, match=said):
        build(folder)


def test_a_single_class_folder_is_refused(tmp_path):
    (tmp_path / "cat").mkdir()
    PIL.fromarray(drawn((4, 4))).save(tmp_path / "cat" / "a.png")
    with pytest.raises(BadArgument, match="holds 1 folders"):
        Images(tmp_path, labels="folders")


def test_flips_and_erasures_by_hand():
    """A mirrored row is the row from its end, and half of many are; an erased square has its side's pixels, where it lies
    within the image."""
    x = torch.arange(1, 7).repeat(400, 1)
    flipped = Flips((2, 3))(x, torch.Generator().manual_seed(0))
    mirrored = (flipped == torch.tensor([3, 2, 1, 6, 5, 4])).all(1)
    assert bool((mirrored | (flipped == x).all(1)).all())
    assert abs(float(mirrored.float().mean()) - 0.5) < 0.08  # three standard errors
    ones = torch.ones(500, 3 * 64)
    erased = Erasures((3, 8, 8), 3)(ones, torch.Generator().manual_seed(0)).view(500, 3, 8, 8)
    assert torch.equal(erased[:, 0], erased[:, 2])
    zeros = (erased[:, 0] == 0).sum((1, 2))
    assert set(zeros.tolist()) == {4, 6, 9}  # the square's middle lies anywhere: corners 2 × 2, edges 2 × 3
    for change in (lambda: Flips((3,)), lambda: Erasures((8, 8), 0)):
        with pytest.raises(BadArgument):
            change()


def test_several_changes_one_after_the_other_and_the_facts_of_images():
    """Flips, then shifts of a row: both are seen, and what is held out is as it was."""
    images = Images(np.array([[[1, 2, 3, 0]]] * 50), levels=4)
    source = Augmented(images, [Flips((1, 4)), Shifts((1, 4), 1)], inputs="y")
    assert source.levels == 4
    assert source.shape == (1, 4)
    seen = {
        tuple(row)
        for batch in source.epoch(50, torch.Generator().manual_seed(0))
        for row in batch["y"].tolist()
    }
    assert (0, 0, 3, 2) in seen
    assert (0, 1, 2, 3) in seen
    assert (1, 2, 3, 0) in seen
    assert source.split(0.2, torch.Generator().manual_seed(0))[1].whole["y"].unique(dim=0).tolist() == [
        [1, 2, 3, 0]
    ]


def test_a_unet_pads_what_cannot_be_halved():
    """7 × 5 twice halved: outputs of every pixel, and none but these pixels is asked for; the padding is zeros, so that a
    network of 8 × 8 with the same weights gives the same on an image that is zero there, up to the place's vector."""
    net = th.generative.UNet((7, 5), channels=(4, 8, 8), seed=0)
    large = th.generative.UNet((8, 8), channels=(4, 8, 8), seed=0)
    with torch.no_grad():
        for p in (*net.parameters(), *large.parameters()):
            p.add_(0.01)
        large.place.fill_(0.01)
    z, at = torch.randn(3, 35), torch.zeros(3)
    padded = torch.zeros(3, 8, 8)
    padded[:, :7, :5] = z.view(3, 7, 5)
    assert net(z, at).shape == (3, 35)
    assert torch.allclose(
        net(z, at).view(3, 7, 5), large(padded.view(3, 64), at).view(3, 8, 8)[:, :7, :5], atol=1e-5
    )
