import numpy as np
import toy_attack as toy

from research.adversarial import generate
from research.experiments.noise import comparison
from research.storage import attack_files

NET = toy.net()


def test_the_last_call_is_filled_up_and_gives_the_right_images(monkeypatch):
    fell, calls, data = {3, 17, 24}, [], toy.data()
    monkeypatch.setattr(generate, "generate", toy.attack(calls, lambda n, t: n in fell))
    fooled = comparison.fooled(toy.smoke(), NET, data.images[:25], data.labels[:25], 13)
    assert set(np.flatnonzero(fooled)) == fell and fooled.shape == (25,)
    assert [call["numbers"] for call in calls] == [[*range(20)], [20, 21, 22, 23, 24] * 4]
    assert calls[0]["targets"].tolist() == toy.LABELS[:20, None].tolist()
    (method,) = calls[0]["methods"]
    np.testing.assert_allclose(method.radius, 13 / 255)
    assert (method.norm, method.steps, method.restarts) == ("linf", 10, 1)


def test_an_image_that_falls_within_a_radius_has_fallen_within_every_larger_one(
    tmp_path, monkeypatch
):
    """Every net is stopped nowhere and asked once for every level."""
    fell, asked = {0: {2}, 1: {4, 5}, 2: {0}}, []

    def fooled(config, net, images, labels, level):
        asked.append(level)
        return np.isin(np.arange(len(images)), [*fell[level]])

    monkeypatch.setattr(comparison, "fooled", fooled)
    config = toy.smoke(pgd__images=6, pgd__levels=(2, 1))
    robust = comparison.robust_accuracy(config, {tmp_path: NET}, toy.data())
    assert (robust["levels"], robust["hits"]) == ([0, 1, 2], {"first": [5, 3, 2]})
    assert comparison.robust_accuracy(config, {tmp_path: NET}, toy.data()) == robust
    assert asked == [0, 1, 2]  # what was found is kept


def test_the_successes_of_the_sample_are_what_is_transferred(tmp_path):
    """Two of image 7 fool the net; of image 2 one does and one does not; 3 is not in the sample."""
    won = {(7, 0): True, (7, 1): True, (2, 0): True, (2, 1): False, (3, 0): True}
    log = attack_files.CellLog(tmp_path, cells=10)
    for image in (7, 2, 3):
        clean, rows = toy.data().images[image], []
        for target in range(10):
            fools = won.get((image, target), True)
            name, success = f"{image}-{target}.png", (image, target) in won
            shown = toy.toward(clean, toy.LABELS[image], 9 - target) if fools else clean
            attack_files.write_png(tmp_path / name, shown)
            rows.append({"image": image, "target": target, "success": success, "file": name})
        log.write(rows)
    shares = comparison.transfer(toy.smoke(), {tmp_path: NET}, toy.sample((7, 2)))
    assert (shares["names"], shares["counts"]) == (["first"], [4])
    np.testing.assert_allclose(shares["rates"], [[3 / 4]])
