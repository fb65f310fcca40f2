package statebench;

import java.io.IOException;
import java.util.Map;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessageUnpacker;
import statebench.Ledger.OpKey;
import statebench.Ledger.Pending;
import statebench.OpWindow.Payload;
import statebench.OpWindow.Slot;
import statebench.Outcome.Reason;
import statebench.Outcome.Receipt;

/** A ledger's whole state as bytes, and back: what a snapshot of it holds. */
final class LedgerCodec {

  private static final int VERSION = 1;

  private LedgerCodec() {}

  static byte[] encode(Ledger ledger) {
    try (MessageBufferPacker out = MessagePack.newDefaultBufferPacker()) {
      out.packInt(VERSION).packLong(ledger.epoch).packInt(ledger.shards);
      out.packInt(ledger.names.size());
      for (String name : ledger.names) {
        out.packString(name);
        pack(out, ledger.states.get(name));
      }
      out.packInt(ledger.windows.size());
      for (Map.Entry<String, OpWindow> window : ledger.windows.entrySet()) {
        out.packString(window.getKey());
        pack(out, window.getValue());
      }
      out.packInt(ledger.pending.size());
      for (Map.Entry<String, Pending> each : ledger.pending.entrySet()) {
        out.packString(each.getKey());
        pack(out, each.getValue());
      }
      pack(out, ledger.debits);
      pack(out, ledger.refused);
      pack(out, ledger.posted);
      pack(out, ledger.tight);
      return out.toByteArray();
    } catch (IOException error) {
      throw new IllegalStateException(error); // it writes to memory
    }
  }

  /** The ledger, whose credits have been pending since now. */
  static Ledger decode(byte[] bytes, long nowNanos) {
    try (MessageUnpacker in = MessagePack.newDefaultUnpacker(bytes)) {
      int version = in.unpackInt();
      if (version != VERSION) {
        throw new IllegalStateException(
            "a snapshot of version %d, where %d is known".formatted(version, VERSION));
      }
      Ledger ledger = new Ledger();
      ledger.open(in.unpackLong(), in.unpackInt());
      for (int left = in.unpackInt(); left > 0; left--) {
        String name = in.unpackString();
        ledger.names.add(name);
        ledger.states.put(name, receipt(in));
      }
      for (int left = in.unpackInt(); left > 0; left--) {
        unpackWindow(in, ledger, in.unpackString());
      }
      for (int left = in.unpackInt(); left > 0; left--) {
        ledger.hold(in.unpackString(), pending(in, nowNanos));
      }
      unpack(in, ledger.debits);
      unpack(in, ledger.refused);
      unpack(in, ledger.posted);
      unpack(in, ledger.tight);
      return ledger;
    } catch (IOException error) {
      throw new IllegalStateException(error); // it reads from memory
    }
  }

  private static void pack(MessageBufferPacker out, OpWindow window) throws IOException {
    out.packLong(window.highest()).packInt(window.slots().size());
    for (Slot slot : window.slots()) {
      Payload payload = slot.payload();
      out.packLong(slot.number()).packInt(payload.code());
      out.packString(payload.account()).packString(payload.target()).packLong(payload.amount());
      pack(out, slot.outcome());
    }
  }

  private static void unpackWindow(MessageUnpacker in, Ledger ledger, String session) throws IOException {
    ledger.reach(session, in.unpackLong());
    for (int left = in.unpackInt(); left > 0; left--) {
      long number = in.unpackLong();
      Payload payload =
          new Payload(in.unpackInt(), in.unpackString(), in.unpackString(), in.unpackLong());
      ledger.recall(session, number, payload, outcome(in));
    }
  }

  private static void pack(MessageBufferPacker out, Outcome outcome) throws IOException {
    if (outcome instanceof Receipt receipt) {
      out.packInt(0);
      pack(out, receipt);
    } else if (outcome instanceof Outcome.Receipts both) {
      out.packInt(1);
      pack(out, both.source());
      pack(out, both.target());
    } else if (outcome instanceof Outcome.Refusal refusal) {
      out.packInt(2 + refusal.reason().ordinal());
      out.packString(refusal.text());
    }
  }

  private static Outcome outcome(MessageUnpacker in) throws IOException {
    int kind = in.unpackInt();
    return switch (kind) {
      case 0 -> receipt(in);
      case 1 -> new Outcome.Receipts(receipt(in), receipt(in));
      default -> Reason.at(kind - 2).because(in.unpackString());
    };
  }

  private static void pack(MessageBufferPacker out, Receipt receipt) throws IOException {
    out.packLong(receipt.seq()).packLong(receipt.balance());
  }

  private static Receipt receipt(MessageUnpacker in) throws IOException {
    return new Receipt(in.unpackLong(), in.unpackLong());
  }

  private static void pack(MessageBufferPacker out, Pending credit) throws IOException {
    out.packString(credit.account()).packString(credit.source()).packLong(credit.amount());
    out.packString(credit.op() == null ? "" : credit.op().session());
    out.packLong(credit.op() == null ? Batch.NO_NUMBER : credit.op().number());
  }

  private static Pending pending(MessageUnpacker in, long nowNanos) throws IOException {
    String account = in.unpackString();
    String source = in.unpackString();
    long amount = in.unpackLong();
    String session = in.unpackString();
    long number = in.unpackLong();
    OpKey op = number == Batch.NO_NUMBER ? null : new OpKey(session, number);
    return new Pending(account, source, amount, op, nowNanos);
  }

  private static void pack(MessageBufferPacker out, Map<String, Receipt> attempts) throws IOException {
    out.packInt(attempts.size());
    for (Map.Entry<String, Receipt> each : attempts.entrySet()) {
      out.packString(each.getKey());
      pack(out, each.getValue());
    }
  }

  private static void unpack(MessageUnpacker in, Map<String, Receipt> attempts) throws IOException {
    for (int left = in.unpackInt(); left > 0; left--) {
      attempts.put(in.unpackString(), receipt(in));
    }
  }
}
