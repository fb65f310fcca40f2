package statebench;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.DirectoryStream;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.NavigableSet;
import java.util.TreeSet;

/**
 * The events and snapshots of one ledger, in a directory that several nodes share, with one writer at a time.
 *
 * <p>Events are in segments with rising numbers. Whoever begins to write begins a new segment, then reads what was
 * there before: to begin the segment n + 1 is to fence the writer of n. That one looks, after each write and before
 * it says that it is done, whether there is a segment n + 1. If there is none, its write came before the other read.
 * So no lock is held, and nobody has to wait for a writer that was paused, wherever that was.
 *
 * <p>The numbers of events have no gaps; a reader that finds one was overtaken, and begins again.
 */
final class Log implements AutoCloseable {

  private static final String SEGMENT = ".log";
  private static final String SNAPSHOT = ".snapshot";
  private static final int CLAIMS = 100;
  private static final long ROLL_BYTES = 1 << 20;
  private static final int SNAPSHOTS_KEPT = 2;

  private final Path directory;
  private final boolean syncs;
  private long number;
  private FileChannel file;
  private List<Part> parts = new ArrayList<>();
  private long written;
  private long last;

  /** A segment of which the first {@code length} bytes count, with events up to {@code last}. */
  record Part(long segment, long length, long last) {

    static final int BYTES = 3 * Long.BYTES;
  }

  /** A stored snapshot. */
  record Snapshot(long last, byte[] content) {}

  private Log(Path directory, boolean syncs, long number, FileChannel file) {
    this.directory = directory;
    this.syncs = syncs;
    this.number = number;
    this.file = file;
  }

  /** Begins to write, and so fences whoever did before. */
  static Log claim(Path directory, boolean syncs) throws IOException {
    Files.createDirectories(directory);
    for (int turn = 0; turn < CLAIMS; turn++) {
      NavigableSet<Long> segments = numbers(directory, SEGMENT);
      long number = segments.isEmpty() ? 1 : segments.last() + 1;
      Log log;
      try {
        log = new Log(directory, syncs, number, created(directory, number));
      } catch (FileAlreadyExistsException error) {
        continue; // somebody else was faster, and is fenced in the next turn
      }
      try {
        log.inherit(segments.descendingSet());
        return log;
      } catch (IOException | RuntimeException error) {
        log.close();
        throw error;
      }
    }
    throw new IOException("%d others began to write %s".formatted(CLAIMS, directory));
  }

  private static FileChannel created(Path directory, long number) throws IOException {
    return FileChannel.open(
        path(directory, number, SEGMENT), StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE);
  }

  /** Takes over what the newest segment with a head lists, and that segment; those without acknowledged nothing. */
  private void inherit(Iterable<Long> downwards) throws IOException {
    for (long segment : downwards) {
      List<Part> found = new ArrayList<>();
      long[] reached = {-1, 0};
      Segment.read(
          path(directory, segment, SEGMENT),
          Long.MAX_VALUE,
          (event, content, end) -> {
            if (reached[0] < 0) {
              ByteBuffer head = ByteBuffer.wrap(content);
              reached[0] = head.getLong();
              while (head.hasRemaining()) {
                found.add(new Part(head.getLong(), head.getLong(), head.getLong()));
              }
            } else {
              reached[0] = event;
            }
            reached[1] = end;
          });
      if (reached[0] >= 0) {
        last = reached[0];
        parts = found;
        addPart(new Part(segment, reached[1], last));
        break;
      }
    }
    writeHead();
  }

  private void addPart(Part part) {
    if (part.last() > (parts.isEmpty() ? 0 : parts.get(parts.size() - 1).last())) {
      parts.add(part);
    }
  }

  private void writeHead() throws IOException {
    ByteBuffer head = ByteBuffer.allocate(Long.BYTES + parts.size() * Part.BYTES).putLong(last);
    parts.forEach(part -> head.putLong(part.segment()).putLong(part.length()).putLong(part.last()));
    write(0, List.of(head.array()));
    syncDirectory();
  }

  /** The number of the last event. */
  long last() {
    return last;
  }

  /** Reads the events that were there when this writer began, from this number on, without a gap. */
  void replay(long from, long to, Segment.Reader reader) throws IOException {
    long[] next = {from};
    for (Part part : parts) {
      if (part.last() < from) {
        continue;
      }
      Segment.read(
          path(directory, part.segment(), SEGMENT),
          part.length(),
          (event, content, end) -> {
            if (event == next[0] && event <= to) {
              reader.read(event, content, end);
              next[0]++;
            }
          });
    }
    if (next[0] <= Math.min(to, last)) {
      throw new IOException("%s lacks the event %d: begin again".formatted(directory, next[0]));
    }
  }

  /** Appends events from this number on; on return they are what the next writer will find. */
  synchronized void append(long from, List<byte[]> events) throws IOException {
    if (from != last + 1) {
      throw new IOException("%s is at event %d, not before %d".formatted(directory, last, from));
    }
    write(from, events);
    last += events.size();
  }

  private void write(long from, List<byte[]> contents) throws IOException {
    ByteBuffer bytes = ByteBuffer.allocate(contents.stream().mapToInt(Segment::sizeOf).sum());
    long event = from;
    for (byte[] content : contents) {
      Segment.put(bytes, event++, content);
    }
    bytes.flip();
    long end = written + bytes.remaining();
    while (bytes.hasRemaining()) { // a disk that is full throws
      file.write(bytes, end - bytes.remaining());
    }
    if (syncs) {
      file.force(false);
    }
    checkCurrent();
    written = end;
  }

  /**
   * Returns if nobody else had begun to write by now.
   *
   * @throws Fenced somebody has
   */
  synchronized void checkCurrent() throws Fenced {
    // Segments are removed in the order of their numbers: where the next one is gone, so is this one.
    if (Files.exists(path(directory, number + 1, SEGMENT))
        || Files.notExists(path(directory, number, SEGMENT))) {
      throw new Fenced("another node writes %s now".formatted(directory));
    }
  }

  // -- snapshots ---------------------------------------------------------------------------------

  /** The newest snapshot of no event beyond this; null if there is none. It need not be this writer's. */
  static Snapshot newest(Path directory, long most) throws IOException {
    if (Files.notExists(directory)) {
      return null;
    }
    for (long event : numbers(directory, SNAPSHOT).descendingSet()) {
      if (event <= most) {
        try {
          return new Snapshot(event, Files.readAllBytes(path(directory, event, SNAPSHOT)));
        } catch (NoSuchFileException error) {
          return newest(directory, most); // removed meanwhile, since there is a newer one
        }
      }
    }
    return null;
  }

  /** Stores the state after this event, and removes what is needed no more. */
  synchronized void save(Snapshot snapshot) throws IOException {
    Path unfinished = path(directory, snapshot.last(), SNAPSHOT + "." + number);
    try (FileChannel out =
        FileChannel.open(
            unfinished,
            StandardOpenOption.CREATE,
            StandardOpenOption.WRITE,
            StandardOpenOption.TRUNCATE_EXISTING)) {
      ByteBuffer content = ByteBuffer.wrap(snapshot.content());
      while (content.hasRemaining()) {
        out.write(content);
      }
      if (syncs) {
        out.force(true);
      }
    } catch (IOException error) {
      Files.deleteIfExists(unfinished);
      throw error;
    }
    Files.move(unfinished, path(directory, snapshot.last(), SNAPSHOT), StandardCopyOption.ATOMIC_MOVE);
    syncDirectory();
    try (DirectoryStream<Path> others = Files.newDirectoryStream(directory, "*" + SNAPSHOT + ".*")) {
      for (Path other : others) {
        Files.deleteIfExists(other); // of writers that died, or are fenced
      }
    }
    NavigableSet<Long> snapshots = numbers(directory, SNAPSHOT);
    while (snapshots.size() > SNAPSHOTS_KEPT) {
      Files.deleteIfExists(path(directory, snapshots.pollFirst(), SNAPSHOT));
    }
    checkCurrent();
    for (long segment : numbers(directory, SEGMENT).headSet(number)) {
      boolean isNeeded =
          parts.stream().anyMatch(part -> part.segment() == segment && part.last() > snapshot.last());
      if (isNeeded) {
        break;
      }
      Files.deleteIfExists(path(directory, segment, SEGMENT));
    }
    parts.removeIf(part -> part.last() <= snapshot.last());
    if (written > ROLL_BYTES) {
      roll();
    }
  }

  /** Goes on in another segment, so that this one can be removed when there is a snapshot of all that it holds. */
  private void roll() throws IOException {
    addPart(new Part(number, written, last));
    FileChannel next;
    try {
      next = created(directory, number + 1);
    } catch (FileAlreadyExistsException error) {
      throw new Fenced("another node writes %s now".formatted(directory));
    }
    file.close();
    file = next;
    number++;
    written = 0;
    writeHead();
  }

  private void syncDirectory() throws IOException {
    if (syncs) {
      try (FileChannel entries = FileChannel.open(directory, StandardOpenOption.READ)) {
        entries.force(true);
      }
    }
  }

  /** Forgets this writer; its file is as long as it was. */
  @Override
  public synchronized void close() throws IOException {
    file.close();
  }

  private static Path path(Path directory, long number, String kind) {
    return directory.resolve("%019d%s".formatted(number, kind));
  }

  private static NavigableSet<Long> numbers(Path directory, String kind) throws IOException {
    NavigableSet<Long> found = new TreeSet<>();
    try (DirectoryStream<Path> paths = Files.newDirectoryStream(directory, "*" + kind)) {
      for (Path path : paths) {
        String name = path.getFileName().toString();
        found.add(Long.parseLong(name.substring(0, name.length() - kind.length())));
      }
    }
    return found;
  }
}
