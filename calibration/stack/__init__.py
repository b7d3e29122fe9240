"""One layer of a model as a sequence of kernels: what runs on a GPU between two exchanges.

A tape (`tape`) is a list of steps over named buffers that were allocated beforehand. `layer` makes
the tapes of a mixture-of-experts layer with multi-head latent attention: its training pass forward
and backward, and one pass of decoding. Steps are kernels of ours where there is one, else the
library's. Exchanges are left out: what would arrive lies in a buffer before the tape is played.
"""
