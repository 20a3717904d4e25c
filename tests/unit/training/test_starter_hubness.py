"""How a picture that lies near every text is kept from being found by all of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from training.starter.hubness import REACH, SPOKEN, TAKEN_OFF, Hubness, Texts, fitted, nearness_of_all
from training.starter.losses import taught

DIM = 24


def directions(count: int, seed: int, around: torch.Tensor | None = None, spread: float = 1.0) -> torch.Tensor:
    noise = torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)) / math.sqrt(DIM)
    return functional.normalize((around if around is not None else 0.0) + spread * noise, dim=1)


@pytest.fixture(scope="module")
def world() -> tuple[Hubness, float, torch.Tensor, Texts]:
    """Texts crowd around one direction, and pictures lie anywhere between there and its opposite."""
    torch.manual_seed(3)
    middle = directions(1, 0)
    texts = Texts(1.0, directions(600, 1, middle), torch.full((600,), -1))
    images = directions(3000, 2, middle * torch.linspace(-0.3, 0.6, 3000).unsqueeze(1))
    hubness, explained = fitted(images, torch.arange(3000), [texts], anchors=64, steps=400)
    return hubness.requires_grad_(False), explained, images, texts


def test_the_anchors_know_how_crowded_a_picture_is(world: tuple[Hubness, float, torch.Tensor, Texts]) -> None:
    hubness, explained, images, texts = world
    exact = nearness_of_all(hubness.turned(images), torch.arange(3000), hubness, [texts])
    assert explained > 0.95
    assert (hubness.nearness(hubness.turned(images)) - exact).abs().mean() < exact.std() / 10


def test_all_vectors_have_length_one(world: tuple[Hubness, float, torch.Tensor, Texts]) -> None:
    hubness, _, images, texts = world
    for served in (hubness.images(images), hubness.texts(texts.vectors)):
        assert served.shape[1] == DIM
        torch.testing.assert_close(served.norm(dim=1), torch.ones(len(served)))


def test_a_score_is_the_likeness_less_a_share_of_how_crowded_the_picture_is(
    world: tuple[Hubness, float, torch.Tensor, Texts],
) -> None:
    hubness, _, images, texts = world
    alike = hubness.turned(texts.vectors) @ hubness.turned(images).T
    crowded = (hubness.nearness(hubness.turned(images)) - hubness.mean).clamp(-REACH, REACH)

    served = hubness.texts(texts.vectors) @ hubness.images(images).T

    wanted = alike - TAKEN_OFF * crowded
    ratio = (served * wanted).sum() / wanted.square().sum()
    torch.testing.assert_close(served, ratio * wanted, atol=1e-5, rtol=1e-4)
    assert 0.8 < float(ratio) < math.sqrt(1 - SPOKEN**2)


def test_pictures_are_as_alike_as_they_were(world: tuple[Hubness, float, torch.Tensor, Texts]) -> None:
    hubness, _, images, _ = world
    before = hubness.turned(images[:500]) @ hubness.turned(images[500:1000]).T
    after = hubness.images(images[:500]) @ hubness.images(images[500:1000]).T
    assert (after - before).abs().max() < 0.06


def test_the_right_picture_comes_before_one_that_is_near_everything() -> None:
    torch.manual_seed(5)
    middle, subject = torch.eye(DIM)[0], torch.eye(DIM)[1]
    texts = Texts(1.0, directions(400, 7, middle, 0.5), torch.full((400,), -1))
    right, hub = functional.normalize(subject, dim=0), functional.normalize(middle + 0.3 * subject, dim=0)
    asked = functional.normalize(0.5 * middle + 0.56 * subject, dim=0)
    images = torch.cat([directions(1000, 8), directions(1000, 9, middle, 0.6), torch.stack([right, hub])])

    hubness, _ = fitted(images, torch.arange(len(images)), [texts], anchors=64, steps=400)
    served = (hubness.texts(asked) @ hubness.images(torch.stack([right, hub])).T).tolist()

    assert float(asked @ hub) > float(asked @ right)
    assert served[0] > served[1]


def test_a_pictures_own_texts_do_not_make_it_crowded() -> None:
    hubness, images = Hubness(DIM), directions(2, 4)
    hubness.requires_grad_(False)
    others = directions(50, 6)
    bank = Texts(1.0, torch.cat([images[:1], others]), torch.tensor([0] + [-1] * 50))
    own, foreign = nearness_of_all(hubness.turned(images[:1].repeat(2, 1)), torch.tensor([0, 1]), hubness, [bank]).tolist()
    assert foreign > own + 0.5
    without = nearness_of_all(
        hubness.turned(images[:1]), torch.tensor([1]), hubness, [Texts(50 / 51, others, torch.full((50,), -1))]
    )
    assert own == pytest.approx(float(without))


def test_who_is_taught_is_done_where_the_teachers_are() -> None:
    theirs, texts = directions(8, 11), directions(30, 12)
    near, far = functional.normalize(theirs + 0.05 * directions(8, 13), dim=1), directions(8, 14)
    losses = [float(taught(ours, theirs, texts)) for ours in (theirs, near, far)]
    assert losses[0] == pytest.approx(0.0, abs=1e-5)
    assert losses[0] < losses[1] < losses[2]
