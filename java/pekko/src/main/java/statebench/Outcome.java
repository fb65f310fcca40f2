package statebench;

/** What became of one operation. */
sealed interface Outcome {

  /** What a step answers that leaves no receipt: no change has seq 0. */
  Receipt NOTHING = new Receipt(0, 0);

  /** An account's state after a change, or when it was read. */
  record Receipt(long seq, long balance) implements Outcome {}

  /** Both accounts' states after a transfer within one ledger. */
  record Receipts(Receipt source, Receipt target) implements Outcome {}

  /** Why there was no change. */
  record Refusal(Reason reason, String text) implements Outcome {}

  /** The errors of the wire form, in the order of their codes there. */
  enum Reason {
    UNKNOWN_ACCOUNT,
    ACCOUNT_EXISTS,
    INSUFFICIENT_FUNDS,
    INVALID_AMOUNT,
    INVALID_ACCOUNT,
    OUT_OF_SCOPE,
    OPERATION_MISMATCH,
    OPERATION_EXPIRED,
    UNAVAILABLE,
    STATE_LOST,
    INDETERMINATE,
    IN_DOUBT;

    private static final Reason[] BY_PLACE = values();

    static Reason at(int place) {
      return BY_PLACE[place];
    }

    Refusal because(String text) {
      return new Refusal(this, text);
    }
  }
}
