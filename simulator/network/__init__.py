"""Network: who shares which links, and how long what they move takes. Knows no model, no clock.

links        all directed links of a cluster, after faults
routing      which path between two NIC ports          lanes   which ports between two GPUs
traffic      who sends whom how many bytes             placement   which GPU a rank sits on
collectives  plans: traffic as flows, and steps        bounds  what no plan can beat
flows, fair  how long flows take that share links      timing  of plans, at any rates of links
ways         at a library's rates                      fastest the way that is, of groups at once
machine      links, their speed, and a library on them alike   few groups that stand for many
price        comm_s: seconds of any communication, for a step or whoever asks
run          the same of one collective, with all that the command tells of it
exchange_pricer, expert_exchange    dispatch and combine: at any loads, or of a routing matrix
"""
