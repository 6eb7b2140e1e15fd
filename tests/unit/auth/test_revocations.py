"""Revocations: which tokens are refused, for how long, and what is never forgotten too early."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth import revocations
from gateway.auth.revocations import Revocation, Revocations, decode, encode

KEEP = 110.0
NOW = 1000.0


class Kept:
    """Revocations, their clock, and how many were dropped."""

    def __init__(self) -> None:
        self.now = NOW
        self.dropped = 0
        self.all = Revocations(KEEP, lambda: self.now, self._drop)

    def _drop(self) -> None:
        self.dropped += 1


def of_user(user: str, issued_before: float) -> Revocation:
    """All tokens of a user."""
    return Revocation("sub", user, issued_before)


def of_token(jti: str, issued_before: float) -> Revocation:
    """One token."""
    return Revocation("jti", jti, issued_before)


@pytest.mark.parametrize(
    ("revocation", "user", "jti", "issued_at", "refused"),
    [
        (of_user("42", 1000.4), "42", None, 999, True),
        (of_user("42", 1000.4), "42", "j", 999, True),
        # issued at any time of that second
        (of_user("42", 1000.4), "42", None, 1000, True),
        (of_user("42", 1000.4), "42", None, 1000.39, True),
        (of_user("42", 1000.4), "42", None, 1000.4, False),
        (of_user("42", 1000.4), "42", None, 1001, False),
        (of_user("42", 1000.0), "42", None, 1000, False),
        (of_user("42", 1000.4), "43", None, 999, False),
        (of_user("42", 1000.4), "", "42", 999, False),
        (of_token("j", 1000.4), "42", "j", 999, True),
        (of_token("j", 1000.4), "43", "j", 1000, True),
        (of_token("j", 1000.4), "42", "j", 1001, False),
        (of_token("j", 1000.4), "j", None, 999, False),
        (of_token("j", 1000.4), "j", "k", 999, False),
    ],
)
def test_which_tokens_are_refused(
    revocation: Revocation, user: str, jti: str | None, issued_at: float, refused: bool
) -> None:
    kept = Kept()
    assert not kept.all.revoked(user, jti, issued_at)
    assert kept.all.add(revocation)

    assert kept.all.revoked(user, jti, issued_at) is refused


def test_the_latest_time_counts_in_whatever_order_they_come() -> None:
    kept = Kept()
    assert kept.all.add(of_user("42", 990))
    assert not kept.all.add(of_user("42", 990)), "known already"
    assert kept.all.add(of_user("42", 995))
    assert not kept.all.add(of_user("42", 980)), "all it refuses is refused"

    assert kept.all.revoked("42", None, 994)
    assert kept.all.all() == [of_user("42", 995)]


def test_what_no_valid_token_can_meet_is_not_kept() -> None:
    kept = Kept()

    assert not kept.all.add(of_user("42", NOW - KEEP))
    assert kept.all.add(of_user("42", NOW - KEEP + 0.1))


def test_ended_ones_are_not_told_and_make_room() -> None:
    kept = Kept()
    kept.all.add(of_user("1", 950))
    kept.all.add(of_user("2", 1000))
    kept.now = 950 + KEEP
    assert kept.all.all() == [of_user("2", 1000)]

    kept.all.add(of_user("3", kept.now))
    assert len(kept.all) == 2
    assert kept.dropped == 0


def test_one_is_kept_until_the_last_token_it_refuses_has_expired() -> None:
    kept = Kept()
    kept.all.add(of_user("42", 1000))
    kept.now = 1000 + KEEP - 0.1
    kept.all.add(of_user("43", 1000))
    assert kept.all.revoked("42", None, 999.9)
    assert of_user("42", 1000) in kept.all.all()

    kept.now = 1000 + KEEP
    kept.all.add(of_user("44", kept.now))
    assert len(kept.all) == 1


def test_one_that_is_renewed_is_as_young_as_its_renewal() -> None:
    kept = Kept()
    kept.all.add(of_user("1", 990))
    kept.all.add(of_user("2", 991))
    kept.all.add(of_user("1", 1000))

    assert kept.all.all() == [of_user("2", 991), of_user("1", 1000)]


def test_the_oldest_goes_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "MOST_REVOCATIONS", 3)
    kept = Kept()
    for number in range(5):
        kept.all.add(of_user(str(number), NOW))

    assert kept.all.all() == [of_user(str(number), NOW) for number in (2, 3, 4)]
    assert kept.dropped == 2


names = st.sampled_from("ab")
# few, so that they meet; fractions are in the table
times = st.integers(-15, 15).map(lambda tens: NOW + 10 * tens)
revoked = st.builds(Revocation, st.sampled_from(["sub", "jti"]), names, times)
tokens = st.tuples(names, st.none() | names, times)


@given(
    st.lists(st.tuples(st.integers(0, 6).map(lambda tens: 10 * tens), revoked), max_size=8),
    st.sampled_from([0, 10, 100]),
    tokens,
)
def test_a_token_that_can_still_be_valid_is_refused_if_anything_refuses_it(
    steps: list[tuple[float, Revocation]], later: float, token: tuple[str, str | None, float]
) -> None:
    """``KEEP`` is the longest a token is taken after its ``iat``, so older ones do not matter."""
    kept = Kept()
    for seconds, revocation in steps:
        kept.now += seconds
        kept.all.add(revocation)
    kept.now += later
    user, jti, issued_at = token
    refused = any(
        issued_at < each.issued_before and each.value == {"sub": user, "jti": jti}[each.claim]
        for _, each in steps
    )
    if issued_at > kept.now - KEEP:
        assert kept.all.revoked(user, jti, issued_at) is refused


@given(st.permutations([of_user("a", 960), of_user("a", 970), of_token("a", 950), of_user("b", 1)]))
def test_the_order_in_which_they_are_heard_makes_no_difference(order: list[Revocation]) -> None:
    kept = Kept()
    for revocation in order * 2:
        kept.all.add(revocation)

    assert {*kept.all.all()} == {of_user("a", 970), of_token("a", 950)}


@given(st.lists(revoked))
def test_they_come_back_from_their_bytes(them: list[Revocation]) -> None:
    assert decode(encode(them)) == tuple(them)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x91\x93\xa3aud\xa1x\x01",  # another claim
        b"\x91\x93\xa3sub\x01\x01",
        b"\x91\x92\xa3sub\xa1x",
        b"\x91\x93\xa3sub\xa1x\xcb\x7f\xf8\0\0\0\0\0\0",  # not a number
        b"\x91\x93\xa3sub\xa1x\xcb\x7f\xf0\0\0\0\0\0\0",  # for ever
    ],
)
def test_what_is_no_revocation_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(data)
