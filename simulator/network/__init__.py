"""Network: who shares which links, and how long what they move takes. Knows no model, no clock.

links        all directed links of a cluster, after faults
routing      which path between two NIC ports          lanes   which ports between two GPUs
traffic      who sends whom how many bytes             placement   which GPU a rank sits on
collectives  plans: traffic as flows, and steps        bounds  what no plan can beat
flows, fair  how long flows take that share links      timing  of plans, several at once
ways, run    at a library's rates, the fastest: seconds
"""
