"""What tests of prices share: kernels of one chip, links between GPUs and two ops."""

from hwmodels.chip import CHIPS
from hwmodels.formats import FORMATS
from hwmodels.profile import PROFILES
from simulator.price.collectives import ExchangePricer, LinkRates
from simulator.price.group_ports import GroupPorts
from simulator.price.kernels import KernelPricer
from workloads.ops import Gemm, MemoryOp
from workloads.routing import RoutingStatistics

H800 = CHIPS.load("h800")
PROFILE = PROFILES.load("h800-deepseek")
FITTED = KernelPricer(H800, PROFILE, 112)
ROOFLINE = KernelPricer(H800, None, 112)

DENSE = Gemm("dense", 4096, 7168, 16384, FORMATS["fp8_1x128"])
CAST = MemoryOp("cast", "cast", 88e6)

RATES = LinkRates(
    dispatch_nic=10e9,
    combine_nic=5e9,
    nvlink=200e9,
    exchange_nvlink=200e9,
    forwarding_nvlink=100e9,
    message_nic=20e9,
    latency_s=1e-6,
    scale_up_latency_s=5e-7,
    dispatch_beside_compute=1.5,
    combine_beside_compute=1.2,
)
ROUTING = RoutingStatistics(nodes=2, gpus=8, nodes_per_token=2.0, gpus_per_token=4.0)
PRICER = ExchangePricer(RATES, (GroupPorts.of(ROUTING),))
