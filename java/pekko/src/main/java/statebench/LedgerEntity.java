package statebench;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.List;
import java.util.Map;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.PostStop;
import org.apache.pekko.actor.typed.PreRestart;
import org.apache.pekko.actor.typed.SupervisorStrategy;
import org.apache.pekko.cluster.sharding.typed.javadsl.EntityTypeKey;
import org.apache.pekko.persistence.typed.PersistenceId;
import org.apache.pekko.persistence.typed.SnapshotAdapter;
import org.apache.pekko.persistence.typed.javadsl.CommandHandler;
import org.apache.pekko.persistence.typed.javadsl.Effect;
import org.apache.pekko.persistence.typed.javadsl.EventHandler;
import org.apache.pekko.persistence.typed.javadsl.EventSourcedBehavior;
import org.apache.pekko.persistence.typed.javadsl.SignalHandler;

/**
 * One ledger as an event-sourced actor: a batch is one event, which is in the log before its answer leaves.
 *
 * <p>A change is fenced by its write. An answer that writes nothing is given only after a look whether another node
 * writes the log by now: one that was paused must not tell what was true before.
 */
final class LedgerEntity extends EventSourcedBehavior<Ask, Event, Ledger> {

  static final EntityTypeKey<Ask> TYPE = EntityTypeKey.create(Ask.class, "ledger");

  /** So long a fenced ledger stays silent here: to begin again at once would fence the node that it moved to. */
  private static final Duration FENCED = Duration.ofSeconds(1);

  private static final Duration LONGEST_BACKOFF = Duration.ofSeconds(4);
  private static final int MAX_PAGE = 10_000;

  private final Logs logs;
  private final String name;
  private Outcome[] outcomes = {};
  private Ask waiting;
  private long fencedNanos;
  private boolean isFenced;

  private LedgerEntity(Logs logs, String name) {
    super(
        PersistenceId.ofUniqueId(name),
        SupervisorStrategy.restartWithBackoff(FENCED, LONGEST_BACKOFF, 0.1));
    this.logs = logs;
    this.name = name;
  }

  static Behavior<Ask> create(Logs logs, String name) {
    return new LedgerEntity(logs, name);
  }

  @Override
  public Ledger emptyState() {
    return new Ledger();
  }

  @Override
  public CommandHandler<Ask, Event, Ledger> commandHandler() {
    return newCommandHandlerBuilder().forAnyState().onAnyCommand(this::handle);
  }

  @Override
  public EventHandler<Ledger, Event> eventHandler() {
    return newEventHandlerBuilder().forAnyState().onAnyEvent(this::handle);
  }

  private Effect<Event, Ledger> handle(Ledger ledger, Ask ask) {
    if (ask.kind() == Ask.OPEN && !ledger.isOpen()) {
      long epoch = ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now());
      Event event = new Event.Opened(epoch, ByteBuffer.wrap(ask.payload()).getInt());
      waiting = ask;
      return Effect().persist(event).thenRun(opened -> reply(ask.answer(Answer.DONE, head(opened))));
    }
    if (ask.kind() == Ask.BATCH && ledger.isOpen() && ledger.epoch == ask.epoch()) {
      Batch batch;
      try {
        batch = Wire.decode(ask.payload());
      } catch (WireException error) {
        return unchanged(ask, ask.answer(Answer.REFUSED, error.getMessage()));
      }
      return apply(ledger, ask, batch);
    }
    return unchanged(ask, read(ledger, ask));
  }

  private Effect<Event, Ledger> apply(Ledger ledger, Ask ask, Batch batch) {
    Map<Integer, Outcome.Refusal> doubts = ledger.doubts(batch, System.nanoTime());
    int[] doubted = doubts.keySet().stream().mapToInt(Integer::intValue).sorted().toArray();
    if (batch.isRead()) {
      Outcome[] found = ledger.apply(batch, doubted, System.nanoTime());
      return unchanged(ask, answer(ledger, ask, found, doubts));
    }
    waiting = ask;
    return Effect()
        .persist(new Event.Applied(ask.payload(), batch, doubted))
        .thenRun(applied -> reply(answer(applied, ask, outcomes, doubts)));
  }

  private static Answer answer(
      Ledger ledger, Ask ask, Outcome[] outcomes, Map<Integer, Outcome.Refusal> doubts) {
    doubts.forEach((place, refusal) -> outcomes[place] = refusal);
    return ask.answer(Answer.DONE, Wire.encodeAnswers(outcomes, ledger.epoch));
  }

  private static Answer read(Ledger ledger, Ask ask) {
    if (ask.kind() == Ask.OPEN) {
      return ask.answer(Answer.DONE, head(ledger));
    }
    if (!ledger.isOpen() || ledger.epoch != ask.epoch()) {
      return ask.answer(Answer.GONE, new byte[0]);
    }
    if (ask.kind() == Ask.ACCOUNTS && ask.payload().length == 2 * Integer.BYTES) {
      ByteBuffer in = ByteBuffer.wrap(ask.payload());
      return ask.answer(Answer.DONE, accounts(ledger, in.getInt(), in.getInt()));
    }
    return ask.answer(Answer.REFUSED, "a request of the unknown kind " + ask.kind());
  }

  private static byte[] head(Ledger ledger) {
    return ByteBuffer.allocate(Long.BYTES + Integer.BYTES).putLong(ledger.epoch).putInt(ledger.shards).array();
  }

  private static byte[] accounts(Ledger ledger, int from, int most) {
    List<String[]> doubts =
        ledger.inDoubt(System.nanoTime()).values().stream().flatMap(List::stream).toList();
    if (!doubts.isEmpty()) {
      return Wire.encodeSnapshot(List.of(), List.of(), ledger.epoch, Doubts.json(doubts));
    }
    int begin = Math.max(0, Math.min(from, ledger.names.size()));
    int end = Math.min(begin + Math.max(0, Math.min(most, MAX_PAGE)), ledger.names.size());
    List<String> names = ledger.names.subList(begin, end);
    return Wire.encodeSnapshot(names, names.stream().map(ledger.states::get).toList(), ledger.epoch, "");
  }

  /** Tells what needs no write, unless the ledger has moved. */
  private Effect<Event, Ledger> unchanged(Ask ask, Answer answer) {
    long now = System.nanoTime();
    if (isFenced && now - fencedNanos > FENCED.toNanos()) {
      ask.replyTo().tell(ask.answer(Answer.REFUSED, "this ledger was written elsewhere"));
      return Effect().stop();
    }
    try {
      logs.of(name).checkCurrent();
      ask.replyTo().tell(answer);
    } catch (IOException error) {
      fencedNanos = isFenced ? fencedNanos : now;
      isFenced = true;
      ask.replyTo().tell(ask.answer(Answer.REFUSED, error.getMessage()));
    }
    return Effect().none();
  }

  private void reply(Answer answer) {
    waiting.replyTo().tell(answer);
    waiting = null;
  }

  private Ledger handle(Ledger ledger, Event event) {
    if (event instanceof Event.Opened opened) {
      ledger.open(opened.epoch(), opened.shards());
    } else if (event instanceof Event.Applied applied) {
      outcomes = ledger.apply(applied.batch(), applied.doubted(), System.nanoTime());
    }
    return ledger;
  }

  @Override
  public boolean shouldSnapshot(Ledger ledger, Event event, long number) {
    return ledger.isSnapshotDue();
  }

  @Override
  public SnapshotAdapter<Ledger> snapshotAdapter() {
    return new SnapshotAdapter<>() {
      @Override
      public Object toJournal(Ledger ledger) {
        ledger.noteSnapshot();
        return LedgerCodec.encode(ledger);
      }

      @Override
      public Ledger fromJournal(Object from) {
        return LedgerCodec.decode((byte[]) from, System.nanoTime());
      }
    };
  }

  @Override
  public SignalHandler<Ledger> signalHandler() {
    return newSignalHandlerBuilder()
        .onSignal(PreRestart.instance(), ledger -> giveUp())
        .onSignal(PostStop.instance(), ledger -> giveUp())
        .build();
  }

  private void giveUp() {
    if (waiting != null) {
      reply(waiting.answer(Answer.UNKNOWN, "the ledger's log could not be written, or it has moved"));
    }
    try {
      logs.release(name);
    } catch (IOException error) {
      throw new IllegalStateException(error);
    }
  }
}
