"""A training that begins from a trained model: for a new scene with few labels, of the same classes or of others."""

from __future__ import annotations

from dataclasses import asdict

import torch

from adcdnet.config import Profile, TrainConfig
from adcdnet.errors import InputError
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import phase_words, same_phase
from adcdnet.mapping.model import Model
from adcdnet.nn.architecture import differences
from adcdnet.nn.networks import Network

FAR = 3.0  # deviations of the first training area from which band means of the new one deserve a word


def settings_of(model: Model) -> TrainConfig:
    """Settings of the profile that has such a network, with those of a trained model's network and answers, and with
    that network as a member, parts of the paper included."""
    profile: Profile = "default" if model.network.config.form == "tile" else "patch"
    changes = {"network": asdict(model.network.config), "answers": model.answers.model_dump()}
    config = TrainConfig.of_profile(profile).replace(changes)
    members = ["adcdnet" if name == "plain" and not config.plain else name for name in config.members]
    return config.replace({"members": members})


def begin_from(
    network: Network, model: Model, classes: ClassTable, *, phase: tuple[float, float] = (0.0, 0.0)
) -> tuple[str, ...]:
    """Give a fresh network the weights of a trained one, prior included; returns the names of classes it did not know.

    Of the classifiers, only the rows of classes of the same name are taken over. InputError where the two networks
    differ in settings, bands or ratio, or the phase of the scene is not the model's.
    """
    trained = model.network
    if network.config != trained.config:
        differ = ", ".join(differences(network.config, trained.config))
        raise InputError(
            f"the settings of the network differ from those of the model to begin from ({differ}); leave them to --init"
        )
    for what in ("ms_bands", "pan_bands", "ratio"):
        came, needed = getattr(network.layout, what), getattr(trained.layout, what)
        if came != needed:
            raise InputError(
                f"the scene has {what.replace('_', ' ')} {came}, the model to begin from {needed}; choose bands with "
                "--ms-bands and --pan-bands, or train without --init"
            )
    if not same_phase(phase, model.phase):
        raise InputError(
            f"PAN pixels of the scene lie {phase_words(phase)} off the MS edges, those of the model to begin from "
            f"{phase_words(model.phase)}; begin from a model trained on such images, or train without --init"
        )
    row_of = {name: k for k, name in enumerate(model.classes.names)}
    here = [k for k, name in enumerate(classes.names) if name in row_of]
    there = [row_of[classes.names[k]] for k in here]
    fresh, weights = network.state_dict(), dict(trained.state_dict())
    for name in fresh:
        if ".classifier." in f".{name}":
            rows = fresh[name].clone()
            rows[here] = weights[name][there].to(rows)
            weights[name] = rows
    with torch.no_grad():
        network.load_state_dict(weights)
    return tuple(name for name in classes.names if name not in row_of)


def notes_of(model: Model, statistics: BandStatistics, new: tuple[str, ...]) -> list[str]:
    """What to say of a training that began from a model. statistics: of the new training area.

    Bands go on being standardised as the model knows them, since its filters are meant for these values; where the
    new ones lie far off, units or season differ and a sentence says so.
    """
    notes = [f"began from {model.record.name or 'a model'}" + (f"; new classes: {', '.join(new)}" if new else "")]
    worst = max(model.statistics.distance(statistics))
    if worst > FAR:
        notes.append(
            f"the mean of a band lies {worst:.1f} standard deviations from that of the model's own training area; "
            "check the units, or train without --init"
        )
    return notes
