package statebench;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.regex.Pattern;
import org.apache.pekko.actor.AbstractActor;
import org.apache.pekko.actor.ActorRef;
import org.apache.pekko.actor.Props;
import org.apache.pekko.actor.typed.javadsl.Adapter;
import org.apache.pekko.cluster.sharding.typed.ShardingEnvelope;
import org.apache.pekko.io.Tcp;
import org.apache.pekko.io.TcpMessage;
import org.apache.pekko.util.ByteString;

/**
 * One client's connection. Requests may follow each other before they are answered, and answers come in any order.
 *
 * <p>Both begin with their length, 4 bytes, and the id of the request, 4 bytes. In a request, the kind (1 byte), the
 * ledger's epoch (8 bytes), the length of its name (1 byte), the name and the payload follow; in an answer the status
 * (1 byte) and the content. Integers are big-endian.
 */
final class Connection extends AbstractActor {

  private static final Tcp.Event WRITTEN = new Written();
  private static final Pattern NAME = Pattern.compile("[0-9A-Za-z_-]{1,64}");
  private static final int HEAD_BYTES = 4 + 4 + 1 + 8 + 1;

  private final ActorRef client;
  private final org.apache.pekko.actor.typed.ActorRef<ShardingEnvelope<Ask>> ledgers;
  private ByteString received = ByteString.emptyByteString();
  private ByteString unsent = ByteString.emptyByteString();
  private boolean isWriting;
  private boolean isSuspended;
  private boolean isOver;

  /** The kernel has taken what was written. */
  private record Written() implements Tcp.Event {}

  private Connection(ActorRef client, org.apache.pekko.actor.typed.ActorRef<ShardingEnvelope<Ask>> ledgers) {
    this.client = client;
    this.ledgers = ledgers;
  }

  static Props props(ActorRef client, org.apache.pekko.actor.typed.ActorRef<ShardingEnvelope<Ask>> ledgers) {
    return Props.create(Connection.class, () -> new Connection(client, ledgers));
  }

  @Override
  public Receive createReceive() {
    return receiveBuilder()
        .match(Answer.class, this::send)
        .match(Tcp.Received.class, arrived -> receive(arrived.data()))
        .match(Written.class, written -> goOn())
        .match(Tcp.ConnectionClosed.class, closed -> getContext().stop(getSelf()))
        .match(Tcp.CommandFailed.class, failed -> getContext().stop(getSelf()))
        .build();
  }

  private void receive(ByteString data) {
    received = received.isEmpty() ? data : received.concat(data);
    while (received.size() >= Integer.BYTES && !isOver) {
      int size = received.iterator().getInt(ByteOrder.BIG_ENDIAN);
      if (size < HEAD_BYTES - Integer.BYTES || size > FrontDoor.MAX_BYTES) {
        refuse(size);
        return;
      }
      if (received.size() < Integer.BYTES + size) {
        return;
      }
      forward(received.slice(Integer.BYTES, Integer.BYTES + size).toByteBuffer());
      received = received.drop(Integer.BYTES + size).compact();
    }
  }

  /** Where a message ends is not known any more. */
  private void refuse(int size) {
    isOver = true;
    int id = received.size() >= 2 * Integer.BYTES ? received.drop(Integer.BYTES).iterator().getInt(ByteOrder.BIG_ENDIAN) : 0;
    send(
        new Answer(
            id,
            Answer.REFUSED,
            "a message has %d to %d bytes, not %d; split it"
                .formatted(HEAD_BYTES - Integer.BYTES, FrontDoor.MAX_BYTES, Integer.toUnsignedLong(size))
                .getBytes(StandardCharsets.UTF_8)));
  }

  private void forward(ByteBuffer request) {
    int id = request.getInt();
    byte kind = request.get();
    long epoch = request.getLong();
    byte[] name = new byte[Math.min(Byte.toUnsignedInt(request.get()), request.remaining())];
    request.get(name);
    String ledger = new String(name, StandardCharsets.US_ASCII);
    Ask ask = new Ask(id, kind, epoch, MessageSerializer.rest(request), Adapter.toTyped(getSelf()));
    if (NAME.matcher(ledger).matches()) {
      ledgers.tell(new ShardingEnvelope<>(ledger, ask));
    } else {
      send(ask.answer(Answer.REFUSED, "a ledger's name has 1 to 64 letters, digits, - and _"));
    }
  }

  private void send(Answer answer) {
    ByteBuffer out = ByteBuffer.allocate(2 * Integer.BYTES + 1 + answer.content().length);
    out.putInt(out.capacity() - Integer.BYTES).putInt(answer.id()).put(answer.status()).put(answer.content());
    unsent = unsent.concat(ByteString.fromArrayUnsafe(out.array()));
    if (!isWriting) {
      goOn();
    } else if (unsent.size() > FrontDoor.MAX_BYTES && !isSuspended) {
      isSuspended = true; // who does not read answers has no more requests read
      client.tell(TcpMessage.suspendReading(), getSelf());
    }
  }

  private void goOn() {
    isWriting = !unsent.isEmpty();
    if (isWriting) {
      client.tell(TcpMessage.write(unsent, WRITTEN), getSelf());
      unsent = ByteString.emptyByteString();
    } else if (isOver) {
      client.tell(TcpMessage.close(), getSelf());
    }
    if (isSuspended) {
      isSuspended = false;
      client.tell(TcpMessage.resumeReading(), getSelf());
    }
  }
}
