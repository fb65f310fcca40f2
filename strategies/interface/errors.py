"""What can go wrong with an operation, sorted by the only question that matters: did it happen?

AccountError
├─ Rejected              no effect, and final: sending it again gives the same answer
│  ├─ UnknownAccount
│  ├─ AccountExists
│  ├─ InsufficientFunds
│  ├─ InvalidAmount      below 1, or a balance would pass MAX_MONEY
│  ├─ InvalidAccount     an id that is empty, over-long or not UTF-8 (also a ValueError)
│  ├─ OutOfScope         a transfer wider than the strategy claims
│  ├─ OperationMismatch  the op id was used before, with another payload
│  └─ OperationExpired   the op id has left the window that is remembered
├─ Unavailable           no effect for certain; may be sent again
├─ StateLost             no effect; the state is gone
└─ Indeterminate         may have happened: send it again only with an op id

Three fates, as in Jepsen (ok, fail, info): whatever a backend raises and nobody mapped is
`Indeterminate`. A programmer's error (a wrong type) is a `TypeError` and reaches no backend.
"""


class AccountError(Exception):
    """Base of every fate that is not a receipt. The message is one sentence that says what to do."""


class Rejected(AccountError):
    """The operation had no effect, and never will under this op id."""


class UnknownAccount(Rejected):
    """No account of this name was ever opened here."""


class AccountExists(Rejected):
    """The account was opened before."""


class InsufficientFunds(Rejected):
    """The change would take the balance below zero."""


class InvalidAmount(Rejected):
    """The amount is below 1 (an opening: below 0), or the balance would pass `MAX_MONEY`."""


class InvalidAccount(Rejected, ValueError):
    """The account id is empty, longer than `MAX_ACCOUNT_BYTES`, or cannot be written as UTF-8."""


class OutOfScope(Rejected):
    """The transfer's accounts lie further apart than `Capabilities.transfers` claims."""


class OperationMismatch(Rejected):
    """The op id belongs to an operation with another payload."""


class OperationExpired(Rejected):
    """The op id is too old to be told from a new one; it was not applied now."""


class Unavailable(AccountError):
    """Nobody answered, and the operation surely had no effect. It may be sent again."""


class StateLost(AccountError):
    """The owner died and took the state along; a new `open` starts blank."""


class Indeterminate(AccountError):
    """The operation may or may not have happened. Send it again only with its op id."""
