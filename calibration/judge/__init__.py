"""What a day on a GPU brought home: its files read again, and the tables that judge them.

`folder` reads what `calibration.gpu_day` wrote, cut off or not; every other file is one question
asked of it. Nothing here needs a GPU, PyTorch or Triton.
"""
