"""The common networks of the study that predictions rest on, as subjects of an analysis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from newrelax.errors import UserError
from plugin.analysis.measure import Protocol
from plugin.analysis.prediction.study import DATA, Study
from plugin.fitting.subject import Asked, Subject, find_subject


def names_no_network(asked: Asked) -> bool:
    """Whether a command line says nothing about a network or its data, so that the common ones are meant."""
    words = (asked.run, asked.model, asked.weights, asked.dataset, asked.data_range, asked.eps_unit)
    return all(word is None for word in words)


def common_subjects(study: Study, asked: Asked) -> dict[str, Subject]:
    """Kind of network → the study's network of that kind on its data, with the plugins and the device that were asked for."""
    return {kind: find_subject(_asked(study, asked, DATA / file)) for kind, file in study.networks.items()}


def common_protocol(study: Study, given: Mapping[str, float]) -> Protocol:
    """How the study measured. given: options of the command line, in its spelling.

    Raises UserError for one that says something else.
    """
    for name, value in given.items():
        if value != (said := study.protocol.get(name)):
            raise UserError(
                f"--{name} {value:g}: a prediction needs what the study measured with ({'nothing' if said is None else said}); "
                "leave it out, or name a network with --run or --model"
            )
    own = study.protocol
    return Protocol(
        eps=own["eps"],
        probe=int(own["probe"]),
        budget=int(own["budget"]),
        single_weights=int(own["single-weights"]),
        images=int(own["limit"]),
        step=own["eps-step"],
        seed=int(own["seed"]),
    )


def _asked(study: Study, asked: Asked, weights: Path) -> Asked:
    return replace(asked, model=study.setting.model, dataset=study.setting.dataset, weights=weights)
