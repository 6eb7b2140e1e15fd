"""The token of a long-poll session."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.transport.longpoll.ticket import Ticket, home, new_secret
from tests.support.tokens import token


@given(st.text(), st.integers(0, 10**15))
def test_a_ticket_survives_the_way_to_the_client_and_back(replica: str, received: int) -> None:
    ticket = Ticket(home(replica), new_secret(), received)

    assert Ticket.parse(str(ticket)) == ticket
    assert ticket.after(received + 1).received == received + 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "lp",
        "lp...",
        f"lp.{'x' * 11}.{'x' * 22}.-1",
        f"lp.{'x' * 11}.{'x' * 22}.01",
        token(),
    ],
)
def test_anything_else_is_no_ticket(text: str) -> None:
    assert Ticket.parse(text) is None


@given(st.text())
def test_whatever_a_client_shows_is_taken_apart_without_harm(text: str) -> None:
    assert Ticket.parse(text) is None


def test_a_replica_is_not_named_to_clients() -> None:
    assert "gateway-7f9c" not in str(Ticket(home("gateway-7f9c"), new_secret(), 0))
    assert home("a") != home("b")
