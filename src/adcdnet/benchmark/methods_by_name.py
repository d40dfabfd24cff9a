"""Methods that a benchmark compares, by name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from adcdnet.benchmark.comparisons import SUBSTITUTES
from adcdnet.benchmark.methods import METHODS
from adcdnet.config import Profile, TrainConfig
from adcdnet.errors import InputError
from adcdnet.nn.architecture import PatchArchitecture
from adcdnet.nn.parts import PUBLISHED, Parts

PLAIN = {"branch_weight": 0.0, "network": {"attention": "none", "dtm": False, "prior": False}}
ABLATIONS: dict[str, dict[str, Any]] = {  # what is changed in the default settings
    "adcdnet": {},
    "no-stage1": {"network": {"prior": False}},
    "all-parts": {"plain_if_few": False},
    "random-prior": {"stage1": {"steps": 0}, "plain_if_few": False},
    "no-dtm": {"network": {"dtm": False}, "branch_weight": 0.0},
    "no-dia": {"network": {"attention": "none"}},
    "cbam": {"plain_if_few": False},  # with another part, of few labels too
    "gru": {"plain_if_few": False},
    "attention": {"plain_if_few": False},
    "learnt-token": {"plain_if_few": False},
    "initial-state": {"plain_if_few": False},
    "no-context": {"network": {"context_branch": 0.0}},
    "tiles": {"tiles_from": 1},  # whatever the ratio
    "tiles-plain": {"tiles_from": 1, **PLAIN},
    "one-level": {"tiles_from": 1, "network": {"widths": [64]}},
    "two-levels": {"tiles_from": 1, "network": {"widths": [64, 96]}},
    "four-levels": {"tiles_from": 1, "network": {"widths": [64, 96, 128, 128]}},
    "no-smooth": {"answers": {"smooth": 0.0}},
    "local-priors": {"answers": {"local_priors": 0.75}},
    "ms-only": {"network": {"sensors": "ms"}},
    "pan-only": {"network": {"sensors": "pan"}},
}
COMMITTEES: dict[str, dict[str, Any]] = {  # cross-fitted on the training ground of a cell: which members
    "committee": {},
    "committee-adcdnet": {"members": ["adcdnet", "boosting", "perceptron"]},
    "committee-forest": {"members": ["plain", "boosting", "forest", "perceptron"]},
    "committee-no-network": {"members": ["boosting", "perceptron"]},
    "committee-no-trees": {"members": ["plain", "perceptron"]},
    "committee-of-plain": {"members": ["plain"]},
    "committee-of-boosting": {"members": ["boosting"]},
    "committee-of-forest": {"members": ["forest"]},
    "committee-of-perceptron": {"members": ["perceptron"]},
}
PARTS = (
    "all-parts",
    "no-stage1",
    "random-prior",
    "no-dtm",
    "no-dia",
    "cbam",
    "gru",
    "attention",
    "learnt-token",
    "initial-state",
    "ms-only",
    "pan-only",
)
OF_PATCHES: dict[str, dict[str, Any]] = {  # what is changed in a network over patches, beside the parts of the paper
    **{name: ABLATIONS[name] for name in (*PARTS, "no-context", "no-smooth")},
    "no-local-priors": {"answers": {"local_priors": 0.0}},
    "flatten-head": {"network": {"head": "flatten"}},  # the sum of both sensors is here to be compared with
    "gate-fusion": {"network": {"head": "flatten"}},
    "concat-fusion": {"network": {"head": "flatten"}},
    "halo": {"network": {"head": "flatten"}, "sampling": "patch"},  # what zeros is to be compared with
    "zeros": {"network": {"padding": "zeros", "patch": 8, "head": "flatten"}, "sampling": "patch"},
    "plain": PLAIN,
    "no-mixup": {"mixup": 0.0},
    "no-self-training": {"self_training": 0.0},
    "patches": {"sampling": "patch"},
    "tiles": {"sampling": "dense"},
}
ABLATIONS_OF_PATCH = tuple(f"patch-{name}" for name in OF_PATCHES)
ABLATIONS_OF_PAPER = tuple(f"paper-{name}" for name in (*PARTS[1:], "gate-fusion", "concat-fusion"))
OTHER_PROFILES: tuple[Profile, ...] = ("plain", "patch", "paper", "paper-code")
NETWORKS = (
    *ABLATIONS,
    *COMMITTEES,
    *OTHER_PROFILES,
    *ABLATIONS_OF_PATCH,
    *ABLATIONS_OF_PAPER,
)
WITH = "+"  # "gru+fast.toml": the parts of `gru` under the settings of a file
GROUND_RULES = TrainConfig.of_profile("patch")  # what the methods that are no ADCD-Nets see of a training area
ALIKE = "-alike"  # after the name of a baseline: its answers are averaged and adapted as those of ADCD-Net are
RAW = "-raw"  # after that of an ADCD-Net: its answers as they are, neither averaged nor adapted
SEEN = "-seen"  # after that of an ADCD-Net: it sees the training ground while it answers, which is hidden otherwise


def settings_hash(method: str) -> str:
    """Of an ADCD-Net's settings, whatever the seed; of what other methods are under too."""
    return short_hash(rules_of(method, 0))


def rules_of(method: str, seed: int) -> dict[str, Any]:
    settings = settings_of(method, seed)
    if settings is None:
        return _ground_rules()
    return rules_of_network(method, settings)


def rules_of_network(method: str, settings: TrainConfig) -> dict[str, Any]:
    """All that decides what an ADCD-Net is and how it is trained: its settings, and which part is exchanged."""
    exchanged = _substitute(method)
    rules = settings.model_dump()
    if trained_as(method) not in COMMITTEES:  # a network trained by itself knows nothing of these
        del rules["members"], rules["local_priors_tried"], rules["split"]["folds"]
    if rules["network"].get("backbone") == "conv":  # a setting of the other units
        del rules["network"]["hard_swish"]
    return rules | ({"parts": exchanged} if exchanged else {})


def short_hash(content: Any) -> str:
    """The first 16 digits of the SHA-256 of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def trained_as(method: str) -> str:
    """The method without what its name says of how its answers are read."""
    for reading in (ALIKE, RAW, SEEN):
        method = method.removesuffix(reading)
    return method


def method_name(method: str) -> str:
    """A settings file goes by its name."""
    own = trained_as(method)
    return Path(own).stem + method.removeprefix(own) if own.endswith(".toml") else method


def parts_of(method: str) -> Parts:
    """The parts of an ADCD-Net; the published ones unless its name says that one is exchanged."""
    return SUBSTITUTES.get(_substitute(method), PUBLISHED)


def _substitute(method: str) -> str:
    """What of SUBSTITUTES a method has, or ""."""
    name = trained_as(method).partition(WITH)[0].removeprefix("paper-").removeprefix("patch-")
    return name if name in SUBSTITUTES else ""


def settings_of(method: str, seed: int) -> TrainConfig | None:
    """The settings of an ADCD-Net, None for the other methods. InputError for a method that is not known."""
    asked, method = method, trained_as(method)
    if method in METHODS and asked in (method, method + ALIKE):
        return None
    if asked.endswith(ALIKE):
        pass  # of a network: it is read so anyway
    elif method.endswith(".toml"):
        file = method.partition(WITH)[2] if _substitute(method) else method
        config = TrainConfig.read(Path(file)).replace({"seed": seed})
        if config.network.form == "tile" and "fusion" in _substitute(method):
            raise InputError(f"{method}: a network over tiles has no sum to exchange; name a file of profile 'patch'")
        return config
    elif method in OTHER_PROFILES:
        return TrainConfig.of_profile(method).replace({"seed": seed})
    elif method in COMMITTEES:
        return TrainConfig().replace({**COMMITTEES[method], "seed": seed})
    elif method in ABLATIONS:
        return TrainConfig().replace({**ABLATIONS[method], "seed": seed})
    elif method in (*ABLATIONS_OF_PATCH, *ABLATIONS_OF_PAPER):
        profile, _, change = method.partition("-")
        base = TrainConfig.of_profile("paper" if profile == "paper" else "patch")
        return base.replace({**OF_PATCHES[change], "seed": seed})
    raise InputError(
        f"method {asked!r} is not known; choose from {', '.join(NETWORKS)} (with {RAW} or {SEEN}, if wanted), "
        f"from {', '.join(METHODS)} (with {ALIKE}, if wanted), or name a TOML file of settings"
    )


def _ground_rules() -> dict[str, Any]:
    """Those of the default settings that a baseline is under too: guard, window, class weights, averages, validation.

    How ADCD-Net is built and trained is not among them: a finished table of baselines outlives a change of that.
    """
    config = GROUND_RULES
    network = config.network
    assert isinstance(network, PatchArchitecture)
    return {
        "window": (network.before, network.after, config.reach),
        "answer": (config.answers.smooth, config.answers.likeness, config.answers.local_priors),
        "class_balance": config.class_balance,
        "split": config.split.model_dump(),
    }
