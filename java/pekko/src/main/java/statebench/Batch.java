package statebench;

/**
 * Operations by column, as in the wire form (strategies/support/wire.py).
 *
 * @param targets of those functions alone that name another account
 * @param sessionOf for each operation the place of its session; empty if there are fewer than two
 * @param numbers {@link #NO_NUMBER} where there is none; empty if no operation has one
 * @param attempts of steps alone
 */
record Batch(
    byte[] functions,
    String[] accounts,
    long[] amounts,
    String[] targets,
    String[] sessions,
    long[] sessionOf,
    long[] numbers,
    String[] attempts) {

  static final int OPEN_ACCOUNT = 0;
  static final int DEPOSIT = 1;
  static final int WITHDRAW = 2;
  static final int TRANSFER = 3;
  static final int BALANCE = 4;
  static final int PEND = 5;
  static final int DEBIT = 6;
  static final int POST = 7;
  static final int VOID = 8;
  static final int SETTLE = 9;
  static final int FORGET = 10;

  static final long NO_NUMBER = -1;

  static boolean hasTarget(int code) {
    return code == TRANSFER || code == PEND || code == DEBIT;
  }

  static boolean isStep(int code) {
    return code > BALANCE;
  }

  int size() {
    return functions.length;
  }

  /** The number of the operation at this place, {@link #NO_NUMBER} if it has none. */
  long number(int place) {
    return numbers.length == 0 ? NO_NUMBER : numbers[place];
  }

  /** The session of the operation at this place, which has a number. */
  String session(int place) {
    return sessions[sessionOf.length == 0 ? 0 : (int) sessionOf[place]];
  }

  /** Whether all of it only reads. */
  boolean isRead() {
    for (byte code : functions) {
      if (code != BALANCE) {
        return false;
      }
    }
    return true;
  }
}
