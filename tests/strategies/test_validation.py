"""What is judged before any backend sees it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.interface import MAX_ACCOUNT_BYTES, MAX_MONEY, InvalidAccount, OpId
from strategies.support.validation import check_account, check_op_id, whole_amount


@given(st.text(max_size=300))
def test_an_account_id_is_what_fits_into_utf8(account: str) -> None:
    try:
        fits = 1 <= len(account.encode()) <= MAX_ACCOUNT_BYTES
    except UnicodeEncodeError:
        fits = False
    if fits:
        check_account(account)
    else:
        with pytest.raises(InvalidAccount):
            check_account(account)


@pytest.mark.parametrize("account", ["x" * 256, "é" * 128, "💰" * 64, "\0", " "])
def test_account_ids_up_to_the_limit(account: str) -> None:
    check_account(account)


@pytest.mark.parametrize("account", ["", "x" * 257, "x" + "é" * 128, "💰" * 64 + "x", "\ud83d", "a\udcff"])
def test_account_ids_beyond_it(account: str) -> None:
    with pytest.raises(InvalidAccount) as caught:
        check_account(account)
    assert isinstance(caught.value, ValueError)
    str(caught.value).encode()  # can be printed whatever the id was


@pytest.mark.parametrize("account", [None, 1, b"a", ["a"], object()])
def test_account_ids_of_another_type(account: object) -> None:
    with pytest.raises(TypeError, match=type(account).__name__):
        check_account(account)


@given(st.integers())
def test_whole_amounts_keep_their_value_or_stay_out_of_range(amount: int) -> None:
    found = whole_amount(amount)
    assert type(found) is int
    if -MAX_MONEY <= amount <= MAX_MONEY:
        assert found == amount
    else:
        assert abs(found) == MAX_MONEY + 1
        assert (found > 0) == (amount > 0)


@pytest.mark.parametrize("kind", [numpy.int8, numpy.uint16, numpy.int64, numpy.uint64])
def test_numpy_integers_become_ints(kind: type[Any]) -> None:
    found = whole_amount(kind(100))
    assert (found, type(found)) == (100, int)


@pytest.mark.parametrize("amount", [1.0, "1", None, True, False, Decimal(1), 1j, numpy.float64(1), numpy.bool_(True)])
def test_amounts_of_another_type(amount: Any) -> None:
    with pytest.raises(TypeError):
        whole_amount(amount)


@pytest.mark.parametrize("op_id", [None, ("s", 0), ("s", 2**53 - 1), OpId("s", 1), ("x" * 256, 1), ("Zoë 💰", 1)])
def test_good_op_ids(op_id: object) -> None:
    check_op_id(op_id)


@pytest.mark.parametrize(
    "op_id", ["s1", ("s",), ("s", 1, 2), ["s", 1], (1, 1), ("s", "1"), ("s", 1.0), ("s", True), ("s", None)]
)
def test_op_ids_of_another_type(op_id: object) -> None:
    with pytest.raises(TypeError):
        check_op_id(op_id)


@pytest.mark.parametrize(
    "op_id", [("", 1), ("s", -1), ("s", 2**53), ("x" * 257, 1), ("é" * 129, 1), ("a\0", 1), ("\ud800", 1)]
)
def test_op_ids_out_of_range(op_id: object) -> None:
    with pytest.raises(ValueError, match="op id"):
        check_op_id(op_id)
