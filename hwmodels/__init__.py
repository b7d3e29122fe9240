"""Hardware: facts about chips, nodes and networks, and what kernels cost on them."""
