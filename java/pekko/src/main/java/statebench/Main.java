package statebench;

import java.util.Optional;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.pekko.actor.ClassicActorSystemProvider;
import org.apache.pekko.actor.CoordinatedShutdown;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.cluster.typed.SelfUp;

/** Program: a node, which begins again as a new member when the others have given it up. */
public final class Main {

  private static final AtomicReference<String> PROBLEM = new AtomicReference<>();

  private Main() {}

  /** Runs until it is told to end. Settings are system properties: see application.conf. */
  public static void main(String[] arguments) {
    boolean isDowned;
    do {
      ActorSystem<SelfUp> system = started();
      system.getWhenTerminated().toCompletableFuture().join();
      if (PROBLEM.get() != null) {
        giveUp(PROBLEM.get());
      }
      Optional<CoordinatedShutdown.Reason> reason = CoordinatedShutdown.get(system).getShutdownReason();
      isDowned = reason.isPresent() && reason.get() == CoordinatedShutdown.clusterDowningReason();
    } while (isDowned);
  }

  private static ActorSystem<SelfUp> started() {
    try {
      return ActorSystem.create(Node.create(), "state-bench");
    } catch (RuntimeException error) { // such as a port that somebody else has
      giveUp(error.toString().lines().findFirst().orElse("") + ", " + error.getCause());
      throw error;
    }
  }

  /** Ends the process once all is logged: it cannot do its work. */
  static void giveUp(ClassicActorSystemProvider system, String why) {
    PROBLEM.set(why);
    system.classicSystem().terminate();
  }

  private static void giveUp(String why) {
    System.err.println("this node ends: " + why);
    Runtime.getRuntime().halt(1);
  }
}
