package statebench;

import java.util.Optional;
import org.apache.pekko.actor.CoordinatedShutdown;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.cluster.typed.SelfUp;

/** Program: a node, which begins again as a new member when the others have given it up. */
public final class Main {

  private Main() {}

  /** Runs until it is told to end. Settings are system properties: see application.conf. */
  public static void main(String[] arguments) {
    boolean isDowned;
    do {
      ActorSystem<SelfUp> system = ActorSystem.create(Node.create(), "state-bench");
      system.getWhenTerminated().toCompletableFuture().join();
      Optional<CoordinatedShutdown.Reason> reason = CoordinatedShutdown.get(system).getShutdownReason();
      isDowned = reason.isPresent() && reason.get() == CoordinatedShutdown.clusterDowningReason();
    } while (isDowned);
  }

  /** Ends the process: it cannot do its work. */
  static void giveUp(String why) {
    System.err.println("this node ends: " + why);
    Runtime.getRuntime().halt(1);
  }
}
