"""State in an external Redis or Valkey server: one atomic Lua script per change.

The script checks, changes, and remembers the op id in one step, so that an operation sent again has
its effect once even if the server dies between the two. Works with any Redis or Valkey from 6.2.

What is lost with the server depends on its append-only file, which is the variant:

- `volatile`: no promise. Whatever the server had not saved is lost when its process dies.
- `everysec`: `appendonly yes`, `appendfsync everysec`. The log is handed to the kernel before the
  answer, and to the disk once a second: a dead process loses nothing, a power cut about a second
  (https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/). One exception: while
  a flush to disk is under way, Redis answers up to 2 s before it hands the log over.
- `always`: `appendfsync always`. On the disk before the answer.

`open` makes sure that the server is set so, and that it does not evict accounts when it is full.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Self

from strategies.interface import (
    CALLER_FAULTS,
    CLUSTER_FAULTS,
    DEDUP_WINDOW,
    MAX_MONEY,
    MESSAGE_FAULTS,
    AccountError,
    Accounts,
    Caller,
    Capabilities,
    Consistency,
    Context,
    Durability,
    Fault,
    Indeterminate,
    Receipt,
    Resource,
    Retries,
    Transfers,
    Unavailable,
    errors,
)
from strategies.support.fates import NotAnswered, NotSent
from strategies.support.ledger import epoch_now
from strategies.support.validation import check_account, check_op_id, whole_amount

if TYPE_CHECKING:
    from strategies.support.redis_link import RedisLink

_OLDEST_SERVER = (6, 2)

CHANGE_SCRIPT = """
-- KEYS: bank's epoch, set of all accounts, session, account, target account
-- ARGV: epoch, function, amount, number in the session or '', account, target account
-- A reply is 'seq balance', twice for a transfer, or '-' and the name of an error.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return '-StateLost' end
local WINDOW, MAX_MONEY = @WINDOW@, @MAX_MONEY@
local name, amount, number = ARGV[2], tonumber(ARGV[3]), ARGV[4]

local highest, slot, prefix
if number ~= '' then
  -- A slot per number modulo the window bounds the memory. Lengths keep the payload unambiguous.
  local payload = name .. ' ' .. ARGV[3] .. ' ' .. #ARGV[5] .. ' ' .. ARGV[5] .. ARGV[6]
  prefix = number .. ' ' .. #payload .. ' ' .. payload
  slot = string.format('%.0f', tonumber(number) % WINDOW)
  local seen = redis.call('HMGET', KEYS[3], slot, 'highest')
  highest = tonumber(seen[2] or '-1')
  if tonumber(number) <= highest - WINDOW then return '-OperationExpired' end
  local record = seen[1]
  if record and string.sub(record, 1, #number + 1) == number .. ' ' then
    if string.sub(record, 1, #prefix) ~= prefix then return '-OperationMismatch' end
    return string.sub(record, #prefix + 1)
  end
end

local function text(integer) return string.format('%.0f', integer) end

local function apply()
  if name == 'open_account' then
    if amount < 0 or amount > MAX_MONEY then return '-InvalidAmount' end
    if redis.call('EXISTS', KEYS[4]) == 1 then return '-AccountExists' end
    redis.call('HSET', KEYS[4], 'seq', '1', 'balance', ARGV[3])
    redis.call('SADD', KEYS[2], ARGV[5])
    return '1 ' .. ARGV[3]
  end
  if amount < 1 or amount > MAX_MONEY then return '-InvalidAmount' end
  local account = redis.call('HMGET', KEYS[4], 'seq', 'balance')
  if not account[1] then return '-UnknownAccount' end
  local seq, balance = tonumber(account[1]) + 1, tonumber(account[2])
  if name == 'deposit' then
    balance = balance + amount
    if balance > MAX_MONEY then return '-InvalidAmount' end
    redis.call('HSET', KEYS[4], 'seq', text(seq), 'balance', text(balance))
    return text(seq) .. ' ' .. text(balance)
  end
  local same, target = KEYS[4] == KEYS[5], nil
  if name == 'transfer' and not same then
    target = redis.call('HMGET', KEYS[5], 'seq', 'balance')
    if not target[1] then return '-UnknownAccount' end
  end
  if balance < amount then return '-InsufficientFunds' end
  if target and tonumber(target[2]) + amount > MAX_MONEY then return '-InvalidAmount' end
  balance = balance - amount
  local reply = text(seq) .. ' ' .. text(balance)
  if name == 'transfer' then
    local target_seq, target_balance
    if same then
      seq, balance = seq + 1, balance + amount
      target_seq, target_balance = seq, balance
    else
      target_seq, target_balance = tonumber(target[1]) + 1, tonumber(target[2]) + amount
      redis.call('HSET', KEYS[5], 'seq', text(target_seq), 'balance', text(target_balance))
    end
    reply = reply .. ' ' .. text(target_seq) .. ' ' .. text(target_balance)
  end
  redis.call('HSET', KEYS[4], 'seq', text(seq), 'balance', text(balance))
  return reply
end

local reply = apply()
if prefix then
  if tonumber(number) > highest then
    redis.call('HSET', KEYS[3], slot, prefix .. reply, 'highest', number)
  else
    redis.call('HSET', KEYS[3], slot, prefix .. reply)
  end
end
return reply
""".replace("@WINDOW@", str(DEDUP_WINDOW)).replace("@MAX_MONEY@", str(MAX_MONEY))

_READ_SCRIPT = """
-- KEYS: bank's epoch, then accounts. ARGV: epoch
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'-StateLost'} end
local replies = {}
for index = 2, #KEYS do
  local account = redis.call('HMGET', KEYS[index], 'seq', 'balance')
  replies[index - 1] = account[1] and account[1] .. ' ' .. account[2] or '-UnknownAccount'
end
return replies
"""

_OPEN_SCRIPT = """
-- KEYS: bank's epoch. ARGV: the epoch of a bank that starts now
return redis.call('GET', KEYS[1]) or (redis.call('SET', KEYS[1], ARGV[1]) and ARGV[1])
"""

_SENTENCES = {
    "UnknownAccount": "no such account was opened here; call open_account first",
    "AccountExists": "it was opened before; deposit into it",
    "InsufficientFunds": "the account holds less; withdraw at most its balance",
    "InvalidAmount": f"an amount is from 1 (an opening: 0), and a balance at most {MAX_MONEY}",
    "OperationMismatch": "the op id was used for another operation; use a new one",
    "OperationExpired": "the op id is too far behind its session's highest; use a new one",
    "StateLost": "the server lost the bank that this handle was opened on; open it again, blank",
}

_NO_EFFECT = frozenset(
    {"OOM", "READONLY", "NOPERM", "MISCONF", "BUSY", "LOADING", "NOREPLICAS"}
    | {"MASTERDOWN", "CLUSTERDOWN", "MOVED", "CROSSSLOT"}
)
"""Codes with which a server refuses a script, or its first write, before anything is changed."""

_SETTINGS = {"volatile": ("no", None), "everysec": ("yes", "everysec"), "always": ("yes", "always")}
"""Of each variant: `appendonly`, and `appendfsync` where that matters."""

_WHATEVER_SPARES_THE_SERVER = (
    CLUSTER_FAULTS
    | CALLER_FAULTS
    | MESSAGE_FAULTS
    | {
        Fault.DRIVER_KILL,
        Fault.SERVER_PAUSE,
        Fault.LINK_DOWN,
        Fault.NETEM_DELAY,
        Fault.POISON_ARGUMENT,
        Fault.METHOD_HANG,
    }
)
_CRASHES = _WHATEVER_SPARES_THE_SERVER | {Fault.SERVER_KILL, Fault.DISK_FULL}
"""What an append-only file outlives, however seldom it is flushed."""

_PAGE = 1_000
"""Accounts that a snapshot reads with one script: a few milliseconds of the server's time."""


class _Script:
    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = sha1(source.encode(), usedforsecurity=False).hexdigest()


_CHANGE, _READ, _OPEN = _Script(CHANGE_SCRIPT), _Script(_READ_SCRIPT), _Script(_OPEN_SCRIPT)


class RedisLua(Accounts):
    """A handle with connections of its own to the server; one per concurrent caller."""

    capabilities = Capabilities(
        survives=_WHATEVER_SPARES_THE_SERVER,
        consistency=Consistency.LINEARIZABLE,
        transfers=Transfers.ANY,
        retries=Retries.SAFE_WITH_OP_ID,
        callers=frozenset({Caller.DRIVER, Caller.TASK}),
        needs=frozenset({Resource.REDIS}),
        variants=tuple(_SETTINGS),
    )

    def __init__(self, url: str, bank: str, timeout_s: float, epoch: int) -> None:
        from strategies.support.redis_link import RedisLink

        self._arrival = (url, bank, timeout_s, epoch)
        self._timeout_s = timeout_s
        self._epoch = epoch
        self._link: RedisLink = RedisLink(url, timeout_s)
        self._closed = False
        # The braces make one hash slot of all of a bank's keys, as Redis Cluster wants them.
        prefix = f"{{{bank}}}"
        self._epoch_key = f"{prefix}:epoch"
        self._index_key = f"{prefix}:accounts"
        self._account_prefix = f"{prefix}:account:"
        self._session_prefix = f"{prefix}:session:"

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, float, int]]:
        return type(self), self._arrival

    @classmethod
    def claims(cls, variant: str) -> Capabilities:
        if variant == "everysec":
            return replace(cls.capabilities, durability=Durability.PROCESS_CRASH, survives=_CRASHES)
        if variant == "always":
            survives = _CRASHES | {Fault.POWER_LOSS}
            return replace(cls.capabilities, durability=Durability.POWER_LOSS, survives=survives)
        return cls.capabilities

    @classmethod
    def open(cls, context: Context) -> Self:
        """Attach to the bank at `context.redis_url`, or start it. Without a variant, the server may be set anyhow.

        Raises:
            ValueError: there is no URL or a bad one, or no such variant.
            Unavailable: the server does not answer, refuses, or is not set as the variant needs it.
        """
        if context.redis_url is None:
            raise ValueError(f"{cls.name} keeps its state in Redis; put a redis:// URL into the context")
        if context.variant not in (None, *_SETTINGS):
            raise ValueError(f"{cls.name} has the variants {', '.join(_SETTINGS)}, not {context.variant!r}")
        accounts = cls(context.redis_url, context.bank, context.timeout_s, epoch_now())
        try:
            deadline = time.monotonic() + context.timeout_s
            accounts._check_server(context.variant, deadline)
            epoch = accounts._run("open", _OPEN, [accounts._epoch_key], [accounts._epoch], deadline, changes=False)
        except BaseException:
            accounts.close()
            raise
        accounts._epoch = int(epoch)
        accounts._arrival = (*accounts._arrival[:3], accounts._epoch)
        return accounts

    def open_account(self, account: str, opening: int = 0, *, op_id: tuple[str, int] | None = None) -> Receipt:
        return self._receipt(self._change("open_account", account, account, opening, op_id).split())

    def deposit(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        return self._receipt(self._change("deposit", account, account, amount, op_id).split())

    def withdraw(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        return self._receipt(self._change("withdraw", account, account, amount, op_id).split())

    def transfer(
        self, source: str, target: str, amount: int, *, op_id: tuple[str, int] | None = None
    ) -> tuple[Receipt, Receipt]:
        check_account(target)
        fields = self._change("transfer", source, target, amount, op_id).split()
        return self._receipt(fields[:2]), self._receipt(fields[2:])

    def balance(self, account: str) -> Receipt:
        check_account(account)
        return self._read([account], time.monotonic() + self._timeout_s)[0]

    def snapshot(self) -> dict[str, Receipt]:
        deadline = time.monotonic() + self._timeout_s
        receipts: dict[str, Receipt] = {}
        cursor = b"0"
        while True:  # ends with the cursor, or with the deadline
            cursor, page = self._execute(
                "snapshot", deadline, "SSCAN", self._index_key, cursor, "COUNT", _PAGE, changes=False
            )
            accounts = [name.decode() for name in page]
            receipts.update(zip(accounts, self._read(accounts, deadline), strict=True))
            if cursor == b"0":
                return receipts

    def close(self) -> None:
        self._closed = True
        self._link.close()

    def _change(self, function: str, account: str, target: str, amount: int, op_id: tuple[str, int] | None) -> bytes:
        check_account(account)
        amount = whole_amount(amount)
        check_op_id(op_id)
        session, number = op_id if op_id is not None else ("", "")
        keys = (
            self._epoch_key,
            self._index_key,
            self._session_prefix + session,
            self._account_prefix + account,
            self._account_prefix + target,
        )
        args = (self._epoch, function, amount, number, account, target)
        reply: bytes = self._run(function, _CHANGE, keys, args, time.monotonic() + self._timeout_s, changes=True)
        if reply[0] == _MINUS:
            raise _error(reply, f"{function} on {account!r}")
        return reply

    def _read(self, accounts: Sequence[str], deadline: float) -> list[Receipt]:
        keys = [self._epoch_key, *(self._account_prefix + account for account in accounts)]
        replies = self._run("balance", _READ, keys, (self._epoch,), deadline, changes=False)
        for index, reply in enumerate(replies):
            if reply[0] == _MINUS:
                raise _error(reply, f"balance of {accounts[index]!r}" if accounts else "snapshot")
        return [self._receipt(reply.split()) for reply in replies]

    def _receipt(self, fields: list[bytes]) -> Receipt:
        return Receipt(int(fields[0]), int(fields[1]), self._epoch)

    def _run(
        self, what: str, script: _Script, keys: Sequence[str], args: Sequence[object], deadline: float, *, changes: bool
    ) -> Any:
        try:
            return self._execute(what, deadline, "EVALSHA", script.digest, len(keys), *keys, *args, changes=changes)
        except _ScriptUnknown:
            # A server forgets its scripts when it restarts. It ran nothing; EVAL makes it remember.
            return self._execute(what, deadline, "EVAL", script.source, len(keys), *keys, *args, changes=changes)

    def _execute(self, what: str, deadline: float, *command: Any, changes: bool) -> Any:
        """Send one command, and say what became of it in the interface's own words."""
        if self._closed:
            raise Unavailable("this handle is closed; open another")
        try:
            return self._link.execute(deadline, *command)
        except NotSent as error:
            raise Unavailable(f"{what} was not sent to Redis: {error}; send it again") from error
        except NotAnswered as error:
            if changes:
                raise Indeterminate(f"Redis did not answer {what}: {error}; send it again with its op id") from error
            raise Unavailable(f"Redis did not answer {what}: {error}; send it again") from error
        except Exception as error:
            raise _refusal(what, error, changes=changes) from error

    def _check_server(self, variant: str | None, deadline: float) -> None:
        info = self._execute("open", deadline, "INFO", "server", changes=False)
        version = re.search(rb"redis_version:(\d+)\.(\d+)", info)
        if version and (int(version[1]), int(version[2])) < _OLDEST_SERVER:
            raise Unavailable(
                f"the server speaks Redis {version[1].decode()}.{version[2].decode()}; 6.2 or newer is needed"
            )
        try:
            settings = self._config("append*", deadline) | self._config("maxmemory*", deadline)
        except Unavailable:
            if variant is not None:
                warnings.warn(
                    f"the server does not tell its settings, so it is not known to be {variant}",
                    RuntimeWarning,
                    stacklevel=3,
                )
            return
        if settings["maxmemory"] != "0" and settings["maxmemory-policy"].startswith("allkeys"):
            raise Unavailable("the server evicts accounts when it is full; CONFIG SET maxmemory-policy noeviction")
        if variant is None:
            return
        appendonly, appendfsync = _SETTINGS[variant]
        if settings["appendonly"] != appendonly or appendfsync not in (None, settings["appendfsync"]):
            wanted = f"appendonly {appendonly}" + (f", appendfsync {appendfsync}" if appendfsync else "")
            raise Unavailable(
                f"variant {variant} needs a server with {wanted}, this one has appendonly {settings['appendonly']}, "
                f"appendfsync {settings['appendfsync']}; change it with CONFIG SET or choose the variant that it is"
            )

    def _config(self, pattern: str, deadline: float) -> dict[str, str]:
        reply = [part.decode() for part in self._execute("open", deadline, "CONFIG", "GET", pattern, changes=False)]
        return dict(zip(reply[::2], reply[1::2], strict=True))


_MINUS = ord("-")


class _ScriptUnknown(Exception):
    """The server has to be sent the script's source."""


def _error(reply: bytes, what: str) -> AccountError:
    name = reply[1:].decode()
    kind: type[AccountError] = getattr(errors, name)
    return kind(f"{what}: {_SENTENCES[name]}")


def _refusal(what: str, error: Exception, *, changes: bool) -> Exception:
    """What a server's error reply means for the operation."""
    from redis.exceptions import NoScriptError

    from strategies.support.redis_link import REFUSALS

    if isinstance(error, NoScriptError):
        return _ScriptUnknown()
    message = str(error)
    if isinstance(error, REFUSALS):
        return Unavailable(f"Redis refused {what}: {message}; check the URL's user and password, then send it again")
    code = getattr(error, "status_code", None) or message.partition(" ")[0]
    # Redis 6.2 quotes the refusal of a script's first write instead of passing its code on.
    quoted = any(f"-{each} " in message for each in ("OOM", "MISCONF"))
    if not changes or code in _NO_EFFECT or quoted:
        said = message if message.startswith(code) else f"{code} {message}"
        return Unavailable(f"Redis refused {what}: {said}; send it again when the server can take it")
    return Indeterminate(f"Redis ended {what} with an error: {message}; send it again with its op id")
