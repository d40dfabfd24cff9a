"""The examples run, and learn something, with small settings."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import detection
import dia_in_resnet
import dia_two_sensors
import dtm_on_resnet
import redundancy
import segmentation
import sequences
import video
import write_tables
from study import Part, Row, table


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def reached(rows: list[Row]) -> dict[str, float]:
    return {row.variant: row.accuracy for row in rows}


def test_dia_in_resnet_learns_with_each_attention():
    rows = dia_in_resnet.run([0], samples=400, epochs=3)
    assert list(reached(rows)) == ["no attention", "CBAM spatial", "DIA"]
    assert min(reached(rows).values()) > 15  # chance is 10 %
    bare, cbam, dia = (row.parameters for row in rows)
    assert cbam - bare == 3 * 98
    assert dia - bare == 3 * 59


def test_dtm_on_resnet_learns_with_and_without():
    rows = dtm_on_resnet.run([0], samples=400, epochs=3)
    assert len(rows) == 3
    assert min(reached(rows).values()) > 15


def test_sequences_are_read_by_networks_of_one_size():
    rows = sequences.run("digits", [0], samples=300, epochs=5)
    assert len(rows) == 4
    assert min(reached(rows).values()) > 30
    sizes = [row.parameters for row in rows]
    assert max(sizes) < 1.1 * min(sizes)


def test_heart_signal_hides_its_class_in_an_early_beat():
    part = sequences.heart(300, seed=3)
    signal = part.inputs[0]
    assert signal.shape == (300, 2000)
    early, late = signal[:, :700], signal[:, 700:]
    inverted = part.labels == 2
    assert early[inverted].amin(1).mean() < early[~inverted].amin(1).mean() - 0.3
    assert abs(late[inverted].amin(1).mean() - late[~inverted].amin(1).mean()) < 0.05
    rows = sequences.run("heart", [0], samples=32, epochs=1)
    assert len(rows) == 4


def test_two_sensors_see_more_than_each_alone():
    rows = dia_two_sensors.run([0], samples=400, epochs=4)
    assert len(rows) == 4
    assert min(reached(rows).values()) > 100 / 3  # the optical bands alone tell 3 pairs apart: at most 50 %


def test_table_gives_mean_and_sd_by_hand():
    rows = [Row("a", 90.0, 7, 0.001), Row("b", 50.0, 8, 0.002), Row("a", 94.0, 7, 0.003)]
    assert table(rows).splitlines()[2:] == ["| a | 92.00 ± 2.83 | 7 | 2.0 |", "| b | 50.00 | 8 | 2.0 |"]


def test_the_detector_finds_boxes_with_each_head():
    rows = detection.run([0], samples=36, epochs=2)
    assert list(reached(rows)) == list(detection.VARIANTS)
    bare, cbam, dia = (row.parameters for row in rows[:3])
    assert (cbam - bare, dia - bare) == (98, 59)
    assert all(0 <= row.accuracy <= 100 for row in rows)


def test_boxes_by_hand():
    classes = np.zeros((64, 64), int)
    classes[8:24, 20:28] = 2  # an orchard, 16 by 8, with its middle at (16, 24): cell (2, 3), place (0, 0)
    classes[50:55, 50:60] = 1  # water, too low
    target = detection.boxes_of(classes, ("water", "orchard", "settlement"))
    assert target[..., 0].nonzero().tolist() == [[2, 3]]
    torch.testing.assert_close(target[2, 3], torch.tensor([1, 0, 0, 0, np.log(0.5), 1], dtype=torch.float32))
    box = detection.corners(target[..., 1:5])[2 * 8 + 3]
    assert box.tolist() == [8, 20, 24, 28]
    shifted = box + torch.tensor([8, 0, 8, 0])
    assert detection.overlap(box, torch.stack((box, shifted))).tolist() == pytest.approx([1, 1 / 3])


class Known(nn.Module):
    """Answers what it was told."""

    def __init__(self, answers: torch.Tensor) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answers


def test_average_precision_by_hand():
    target = torch.zeros(1, 8, 8, 6)
    for row in (1, 6):  # two boxes of water
        target[0, row, 2] = torch.tensor([1, 0.5, 0.5, 0, 0, 0])
    answers = torch.full((1, 8, 8, detection.ANSWERS), -20.0)
    answers[..., 1:5] = 0  # middle of the cell, 16 by 16
    answers[..., 5] = 20  # water
    test = Part((torch.zeros(1, 7, 64, 64),), target)
    assert detection.average_precision(Known(answers), test) == 0
    answers[0, 1, 2, 0], answers[0, 4, 6, 0] = 2.0, 3.0  # the surest is wrong, the next right, one is missed
    assert detection.average_precision(Known(answers), test) == pytest.approx(100 / 3 * 0.25)
    answers[0, 6, 2, 0] = 1.0  # wrong, right, right: 1/2, then 2/3, which counts for both
    assert detection.average_precision(Known(answers), test) == pytest.approx(100 / 3 * 2 / 3)


def test_segmentation_learns_with_each_attention_and_each_supervision():
    rows = segmentation.run("attention", [0], samples=27, epochs=2)
    assert list(reached(rows)) == list(segmentation.VARIANTS["attention"])
    bare, *others = (row.parameters for row in rows)
    assert [size - bare for size in others] == [5 * 98, 5 * 59, 2 * 98, 2 * 59]
    rows += segmentation.run("supervision", [0], samples=27, epochs=2)
    assert list(reached(rows))[5:] == list(segmentation.VARIANTS["supervision"])
    assert max(reached(rows).values()) > 5  # one class everywhere has at most a third of a ninth


@pytest.mark.parametrize("supervision", [segmentation.HeadOnEachLevel, segmentation.DTMOverLevels])
def test_a_supervision_that_knows_nothing_adds_lambda_log_9(supervision):
    torch.manual_seed(0)
    network = segmentation.Supervised(supervision).eval()
    for p in network.supervision.parameters():
        nn.init.zeros_(p)
    x, labels = torch.randn(2, 7, 16, 16), torch.randint(9, (2, 16, 16))
    alone = nn.functional.cross_entropy(network(x), labels)
    both = segmentation.both_losses(network, (x,), labels)
    torch.testing.assert_close(both, alone + 0.8 * np.log(9))


def test_supervision_is_right_where_the_shares_of_the_classes_are():
    """A head that answers the logarithms of the shares has their entropy as its loss."""
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    labels[:, ::2, ::2] = 4  # a quarter of each coarser pixel, its corner included
    logits = torch.full((1, 9, 4, 4), -30.0)
    logits[:, 0], logits[:, 4] = np.log(3 / 4), np.log(1 / 4)
    network = segmentation.Supervised(segmentation.HeadOnEachLevel).eval()
    network.supervision = Known([logits])
    x = torch.randn(1, 7, 16, 16)
    alone = nn.functional.cross_entropy(network(x), labels)
    both = segmentation.both_losses(network, (x,), labels)
    torch.testing.assert_close(both, alone + 0.8 * (np.log(4) - 3 / 4 * np.log(3)))


def test_a_dtm_over_levels_answers_for_its_own_pixels():
    torch.manual_seed(0)
    dtm = segmentation.DTMOverLevels((3, 5)).eval()
    fine, coarse = torch.randn(1, 3, 16, 16), torch.randn(1, 5, 8, 8)
    (before,) = dtm([fine, coarse])
    assert before.shape == (1, 9, 4, 4)
    fine[:, :, 4:8, 8:12] += 1  # cell (1, 2)
    changed = (dtm([fine, coarse])[0] - before).abs().sum(1)[0] > 1e-6
    assert changed.nonzero().tolist() == [[1, 2]]


def test_mean_iou_by_hand():
    labels = torch.zeros(1, 2, 2, dtype=torch.long)
    labels[0, 0] = 3
    answers = torch.zeros(1, 9, 2, 2)
    answers[0, 0] = 1  # class 0 everywhere: 2 of 4 right, class 3 never
    test = Part((torch.zeros(1, 7, 2, 2),), labels)
    assert segmentation.mean_iou(Known(answers), test) == pytest.approx(25)


def test_clips_show_the_label_first_and_another_digit_then():
    part = Part((torch.eye(10)[:, None, :, None].expand(10, 1, 10, 8)[:, :, :8],), torch.arange(10))
    clips = video.clips(part, seed=0, noise=0.0)
    assert clips.inputs[0].shape == (10, 8, 1, 16, 16)
    early, late = clips.inputs[0][:, :4].amax((1, 2, 3, 4)), clips.inputs[0][:, 4:].amax((1, 2, 3, 4))
    assert (early > 0).tolist() == [True] * 8 + [False] * 2  # what was drawn of its own digit: rows 0 to 7
    assert (late > 0).sum() == 8  # the same digits in another order
    assert (early > 0).tolist() != (late > 0).tolist()
    rows = video.run([0], samples=100, epochs=1)
    assert list(reached(rows)) == list(video.VARIANTS)


def test_redundancy_by_hand():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 3, 1, 1, generator=draw)
    assert redundancy.between_channels(x) < 0.01
    x[:, 2] = x[:, 0] + x[:, 1]  # correlations 0, √½, √½: 0, ½ and ½ bit
    assert redundancy.between_channels(x) == pytest.approx(1 / 3, abs=0.02)
    labels = torch.arange(4000) % 6
    known = nn.functional.one_hot(labels, 6).float()[:, :, None, None]
    assert redundancy.of_the_cover(known, labels, known, labels) == pytest.approx(np.log2(6), abs=0.2)
    noise = torch.randn(4000, 6, 1, 1, generator=draw)
    assert redundancy.of_the_cover(noise, labels, noise, labels) < 0.05


def test_without_attention_nothing_changes_before_and_after():
    rows = redundancy.run([0], samples=200, epochs=1)
    assert len(rows) == 6
    for row in rows:
        assert (row.before == row.after) == (row.variant == "no attention")
    assert "→" in redundancy.table(rows)


def test_tables_of_the_page_have_the_rows_of_the_examples():
    text = write_tables.DOCUMENT.read_text("utf-8")
    tables = dict(re.findall(r"<!-- table (\w+) -->\n(.*?)<!-- end -->", text, re.DOTALL))
    assert set(tables) == set(write_tables.STUDIES)
    variants = {"detection": detection.VARIANTS, "video": video.VARIANTS, "dia_in_resnet": dia_in_resnet.VARIANTS}
    variants |= {
        "segmentation": segmentation.VARIANTS["attention"],
        "supervision": segmentation.VARIANTS["supervision"],
    }
    for name, rows in tables.items():
        first = [line.strip("| ").split(" | ")[0] for line in rows.splitlines()[2:]]
        assert first == list(variants.get(name, first))
        assert all("±" in line for line in rows.splitlines()[2:]), name


def test_a_table_is_exchanged_and_the_others_stay(tmp_path):
    text = "a\n<!-- table one -->\nold\n<!-- end -->\n<!-- table two -->\nkept\n<!-- end -->\n"
    assert write_tables.with_table(text, "one", "new") == text.replace("old", "new")
    with pytest.raises(ValueError, match="no place for table 'three'"):
        write_tables.with_table(text, "three", "new")
    study = write_tables.Study(lambda seeds, samples: [Row("a", 90.0, samples, seeds[0])], {"samples": 7})
    for _ in range(2):  # made, then read
        assert write_tables.kept_rows(tmp_path / "rows" / "a-3.json", study, 3) == [Row("a", 90.0, 7, 3)]
