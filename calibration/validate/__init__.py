"""A layer that was measured beside the same layer simulated: `moesim validate`.

    rows         times of a layer, op by op and in total, as `calibration.gpu_day` wrote them
    ops          what each step of it is to the workload: an op of some family and shape
    workload     the ops that the workload lists for a layer of these dimensions
    own_profile  constants of the kernels themselves, fitted to rows of the same day
    comparison   families and totals, measured and simulated, with verdicts
    transfer     prices of another chip beside DeepSeek's training trace

Nothing here needs a GPU, PyTorch or Triton, and nothing plays: whoever simulates gives seconds.
"""
