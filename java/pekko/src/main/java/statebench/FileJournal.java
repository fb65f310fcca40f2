package statebench;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.function.Consumer;
import org.apache.pekko.persistence.AtomicWrite;
import org.apache.pekko.persistence.PersistentRepr;
import org.apache.pekko.persistence.journal.japi.AsyncWriteJournal;
import org.apache.pekko.dispatch.Futures;
import scala.concurrent.Future;
import scala.jdk.javaapi.CollectionConverters;

/** The journal plugin: each ledger's events in its {@link Log}, which recovery claims. */
final class FileJournal extends AsyncWriteJournal {

  private final Logs logs = Logs.get(context().system());

  @Override
  public Future<Iterable<Optional<Exception>>> doAsyncWriteMessages(Iterable<AtomicWrite> writes) {
    List<Optional<Exception>> written = new ArrayList<>();
    try {
      for (AtomicWrite write : writes) {
        List<byte[]> events = new ArrayList<>();
        for (PersistentRepr each : CollectionConverters.asJava(write.payload())) {
          events.add(((Event) each.payload()).encoded());
        }
        logs.of(write.persistenceId()).append(write.lowestSequenceNr(), events);
        written.add(Optional.empty());
      }
    } catch (IOException error) {
      return Futures.failed(error);
    }
    return Futures.successful(written);
  }

  @Override
  public Future<Long> doAsyncReadHighestSequenceNr(String ledger, long from) {
    try {
      return Futures.successful(logs.claim(ledger).last());
    } catch (IOException error) {
      return Futures.failed(error);
    }
  }

  @Override
  public Future<Void> doAsyncReplayMessages(
      String ledger, long from, long to, long most, Consumer<PersistentRepr> callback) {
    try {
      logs.of(ledger)
          .replay(
              from,
              most < to - from ? from + most - 1 : to,
              (number, content, end) ->
                  callback.accept(
                      PersistentRepr.apply(
                          Event.decoded(content), number, ledger, "", false, null, "")));
    } catch (IOException error) {
      return Futures.failed(error);
    }
    return Futures.successful(null);
  }

  /** Does nothing: a snapshot removes what it makes superfluous. */
  @Override
  public Future<Void> doAsyncDeleteMessagesTo(String ledger, long to) {
    return Futures.successful(null);
  }
}
