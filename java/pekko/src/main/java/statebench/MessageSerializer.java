package statebench;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import org.apache.pekko.actor.ExtendedActorSystem;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorRefResolver;
import org.apache.pekko.actor.typed.javadsl.Adapter;
import org.apache.pekko.serialization.SerializerWithStringManifest;

/** The bytes of {@link Message}s between nodes. */
final class MessageSerializer extends SerializerWithStringManifest {

  private static final int IDENTIFIER = 4_200;
  private static final String ASK = "ask";
  private static final String ANSWER = "answer";

  private final ActorRefResolver actors;

  MessageSerializer(ExtendedActorSystem system) {
    actors = ActorRefResolver.get(Adapter.toTyped(system));
  }

  @Override
  public int identifier() {
    return IDENTIFIER;
  }

  @Override
  public String manifest(Object message) {
    return message instanceof Ask ? ASK : ANSWER;
  }

  @Override
  public byte[] toBinary(Object message) {
    if (message instanceof Ask ask) {
      byte[] replyTo = actors.toSerializationFormat(ask.replyTo()).getBytes(StandardCharsets.UTF_8);
      return ByteBuffer.allocate(2 * Integer.BYTES + 1 + Long.BYTES + replyTo.length + ask.payload().length)
          .putInt(ask.id())
          .put(ask.kind())
          .putLong(ask.epoch())
          .putInt(replyTo.length)
          .put(replyTo)
          .put(ask.payload())
          .array();
    }
    Answer answer = (Answer) message;
    return ByteBuffer.allocate(Integer.BYTES + 1 + answer.content().length)
        .putInt(answer.id())
        .put(answer.status())
        .put(answer.content())
        .array();
  }

  @Override
  public Object fromBinary(byte[] bytes, String manifest) {
    ByteBuffer in = ByteBuffer.wrap(bytes);
    if (manifest.equals(ANSWER)) {
      return new Answer(in.getInt(), in.get(), rest(in));
    }
    int id = in.getInt();
    byte kind = in.get();
    long epoch = in.getLong();
    byte[] name = new byte[in.getInt()];
    in.get(name);
    ActorRef<Answer> replyTo = actors.resolveActorRef(new String(name, StandardCharsets.UTF_8));
    return new Ask(id, kind, epoch, rest(in), replyTo);
  }

  static byte[] rest(ByteBuffer in) {
    byte[] rest = new byte[in.remaining()];
    in.get(rest);
    return rest;
  }
}
