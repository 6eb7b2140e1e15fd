"""Cookies: good at every replica with the key, forged by nobody without it."""

import base64

from hypothesis import given
from hypothesis import strategies as st

from gateway.config.sections import ApiKeySettings
from gateway.console.sign_in import HOURS, MAX_ENDED, SignIns

NOW = 1_800_000_000.0
OPS = ApiKeySettings(name="ops", key="key-of-ops", scopes=("read", "manage"))
NEWER = ApiKeySettings(name="ops", key="newer-key-of-ops", scopes=("read",))
SAME = ApiKeySettings(name="again", key="key-of-ops", scopes=("publish",))


def signs(*keys: ApiKeySettings, now: float = NOW) -> SignIns:
    return SignIns(keys, lambda: now)


def begun(by: SignIns, key: str = OPS.key) -> str:
    found = by.begin(key)
    assert found is not None
    return found[0]


def test_a_cookie_is_good_at_every_replica_with_the_key() -> None:
    cookie = begun(signs(OPS))
    read = signs(NEWER, OPS).read(cookie)

    assert read is not None
    assert (read.name, sorted(read.scopes)) == ("ops", ["manage", "read"])
    assert read.expires_at == NOW + HOURS * 3600


def test_it_is_worth_nothing_once_its_key_is_gone() -> None:
    assert signs(NEWER).read(begun(signs(OPS))) is None
    assert signs().read(begun(signs(OPS))) is None


def test_keys_that_are_equal_are_one_with_the_scopes_of_both() -> None:
    read = signs(OPS, SAME).read(begun(signs(OPS, SAME)))

    assert read is not None
    assert read.scopes == {"read", "manage", "publish"}


def test_nobody_stays_signed_in_for_longer_or_as_another() -> None:
    cookie = begun(signs(OPS))
    ident, expires, name, mac = cookie.split(".")
    other = base64.urlsafe_b64encode(b"root").decode()
    for forged in (
        f"{ident}.{int(expires) + 1}.{name}.{mac}",
        f"{ident}.{expires}.{other}.{mac}",
        f"{ident}x.{expires}.{name}.{mac}",
        f"{ident}.{expires}.{name}.",
        f"{ident}.{expires}.{name}",
        f"{ident}.1e9.{name}.{mac}",
        f"{ident}.{expires}.%%.{mac}",
    ):
        assert signs(OPS).read(forged) is None
    assert signs(OPS, now=NOW + HOURS * 3600).read(cookie) is None


@given(st.text())
def test_anything_else_is_no_cookie(text: str) -> None:
    assert signs(OPS).read(text) is None
    assert signs(OPS).begin(text) is None


def test_the_token_of_forms_is_no_cookie_and_each_has_its_own() -> None:
    ins = signs(OPS)
    first, second = ins.read(begun(ins)), ins.read(begun(ins))

    assert first is not None
    assert second is not None
    assert first.form_token != second.form_token


def test_who_signed_out_is_remembered_for_a_bounded_number() -> None:
    ins = signs(OPS)
    cookies = [begun(ins) for _ in range(MAX_ENDED + 1)]
    for cookie in cookies:
        read = ins.read(cookie)
        assert read is not None
        ins.end(read)

    assert ins.read(cookies[0]) is not None
    assert [ins.read(cookie) for cookie in cookies[1:]] == [None] * MAX_ENDED


def test_a_cookie_with_bytes_that_are_no_utf8_is_none() -> None:
    """Aiohttp hands them over as halves of surrogate pairs, which cannot be encoded to be signed."""
    key = ApiKeySettings(name="ops", key="a key", scopes=("read",))
    ops = base64.urlsafe_b64encode(b"ops").decode()

    assert SignIns([key], lambda: 0.0).read(f"\udcff.9999999999.{ops}.mac") is None
    assert SignIns([key], lambda: 0.0).read(f"a.9999999999.{ops}.\udcff") is None
