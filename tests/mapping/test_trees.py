"""Trees as arrays: what they answer, that they agree with scikit-learn, and that damaged ones are refused."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from adcdnet.mapping.trees import DEEPEST, Trees
from adcdnet.training.committee import classifiers
from adcdnet.training.committee.classifiers import fit_boosting, fit_forest


def by_hand(**changes) -> dict[str, np.ndarray]:
    """Two trees of two features and two classes: a stump on feature 1 at 0.5, and a single leaf."""
    arrays = {
        "root": np.array([0, 3], np.int32),
        "feature": np.array([1, -1, -1, -1], np.int32),
        "threshold": np.array([0.5, 0, 0, 0], np.float32),
        "left": np.array([1, 0, 1, 2], np.int32),  # of leaves: their row of values
        "right": np.array([2, -1, -1, -1], np.int32),
        "values": np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32),
        "start": np.zeros(2, np.float32),
    }
    return {**arrays, **changes}


X = np.array([[9, 0.5], [9, 0.6], [-9, np.nan]], np.float32)  # on the threshold: left; beyond and unknown: right, left


def test_a_forest_answers_the_log_of_its_mean_leaf():
    logits = Trees.checked("forest", 2, 2, by_hand()).logits(X)
    np.testing.assert_allclose(np.exp(logits), [[0.75, 0.25], [0.25, 0.75], [0.75, 0.25]], rtol=1e-6)


def test_boosted_trees_add_up_from_where_they_start():
    trees = Trees.checked("boosting", 2, 2, by_hand(start=np.array([-1, 2], np.float32)))
    np.testing.assert_allclose(trees.logits(X), [[0.5, 2.5], [-0.5, 3.5], [0.5, 2.5]])


def test_what_no_tree_voted_for_counts_a_tenth_of_a_vote():
    trees = Trees.checked("forest", 2, 2, by_hand(values=np.array([[1, 0], [0, 1], [1, 0]], np.float32)))
    assert np.exp(trees.logits(X)[0, 1]) == pytest.approx(0.1 / 2)


@pytest.fixture(scope="module")
def table() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=700)
    x = (rng.normal(size=(700, 6)) + y[:, None] * np.array([0.8, -0.5, 0, 0.3, 0, 0])).astype(np.float32)
    x[::7, 2] = np.round(x[::7, 2])  # values that lie on thresholds
    return x, y


def test_forests_and_boosting_agree_with_scikit_learn(table, monkeypatch):
    x, y = table
    weight = 0.5 + (y == 1)
    monkeypatch.setattr(classifiers, "_TREES", 20)
    forest = RandomForestClassifier(20, min_samples_leaf=3, max_features="sqrt", random_state=3)
    p = forest.fit(x, y, sample_weight=weight).predict_proba(x)
    mine = fit_forest(x, y, weight, 3)
    np.testing.assert_allclose(np.exp(mine.logits(x)), np.maximum(p, mine.floor), atol=2e-6)
    monkeypatch.setattr(classifiers, "_ROUNDS", 12)
    settings = {"max_iter": 12, "max_leaf_nodes": 15, "l2_regularization": 1.0, "max_bins": 64}
    boosting = HistGradientBoostingClassifier(early_stopping=False, random_state=3, **settings)
    raw = boosting.fit(x, y, sample_weight=weight).decision_function(x)
    np.testing.assert_allclose(fit_boosting(x, y, weight, 3).logits(x), raw, atol=1e-4)
    two = y > 0  # scikit-learn then boosts one value for both classes
    raw = boosting.fit(x, two, sample_weight=weight).decision_function(x)
    logits = fit_boosting(x, two.astype(np.int64), weight, 3).logits(x)
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], raw, atol=1e-4)


def test_values_right_beside_a_threshold_go_where_scikit_learn_sends_them(monkeypatch):
    """Thresholds are float64 there: half way between two float32 numbers, of which the upper one goes to the right."""
    monkeypatch.setattr(classifiers, "_TREES", 3)
    monkeypatch.setattr(classifiers, "_LEAF", 1)
    for start in (
        2.0**20,
        2.0**20 + 0.125,
    ):  # half way is rounded to the even one: down from the first, up to the other
        pair = np.array([start, np.nextafter(np.float32(start), np.float32(np.inf))], np.float32)
        x, y = np.tile(pair, 20)[:, None], np.tile([0, 1], 20)
        assert fit_forest(x, y, np.ones(40), 0).logits(x).argmax(1).tolist() == y.tolist()


def test_a_pixel_gets_the_same_answer_in_any_company(table, monkeypatch):
    x, y = table
    monkeypatch.setattr(classifiers, "_TREES", 10)
    trees = fit_forest(x, y, np.ones(len(y)), 0)
    whole = trees.logits(np.tile(x, (9, 1)))  # more than one block of rows
    alone = np.concatenate([trees.logits(x[i : i + 1]) for i in range(40)])
    assert np.array_equal(whole[:40], alone)
    assert np.array_equal(whole[700:1400], whole[:700])
    assert trees.logits(x[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"left": np.array([0, 0, 1, 2], np.int32)}, "leads back"),
        ({"right": np.array([3, -1, -1, -1], np.int32)}, "out of it"),
        ({"right": np.array([99, -1, -1, -1], np.int32)}, "out of it"),
        ({"left": np.array([1, 0, 1, 3], np.int32)}, "no values"),
        ({"left": np.array([1, -1, 1, 2], np.int32)}, "no values"),
        ({"feature": np.array([2, -1, -1, -1], np.int32)}, "columns"),
        ({"feature": np.array([-2, -1, -1, -1], np.int32)}, "columns"),
        ({"threshold": np.array([np.nan, 0, 0, 0], np.float32)}, "finite"),
        ({"values": np.array([[1, 0], [0, np.inf], [1, 0]], np.float32)}, "finite"),
        ({"values": np.ones((3, 5), np.float32)}, "classes"),
        ({"root": np.array([0, 4], np.int32)}, "roots"),
        ({"root": np.array([0, 0], np.int32)}, "roots"),
        ({"root": np.zeros(0, np.int32)}, "no root"),
        ({"threshold": np.zeros(3, np.float32)}, "lengths"),
        ({"threshold": np.zeros(4, np.float64)}, "float64"),
        ({"more": np.zeros(4, np.float32)}, "need"),
    ],
)
def test_damaged_trees_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        Trees.checked("forest", 2, 2, by_hand(**changes))


def test_trees_of_another_kind_or_too_deep_are_refused():
    with pytest.raises(ValueError, match="kind"):
        Trees.checked("cedar", 2, 2, by_hand())
    deep = DEEPEST + 1  # a chain: node 2 i is inner, its left child a leaf
    nodes = np.arange(2 * deep + 1)
    inner = (nodes % 2 == 0) & (nodes < 2 * deep)
    leaves = int((~inner).sum())
    left = np.where(inner, nodes + 1, 0)
    left[~inner] = np.arange(leaves)
    chain = {
        "root": np.zeros(1, np.int32),
        "feature": np.where(inner, 0, -1).astype(np.int32),
        "threshold": np.zeros(len(nodes), np.float32),
        "left": left.astype(np.int32),
        "right": np.where(inner, nodes + 2, -1).astype(np.int32),
        "values": np.ones((leaves, 2), np.float32),
        "start": np.zeros(2, np.float32),
    }
    with pytest.raises(ValueError, match="deeper"):
        Trees.checked("forest", 2, 2, chain)
