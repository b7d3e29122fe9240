"""The program of an experiment."""

from typing import Any

from simulator.driver.experts import expert_group
from simulator.experiment import Experiment
from workloads.program import Program
from workloads.scenarios.training import training_program


def program_of(experiment: Experiment) -> Program:
    """Return what an experiment asks of the ranks, built at the first call for its plan.

    Raises:
        SpecError, InfeasibleError: as `training_program`.
    """
    return training_program(**program_inputs(experiment))


def program_inputs(experiment: Experiment) -> dict[str, Any]:
    """Return all that the program of an experiment depends on."""
    cluster, communication = experiment.cluster, experiment.communication
    codes = communication.combine != "bf16"
    return {
        "model": experiment.model,
        "plan": experiment.plan,
        "batch": experiment.batch,
        "gpus": cluster.gpus,
        "gpus_per_node": cluster.node.gpus,
        "recipe": experiment.recipe,
        "dispatch": experiment.dispatch_format,
        "combine": communication.combine_format,
        "routed_nodes_max": communication.routed_nodes_max,
        "nic_codec": codes and cluster.node.nic.codec,
        "expert_group": expert_group(experiment),
    }
