package statebench;

import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.channels.OverlappingFileLockException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.function.Consumer;
import org.apache.pekko.actor.ExtendedActorSystem;
import org.apache.pekko.coordination.lease.LeaseSettings;
import org.apache.pekko.coordination.lease.javadsl.Lease;

/**
 * Who may go on when two nodes miss each other: who holds the lock on a file in the directory that they share.
 *
 * <p>The kernel lets go of the lock of a process that dies, and keeps that of one that is paused.
 */
final class FileLease extends Lease {

  private static final String NAME = "lease";

  private final LeaseSettings settings;
  private final Path path;
  private FileChannel held;

  FileLease(LeaseSettings settings, ExtendedActorSystem system) {
    this.settings = settings;
    path = Path.of(system.settings().config().getString("state-bench.directory")).resolve(NAME);
    system.registerOnTermination(this::letGo);
  }

  @Override
  public LeaseSettings getSettings() {
    return settings;
  }

  @Override
  public CompletionStage<Boolean> acquire() {
    try {
      return CompletableFuture.completedFuture(isLocked());
    } catch (IOException error) {
      return CompletableFuture.failedFuture(error);
    }
  }

  /** The lock of a process that lives is not lost, so there is nothing to call back for. */
  @Override
  public CompletionStage<Boolean> acquire(Consumer<Optional<Throwable>> leaseLost) {
    return acquire();
  }

  @Override
  public CompletionStage<Boolean> release() {
    letGo();
    return CompletableFuture.completedFuture(true);
  }

  @Override
  public synchronized boolean checkLease() {
    return held != null;
  }

  private synchronized boolean isLocked() throws IOException {
    if (held != null) {
      return true;
    }
    FileChannel file = FileChannel.open(path, StandardOpenOption.CREATE, StandardOpenOption.WRITE);
    try {
      if (file.tryLock() != null) {
        held = file;
        return true;
      }
    } catch (OverlappingFileLockException error) {
      // an actor system of this process that is about to end has it
    }
    file.close();
    return false;
  }

  private synchronized void letGo() {
    try {
      if (held != null) {
        held.close();
      }
    } catch (IOException error) {
      throw new IllegalStateException(error);
    } finally {
      held = null;
    }
  }
}
