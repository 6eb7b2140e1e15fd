"""Masks the secrets in values that are shown."""

import json
import re
from typing import Any, Final

from gateway.config.keys import Shape, keys_of

MASK: Final = "***"

PEM: Final = "-----BEGIN "
"""What PEM text has (RFC 7468), and no path of a file."""

_LONGEST: Final = 80
_NEXT_URL: Final = re.compile(r",(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_USERINFO: Final = re.compile(r"^((?:[A-Za-z][A-Za-z0-9+.-]*://)?).*@", re.DOTALL)


def masked(value: Any, shape: Shape) -> Any:  # noqa: ANN401 -- anything a file may hold
    """A value with the secrets in it replaced, also where it is not what it should be."""
    if not shape.holds_secret or value in ("", (), []):
        return value
    if shape.secret == "userinfo":  # noqa: S105 -- names a mark
        return _mask_userinfo(value) if isinstance(value, str) else MASK
    if shape.secret == "pem" and isinstance(value, str) and PEM not in value:  # noqa: S105 -- as above
        return value  # the path of a file
    if shape.table is not None and isinstance(value, dict):
        shapes = {key.name: key.shape for key in keys_of(shape.table)}
        # what is written under an unknown name may be a secret whose key is misspelt
        return {
            name: masked(item, shapes[name]) if name in shapes else MASK
            for name, item in value.items()
        }
    if shape.item is not None and isinstance(value, list | tuple):
        return [masked(item, shape.item) for item in value]
    return MASK


def shown(value: Any, shape: Shape) -> str:  # noqa: ANN401 -- as above
    """A value as an error message shows it: masked, and not too long."""
    text = json.dumps(masked(value, shape), ensure_ascii=False, default=str)
    if shape.holds_secret and text == f'"{MASK}"':
        return MASK
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _mask_userinfo(urls: str) -> str:
    return ",".join(_USERINFO.sub(rf"\1{MASK}@", url) for url in _NEXT_URL.split(urls))
