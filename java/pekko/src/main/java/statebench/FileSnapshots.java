package statebench;

import java.io.IOException;
import java.util.Optional;
import org.apache.pekko.dispatch.Futures;
import org.apache.pekko.persistence.SelectedSnapshot;
import org.apache.pekko.persistence.SnapshotMetadata;
import org.apache.pekko.persistence.SnapshotSelectionCriteria;
import org.apache.pekko.persistence.snapshot.japi.SnapshotStore;
import scala.concurrent.Future;

/** The snapshot plugin: each ledger's snapshots, already bytes, beside its {@link Log}. */
final class FileSnapshots extends SnapshotStore {

  private final Logs logs = Logs.get(context().system());

  @Override
  public Future<Optional<SelectedSnapshot>> doLoadAsync(
      String ledger, SnapshotSelectionCriteria criteria) {
    try {
      return Futures.successful(
          Optional.ofNullable(logs.newest(ledger, criteria.maxSequenceNr()))
              .map(
                  found ->
                      new SelectedSnapshot(
                          new SnapshotMetadata(ledger, found.last(), 0), found.content())));
    } catch (IOException error) {
      return Futures.failed(error);
    }
  }

  @Override
  public Future<Void> doSaveAsync(SnapshotMetadata metadata, Object snapshot) {
    try {
      logs.of(metadata.persistenceId())
          .save(new Log.Snapshot(metadata.sequenceNr(), (byte[]) snapshot));
    } catch (IOException error) {
      return Futures.failed(error);
    }
    return Futures.successful(null);
  }

  /** Does nothing: a newer snapshot removes older ones. */
  @Override
  public Future<Void> doDeleteAsync(SnapshotMetadata metadata) {
    return Futures.successful(null);
  }

  /** Does nothing: a newer snapshot removes older ones. */
  @Override
  public Future<Void> doDeleteAsync(String ledger, SnapshotSelectionCriteria criteria) {
    return Futures.successful(null);
  }
}
