package statebench;

import java.nio.ByteBuffer;

/** What a ledger's log holds: that it came to be, or a batch that was applied. */
sealed interface Event {

  byte[] encoded();

  static Event decoded(byte[] bytes) {
    ByteBuffer in = ByteBuffer.wrap(bytes);
    byte kind = in.get();
    return switch (kind) {
      case Opened.KIND -> new Opened(in.getLong(), in.getInt());
      case Applied.KIND -> {
        int[] doubted = new int[in.getInt()];
        for (int place = 0; place < doubted.length; place++) {
          doubted[place] = in.getInt();
        }
        byte[] request = new byte[in.remaining()];
        in.get(request);
        yield new Applied(request, Wire.decode(request), doubted);
      }
      default -> throw new IllegalStateException("an event of the unknown kind " + kind);
    };
  }

  /** The ledger came to be. */
  record Opened(long epoch, int shards) implements Event {

    static final byte KIND = 0;

    @Override
    public byte[] encoded() {
      return ByteBuffer.allocate(1 + Long.BYTES + Integer.BYTES).put(KIND).putLong(epoch).putInt(shards).array();
    }
  }

  /**
   * A batch was applied: the request as it came, and the places of those operations that met credits in doubt.
   *
   * <p>Whether they do depends on the time, so it is a part of the event.
   */
  record Applied(byte[] request, Batch batch, int[] doubted) implements Event {

    static final byte KIND = 1;

    @Override
    public byte[] encoded() {
      ByteBuffer out = ByteBuffer.allocate(1 + Integer.BYTES * (1 + doubted.length) + request.length);
      out.put(KIND).putInt(doubted.length);
      for (int place : doubted) {
        out.putInt(place);
      }
      return out.put(request).array();
    }
  }
}
