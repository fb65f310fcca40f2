package statebench;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import statebench.OpWindow.Payload;
import statebench.Outcome.Reason;
import statebench.Outcome.Receipt;
import statebench.Outcome.Refusal;

/**
 * Accounts and the memory of op ids: the same state machine as strategies/support/ledger.py and two_phase.py.
 *
 * <p>The same operations lead to the same state whenever they are applied, which is what makes them events. What
 * depends on the time, credits in doubt, is asked for before: see {@link #doubts}.
 */
final class Ledger {

  static final long MAX_MONEY = (1L << 53) - 1;

  private static final int MAX_ACCOUNT_BYTES = 256;
  private static final long IN_DOUBT_NANOS = 500_000_000;

  /** Attempts of which is remembered that they were refused or posted. */
  private static final int KEPT = 65_536;

  private static final int LEAST_BETWEEN_SNAPSHOTS = 20_000;

  long epoch;
  int shards;

  /** In the order of their opening, which pages of a snapshot rely on. */
  final List<String> names = new ArrayList<>();

  final Map<String, Receipt> states = new HashMap<>();
  final Map<String, OpWindow> windows = new HashMap<>();
  final Map<String, Pending> pending = new LinkedHashMap<>();
  final Map<String, Receipt> debits = new HashMap<>();
  final Map<String, Receipt> refused = new LinkedHashMap<>();
  final Map<String, Receipt> posted = new LinkedHashMap<>();
  final Map<String, Receipt> tight = new LinkedHashMap<>();

  private final Map<OpKey, String> pendingOps = new HashMap<>();
  private long most = MAX_MONEY;
  private int remembered;
  private int sinceSnapshot;

  /** One operation across resends. */
  record OpKey(String session, long number) {}

  /** A credit that is neither posted nor void. */
  record Pending(String account, String source, long amount, OpKey op, long sinceNanos) {

    Payload payload() {
      return new Payload(Batch.TRANSFER, source, account, amount);
    }
  }

  boolean isOpen() {
    return epoch != 0;
  }

  void open(long newEpoch, int newShards) {
    epoch = newEpoch;
    shards = newShards;
  }

  /**
   * Whether another snapshot is due: when as many operations were applied since the last one as it has entries.
   *
   * <p>Then snapshots cost a constant part of all work, and a recovery is as long as two of them.
   */
  boolean isSnapshotDue() {
    return sinceSnapshot >= Math.max(LEAST_BETWEEN_SNAPSHOTS, names.size() + remembered);
  }

  void noteSnapshot() {
    sinceSnapshot = 0;
  }

  // -- batches ---------------------------------------------------------------------------------

  /** The refusals of those operations that meet credits in doubt, by their places; they are not to be applied. */
  Map<Integer, Refusal> doubts(Batch batch, long nowNanos) {
    Map<String, List<String[]>> inDoubt = inDoubt(nowNanos);
    if (inDoubt.isEmpty()) {
      return Map.of();
    }
    Map<Integer, Refusal> found = new HashMap<>();
    int nextTarget = 0;
    for (int place = 0; place < batch.size(); place++) {
      int code = batch.functions()[place];
      String target = Batch.hasTarget(code) ? batch.targets()[nextTarget++] : "";
      if (code > Batch.DEBIT) {
        continue;
      }
      List<String[]> doubts = new ArrayList<>(inDoubt.getOrDefault(batch.accounts()[place], List.of()));
      if (!Batch.isStep(code)) {
        doubts.addAll(inDoubt.getOrDefault(target, List.of()));
      }
      if (!doubts.isEmpty()) {
        found.put(place, Doubts.of(doubts));
      }
    }
    return found;
  }

  /** For each account that has credits in doubt, their attempts and sources. */
  Map<String, List<String[]>> inDoubt(long nowNanos) {
    if (pending.isEmpty()) {
      return Map.of();
    }
    Map<String, List<String[]>> found = new LinkedHashMap<>();
    pending.forEach(
        (attempt, credit) -> {
          if (nowNanos - credit.sinceNanos() > IN_DOUBT_NANOS) {
            found
                .computeIfAbsent(credit.account(), account -> new ArrayList<>())
                .add(new String[] {attempt, credit.source()});
          }
        });
    return found;
  }

  /**
   * Works through a batch in order.
   *
   * @param doubted the places to leave out, rising; their outcomes are null
   */
  Outcome[] apply(Batch batch, int[] doubted, long nowNanos) {
    sinceSnapshot += batch.size();
    Outcome[] outcomes = new Outcome[batch.size()];
    int nextTarget = 0;
    int nextAttempt = 0;
    int nextDoubted = 0;
    for (int place = 0; place < outcomes.length; place++) {
      int code = batch.functions()[place];
      String account = batch.accounts()[place];
      long amount = batch.amounts()[place];
      String other = Batch.hasTarget(code) ? batch.targets()[nextTarget++] : "";
      String attempt = Batch.isStep(code) ? batch.attempts()[nextAttempt++] : "";
      if (nextDoubted < doubted.length && doubted[nextDoubted] == place) {
        nextDoubted++;
        continue;
      }
      long number = batch.number(place);
      OpKey op = number < 0 ? null : new OpKey(batch.session(place), number);
      outcomes[place] =
          switch (code) {
            case Batch.BALANCE -> balance(account);
            case Batch.PEND -> pend(attempt, new Pending(account, other, amount, op, nowNanos));
            case Batch.DEBIT -> debit(attempt, account, other, amount, op);
            case Batch.POST -> post(attempt);
            case Batch.VOID -> voided(attempt);
            case Batch.SETTLE -> settle(attempt);
            case Batch.FORGET -> forget(attempt);
            default -> once(op, new Payload(code, account, other, amount));
          };
    }
    return outcomes;
  }

  private Outcome once(OpKey op, Payload payload) {
    Outcome known = known(op, payload);
    if (known != null) {
      return known;
    }
    Outcome outcome =
        switch (payload.code()) {
          case Batch.OPEN_ACCOUNT -> openAccount(payload.account(), payload.amount());
          case Batch.DEPOSIT -> deposit(payload.account(), payload.amount());
          case Batch.WITHDRAW -> withdraw(payload.account(), payload.amount());
          default -> transfer(payload.account(), payload.target(), payload.amount());
        };
    remember(op, payload, outcome);
    return outcome;
  }

  private Outcome balance(String account) {
    Receipt state = states.get(account);
    return state == null ? unknown(account) : state;
  }

  private Outcome openAccount(String account, long opening) {
    Refusal invalid = invalid(account);
    if (invalid != null) {
      return invalid;
    }
    if (opening < 0 || opening > MAX_MONEY) {
      return Reason.INVALID_AMOUNT.because(
          "an opening balance is from 0 to %d, not %d".formatted(MAX_MONEY, opening));
    }
    if (states.containsKey(account)) {
      return Reason.ACCOUNT_EXISTS.because(
          "account '%s' was opened before; deposit into it".formatted(account));
    }
    names.add(account);
    return put(account, new Receipt(1, opening));
  }

  private Outcome deposit(String account, long amount) {
    if (!isAmount(amount)) {
      return badAmount(amount);
    }
    Receipt state = states.get(account);
    if (state == null) {
      return unknown(account);
    }
    if (state.balance() + amount > most) {
      return overTheTop(account, amount);
    }
    return put(account, new Receipt(state.seq() + 1, state.balance() + amount));
  }

  private Outcome withdraw(String account, long amount) {
    if (!isAmount(amount)) {
      return badAmount(amount);
    }
    Receipt state = states.get(account);
    if (state == null) {
      return unknown(account);
    }
    if (state.balance() < amount) {
      return overdraft(account, amount);
    }
    return put(account, new Receipt(state.seq() + 1, state.balance() - amount));
  }

  /** Checks both legs before it changes either, so that nothing has to be undone. */
  private Outcome transfer(String source, String target, long amount) {
    if (!isAmount(amount)) {
      return badAmount(amount);
    }
    Receipt from = states.get(source);
    Receipt to = states.get(target);
    if (from == null || to == null) {
      return unknown(from == null ? source : target);
    }
    if (from.balance() < amount) {
      return overdraft(source, amount);
    }
    if (!source.equals(target) && to.balance() + amount > most) {
      return overTheTop(target, amount);
    }
    Receipt debit = put(source, new Receipt(from.seq() + 1, from.balance() - amount));
    to = states.get(target); // of a transfer to itself, the account's second change
    return new Outcome.Receipts(debit, put(target, new Receipt(to.seq() + 1, to.balance() + amount)));
  }

  private Receipt put(String account, Receipt state) {
    states.put(account, state);
    return state;
  }

  // -- steps of transfers between ledgers --------------------------------------------------------

  /** Keeps room for a credit; strategies/support/two_phase.py says why it answers as it does. */
  private Outcome pend(String attempt, Pending credit) {
    Outcome known = known(credit.op(), credit.payload());
    if (known != null) {
      return known;
    }
    String other = credit.op() == null ? null : pendingOps.get(credit.op());
    if (other != null) {
      return Doubts.of(List.<String[]>of(new String[] {other, pending.get(other).source()}));
    }
    Receipt state = states.get(credit.account());
    Refusal refusal = null;
    if (!isAmount(credit.amount())) {
      refusal = badAmount(credit.amount());
    } else if (state == null) {
      refusal = unknown(credit.account());
    } else if (state.balance() + credit.amount() > most) {
      refusal = overTheTop(credit.account(), credit.amount());
      if (!tight.containsKey(attempt)) {
        keep(tight, attempt, Outcome.NOTHING);
        return refusal;
      }
    }
    if (refusal != null) {
      remember(credit.op(), credit.payload(), refusal);
      return refusal;
    }
    hold(attempt, credit);
    return Outcome.NOTHING;
  }

  /** Also for a credit that was pending when the snapshot was made that this ledger comes from. */
  void hold(String attempt, Pending credit) {
    pending.put(attempt, credit);
    most -= credit.amount();
    if (credit.op() != null) {
      pendingOps.put(credit.op(), attempt);
    }
  }

  /** The moment at which a transfer happens. */
  private Outcome debit(String attempt, String source, String target, long amount, OpKey op) {
    if (refused.containsKey(attempt)) {
      return Reason.UNAVAILABLE.because(
          "another caller settled this transfer before its debit; send it again");
    }
    if (debits.containsKey(attempt)) {
      return debits.get(attempt);
    }
    Payload payload = new Payload(Batch.TRANSFER, source, target, amount);
    Outcome known = known(op, payload);
    if (known != null) {
      return known;
    }
    Outcome outcome = withdraw(source, amount);
    if (outcome instanceof Receipt receipt) {
      debits.put(attempt, receipt);
    }
    remember(op, payload, outcome);
    return outcome;
  }

  /** Makes the credit. */
  private Outcome post(String attempt) {
    if (posted.containsKey(attempt)) {
      return posted.get(attempt);
    }
    Pending credit = taken(attempt);
    if (credit == null) {
      return Reason.INDETERMINATE.because(
          "this credit is not pending here; send the transfer again with its op id");
    }
    Receipt before = states.get(credit.account());
    Receipt state =
        put(credit.account(), new Receipt(before.seq() + 1, before.balance() + credit.amount()));
    remember(credit.op(), credit.payload(), state);
    keep(posted, attempt, state);
    return state;
  }

  /** Never makes the credit. */
  private Outcome voided(String attempt) {
    taken(attempt);
    return Outcome.NOTHING;
  }

  /** The debit's state; if there was none, there never will be. */
  private Outcome settle(String attempt) {
    Receipt debit = debits.get(attempt);
    if (debit != null) {
      return debit;
    }
    keep(refused, attempt, Outcome.NOTHING);
    return Outcome.NOTHING;
  }

  /** The transfer is over at both ends: nobody will ask for its debit. */
  private Outcome forget(String attempt) {
    debits.remove(attempt);
    return Outcome.NOTHING;
  }

  private Pending taken(String attempt) {
    Pending credit = pending.remove(attempt);
    if (credit != null) {
      most += credit.amount();
      if (credit.op() != null) {
        pendingOps.remove(credit.op());
      }
    }
    return credit;
  }

  private static void keep(Map<String, Receipt> known, String attempt, Receipt value) {
    known.put(attempt, value);
    if (known.size() > 2 * KEPT) {
      Iterator<String> oldest = known.keySet().iterator();
      while (known.size() > KEPT) {
        oldest.next();
        oldest.remove();
      }
    }
  }

  // -- op ids ------------------------------------------------------------------------------------

  private Outcome known(OpKey op, Payload payload) {
    return op == null ? null : window(op.session()).recall(op.number(), payload);
  }

  private void remember(OpKey op, Payload payload, Outcome outcome) {
    if (op != null) {
      OpWindow window = window(op.session());
      int before = window.slots().size();
      window.remember(op.number(), payload, outcome);
      remembered += window.slots().size() - before;
    }
  }

  /** Takes over the highest number that was seen, whose operation may be forgotten since. */
  void reach(String session, long highest) {
    window(session).reach(highest);
  }

  /** Takes over what another ledger remembered. */
  void recall(String session, long number, Payload payload, Outcome outcome) {
    remember(new OpKey(session, number), payload, outcome);
  }

  private OpWindow window(String session) {
    return windows.computeIfAbsent(session, each -> new OpWindow());
  }

  // -- refusals ----------------------------------------------------------------------------------

  private static boolean isAmount(long amount) {
    return 0 < amount && amount <= MAX_MONEY;
  }

  private static Refusal badAmount(long amount) {
    return Reason.INVALID_AMOUNT.because("an amount is from 1 to %d, not %d".formatted(MAX_MONEY, amount));
  }

  private static Refusal overTheTop(String account, long amount) {
    return Reason.INVALID_AMOUNT.because(
        "%d would take the balance of '%s' above %d".formatted(amount, account, MAX_MONEY));
  }

  private static Refusal overdraft(String account, long amount) {
    return Reason.INSUFFICIENT_FUNDS.because(
        "account '%s' holds less than %d; withdraw at most its balance".formatted(account, amount));
  }

  private static Refusal unknown(String account) {
    Refusal invalid = invalid(account);
    return invalid != null
        ? invalid
        : Reason.UNKNOWN_ACCOUNT.because(
            "no account '%s' was opened here; call open_account first".formatted(account));
  }

  private static Refusal invalid(String account) {
    if (account.isEmpty()) {
      return Reason.INVALID_ACCOUNT.because("an account id is not empty; give the account a name");
    }
    int size = account.getBytes(StandardCharsets.UTF_8).length;
    return size <= MAX_ACCOUNT_BYTES
        ? null
        : Reason.INVALID_ACCOUNT.because(
            "an account id has at most %d bytes of UTF-8, this one has %d"
                .formatted(MAX_ACCOUNT_BYTES, size));
  }
}
