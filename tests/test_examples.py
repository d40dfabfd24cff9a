"""The examples run, and learn something, with small settings."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import dia_in_resnet
import dia_two_sensors
import dtm_on_resnet
import sequences
from study import Row, table


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
