import numpy as np
import pytest
import torch

from medgraft.data.audit.alignment import common_of, likeness, oriented
from medgraft.data.audit.spectra import proposed_pairs
from medgraft.data.decoded.fingerprint import thumbnail


def test_a_pair_is_as_alike_as_its_detail_laid_on_each_other(picture):
    first = torch.from_numpy(thumbnail(picture(1, 96)))
    common = common_of(torch.from_numpy(np.stack([thumbnail(picture(seed, 96)) for seed in range(40)])))
    moved = torch.from_numpy(np.roll(first.numpy(), (3, -2), (0, 1)))
    other = torch.from_numpy(thumbnail(picture(2, 96)))
    pairs = torch.stack([first, moved, oriented(first, 6), 255 - first, other])
    # What undoes the sixth orientation is the sixth: mirrored, then half a turn.
    ways = torch.tensor([[0, 2], [0, 2], [6, 4], [0, 2], [0, 2]])
    alike = likeness(first.expand(5, -1, -1), pairs, ways, common, -1.0)
    assert alike[0] == pytest.approx(1, abs=1e-5)
    assert alike[1] > 0.97
    assert alike[2] == pytest.approx(1, abs=1e-5)
    assert max(alike[3:]) < 0.7


def test_too_many_promising_pairs_keep_the_best_and_say_so(picture):
    images = [picture(seed, 96) for seed in range(70)]
    images += [image[1:] for image in images[:20]]
    views = torch.from_numpy(np.stack([thumbnail(image) for image in images])[:, None])
    few = proposed_pairs(views, 8)
    assert (len(few.pairs), few.is_complete) == (8, False)
    assert all(abs(first - second) == 70 for first, second in few.pairs.tolist())
    many = proposed_pairs(views, 5000)
    assert many.is_complete
    assert {(number, 70 + number) for number in range(20)} <= {tuple(sorted(pair)) for pair in many.pairs.tolist()}
