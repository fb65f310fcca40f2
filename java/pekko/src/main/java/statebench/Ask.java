package statebench;

import java.nio.charset.StandardCharsets;
import org.apache.pekko.actor.typed.ActorRef;

/**
 * A request to a ledger.
 *
 * @param id the caller's, for the answer
 * @param epoch of the ledger that the caller means
 */
record Ask(int id, byte kind, long epoch, byte[] payload, ActorRef<Answer> replyTo) implements Message {

  /** A batch in the wire form. */
  static final byte BATCH = 0;

  /** A part of all accounts: the place of the first, and how many at most. */
  static final byte ACCOUNTS = 1;

  /** Have the ledger come to be if it is not there; the payload is the number of the bank's ledgers. */
  static final byte OPEN = 2;

  Answer answer(byte status, byte[] content) {
    return new Answer(id, status, content);
  }

  Answer answer(byte status, String text) {
    return answer(status, text.getBytes(StandardCharsets.UTF_8));
  }
}
