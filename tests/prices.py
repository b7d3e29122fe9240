"""What tests of prices share: kernels of one chip, links between GPUs and two ops."""

from hwmodels.chip import CHIPS
from hwmodels.formats import FORMATS
from hwmodels.profile import PROFILES
from simulator.network.exchange_pricer import ExchangePricer, ExchangeRates
from simulator.network.group_ports import GroupPorts
from simulator.network.port_rates import PortRates
from simulator.price.kernels import KernelPricer
from simulator.price.optimizer import end_comms, end_kernels_s
from workloads.ops import Gemm, MemoryOp
from workloads.routing import RoutingStatistics

H800 = CHIPS.load("h800")
PROFILE = PROFILES.load("h800-deepseek")
FITTED = KernelPricer(H800, PROFILE, 112)
ROOFLINE = KernelPricer(H800, None, 112)

DENSE = Gemm("dense", 4096, 7168, 16384, FORMATS["fp8_1x128"])
CAST = MemoryOp("cast", "cast", 88e6)


def exchange_rates(
    dispatch_nic=10e9, combine_nic=5e9, exchange_nvlink=200e9, forwarding_nvlink=100e9,
    latency_s=1e-6, scale_up_latency_s=5e-7,
):  # fmt: skip
    """Rates of exchanges inside a node and among up to eight."""
    ports = {}
    for direction, nic in (("dispatch", dispatch_nic), ("combine", combine_nic)):
        ports[direction, 1] = PortRates(nic, exchange_nvlink, scale_up_latency_s, "")
        between = PortRates(nic, forwarding_nvlink, latency_s, "")
        ports |= {(direction, nodes): between for nodes in range(2, 9)}
    return ExchangeRates(ports, dispatch_beside_compute=1.5, combine_beside_compute=1.2)


RATES = exchange_rates()
ROUTING = RoutingStatistics(nodes=2, gpus=8, nodes_per_token=2.0, gpus_per_token=4.0)
PRICER = ExchangePricer(RATES, (GroupPorts.of(ROUTING),))


def optimizer_seconds(steps, update_ops, whole_chip, machine):
    """Seconds of the end of a step on one machine, its kernels on all SMs."""
    (kernels_s,) = end_kernels_s(steps, update_ops, [whole_chip])
    return end_comms(steps, machine).around(kernels_s)
