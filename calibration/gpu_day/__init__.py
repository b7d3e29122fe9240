"""One command on a borrowed GPU: what it takes home in the minutes it has.

    python -m calibration.gpu_day --out DIR [--budget 480] [--resume] [--only PART ...] [--list]

Needs Python, numpy, PyTorch, Triton and this repository, nothing else. Parts run in order of worth,
each with its share of the budget; what one leaves unused, the later ones have, and at the end those
that were cut off. Every file grows row by row, so that a cut-off at any second leaves what was
measured until then, and `--resume` goes on from there. A part that fails is recorded, and the next
one starts.

    day.json         the device, the versions, the parts: state, seconds, rows, what went wrong
    numerics.csv     every kernel against its float64 reference; wrong ones are never timed
    rows.csv         measured rows (`calibration.measure.measurement`) of parts that time kernels
    stack.csv        a layer as a sequence of kernels, op by op and in total, and a stack of them:
                     launched one by one, waiting for each, and as a graph (`moesim validate`)
    profile.json.gz  the trace of one training pass of it

A process that ends or hangs costs the row it was at: the day goes on in a new one. With `--dry-run`
all of it runs in Triton's interpreter on tiny shapes; its times are made up, and its rows say so.
"""
