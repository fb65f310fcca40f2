package statebench;

import java.util.Collection;
import java.util.HashMap;
import java.util.Map;

/** The outcomes of the last {@link #SIZE} op-id numbers of one session, counted from the highest seen. */
final class OpWindow {

  static final int SIZE = 10_000;

  private final Map<Integer, Slot> slots = new HashMap<>();
  private long highest = -1;

  /** An operation and what became of it. */
  record Slot(long number, Payload payload, Outcome outcome) {}

  /** What an operation was; the target of those that have none is empty. */
  record Payload(int code, String account, String target, long amount) {}

  /** What became of this operation, or why that cannot be told; null if it is new. */
  Outcome recall(long number, Payload payload) {
    if (number > highest) {
      return null;
    }
    if (number <= highest - SIZE) {
      return Outcome.Reason.OPERATION_EXPIRED.because(
          "op id number %d is %d behind its session's highest; use a new one"
              .formatted(number, highest - number));
    }
    Slot slot = slots.get(place(number));
    if (slot == null || slot.number() != number) {
      return null;
    }
    if (!slot.payload().equals(payload)) {
      return Outcome.Reason.OPERATION_MISMATCH.because(
          "op id number %d was used for another operation; use a new one".formatted(number));
    }
    return slot.outcome();
  }

  /**
   * Keeps the outcome of an operation that {@link #recall} called new.
   *
   * <p>Unless it has left the window since, as a credit can that was pending: its slot is a newer one's.
   */
  void remember(long number, Payload payload, Outcome outcome) {
    if (number <= highest - SIZE) {
      return;
    }
    slots.put(place(number), new Slot(number, payload, outcome));
    reach(number);
  }

  void reach(long number) {
    highest = Math.max(highest, number);
  }

  long highest() {
    return highest;
  }

  Collection<Slot> slots() {
    return slots.values();
  }

  private static int place(long number) {
    return (int) (number % SIZE);
  }
}
