"""The table of steps to a kappa: what never gets there counts with all its steps, and is counted."""

import sys

from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import claims

CURVES = {  # by condition and seed: step, kappa and AA
    "no prior": [[(3, 0.1, 0.1), (6, 0.4, 0.2)], [(3, 0.5, 0.1), (6, 0.6, 0.2)]],  # at the end 0.5: goals 0.45, 0.485
    "random prior": [[(3, 0.47, 0.1), (6, 0.47, 0.2)]] * 2,
    "learnt prior": [[(3, 0.2, 0.1), (6, 0.5, 0.2)]] * 2,
}


def test_steps_to_a_kappa_by_hand(monkeypatch, capsys):
    def setting(folder, seed, steps, **changes):
        name = {"stage1": "random prior", "network": "no prior"}[next(iter(changes))] if changes else "learnt prior"
        return CURVES[name][seed]

    monkeypatch.setattr(claims, "setting", setting)
    monkeypatch.setattr(claims, "trained", lambda curve: curve)
    claims.convergence(None, seeds=2, steps=12)  # of patches: of tiles half as many are run
    assert capsys.readouterr().out.splitlines() == [
        "| | steps to kappa 0.450 | to 0.485 | kappa at the end | AA |",
        "|---|---|---|---|---|",
        "| learnt prior | 6 ± 0 (2 of 2) | 6 ± 0 (2 of 2) | 0.500 ± 0.000 | 0.200 ± 0.000 |",
        "| random prior | 3 ± 0 (2 of 2) | 6 ± 0 (0 of 2) | 0.470 ± 0.000 | 0.200 ± 0.000 |",
        "| no prior | 4 ± 2 (1 of 2) | 4 ± 2 (1 of 2) | 0.500 ± 0.141 | 0.200 ± 0.000 |",
    ]
