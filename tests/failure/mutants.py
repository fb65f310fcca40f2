"""Owners with one planted bug each, and what the checker must call it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, ClassVar

from benchmarks.harness.generator import Retry
from benchmarks.harness.history import BALANCE, DEPOSIT, TRANSFER, WITHDRAW
from benchmarks.harness.violations import Kind
from strategies.interface import InsufficientFunds, InvalidAmount, Receipt, Rejected, Unavailable, UnknownAccount
from tests.failure.simulation import FIRST_EPOCH, Owner, Setting

OpId = tuple[str, int] | None

PLAIN = Setting(operations=30)
RESENT = Setting(operations=30, retry=Retry.OP_ID, reply_lost=0.2)
RUN_AGAIN = Setting(operations=15, retry=Retry.OP_ID, deaths=2)
RESTARTED = Setting(operations=30, retry=Retry.OP_ID, reply_lost=0.1, restarts=3, deaths=1)
MOVING = Setting(operations=30, functions=(BALANCE, DEPOSIT, TRANSFER, TRANSFER), opening=2_000_000)


class Mutant(Owner):
    """An owner with a bug."""

    kinds: ClassVar[tuple[Kind, ...]]
    """What it may be called; the first is what it is."""
    setting: ClassVar[Setting] = PLAIN
    """In which it can show."""
    across_accounts: ClassVar[bool] = False

    @property
    def before(self) -> dict[str, Receipt]:
        """Each account's state before its last change."""
        return self.__dict__.setdefault("_before", {})


Change = Callable[..., Any]


def changes(method: Change) -> Change:
    """Take the account's state down before a change."""

    @wraps(method)
    def noted(self: Mutant, account: str, *args: Any, **options: Any) -> Any:
        state = self._receipts.get(account)
        answer = method(self, account, *args, **options)
        if state is not None and self._receipts.get(account) != state:
            self.before[account] = state
        return answer

    return noted


# -- updates ---------------------------------------------------------------------------------------


class LostUpdate(Mutant):
    """A deposit is made from the state before the last change, and overwrites it."""

    kinds = (Kind.LOST_UPDATE,)

    @changes
    def _deposit(self, account: str, amount: int) -> Receipt:
        old = self.before.get(account)
        if old is None or not self.fires(0.2):
            return super()._deposit(account, amount)
        receipt = self._receipts[account] = Receipt(old.seq + 1, old.balance + amount, self._epoch)
        return receipt


class LostUpdateUnderANewSeq(Mutant):
    """The same, with a counter of changes that is exact."""

    kinds = (Kind.LOST_UPDATE, Kind.WRONG_BALANCE)

    @changes
    def _deposit(self, account: str, amount: int) -> Receipt:
        old = self.before.get(account)
        if old is None or not self.fires(0.2):
            return super()._deposit(account, amount)
        seq = self._receipts[account].seq + 1
        receipt = self._receipts[account] = Receipt(seq, old.balance + amount, self._epoch)
        return receipt


class AcknowledgedBeforeApplied(Mutant):
    """Changes are acknowledged before they are safe: a restart loses the last ones."""

    kinds = (Kind.ACKNOWLEDGED_LOST,)
    setting = replace(RESTARTED, retry=Retry.NONE)

    @changes
    def _deposit(self, account: str, amount: int) -> Receipt:
        return super()._deposit(account, amount)

    def restart(self, *, keeps_state: bool) -> None:
        super().restart(keeps_state=keeps_state)
        for account, state in self.before.items():
            self.fired += 1
            self._receipts[account] = state
        self.before.clear()


class AcknowledgedAndNeverApplied(Mutant):
    """A withdrawal is acknowledged and not applied."""

    kinds = (Kind.ACKNOWLEDGED_LOST,)
    setting = replace(PLAIN, amounts=(1, 1000), opening=100_000)

    def _withdraw(self, account: str, amount: int) -> Receipt:
        state = self._receipts[account]
        if not self.fires(0.2):
            return super()._withdraw(account, amount)
        return Receipt(state.seq + 1, state.balance - amount, self._epoch)


class BlankAfterRestart(Mutant):
    """A new owner starts from the openings and says nothing."""

    kinds = (Kind.ACKNOWLEDGED_LOST,)
    setting = RESTARTED

    def restart(self, *, keeps_state: bool) -> None:
        super().restart(keeps_state=keeps_state)
        self.fired += 1
        for account in self._receipts:
            self._receipts[account] = Receipt(1, self.setting.opening, self._epoch)
        self._windows.clear()


# -- sent again ------------------------------------------------------------------------------------


class Twice(Mutant):
    """A deposit is applied twice."""

    kinds = (Kind.DUPLICATED,)

    def _deposit(self, account: str, amount: int) -> Receipt:
        if self.fires(0.1):
            super()._deposit(account, amount)
        return super()._deposit(account, amount)


class TwiceBehindItsReceipt(Mutant):
    """A deposit is applied once more when it was acknowledged."""

    kinds = (Kind.DUPLICATED,)

    def _deposit(self, account: str, amount: int) -> Receipt:
        receipt = super()._deposit(account, amount)
        if self.fires(0.1):
            super()._deposit(account, amount)
        return receipt


class AppliedOnEachResend(Mutant):
    """What is sent again is applied again, and answered with the first receipt."""

    kinds = (Kind.DUPLICATED,)
    setting = RESENT

    def deposit(self, account: str, amount: int, *, op_id: OpId = None) -> Receipt:
        seq = self._receipts[account].seq
        receipt = super().deposit(account, amount, op_id=op_id)
        if self._receipts[account].seq == seq:
            self.fired += 1
            self._deposit(account, amount)
        return receipt


class NoMemory(Mutant):
    """Op ids are ignored."""

    kinds = (Kind.DUPLICATED, Kind.CHANGED_ANSWER)
    setting = replace(RUN_AGAIN, reply_lost=0.1)

    def deposit(self, account: str, amount: int, *, op_id: OpId = None) -> Receipt:
        self.fired += self.caller[2] > 0
        return super().deposit(account, amount)


class MemoryLostInARestart(Mutant):
    """A restart keeps the accounts, and forgets which op ids they have seen."""

    kinds = (Kind.DUPLICATED, Kind.CHANGED_ANSWER)
    setting = RESTARTED

    def restart(self, *, keeps_state: bool) -> None:
        super().restart(keeps_state=keeps_state)
        self.fired += 1
        self._windows.clear()


class FreshReceipt(Mutant):
    """What is sent again has no effect, and is answered with the account's latest receipt."""

    kinds = (Kind.CHANGED_ANSWER,)
    setting = RUN_AGAIN

    def deposit(self, account: str, amount: int, *, op_id: OpId = None) -> Receipt:
        first = super().deposit(account, amount, op_id=op_id)
        latest = self._receipts[account]
        self.fired += latest != first
        return latest


class RejectionForgotten(Mutant):
    """A rejection is not kept: sent again, the operation may be granted."""

    kinds = (Kind.REJECTION_REVERSED,)
    setting = replace(RUN_AGAIN, amounts=(500, 1500))

    def withdraw(self, account: str, amount: int, *, op_id: OpId = None) -> Receipt:
        attempt = self.caller[2]
        fresh = None if op_id is None else (op_id[0], op_id[1] + 1000 * attempt)
        assert op_id is not None
        window = self._windows.get(op_id[0])
        outcome = window.recall(op_id[1], ("withdraw", account, amount)) if window else None
        if isinstance(outcome, Rejected) and attempt:
            receipt = super().withdraw(account, amount, op_id=fresh)
            self.fired += 1
            return receipt
        return super().withdraw(account, amount, op_id=op_id)


class GrantReversed(Mutant):
    """What was granted is rejected when it is sent again."""

    kinds = (Kind.REJECTION_REVERSED,)
    setting = RUN_AGAIN

    def deposit(self, account: str, amount: int, *, op_id: OpId = None) -> Receipt:
        seq = self._receipts[account].seq
        receipt = super().deposit(account, amount, op_id=op_id)
        if self._receipts[account].seq == seq and self.fires(0.5):
            raise InvalidAmount("no")
        return receipt


class OtherRejection(Mutant):
    """What was rejected is rejected for another reason when it is sent again."""

    kinds = (Kind.CHANGED_ANSWER,)
    setting = replace(RUN_AGAIN, functions=(WITHDRAW,), opening=10)

    def withdraw(self, account: str, amount: int, *, op_id: OpId = None) -> Receipt:
        if self.caller[2] and self.fires(0.5):
            raise InvalidAmount("no")
        return super().withdraw(account, amount, op_id=op_id)


# -- transfers -------------------------------------------------------------------------------------


class TornAtTheTarget(Mutant):
    """A transfer takes from its source, and its target gets nothing but a receipt."""

    kinds = (Kind.TORN_TRANSFER,)
    setting = MOVING

    def _transfer(self, source: str, target: str, amount: int) -> tuple[Receipt, Receipt]:
        state = self._receipts[target]
        receipts = super()._transfer(source, target, amount)
        if source != target and self.fires(0.1):
            self._receipts[target] = state
        return receipts


class TornAtTheSource(Mutant):
    """A transfer gives to its target what it does not take from its source."""

    kinds = (Kind.TORN_TRANSFER,)
    setting = MOVING

    def _transfer(self, source: str, target: str, amount: int) -> tuple[Receipt, Receipt]:
        state = self._receipts[source]
        receipts = super()._transfer(source, target, amount)
        if source != target and self.fires(0.1):
            self._receipts[source] = state
        return receipts


class TransferredTwice(Mutant):
    """Both legs of a transfer are applied twice."""

    kinds = (Kind.DUPLICATED,)
    setting = MOVING

    def _transfer(self, source: str, target: str, amount: int) -> tuple[Receipt, Receipt]:
        receipts = super()._transfer(source, target, amount)
        if self._receipts[source].balance >= amount and self.fires(0.1):
            super()._transfer(source, target, amount)
        return receipts


class LegsAtTwoInstants(Mutant):
    """A transfer's deposit is seen later than its withdrawal, before the transfer is acknowledged."""

    kinds = (Kind.TRANSFERS_OUT_OF_ORDER,)
    setting = Setting(clients=8, operations=40, accounts=2, functions=(BALANCE, BALANCE, TRANSFER), amounts=(1, 5))
    across_accounts = True
    _hidden: tuple[str, Receipt, Receipt, int] = ("", Receipt(0, 0, 0), Receipt(0, 0, 0), 0)

    def transfer(self, source: str, target: str, amount: int, *, op_id: OpId = None) -> tuple[Receipt, Receipt]:
        before = self._receipts[target]
        receipts = super().transfer(source, target, amount, op_id=op_id)
        self.takes = 150
        if source != target:
            self._hidden = (target, before, receipts[1], self.now + self.takes)
        return receipts

    def balance(self, account: str) -> Receipt:
        target, before, after, until = self._hidden
        if account == target and self._receipts[account] == after and self.now <= until:
            self.fired += 1
            return before
        return super().balance(account)


# -- reads -----------------------------------------------------------------------------------------


class StaleRead(Mutant):
    """Reads show the state before the last change, now and then."""

    kinds = (Kind.STALE_READ,)

    @changes
    def _deposit(self, account: str, amount: int) -> Receipt:
        return super()._deposit(account, amount)

    def balance(self, account: str) -> Receipt:
        if account in self.before and self.before[account].seq + 1 == self._receipts[account].seq and self.fires(0.5):
            return self.before[account]
        return super().balance(account)


class OwnWriteUnseen(Mutant):
    """Who has just changed an account reads the state before."""

    kinds = (Kind.STALE_READ,)
    setting = replace(PLAIN, accounts=1, clients=2)

    @changes
    def _deposit(self, account: str, amount: int) -> Receipt:
        self.__dict__["_last"] = self.caller[0]
        return super()._deposit(account, amount)

    def balance(self, account: str) -> Receipt:
        latest = super().balance(account)
        before = self.before.get(account)
        if before is not None and before.seq + 1 == latest.seq and self.__dict__["_last"] == self.caller[0]:
            self.fired += 1
            return before
        return latest


class DirtyRead(Mutant):
    """A read shows a change that is then given up, and was asked for by nobody."""

    kinds = (Kind.WRONG_BALANCE, Kind.SEQ_REUSED)

    def balance(self, account: str) -> Receipt:
        seq, balance, epoch = super().balance(account)
        return Receipt(seq + 1, balance + 13, epoch) if self.fires(0.2) else Receipt(seq, balance, epoch)


# -- refusals --------------------------------------------------------------------------------------


class RejectedAndApplied(Mutant):
    """A deposit is rejected, and has its effect."""

    kinds = (Kind.REJECTED_APPLIED,)

    def _deposit(self, account: str, amount: int) -> Receipt:
        receipt = super()._deposit(account, amount)
        if self.fires(0.1):
            raise InvalidAmount("no")
        return receipt


class UnavailableAndApplied(Mutant):
    """A deposit is answered as if it had not arrived, and has its effect."""

    kinds = (Kind.REJECTED_APPLIED,)

    def deposit(self, account: str, amount: int, *, op_id: OpId = None) -> Receipt:
        receipt = super().deposit(account, amount, op_id=op_id)
        if self.fires(0.1):
            raise Unavailable("not here")
        return receipt


class UnavailableAndAppliedThenResent(UnavailableAndApplied):
    """The same, and its caller sends it again with its op id."""

    kinds = (Kind.REJECTED_APPLIED,)
    setting = replace(PLAIN, retry=Retry.OP_ID, clients=8, accounts=1)


class RefusesAlthoughThereIsEnough(Mutant):
    """A withdrawal is rejected although the funds suffice."""

    kinds = (Kind.WRONG_REJECTION,)
    setting = replace(PLAIN, amounts=(1, 10))

    def _withdraw(self, account: str, amount: int) -> Receipt:
        if self.fires(0.2):
            raise InsufficientFunds("no")
        return super()._withdraw(account, amount)


class KnowsNoAccount(Mutant):
    """An account that is open is said to be unknown."""

    kinds = (Kind.WRONG_REJECTION,)

    def _balance(self, account: str) -> Receipt:
        if self.fires(0.1):
            raise UnknownAccount("no")
        return super()._balance(account)


class RefusesAGoodAmount(Mutant):
    """A deposit is rejected for its amount, which is as good as any."""

    kinds = (Kind.WRONG_REJECTION,)

    def _deposit(self, account: str, amount: int) -> Receipt:
        if self.fires(0.1):
            raise InvalidAmount("no")
        return super()._deposit(account, amount)


# -- money -----------------------------------------------------------------------------------------


class Overdraft(Mutant):
    """A withdrawal is granted that leaves less than nothing."""

    kinds = (Kind.OVERDRAFT,)

    def _withdraw(self, account: str, amount: int) -> Receipt:
        seq, balance, epoch = self._receipts[account]
        if balance >= amount or not self.fires(0.3):
            return super()._withdraw(account, amount)
        receipt = self._receipts[account] = Receipt(seq + 1, balance - amount, epoch)
        return receipt


class OverdraftHidden(Mutant):
    """A withdrawal is granted that the balance cannot pay, and leaves nothing."""

    kinds = (Kind.OVERDRAFT,)

    def _withdraw(self, account: str, amount: int) -> Receipt:
        seq, balance, epoch = self._receipts[account]
        if balance >= amount or not self.fires(0.3):
            return super()._withdraw(account, amount)
        receipt = self._receipts[account] = Receipt(seq + 1, 0, epoch)
        return receipt


class OffByOne(Mutant):
    """A deposit adds one too many."""

    kinds = (Kind.WRONG_BALANCE,)

    def _deposit(self, account: str, amount: int) -> Receipt:
        seq, balance, epoch = super()._deposit(account, amount)
        receipt = self._receipts[account] = Receipt(seq, balance + self.fires(0.1), epoch)
        return receipt


class OffByOneInTheReceipt(Mutant):
    """A deposit's receipt shows one too many."""

    kinds = (Kind.WRONG_BALANCE,)

    def _deposit(self, account: str, amount: int) -> Receipt:
        seq, balance, epoch = super()._deposit(account, amount)
        return Receipt(seq, balance + self.fires(0.1), epoch)


class WithdrawalCredited(Mutant):
    """A withdrawal is added."""

    kinds = (Kind.WRONG_BALANCE,)

    def _withdraw(self, account: str, amount: int) -> Receipt:
        return super()._deposit(account, amount) if self.fires(0.2) else super()._withdraw(account, amount)


class LeaksInARestart(Mutant):
    """A restart takes one from an account, which nobody's receipt shows."""

    kinds = (Kind.NOT_CONSERVED, Kind.WRONG_BALANCE)
    setting = replace(RESTARTED, operations=8, accounts=8)

    def restart(self, *, keeps_state: bool) -> None:
        super().restart(keeps_state=keeps_state)
        self.fired += 1
        seq, balance, epoch = self._receipts["account-0"]
        self._receipts["account-0"] = Receipt(seq, balance - 1, epoch)


class Phantom(Mutant):
    """An account changes, and nobody asked for it."""

    kinds = (Kind.PHANTOM,)

    def _deposit(self, account: str, amount: int) -> Receipt:
        if self.fires(0.1):
            super()._deposit(account, 13)
        return super()._deposit(account, amount)


class WrongAccount(Mutant):
    """A deposit goes to another account, whose receipt is the answer."""

    kinds = (Kind.PHANTOM, Kind.FOREIGN_REPLY, Kind.WRONG_BALANCE)

    def _deposit(self, account: str, amount: int) -> Receipt:
        if not self.fires(0.1):
            return super()._deposit(account, amount)
        other = next(each for each in self._receipts if each != account)
        return super()._deposit(other, amount)


# -- seqs and replies ------------------------------------------------------------------------------


class SeqGap(Mutant):
    """A number is left out."""

    kinds = (Kind.SEQ_GAP,)

    def _deposit(self, account: str, amount: int) -> Receipt:
        seq, balance, epoch = super()._deposit(account, amount)
        receipt = self._receipts[account] = Receipt(seq + self.fires(0.1), balance, epoch)
        return receipt


class SeqReused(Mutant):
    """A change gets the number of the one before."""

    kinds = (Kind.SEQ_REUSED,)

    def _deposit(self, account: str, amount: int) -> Receipt:
        seq, balance, epoch = super()._deposit(account, amount)
        receipt = self._receipts[account] = Receipt(seq - (seq > 2 and self.fires(0.2)), balance, epoch)
        return receipt


class ReplyOfAnother(Mutant):
    """A deposit is answered with the receipt of the account's last deposit."""

    kinds = (Kind.FOREIGN_REPLY,)

    def _deposit(self, account: str, amount: int) -> Receipt:
        last: dict[str, Receipt] = self.__dict__.setdefault("_last", {})
        receipt = super()._deposit(account, amount)
        answer = last[account] if account in last and self.fires(0.1) else receipt
        last[account] = receipt
        return answer


class ReplyFromAnotherAccount(Mutant):
    """A deposit is answered with the last receipt of another account."""

    kinds = (Kind.FOREIGN_REPLY, Kind.WRONG_BALANCE)
    setting = replace(PLAIN, clients=12, operations=20)

    def _deposit(self, account: str, amount: int) -> Receipt:
        last: dict[str, Receipt] = self.__dict__.setdefault("_last", {})
        receipt = super()._deposit(account, amount)
        others = [each for name, each in last.items() if name != account]
        last[account] = receipt
        return others[-1] if others and self.fires(0.1) else receipt


class Reordered(Mutant):
    """A deposit is put behind one that comes later."""

    kinds = (Kind.REORDERED,)
    setting = replace(PLAIN, functions=(DEPOSIT,), amounts=(1, 1))

    def _deposit(self, account: str, amount: int) -> Receipt:
        promised: set[str] = self.__dict__.setdefault("_promised", set())
        seq, balance, epoch = super()._deposit(account, amount)
        if account in promised:  # all deposits are alike: this one takes the place that was left free
            promised.discard(account)
            return Receipt(seq - 1, balance - amount, epoch)
        if self.fires(0.1):
            promised.add(account)
            return Receipt(seq + 1, balance + amount, epoch)
        return Receipt(seq, balance, epoch)


# -- owners ----------------------------------------------------------------------------------------


class Replaced(Mutant):
    """After a restart, the owner before it lives on."""

    setting = replace(PLAIN, restarts=2, operations=40)
    zombie: Owner | None = None

    def restart(self, *, keeps_state: bool) -> None:
        old = Owner()
        old._receipts.update(self._receipts)
        old._epoch = self._epoch
        self.zombie = old
        super().restart(keeps_state=keeps_state)

    def balance(self, account: str) -> Receipt:
        state = super().balance(account)
        return state._replace(epoch=self._epoch)


class ZombieReads(Replaced):
    """It still answers reads."""

    kinds = (Kind.ZOMBIE_OWNER, Kind.STALE_READ)

    def balance(self, account: str) -> Receipt:
        if self.zombie is not None and self.fires(0.3):
            return self.zombie.balance(account)
        return super().balance(account)


class ZombieChanges(Replaced):
    """It still takes deposits, which nobody else gets to know of."""

    kinds = (Kind.ZOMBIE_OWNER,)

    def deposit(self, account: str, amount: int, *, op_id: OpId = None) -> Receipt:
        if self.zombie is not None and self.fires(0.3):
            return self.zombie.deposit(account, amount, op_id=op_id)
        return super().deposit(account, amount, op_id=op_id)


class EpochGoesBack(Mutant):
    """Changes go on in one place, under the epoch of an owner that has been replaced now and then."""

    kinds = (Kind.ZOMBIE_OWNER,)
    setting = replace(PLAIN, restarts=3, operations=40)

    def _deposit(self, account: str, amount: int) -> Receipt:
        receipt = super()._deposit(account, amount)._replace(epoch=self._epoch)
        if self._receipts[account].seq > 3 and self._epoch > FIRST_EPOCH and self.fires(0.3):
            receipt = receipt._replace(epoch=self._epoch - 1)
        self._receipts[account] = receipt
        return receipt

    def _withdraw(self, account: str, amount: int) -> Receipt:
        receipt = self._receipts[account] = super()._withdraw(account, amount)._replace(epoch=self._epoch)
        return receipt
