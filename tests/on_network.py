"""Messages and rings of a step on the network of its experiment, for tests of what that slows."""

import numpy as np

from simulator.driver.point import paths_of
from simulator.driver.program import program_of
from simulator.lower.lowered import lower
from simulator.network.machine import Machine
from simulator.price.messages import message_times
from simulator.price.optimizer import end_comms


def machines(experiment):
    """Return the machine of an experiment's network, and that of its ports alone."""
    library = experiment.profile.communication if experiment.profile else None
    return (
        Machine.on(paths_of(experiment).network, library),
        Machine.of_ports(experiment.cluster, library),
    )


def message_slowdowns(experiment):
    """Return (pp, pp, pipelines) NIC seconds of messages over those on ports alone; else 1."""
    program = program_of(experiment)
    pairs = lower(program).message_pairs
    found, ports = (message_times(program, pairs, each) for each in machines(experiment))
    slowed, whole = (each.between(each.times.nic_s) for each in (found, ports))
    return np.divide(slowed, whole, out=np.ones_like(whole), where=whole > 0)


def ring_slowdowns(experiment):
    """Return (rings, pp) seconds in which bytes of gradients move over those on ports alone."""
    program = program_of(experiment)
    found, ports = (end_comms(program.end, each).reduce for each in machines(experiment))
    return found.moving_s / ports.moving_s
