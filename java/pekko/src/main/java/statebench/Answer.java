package statebench;

/** The answer to an {@link Ask}. */
record Answer(int id, byte status, byte[] content) implements Message {

  /** The content is what was asked for. */
  static final byte DONE = 0;

  /** There is no ledger of this name and epoch; nothing was applied. */
  static final byte GONE = 1;

  /** Nothing was applied; the content says why. */
  static final byte REFUSED = 2;

  /** What was asked for may have happened or not; the content says why nobody knows. */
  static final byte UNKNOWN = 3;
}
