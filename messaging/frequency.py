"""Whether messages arrive as often as they should, judged from their times of arrival."""

from collections import deque


class FrequencyTracker:
    """Judges the rate of one service.

    service: Hz the service should have. update: Hz the receiver looks. polled: whether the receiver
    waits for this service. A service that is not polled may be seen less often than it is
    sent: at the rate of the receiver, or at half its own when the two are close.

    The service is ok when its mean rate over the last 10 s, or over the last second, is within
    20 % of those limits.
    """

    def __init__(self, service: float, update: float, polled: bool) -> None:
        base = max(min(service, update), 1.0)
        lowest = highest = base
        if not polled:
            highest = min(base, update)
            if service >= 2 * update:
                lowest = update
            elif update >= 2 * service:
                lowest = base
            else:
                lowest = base / 2
        self.min_frequency = 0.8 * lowest
        self.max_frequency = 1.2 * highest
        # n intervals lie between n + 1 arrivals
        self._long: deque[float] = deque(maxlen=int(10 * base) + 1)
        self._short: deque[float] = deque(maxlen=int(base) + 1)

    def record(self, now: float) -> None:
        """A message arrived at `now`, s."""
        self._long.append(now)
        self._short.append(now)

    @property
    def ok(self) -> bool:
        return self._within(self._long) or self._within(self._short)

    def _within(self, arrivals: deque[float]) -> bool:
        if len(arrivals) < 2 or arrivals[-1] <= arrivals[0]:
            return False
        mean = (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])
        return self.min_frequency <= mean <= self.max_frequency
