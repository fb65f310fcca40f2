package statebench;

import com.typesafe.config.Config;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.pekko.actor.AbstractExtensionId;
import org.apache.pekko.actor.ActorSystem;
import org.apache.pekko.actor.ClassicActorSystemProvider;
import org.apache.pekko.actor.ExtendedActorSystem;
import org.apache.pekko.actor.Extension;

/** The logs that this node writes, by the persistence ids of their ledgers. */
final class Logs implements Extension {

  private static final Id ID = new Id();

  private final Path directory;
  private final boolean syncs;
  private final Map<String, Log> claimed = new ConcurrentHashMap<>();

  private Logs(Config config) {
    directory = Path.of(config.getString("directory"));
    syncs = config.getBoolean("fsync");
  }

  static Logs get(ClassicActorSystemProvider system) {
    return ID.get(system);
  }

  /** Begins to write this ledger's log. */
  Log claim(String ledger) throws IOException {
    release(ledger);
    Log log = Log.claim(pathOf(ledger), syncs);
    claimed.put(ledger, log);
    return log;
  }

  /** The log that was claimed here last. */
  Log of(String ledger) throws IOException {
    Log log = claimed.get(ledger);
    if (log == null) {
      throw new Fenced("this node does not write " + ledger);
    }
    return log;
  }

  Log.Snapshot newest(String ledger, long most) throws IOException {
    return Log.newest(pathOf(ledger), most);
  }

  /** Writes it no more. */
  void release(String ledger) throws IOException {
    Log log = claimed.remove(ledger);
    if (log != null) {
      log.close();
    }
  }

  private Path pathOf(String ledger) {
    return directory.resolve(ledger);
  }

  private static final class Id extends AbstractExtensionId<Logs> {

    @Override
    public Logs createExtension(ExtendedActorSystem system) {
      return new Logs(system.settings().config().getConfig("state-bench"));
    }

    @Override
    public Logs get(ActorSystem system) {
      return super.get(system);
    }
  }
}
