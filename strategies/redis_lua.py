"""State in an external Redis or Valkey server: one atomic Lua script for a change, or for a batch of them.

The script checks, changes, and remembers the op ids in one step, so that an operation sent again has
its effect once even if the server dies between the two. Works with any Redis or Valkey from 6.2.

A bank is one hash: of each account its seq and balance as two doubles, and under the empty name the
bank's epoch, so that whoever reads an account sees whether the server lost the bank. One command reads
all accounts of a batch and one writes them: a command from a script costs as much as all else that a
script does for an operation. A session is another hash, with a slot per number modulo the window.
All keys of a bank share the hash slot of its name in braces, as Redis Cluster wants.

`apply` sends a script for every `SCRIPT_OPERATIONS` operations, all over one connection before it reads
the first answer. A script is atomic, a batch is not: between two of its scripts others may have their
turn. `submit` does the same with what queued up while the last batch was in flight.

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
import struct
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha1
from itertools import compress, repeat
from typing import TYPE_CHECKING, Any, Self

import msgpack

from strategies.interface import (
    CALLER_FAULTS,
    CLUSTER_FAULTS,
    DEDUP_WINDOW,
    MAX_BATCH,
    MAX_MONEY,
    MESSAGE_FAULTS,
    AccountError,
    Accounts,
    Answer,
    Batched,
    Caller,
    Capabilities,
    Consistency,
    Context,
    Durability,
    Fault,
    Indeterminate,
    Operation,
    Pipelined,
    Receipt,
    Resource,
    Retries,
    Transfers,
    Unavailable,
    errors,
)
from strategies.support.admission import Admission
from strategies.support.coalescing import Coalescer
from strategies.support.fates import NotAnswered, NotSent
from strategies.support.futures import Promise
from strategies.support.ledger import epoch_now
from strategies.support.validation import check_account, check_op_id, whole_amount
from strategies.support.wire import BALANCE, DEPOSIT, FUNCTIONS, OPEN_ACCOUNT, TRANSFER, WITHDRAW, Batch

if TYPE_CHECKING:
    from strategies.support.redis_link import RedisLink

_OLDEST_SERVER = (6, 2)

SCRIPT_OPERATIONS = 500
"""The most operations in one script: the server is deaf to others meanwhile, for one or two milliseconds. While
it works, the caller makes the arguments of the next script."""

_REJECTIONS = (
    "UnknownAccount",
    "AccountExists",
    "InsufficientFunds",
    "InvalidAmount",
    "OperationMismatch",
    "OperationExpired",
)
"""The script's names for them are the negative numbers -1, -2, ..., in the place of a seq."""

SCRIPT = """
-- KEYS: bank, sessions. ARGV: epoch, columns in MessagePack: functions (one byte each), accounts, amounts,
-- targets (of transfers alone), places of sessions (from 0; empty for one), numbers (empty for none, -1 for none).
-- The reply, in MessagePack: seqs, balances, and the same of the transfers' targets. Or nothing: the bank is lost.
local functions, accounts, amounts, targets, session_of, numbers = unpack(cmsgpack.unpack(ARGV[2]))
local OPEN_ACCOUNT, DEPOSIT, WITHDRAW, TRANSFER, BALANCE = 0, 1, 2, 3, 4
local WINDOW, MAX_MONEY = @WINDOW@, @MAX_MONEY@
local @REJECTIONS@
local pack, unpacked, byte = struct.pack, struct.unpack, string.byte

local names, seqs, balances, changed = {}, {}, {}, {}
for _, column in ipairs({accounts, targets}) do
  for index = 1, #column do
    local name = column[index]
    if seqs[name] == nil then
      seqs[name] = false
      names[#names + 1] = name
    end
  end
end
local found = redis.call('HMGET', KEYS[1], '', unpack(names))
if found[1] ~= ARGV[1] then return false end
for index = 1, #names do
  local state = found[index + 1]
  if state then
    local name = names[index]
    seqs[name], balances[name] = unpacked('<dd', state)
  end
end

local highest, records, is_used = {}, {}, {}
for session = 1, #KEYS - 1 do
  highest[session] = tonumber(redis.call('HGET', KEYS[session + 1], 'highest') or '-1')
  records[session] = {}
end

local function change(code, name, target, amount)
  if amount < 0 or amount > MAX_MONEY then return InvalidAmount, 0 end
  local seq, balance = seqs[name], balances[name]
  if code == OPEN_ACCOUNT then
    if seq then return AccountExists, 0 end
    seq, balance = 1, amount
  else
    if amount == 0 then return InvalidAmount, 0 end
    if not seq then return UnknownAccount, 0 end
    seq = seq + 1
    if code == DEPOSIT then
      balance = balance + amount
      if balance > MAX_MONEY then return InvalidAmount, 0 end
    else
      if code == TRANSFER then
        if not seqs[target] then return UnknownAccount, 0 end
        if target ~= name and balances[target] + amount > MAX_MONEY then return InvalidAmount, 0 end
      end
      balance = balance - amount
      if balance < 0 then return InsufficientFunds, 0 end
    end
  end
  seqs[name], balances[name], changed[name] = seq, balance, true
  if code ~= TRANSFER then return seq, balance end
  local target_seq, target_balance = seqs[target] + 1, balances[target] + amount
  seqs[target], balances[target], changed[target] = target_seq, target_balance, true
  return seq, balance, target_seq, target_balance
end

-- A record is what the operation was and what became of it; the lengths keep it unambiguous.
local function once(session, number, code, name, target, amount)
  local slot = number % WINDOW
  if number <= highest[session] then
    if number <= highest[session] - WINDOW then return OperationExpired, 0 end
    local record = records[session][slot] or redis.call('HGET', KEYS[session + 1], slot)
    if record and unpacked('<d', record) == number then
      local head = pack('<ddBHHc0c0', number, amount, code, #name, #target, name, target)
      if string.sub(record, 1, #head) ~= head then return OperationMismatch, 0 end
      if #record == #head + 16 then return unpacked('<dd', record, #head + 1) end
      return unpacked('<dddd', record, #head + 1)
    end
  else
    highest[session] = number
  end
  local seq, balance, target_seq, target_balance = change(code, name, target, amount)
  is_used[session] = true
  if target_seq then
    records[session][slot] = pack('<ddBHHc0c0dddd', number, amount, code, #name, #target, name, target,
      seq, balance, target_seq, target_balance)
  else
    records[session][slot] = pack('<ddBHHc0c0dd', number, amount, code, #name, #target, name, target, seq, balance)
  end
  return seq, balance, target_seq, target_balance
end

local of_seqs, of_balances, of_target_seqs, of_target_balances, transfers = {}, {}, {}, {}, 0
for index = 1, #functions do
  local code, name, number = byte(functions, index), accounts[index], numbers[index] or -1
  local seq, balance, target_seq, target_balance
  if code == BALANCE then
    seq, balance = seqs[name] or UnknownAccount, balances[name] or 0
  else
    local target = ''
    if code == TRANSFER then
      transfers = transfers + 1
      target = targets[transfers]
    end
    if number < 0 then
      seq, balance, target_seq, target_balance = change(code, name, target, amounts[index])
    else
      seq, balance, target_seq, target_balance =
        once((session_of[index] or 0) + 1, number, code, name, target, amounts[index])
    end
    if code == TRANSFER then
      of_target_seqs[transfers], of_target_balances[transfers] = target_seq or 0, target_balance or 0
    end
  end
  of_seqs[index], of_balances[index] = seq, balance
end

-- The first write is refused where no other has been made; a later one must not look as if there were no effect.
local has_written = false
local function write(key, fields)
  if #fields == 0 then return end
  if not has_written then
    redis.call('HSET', key, unpack(fields))
    has_written = true
    return
  end
  local reply = redis.pcall('HSET', key, unpack(fields))
  if type(reply) == 'table' and reply.err then return reply.err end
end

local fields, size = {}, 0
for name in pairs(changed) do
  fields[size + 1], fields[size + 2] = name, pack('<dd', seqs[name], balances[name])
  size = size + 2
end
local failure = write(KEYS[1], fields)
for session in pairs(is_used) do
  fields, size = {'highest', highest[session]}, 2
  for slot, record in pairs(records[session]) do
    fields[size + 1], fields[size + 2] = slot, record
    size = size + 2
  end
  failure = write(KEYS[session + 1], fields) or failure
end
if failure then return redis.error_reply('HALFWAY ' .. failure) end
return cmsgpack.pack({of_seqs, of_balances, of_target_seqs, of_target_balances})
"""
for _name, _value in (
    ("@WINDOW@", str(DEDUP_WINDOW)),
    ("@MAX_MONEY@", str(MAX_MONEY)),
    ("@REJECTIONS@", f"{', '.join(_REJECTIONS)} = {', '.join(str(-1 - place) for place in range(len(_REJECTIONS)))}"),
):
    SCRIPT = SCRIPT.replace(_name, _value)

_OPEN_SCRIPT = """
-- KEYS: bank. ARGV: the epoch of a bank that starts now
return redis.call('HGET', KEYS[1], '') or (redis.call('HSET', KEYS[1], '', ARGV[1]) and ARGV[1])
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
"""Accounts that a snapshot reads with one command."""


class _Script:
    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = sha1(source.encode(), usedforsecurity=False).hexdigest()


_CHANGE, _OPEN = _Script(SCRIPT), _Script(_OPEN_SCRIPT)


class RedisLua(Accounts, Batched, Pipelined):
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

    def __init__(
        self, url: str, bank: str, epoch: int, timeout_s: float, queue_limit: int, submit_blocks: bool
    ) -> None:
        from strategies.support.redis_link import RedisLink

        self._arrival = (url, bank, epoch, timeout_s, queue_limit, submit_blocks)
        self._timeout_s = timeout_s
        self._epoch = epoch
        self._link: RedisLink = RedisLink(url, timeout_s)
        self._coalescer = Coalescer(self._apply, timeout_s=timeout_s, queue_limit=queue_limit, blocks=submit_blocks)
        self._closed = False
        self._admission = Admission()
        # The braces make one hash slot of all of a bank's keys, as Redis Cluster wants them.
        self._bank_key = f"{{{bank}}}:bank"
        self._session_prefix = f"{{{bank}}}:session:"

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, int, float, int, bool]]:
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
        arrival = (context.timeout_s, context.queue_limit, context.submit_blocks)
        accounts = cls(context.redis_url, context.bank, epoch_now(), *arrival)
        try:
            deadline = time.monotonic() + context.timeout_s
            accounts._check_server(context.variant, deadline)
            epoch = accounts._run("open", _OPEN, [accounts._bank_key], [accounts._epoch], deadline, changes=False)
        except BaseException:
            accounts.close()
            raise
        accounts._epoch = int(epoch)
        accounts._arrival = (context.redis_url, context.bank, accounts._epoch, *arrival)
        return accounts

    def open_account(self, account: str, opening: int = 0, *, op_id: tuple[str, int] | None = None) -> Receipt:
        return self._change(OPEN_ACCOUNT, account, (), opening, op_id)[0]

    def deposit(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        return self._change(DEPOSIT, account, (), amount, op_id)[0]

    def withdraw(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        return self._change(WITHDRAW, account, (), amount, op_id)[0]

    def transfer(
        self, source: str, target: str, amount: int, *, op_id: tuple[str, int] | None = None
    ) -> tuple[Receipt, Receipt]:
        check_account(target)
        source_receipt, target_receipt = self._change(TRANSFER, source, (target,), amount, op_id)
        return source_receipt, target_receipt

    def balance(self, account: str) -> Receipt:
        check_account(account)
        deadline = time.monotonic() + self._timeout_s
        epoch, state = self._execute("balance", deadline, "HMGET", self._bank_key, "", account, changes=False)
        self._check_epoch(epoch, "balance")
        if state is None:
            raise _error("UnknownAccount", f"balance of {account!r}")
        return self._receipt(state)

    def snapshot(self) -> dict[str, Receipt]:
        deadline = time.monotonic() + self._timeout_s
        receipts: dict[str, Receipt] = {}
        cursor = b"0"
        while True:  # ends with the cursor, or with the deadline
            cursor, page = self._execute(
                "snapshot", deadline, "HSCAN", self._bank_key, cursor, "COUNT", _PAGE, changes=False
            )
            receipts.update(
                (name.decode(), self._receipt(state)) for name, state in zip(page[::2], page[1::2], strict=True) if name
            )
            if cursor == b"0":
                break
        # Last: whatever was read before it was there before it.
        self._check_epoch(self._execute("snapshot", deadline, "HGET", self._bank_key, "", changes=False), "snapshot")
        return receipts

    def apply(self, operations: Sequence[Operation]) -> list[Answer]:
        self._check_open()
        if len(operations) > MAX_BATCH:
            raise ValueError(f"a batch has at most {MAX_BATCH} operations, not {len(operations)}; split it")
        return self._apply(operations, time.monotonic() + self._timeout_s)

    def submit(self, operation: Operation) -> Promise:
        return self._coalescer.submit(operation)

    def close(self) -> None:
        self._coalescer.close()
        self._closed = True
        self._link.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("this handle is closed; open another")

    def _check_epoch(self, epoch: bytes | None, what: str) -> None:
        if epoch is None or int(epoch) != self._epoch:
            raise _error("StateLost", what)

    def _receipt(self, state: bytes) -> Receipt:
        seq, balance = _STATE.unpack(state)
        return Receipt(int(seq), int(balance), self._epoch)

    # -- one call --------------------------------------------------------------------------------

    def _change(
        self, code: int, account: str, targets: tuple[str, ...], amount: int, op_id: tuple[str, int] | None
    ) -> list[Receipt]:
        check_account(account)
        amount = whole_amount(amount)
        check_op_id(op_id)
        keys: tuple[str, ...] = (self._bank_key,)
        numbers: tuple[int, ...] = ()
        if op_id is not None:
            keys = (self._bank_key, self._session_prefix + op_id[0])
            numbers = op_id[1:]
        columns = (_CODES[code], (account,), (amount,), targets, (), numbers)
        payload = msgpack.packb(columns, use_bin_type=False)
        what = FUNCTIONS[code]
        reply = self._run(what, _CHANGE, keys, (self._epoch, payload), time.monotonic() + self._timeout_s, changes=True)
        if reply is None:
            raise _error("StateLost", what)
        seqs, balances, *others = msgpack.unpackb(reply)
        seq = seqs[0]
        if seq < 0:
            raise _error(_REJECTIONS[-1 - seq], f"{what} on {account!r}")
        receipts = [Receipt(seq, balances[0], self._epoch)]
        if targets:
            receipts.append(Receipt(others[0][0], others[1][0], self._epoch))
        return receipts

    # -- many ------------------------------------------------------------------------------------

    def _apply(self, operations: Sequence[Operation], deadline: float) -> list[Answer]:
        return self._admission.apply(operations, lambda batch: self._apply_checked(batch, deadline))

    def _apply_checked(self, batch: Batch, deadline: float) -> list[Answer]:
        """By as many scripts as it takes, all sent before the first answer is read."""
        size = len(batch.functions)
        parts: list[Batch] = []

        def commands() -> Iterator[tuple[Any, ...]]:
            for start in range(0, size, SCRIPT_OPERATIONS):
                parts.append(batch if size <= SCRIPT_OPERATIONS else _part(batch, start))
                keys, args = self._arguments(parts[-1])
                yield "EVALSHA", _CHANGE.digest, len(keys), *keys, *args

        found: list[list[Answer]] = []
        unknown: list[int] = []
        for place, reply in enumerate(self._link.execute_all(deadline, commands())):
            if isinstance(reply, Exception):
                reply = _fate("a batch", reply, changes=True)
                if isinstance(reply, _ScriptUnknown):
                    unknown.append(place)
            found.append(self._answers(parts[place], reply))
        if unknown and len(parts) - unknown[0] == len(unknown):  # else a later one has overtaken them
            for place in unknown:
                found[place] = self._apply_again(parts[place], deadline)
                if any(isinstance(answer, Indeterminate) for answer in found[place]):
                    break  # the next one might overtake it
        return [answer for answers in found for answer in answers]

    def _apply_again(self, part: Batch, deadline: float) -> list[Answer]:
        keys, args = self._arguments(part)
        try:
            return self._answers(part, self._run("a batch", _CHANGE, keys, args, deadline, changes=True))
        except AccountError as error:
            return self._answers(part, error)

    def _arguments(self, batch: Batch) -> tuple[list[str], tuple[object, ...]]:
        functions, accounts, amounts, targets, sessions, session_of, numbers, _ = batch
        keys = [self._bank_key, *(self._session_prefix + session for session in sessions)]
        columns = (functions, accounts, amounts, targets, session_of, numbers)
        return keys, (self._epoch, msgpack.packb(columns, use_bin_type=False))

    def _answers(self, batch: Batch, reply: bytes | Exception | None) -> list[Answer]:
        """What a script replied, or what became of all of its operations."""
        if reply is None:
            reply = _error("StateLost", "a batch")
        if isinstance(reply, Exception):
            return [_of_one(reply, code) for code in batch.functions]
        seqs, balances, target_seqs, target_balances = msgpack.unpackb(reply)
        answers: list[Any] = list(map(_new_tuple, repeat(Receipt), zip(seqs, balances, repeat(self._epoch))))
        if target_seqs:
            places = compress(range(len(seqs)), batch.functions.translate(_IS_TRANSFER))
            for place, seq, balance in zip(places, target_seqs, target_balances, strict=True):
                answers[place] = answers[place], Receipt(seq, balance, self._epoch)
        if min(seqs) < 0:
            for place, seq in enumerate(seqs):
                if seq < 0:
                    what = f"{FUNCTIONS[batch.functions[place]]} on {batch.accounts[place]!r}"
                    answers[place] = _error(_REJECTIONS[-1 - seq], what)
        return answers

    # -- the server ------------------------------------------------------------------------------

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
        self._check_open()
        try:
            return self._link.execute(deadline, *command)
        except Exception as error:
            raise _fate(what, error, changes=changes) from error

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


_CODES = tuple(bytes([code]) for code in range(len(FUNCTIONS)))
_IS_TRANSFER = bytes(code == TRANSFER for code in range(256))
_STATE = struct.Struct("<dd")

_new_tuple: Any = tuple.__new__  # a third of the time of `Receipt(...)`


class _ScriptUnknown(Exception):
    """The server has to be sent the script's source."""


def _part(batch: Batch, start: int) -> Batch:
    """The operations of one script, with no more sessions than they have."""
    stop = start + SCRIPT_OPERATIONS
    functions, accounts, amounts, targets, sessions, session_of, numbers, _ = batch
    if targets:
        before = functions.count(TRANSFER, 0, start)
        targets = targets[before : before + functions.count(TRANSFER, start, stop)]
    if session_of:
        own = session_of[start:stop]
        place_of = {session: place for place, session in enumerate(dict.fromkeys(own))}
        sessions, session_of = [sessions[session] for session in place_of], [place_of[session] for session in own]
    return Batch(
        functions[start:stop],
        accounts[start:stop],
        amounts[start:stop],
        targets,
        sessions,
        session_of,
        numbers[start:stop],
    )


def _error(name: str, what: str) -> AccountError:
    kind: type[AccountError] = getattr(errors, name)
    return kind(f"{what}: {_SENTENCES[name]}")


def _of_one(error: Exception, code: int) -> AccountError:
    """The fate of one operation of a batch that has this one."""
    if isinstance(error, _ScriptUnknown):
        return Unavailable("Redis had forgotten the script; send it again")
    if isinstance(error, Indeterminate) and code == BALANCE:
        return Unavailable(*error.args)
    assert isinstance(error, AccountError)
    return type(error)(*error.args)


def _fate(what: str, error: Exception, *, changes: bool) -> Exception:
    """What became of the operation, in the interface's own words."""
    if isinstance(error, NotSent):
        return Unavailable(f"{what} was not sent to Redis: {error}; send it again")
    if isinstance(error, NotAnswered):
        if changes:
            return Indeterminate(f"Redis did not answer {what}: {error}; send it again with its op id")
        return Unavailable(f"Redis did not answer {what}: {error}; send it again")
    return _refusal(what, error, changes=changes)


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
    quoted = re.match(r"Error running script .*? -([A-Z]+) ", message.removeprefix("ERR "))
    if not changes or code in _NO_EFFECT or (quoted and quoted[1] in _NO_EFFECT):
        said = message if message.startswith(code) else f"{code} {message}"
        return Unavailable(f"Redis refused {what}: {said}; send it again when the server can take it")
    return Indeterminate(f"Redis ended {what} with an error: {message}; send it again with its op id")
