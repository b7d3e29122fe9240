"""Work of layers, as tests ask for it: an exchange by itself, the kernels of one block."""

from hwmodels.formats import FORMATS
from workloads.ops import COMPUTE, Comm

WIRE = {"dispatch": FORMATS["fp8_1x128"], "combine": FORMATS["bf16"]}


def exchange(kind, tokens, hidden=7168, wire=None):
    """A dispatch or combine of some tokens, on the wire as DeepSeek-V3's are."""
    return Comm(kind, kind, ("ep",), (wire or WIRE[kind]).bytes_of(hidden), tokens)


def kernels(layer, block, phase):
    """Kernels of one block on its compute stream, in launch order."""
    works = dict(layer.blocks)[block].of(phase)
    return tuple(work for work in works if work.stream == COMPUTE)


def sent(layer, phase):
    """What one pass of a layer does on its communication stream."""
    works = (work for block in layer.blocks for work in block.ops.of(phase))
    return tuple(work for work in works if work.stream != COMPUTE)


def v3_layers():
    """The layers of DeepSeek-V3, one sequence of 4,096 tokens, as its trace ran them."""
    from workloads.layout import default_layout
    from workloads.stages import stage_layers

    model, site = v3_site()
    return stage_layers(model, site, default_layout(model, 1))[0]


def v3_site(**changes):
    """DeepSeek-V3 and the site of its layers: one sequence, 4 experts a rank."""
    from workloads.blocks import Site
    from workloads.model import MODELS
    from workloads.recipes import RECIPES

    model = MODELS.load("deepseek-v3")
    values = {"sequences": 1, "length": 4096, "recipe": RECIPES["fp8-blockwise"],
              "local_experts": 4, "gpus_per_token": 7.5}  # fmt: skip
    return model, Site(model.hidden, **(values | changes))
