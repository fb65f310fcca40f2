"""Judges the arguments of a call before any backend sees them."""

import operator
from typing import SupportsIndex

from strategies.interface.account import MAX_ACCOUNT_BYTES, MAX_MONEY
from strategies.interface.errors import InvalidAccount

_MAX_SESSION_BYTES = 256
MAX_NUMBER = 2**53 - 1  # as MAX_MONEY: what a Lua script can count


def check_account(account: object) -> None:
    """Raise unless `account` is a usable id.

    Raises:
        TypeError: it is not a string.
        InvalidAccount: it is empty, over-long or not UTF-8.
    """
    if not isinstance(account, str):
        raise TypeError(f"an account id is a str, not {type(account).__name__}")
    if account and len(account) <= MAX_ACCOUNT_BYTES and account.isascii():
        return
    if not account:
        raise InvalidAccount("an account id is not empty; give the account a name")
    try:
        size = len(account.encode())
    except UnicodeEncodeError:
        raise InvalidAccount(f"the account id {account!a} cannot be written as UTF-8; use another") from None
    if size > MAX_ACCOUNT_BYTES:
        raise InvalidAccount(f"an account id has at most {MAX_ACCOUNT_BYTES} bytes of UTF-8, this one has {size}")


def whole_amount(amount: SupportsIndex) -> int:
    """`amount` as an int; whether it is a good amount is for the state machine to say.

    What lies beyond `MAX_MONEY` on either side is cut to just beyond it: it is rejected all the
    same, and every wire form can carry it.

    Raises:
        TypeError: it is not an integer. A bool is not one; a numpy integer is.
    """
    if type(amount) is not int:
        if isinstance(amount, bool):
            raise TypeError("an amount is an int, not bool")
        try:
            amount = operator.index(amount)
        except TypeError:
            raise TypeError(f"an amount is an int of minor units, not {type(amount).__name__}") from None
    return max(-MAX_MONEY - 1, min(amount, MAX_MONEY + 1))


def check_op_id(op_id: object) -> None:
    """Raise unless `op_id` is None or a pair (session, number).

    Raises:
        TypeError: it is something else.
        ValueError: the session is empty or over 256 bytes, or the number is negative or above 2**53 - 1.
    """
    if op_id is None:
        return
    if not (isinstance(op_id, tuple) and len(op_id) == 2):
        raise TypeError(f"an op id is a pair (session, number), not {op_id!r}")
    session, number = op_id
    if not isinstance(session, str):
        raise TypeError(f"an op id's session is a str, not {type(session).__name__}")
    if type(number) is not int:
        raise TypeError(f"an op id's number is an int, not {type(number).__name__}")
    if not 0 <= number <= MAX_NUMBER:
        raise ValueError(f"an op id's number is from 0 to {MAX_NUMBER}, not {number}")
    if not session or len(session.encode(errors="replace")) > _MAX_SESSION_BYTES or not session.isprintable():
        raise ValueError(f"an op id's session is printable text of 1 to {_MAX_SESSION_BYTES} bytes")
