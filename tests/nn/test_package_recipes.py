"""Recipes for other packages: the page has them, and the script that runs them can fail."""

import sys

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import try_recipes

GOOD = """
import torch
from adcdnet.nn import DIA
network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), DIA(3))
y = {"scores": [network(torch.randn(1, 2, 6, 6))]}
"""


def test_the_page_has_a_recipe_for_each_package_of_its_table():
    text = try_recipes.PAGE.read_text("utf-8")
    packages = list(try_recipes.recipes(text))
    assert packages == ["timm", "segmentation_models_pytorch", "ultralytics", "mmcv"]
    assert all(f"\n| {package} " in text for package in packages)
    for code in try_recipes.recipes(text).values():
        compile(code, "recipe", "exec")


def test_a_recipe_without_dia_or_without_gradients_is_refused():
    assert try_recipes.tried(GOOD) == "1 DIA, each with gradients"
    with pytest.raises(ValueError, match="0 DIA in the network"):
        try_recipes.tried(GOOD.replace(", DIA(3)", ""))
    with pytest.raises(ValueError, match="all must get gradients"):
        try_recipes.tried(GOOD.replace("[network(", "[network[0]("))


def test_a_package_that_is_not_installed_is_named_and_left_out(monkeypatch, capsys):
    monkeypatch.setattr(try_recipes, "find_spec", lambda package: None)
    try_recipes.main()
    assert "timm: not installed, left out" in capsys.readouterr().out
