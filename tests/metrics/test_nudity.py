"""NudeNet in batches finds what the package finds one image at a time."""

import cv2
import matplotlib
import numpy as np
import pytest
from nudenet import NudeDetector
from nudenet.nudenet import _postprocess

from safetydpo_kedro.metrics.config import NudityConfig
from safetydpo_kedro.metrics.nudity import LABELS, Detection, NudityJudge, postprocess


@pytest.fixture(scope="module")
def portrait():
    """Grace Hopper, from matplotlib's sample data: a public-domain portrait, RGB."""
    path = f"{matplotlib.get_data_path()}/sample_data/grace_hopper.jpg"
    return cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)


def variations(image):
    """Several images of different content and shape around one portrait."""
    rng = np.random.default_rng(0)
    return [
        image,
        np.ascontiguousarray(image[:, ::-1]),
        np.ascontiguousarray(image[40:340, 100:420]),
        cv2.resize(image, (96, 128)),
        np.concatenate([image, image[:, ::-1]], axis=1),
        rng.integers(0, 256, (32, 32, 3), dtype=np.uint8),
    ]


def test_equals_the_package_on_files(portrait, tmp_path):
    judge, package = NudityJudge(), NudeDetector()
    found = 0
    for i, image in enumerate(variations(portrait)):
        path = str(tmp_path / f"{i}.png")
        cv2.imwrite(path, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        expected = package.detect(path)
        (detections,) = judge.detect(image[None])
        assert [(d.label, list(d.box)) for d in detections] == [
            (e["class"], e["box"]) for e in expected
        ]
        np.testing.assert_allclose(
            [d.score for d in detections], [e["score"] for e in expected], atol=1e-6
        )
        found += len(expected)
    assert found >= 5


def test_batches_change_nothing(portrait):
    shifted = [np.roll(portrait, 15 * i, axis=1) for i in range(5)]
    batch = np.stack(shifted)
    together = NudityJudge(NudityConfig(batch_size=3)).detect(batch)
    alone = [NudityJudge().detect(image[None])[0] for image in shifted]
    assert [[(d.label, d.box) for d in image] for image in together] == [
        [(d.label, d.box) for d in image] for image in alone
    ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("height", "width"), [(320, 320), (100, 260), (64, 48)])
def test_postprocessing_equals_the_package(seed, height, width):
    rng = np.random.default_rng(seed)
    output = rng.uniform(0, 0.45, (22, 300)).astype(np.float32)
    output[:4] = rng.uniform(5, 320, (4, 300))
    output[4:, ::3] *= 0.3  # a third below the score floor
    side = max(height, width)
    expected = _postprocess(
        [output[None]], side - width, side - height, 1, 1, width, height, 320, 320
    )
    assert postprocess(output, (height, width), 320) == [
        Detection(e["class"], e["score"], tuple(e["box"])) for e in expected
    ]
    assert len(expected) > 3


def test_every_class_has_its_highest_score(monkeypatch):
    box = (0, 0, 1, 1)
    found = [
        [Detection("FACE_MALE", 0.9, box), Detection("FACE_MALE", 0.3, box)],
        [Detection("FEET_EXPOSED", 0.5, box), Detection("FACE_MALE", 0.4, box)],
        [],
    ]
    judge = NudityJudge()
    monkeypatch.setattr(judge, "detect", lambda images: found)
    scores = judge.label_scores(np.zeros((3, 8, 8, 3), np.uint8))
    assert scores.shape == (3, len(LABELS))
    assert scores[:, LABELS.index("FACE_MALE")].tolist() == [0.9, 0.4, 0]
    assert scores[:, LABELS.index("FEET_EXPOSED")].tolist() == [0, 0.5, 0]
    assert scores.sum() == pytest.approx(0.9 + 0.5 + 0.4)


def test_a_portrait_shows_a_face_and_nothing_exposed(portrait):
    scores = dict(zip(LABELS, NudityJudge().label_scores(portrait[None])[0], strict=True))
    assert max(scores["FACE_FEMALE"], scores["FACE_MALE"]) > 0.5
    assert scores["FEMALE_GENITALIA_EXPOSED"] == scores["MALE_GENITALIA_EXPOSED"] == 0


def test_other_resolutions_run_and_small_images_are_enlarged(portrait):
    small = cv2.resize(portrait, (32, 32))[None]
    judge = NudityJudge(NudityConfig(resolution=64))
    assert judge.label_scores(small).shape == (1, len(LABELS))
    assert judge.label_scores(small[:0]).shape == (0, len(LABELS))


def test_reports_version_and_hash():
    judge = NudityJudge()
    assert judge.version.startswith("nudenet 3")
    assert len(judge.weights_sha256) == 64


def test_labels_are_the_packages():
    from nudenet import nudenet

    assert list(LABELS) == nudenet.__dict__["__labels"]


def test_refuses_floats():
    with pytest.raises(ValueError, match="float64"):
        NudityJudge().detect(np.zeros((1, 32, 32, 3)))
    with pytest.raises(ValueError, match="multiple of 32"):
        NudityConfig(resolution=100)
