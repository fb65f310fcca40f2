package statebench;

import java.net.InetSocketAddress;
import org.apache.pekko.actor.AbstractActor;
import org.apache.pekko.actor.Props;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.cluster.sharding.typed.ShardingEnvelope;
import org.apache.pekko.io.Tcp;
import org.apache.pekko.io.TcpMessage;
import org.apache.pekko.io.TcpSO;

/** The port at which clients connect, each to a {@link Connection} of its own. */
final class FrontDoor extends AbstractActor {

  /** Of one message: the largest batch of the longest names takes half of it. */
  static final int MAX_BYTES = 1 << 24;

  private static final int BACKLOG = 1024;

  private final ActorRef<ShardingEnvelope<Ask>> ledgers;
  private final InetSocketAddress address;

  private FrontDoor(ActorRef<ShardingEnvelope<Ask>> ledgers, InetSocketAddress address) {
    this.ledgers = ledgers;
    this.address = address;
  }

  static Props props(ActorRef<ShardingEnvelope<Ask>> ledgers, InetSocketAddress address) {
    return Props.create(FrontDoor.class, () -> new FrontDoor(ledgers, address));
  }

  @Override
  public void preStart() {
    Tcp.get(getContext().getSystem()).manager().tell(TcpMessage.bind(getSelf(), address, BACKLOG), getSelf());
  }

  @Override
  public Receive createReceive() {
    return receiveBuilder()
        .match(Tcp.Connected.class, connected -> accept())
        .match(
            Tcp.CommandFailed.class,
            failed -> Main.giveUp(getContext().getSystem(), "%s is in use".formatted(address)))
        .build();
  }

  private void accept() {
    var connection = getContext().actorOf(Connection.props(getSender(), ledgers));
    getSender().tell(TcpMessage.register(connection), getSelf());
    getSender().tell(TcpSO.tcpNoDelay(true), getSelf());
  }
}
