"""One layer of a model as a sequence of kernels: what runs on a GPU between two exchanges.

A tape (`tape`) is a list of steps over named buffers that were allocated beforehand. `layer` makes
the tapes of a mixture-of-experts layer with multi-head latent attention: its training pass forward
and backward, and one pass of decoding. Steps are kernels of ours where there is one, else the
library's. Exchanges are left out: what would arrive lies in a buffer before the tape is played.

Against the layer that is priced (`workloads.blocks`): one cast of the hidden state feeds both
latents; transposed weights are kept, not made in every backward pass; the attention's output and
the SwiGLU inputs are kept in BF16, without casts to smaller formats; routing weights are not
applied; operands of weight gradients are cast again from their FP8 rows; the router's and the
auxiliary loss's small kernels are one kernel forward and none backward.
"""
