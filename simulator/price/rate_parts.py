"""Link rates with some of their limits taken away: what is priced with them takes a part of its
time.
"""

from dataclasses import replace
from math import inf

from simulator.price.collectives import LinkRates


def only_nics(rates: LinkRates) -> LinkRates:
    """Return the rates with NVLink free and latency none: seconds that a NIC is needed for."""
    return replace(
        rates,
        nvlink=inf,
        exchange_nvlink=inf,
        forwarding_nvlink=inf,
        latency_s=0.0,
        scale_up_latency_s=0.0,
        dispatch_notify=None,
        combine_notify=None,
    )


def only_latency(rates: LinkRates) -> LinkRates:
    """Return the rates with all links free: seconds before bytes move."""
    return replace(
        rates,
        nvlink=inf,
        exchange_nvlink=inf,
        forwarding_nvlink=inf,
        dispatch_nic=inf,
        combine_nic=inf,
        message_nic=inf,
    )
