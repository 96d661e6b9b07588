"""The benchmark runs and counts right; what it measures is nobody's business here."""

from messaging.bench import Result, compare, table


def test_every_transport_is_measured() -> None:
    results = compare(size=100, messages=400, rounds=5)
    assert [result.name for result in results] == [
        "pipe", "pyzmq", "bus", "bus, masters", "msgq", "msgq, masters",
    ]  # fmt: skip
    for result in results:
        assert 0 < result.median_us <= result.p99_us
        # masters keep the newest only: of a batch, on a busy machine, not even one need arrive
        assert 0 <= result.lost <= (1 if "masters" in result.name else 0)
        assert (result.per_second > 0) == (result.lost < 1)


def test_ratios() -> None:
    text = table([Result("pyzmq", 1000.0, 0.0, 20.0, 40.0), Result("bus", 500.0, 0.5, 30.0, 60.0)])
    assert text.splitlines()[2].split() == ["bus", "500", "50%", "0.50", "30.0", "60.0", "1.50"]
