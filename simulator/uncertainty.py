"""Sampling: many experiments drawn from one whose inputs carry distributions.

An input is any number of the document with a `p10` and a `p90` beside its value. It is taken as
independent of the others and as a *split normal*: the value is the median, and

    x(z) = value + z / z90 * (p90 - value)    for z > 0
    x(z) = value + z / z90 * (value - p10)    for z <= 0        z standard normal, z90 = 1.2816

so that P10 and P90 are met whether or not they lie symmetrically. A number that may be anything
above zero (a rate, a time, a size) varies by factors instead: its logarithm is the split normal,
lest a wide range reach next to nothing. Numbers beyond what the field takes are moved to the
nearest it takes; whole numbers are rounded.

z comes from a Latin hypercube: each of n equal slices of probability is drawn from once, in random
order (McKay, Beckman and Conover, Technometrics 21, 1979). Every input has a random stream of its
own, named by its path: experiments that share inputs share their draws (common random numbers), and
another input leaves the draws of the rest alone. What a run draws by itself, such as expert loads,
gets another seed in each draw, and so does what the profile does not know of single shapes.
"""

import zlib
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from hwmodels.arrays import Floats
from hwmodels.errors import SpecError
from hwmodels.fields import Bounds, bounds_of
from hwmodels.spec import Spec
from simulator.experiment import Experiment

NORMAL = NormalDist()
Z90 = NORMAL.inv_cdf(0.9)
CHANCE_SEED = "ranks.seed"
SITE_SEED = "profile.site_seed"


class SampledInput(Spec):
    """An input that carries a distribution, in its base unit, and where that comes from."""

    path: str
    value: float
    p10: float
    p90: float
    source: str
    assumed: bool


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Experiments drawn from one.

    Attributes:
        inputs: what was sampled, by path; `bounds`: what each may be.
        values: [draw, input], in base units.
        seeds: of what a run draws by itself, one a draw.
    """

    experiment: Experiment
    inputs: tuple[SampledInput, ...]
    bounds: tuple[Bounds, ...]
    values: Floats
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of the inputs, as the columns of `values`."""
        return tuple(sampled.path for sampled in self.inputs)

    @property
    def deviations(self) -> Floats:
        """How far each input is from its own value, [draw, input]; of one by factors, the log."""
        columns = [
            np.log(column / sampled.value)
            if _by_factors(sampled, bounds)
            else column - sampled.value
            for sampled, bounds, column in zip(self.inputs, self.bounds, self.values.T, strict=True)
        ]
        return np.stack(columns, axis=1)

    def numbers(self, draw: int) -> dict[str, float]:
        """Return the sampled values of one draw by path."""
        return _numbers(self.inputs, self.bounds, self.values[draw].tolist())

    def drawn(self, draw: int) -> Experiment:
        """Return the experiment of one draw.

        Raises:
            SpecError: the sampled values break a rule between fields.
        """
        numbers = self.numbers(draw) | {CHANCE_SEED: self.seeds[draw]}
        profile = self.experiment.profile
        if profile is not None and profile.site_spread:
            numbers[SITE_SEED] = self.seeds[draw]
        return self.experiment.with_numbers(numbers)


def sampled_inputs(experiment: Experiment) -> tuple[SampledInput, ...]:
    """Return the inputs that carry a distribution with some width, by path.

    Raises:
        SpecError: what carries it is no free number, or decides itself how draws are made.
    """
    found = []
    for path, source in sorted(experiment.sources.items()):
        if source.p10 is None or source.p90 is None or source.p10 == source.p90:
            continue
        if path == CHANCE_SEED or path.startswith("uncertainty."):
            raise SpecError(f"{path}: decides how draws are made, cannot carry a distribution")
        bounds_of(experiment, path)
        found.append(
            SampledInput(
                path=path,
                value=_at(experiment, path),
                p10=source.p10,
                p90=source.p90,
                source=source.text,
                assumed=source.assumed,
            )
        )
    return tuple(found)


def sample(experiment: Experiment) -> Draws:
    """Draw `experiment.uncertainty.draws` experiments.

    Raises:
        SpecError: no input carries a distribution, or one reaches where its field does not.
    """
    inputs, asked = sampled_inputs(experiment), experiment.uncertainty
    if not inputs:
        raise SpecError(
            "uncertainty.draws: no input carries a distribution; give one as "
            "{ value = 0.7, p10 = 0.6, p90 = 0.8, source = '...' }, or leave draws at 0"
        )
    bounds = tuple(bounds_of(experiment, sampled.path) for sampled in inputs)
    is_explicit = False
    for name in ("p10", "p90"):
        ends = _numbers(inputs, bounds, [getattr(sampled, name) for sampled in inputs])
        try:
            is_explicit |= experiment.with_overrides(dict(ends)).is_explicit
        except ValueError as error:
            raise SpecError(f"{name} of the sampled inputs: {error}") from None
    if is_explicit:  # in every draw, or folding would be taken for an effect of the inputs
        experiment = _played_explicitly(experiment)
    columns = [
        _quantities(standard_normals(sampled.path, asked.draws, asked.seed), sampled, limits)
        for sampled, limits in zip(inputs, bounds, strict=True)
    ]
    seeds = tuple(_chance_seed(experiment.ranks.seed, draw) for draw in range(asked.draws))
    return Draws(experiment, inputs, bounds, np.stack(columns, axis=1), seeds)


def standard_normals(path: str, draws: int, seed: int) -> Floats:
    """Return one standard normal a draw for the input at `path`: one from each slice of 1 / draws.

    The stream depends on `path`, `draws` and `seed`, and on nothing else.
    """
    rng = np.random.default_rng([seed, zlib.crc32(path.encode())])
    places = (rng.permutation(draws) + rng.random(draws)) / draws
    tiny = np.finfo(np.float64).eps
    return np.array([NORMAL.inv_cdf(p) for p in places.clip(tiny, 1 - tiny).tolist()])


def _played_explicitly(experiment: Experiment) -> Experiment:
    """Return the experiment with every rank played."""
    ranks = experiment.ranks.model_copy(update={"play": "explicit"})
    return experiment.model_copy(update={"ranks": ranks})


def _quantities(z: Floats, sampled: SampledInput, bounds: Bounds) -> Floats:
    """Return the split normal of an input at `z`, within its bounds; see the module."""
    if _by_factors(sampled, bounds):
        width = np.where(z > 0, sampled.p90 / sampled.value, sampled.value / sampled.p10)
        values: Floats = sampled.value * width ** (z / Z90)
    else:
        width = np.where(z > 0, sampled.p90 - sampled.value, sampled.value - sampled.p10)
        values = sampled.value + z / Z90 * width
    if bounds.step:
        values = np.round(values / bounds.step) * bounds.step
    return values.clip(*bounds.limits(sampled.p10, sampled.p90))


def _by_factors(sampled: SampledInput, bounds: Bounds) -> bool:
    """Return whether an input varies by factors: positive, and bounded by physics only."""
    return sampled.p10 > 0 and bounds.dimension is not None


def _chance_seed(seed: int, draw: int) -> int:
    return int(np.random.SeedSequence([seed, draw]).generate_state(1)[0])


def _numbers(
    inputs: tuple[SampledInput, ...], bounds: tuple[Bounds, ...], values: list[float]
) -> dict[str, float]:
    """Return values by path, whole ones as integers."""
    return {
        sampled.path: round(value) if limits.whole else value
        for sampled, limits, value in zip(inputs, bounds, values, strict=True)
    }


def _at(experiment: Experiment, path: str) -> float:
    """Return the number at a path that `bounds_of` knows."""
    found: object = experiment
    for key in path.split("."):
        found = found[key] if isinstance(found, dict) else getattr(found, key)
    assert isinstance(found, int | float), "bounds_of lets numbers through only"
    return found
