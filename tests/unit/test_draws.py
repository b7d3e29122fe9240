"""Played draws: the numbers read off them, and which of those a result keeps."""

from simulator.driver.draws import Draw, kept, numbers, played_draws, samples
from simulator.driver.step import play


def test_numbers_are_named_by_path_and_those_by_rank_or_chunk_left_out(short_run):
    metrics = short_run().metrics
    told = numbers(metrics)
    assert told["step_time_s"] == metrics.step_time_s
    assert told["breakdown_s.bubble"] == metrics.breakdown_s["bubble"]
    assert told["memory_bytes.total"] == metrics.memory_bytes["total"]
    assert not any("by_rank" in name or "chunk" in name for name in told)


def test_a_term_that_one_draw_lacks_is_zero_in_it(short_run):
    """The fullest rank may be another one in some draw, and hold other things."""
    result = short_run()
    fuller = {"weights": 1.0, "logits": 2.0, "total": 3.0}
    others = [{"weights": 1.0, "total": 1.0}, fuller]
    draws = [
        Draw(result.resolved(), result.metrics.model_copy(update={"memory_bytes": terms}))
        for terms in others
    ]
    assert samples(draws)["memory_bytes.logits"] == (0.0, 2.0)
    assert samples(draws)["memory_bytes.total"] == (1.0, 3.0)


def test_results_keep_the_headline_the_phases_and_the_total_memory():
    sampled = dict.fromkeys(
        ("step_time_s", "breakdown_s.bubble", "memory_bytes.total", "memory_bytes.weights"), (1.0,)
    )
    sampled["compute_share.fp8"] = (0.5,)
    assert set(kept(sampled)) == {"step_time_s", "breakdown_s.bubble", "memory_bytes.total"}


def test_an_experiment_that_asks_for_no_draws_has_none(short_run):
    assert played_draws(short_run().resolved()) == ()


def test_a_draw_can_be_played_again(drawn_run):
    (draw,) = played_draws(drawn_run().resolved().with_overrides({"uncertainty.draws": 1}))
    assert play(draw.resolved()).times.step_s == draw.metrics.step_time_s
