"""What a day on a GPU brought home: its files read again, and the tables that judge them.

    folder     reads what `calibration.gpu_day` wrote, cut off or not
    rates      every kernel against the tensor cores, a copy, and the libraries
    targets    what our kernels should reach, met or missed
    sharing    copies on few SMs, and kernels beside a copying one
    cost_fits  which cost models of `hwmodels.costs` fit the rows, and how well on shapes held out
    judgement  all of it, as one document

Nothing here needs a GPU, PyTorch or Triton.
"""
