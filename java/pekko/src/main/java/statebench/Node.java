package statebench;

import com.typesafe.config.Config;
import java.net.InetSocketAddress;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.javadsl.Adapter;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.cluster.sharding.typed.ShardingEnvelope;
import org.apache.pekko.cluster.sharding.typed.javadsl.ClusterSharding;
import org.apache.pekko.cluster.sharding.typed.javadsl.Entity;
import org.apache.pekko.cluster.typed.Cluster;
import org.apache.pekko.cluster.typed.Join;
import org.apache.pekko.cluster.typed.SelfUp;
import org.apache.pekko.cluster.typed.Subscribe;

/** One member of the cluster: it holds ledgers, and opens its port to clients when it is up. */
final class Node {

  private Node() {}

  static Behavior<SelfUp> create() {
    return Behaviors.setup(
        context -> {
          Logs logs = Logs.get(context.getSystem());
          ActorRef<ShardingEnvelope<Ask>> ledgers =
              ClusterSharding.get(context.getSystem())
                  .init(
                      Entity.of(
                          LedgerEntity.TYPE, entity -> LedgerEntity.create(logs, entity.getEntityId())));
          Cluster.get(context.getSystem())
              .subscriptions()
              .tell(Subscribe.create(context.getSelf(), SelfUp.class));
          joinIfAlone(context.getSystem());
          Config config = context.getSystem().settings().config().getConfig("state-bench");
          InetSocketAddress address = new InetSocketAddress(config.getString("host"), config.getInt("port"));
          return Behaviors.receive(SelfUp.class)
              .onMessage(
                  SelfUp.class,
                  up -> {
                    Adapter.actorOf(context, FrontDoor.props(ledgers, address), "front-door");
                    return Behaviors.same();
                  })
              .build();
        });
  }

  /** Without seed nodes, there will be no others. */
  private static void joinIfAlone(ActorSystem<?> system) {
    Cluster cluster = Cluster.get(system);
    if (system.settings().config().getStringList("pekko.cluster.seed-nodes").isEmpty()) {
      cluster.manager().tell(Join.create(cluster.selfMember().address()));
    }
  }
}
