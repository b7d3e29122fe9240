"""What a day on a GPU brought home: its files read again, and the tables that judge them.

    folder     reads what `calibration.gpu_day` wrote, cut off or not
    rates      every kernel against the tensor cores, a copy, and the libraries
    targets    what our kernels should reach, met or missed
    sharing    copies on few SMs, and kernels beside a copying one
    cost_fits  which cost model of `hwmodels.costs` fits the rows, held out
    judgement  all of it

Nothing here needs a GPU, PyTorch or Triton.
"""
