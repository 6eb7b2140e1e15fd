import structlog

from gateway.bus.delivery import Delivery
from gateway.bus.stream_position import StreamPosition
from gateway.metrics import Metrics


def test_a_failing_handler_is_logged_once_in_a_while_and_without_the_payload() -> None:
    def broken(body: bytes, _position: StreamPosition | None) -> None:
        raise RuntimeError(body.decode())

    delivery = Delivery(Metrics())
    with structlog.testing.capture_logs() as logs:
        for _ in range(1000):
            delivery.message("t", broken, b"private", None)
    assert len(logs) == 1
    assert "private" not in str(logs)
    assert __file__ in logs[0]["at"]
    assert logs[0]["subject"] == "t"
