package statebench;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessagePackException;
import org.msgpack.core.MessageUnpacker;

/** The wire form of batches, answers and snapshots; strategies/support/wire.py says what it is. */
final class Wire {

  static final int VERSION = 1;

  private static final int REQUEST_ITEMS = 9;
  private static final int MAX_SESSION_BYTES = 256;
  private static final int FIRST_ERROR = 2;

  private Wire() {}

  /** The operations in a request. */
  static Batch decode(byte[] payload) {
    try (MessageUnpacker in = MessagePack.newDefaultUnpacker(payload)) {
      int items = in.unpackArrayHeader();
      int version = in.unpackInt();
      if (version != VERSION) {
        throw new WireException(
            "a message of version %d, where %d is known; install one release everywhere"
                .formatted(version, VERSION));
      }
      if (items != REQUEST_ITEMS) {
        throw new WireException(
            "a message of %d items, where version %d has %d".formatted(items, VERSION, REQUEST_ITEMS));
      }
      byte[] functions = binary(in);
      String[] accounts = texts(in);
      long[] amounts = integers(binary(in), functions.length);
      String[] targets = texts(in);
      String[] sessions = texts(in);
      long[] sessionOf = integersIfAny(binary(in), functions.length);
      long[] numbers = integersIfAny(binary(in), functions.length);
      Batch batch =
          new Batch(functions, accounts, amounts, targets, sessions, sessionOf, numbers, texts(in));
      check(batch);
      return batch;
    } catch (IOException | MessagePackException error) {
      throw new WireException("these bytes are cut off, or no message at all: " + error.getMessage());
    }
  }

  /** Half a batch must not be applied before a column is found bad. */
  private static void check(Batch batch) {
    int targets = 0;
    int steps = 0;
    for (byte code : batch.functions()) {
      if (code < 0 || code > Batch.FORGET) {
        throw new WireException("there is no function " + code);
      }
      targets += Batch.hasTarget(code) ? 1 : 0;
      steps += Batch.isStep(code) ? 1 : 0;
    }
    if (batch.accounts().length != batch.size()
        || batch.targets().length != targets
        || batch.attempts().length != steps) {
      throw new WireException("columns differ in length");
    }
    for (long amount : batch.amounts()) {
      if (Math.abs(amount) > Ledger.MAX_MONEY + 1) {
        throw new WireException("an amount is out of range");
      }
    }
    if (batch.numbers().length > 0) {
      checkOpIds(batch);
    }
  }

  private static void checkOpIds(Batch batch) {
    for (long number : batch.numbers()) {
      if (number < Batch.NO_NUMBER || number > Ledger.MAX_MONEY) {
        throw new WireException("an op id's number is out of range");
      }
    }
    for (String session : batch.sessions()) {
      int size = session.getBytes(StandardCharsets.UTF_8).length;
      if (size == 0 || size > MAX_SESSION_BYTES || session.chars().anyMatch(Character::isISOControl)) {
        throw new WireException("an op id's session is printable text of 1 to 256 bytes");
      }
    }
    if (batch.sessions().length == 0) {
      throw new WireException("an op id has no session");
    }
    for (long place : batch.sessionOf()) {
      if (place < 0 || place >= batch.sessions().length) {
        throw new WireException("an op id has no session");
      }
    }
  }

  /** The answer's bytes, from a ledger of this epoch. */
  static byte[] encodeAnswers(Outcome[] outcomes, long epoch) {
    byte[] kinds = new byte[outcomes.length];
    int plain = 0;
    int pairs = 0;
    int errors = 0;
    for (int place = 0; place < outcomes.length; place++) {
      if (outcomes[place] instanceof Outcome.Receipt) {
        plain++;
      } else if (outcomes[place] instanceof Outcome.Receipts) {
        kinds[place] = 1;
        pairs++;
      } else if (outcomes[place] instanceof Outcome.Refusal refusal) {
        kinds[place] = (byte) (FIRST_ERROR + refusal.reason().ordinal());
        errors++;
      }
    }
    long[] seqs = new long[plain + 2 * pairs];
    long[] balances = new long[plain + 2 * pairs];
    String[] texts = new String[errors];
    int receipt = 0;
    int pair = plain;
    int error = 0;
    for (Outcome outcome : outcomes) {
      if (outcome instanceof Outcome.Receipt it) {
        seqs[receipt] = it.seq();
        balances[receipt++] = it.balance();
      } else if (outcome instanceof Outcome.Receipts both) {
        seqs[pair] = both.source().seq();
        balances[pair] = both.source().balance();
        seqs[pair + pairs] = both.target().seq();
        balances[pair + pairs] = both.target().balance();
        pair++;
      } else if (outcome instanceof Outcome.Refusal refusal) {
        texts[error++] = refusal.text();
      }
    }
    try (MessageBufferPacker out = MessagePack.newDefaultBufferPacker()) {
      out.packArrayHeader(6).packInt(VERSION).packLong(epoch);
      pack(out, pairs == 0 && errors == 0 ? new byte[0] : kinds);
      pack(out, packed(seqs));
      pack(out, packed(balances));
      out.packArrayHeader(errors);
      for (String text : texts) {
        out.packString(text);
      }
      return out.toByteArray();
    } catch (IOException error1) {
      throw new IllegalStateException(error1); // it writes to memory
    }
  }

  /** The bytes of these accounts' states; or why they cannot be told yet. */
  static byte[] encodeSnapshot(
      List<String> accounts, List<Outcome.Receipt> states, long epoch, String inDoubt) {
    try (MessageBufferPacker out = MessagePack.newDefaultBufferPacker()) {
      out.packArrayHeader(6).packInt(VERSION).packLong(epoch);
      out.packArrayHeader(accounts.size());
      for (String account : accounts) {
        out.packString(account);
      }
      pack(out, packed(states.stream().mapToLong(Outcome.Receipt::seq).toArray()));
      pack(out, packed(states.stream().mapToLong(Outcome.Receipt::balance).toArray()));
      out.packString(inDoubt);
      return out.toByteArray();
    } catch (IOException error) {
      throw new IllegalStateException(error); // it writes to memory
    }
  }

  private static void pack(MessageBufferPacker out, byte[] binary) throws IOException {
    out.packBinaryHeader(binary.length).writePayload(binary);
  }

  private static byte[] packed(long[] column) {
    boolean isNarrow = true;
    for (long value : column) {
      isNarrow &= value >>> 32 == 0;
    }
    int width = isNarrow ? Integer.BYTES : Long.BYTES;
    ByteBuffer out = ByteBuffer.allocate(width * column.length).order(ByteOrder.LITTLE_ENDIAN);
    for (long value : column) {
      if (isNarrow) {
        out.putInt((int) value);
      } else {
        out.putLong(value);
      }
    }
    return out.array();
  }

  private static byte[] binary(MessageUnpacker in) throws IOException {
    return in.readPayload(in.unpackBinaryHeader());
  }

  private static String[] texts(MessageUnpacker in) throws IOException {
    int size = in.unpackArrayHeader();
    if (size > FrontDoor.MAX_BYTES) {
      throw new WireException("a column of " + size + " texts");
    }
    String[] found = new String[size];
    for (int place = 0; place < size; place++) {
      found[place] = in.unpackString();
    }
    return found;
  }

  private static long[] integersIfAny(byte[] column, int size) {
    return column.length == 0 ? new long[0] : integers(column, size);
  }

  private static long[] integers(byte[] column, int size) {
    boolean isNarrow = column.length == size * Integer.BYTES;
    if (!isNarrow && column.length != size * Long.BYTES) {
      throw new WireException("a column of integers has neither 4 nor 8 bytes each");
    }
    ByteBuffer in = ByteBuffer.wrap(column).order(ByteOrder.LITTLE_ENDIAN);
    long[] found = new long[size];
    for (int place = 0; place < size; place++) {
      found[place] = isNarrow ? Integer.toUnsignedLong(in.getInt()) : in.getLong();
    }
    return found;
  }
}
