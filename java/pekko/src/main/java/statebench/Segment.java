package statebench;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.zip.CRC32;

/**
 * One file of a log: records, each of its length, its checksum, its number and its content.
 *
 * <p>The first record, with the number 0, says what the log consisted of when the segment was begun.
 */
final class Segment {

  private static final int HEAD_BYTES = 2 * Integer.BYTES + Long.BYTES;

  private Segment() {}

  /** What is done with each record that is read. */
  interface Reader {
    void read(long number, byte[] content, long end);
  }

  /** Of a record with this content. */
  static int sizeOf(byte[] content) {
    return HEAD_BYTES + content.length;
  }

  static void put(ByteBuffer out, long number, byte[] content) {
    out.putInt(content.length).putInt(checksum(number, content)).putLong(number).put(content);
  }

  /** Reads the records up to this length, or to where the file ends or a record is not whole. */
  static void read(Path path, long length, Reader reader) throws IOException {
    try (FileChannel file = FileChannel.open(path, StandardOpenOption.READ)) {
      ByteBuffer bytes = ByteBuffer.allocate((int) Math.min(length, file.size()));
      while (bytes.hasRemaining() && file.read(bytes) >= 0) {
        // until it is full, or the file is shorter than it was
      }
      bytes.flip();
      while (bytes.remaining() >= HEAD_BYTES) {
        int size = bytes.getInt();
        int checksum = bytes.getInt();
        long number = bytes.getLong();
        if (size < 0 || size > bytes.remaining()) {
          return;
        }
        byte[] content = new byte[size];
        bytes.get(content);
        if (checksum(number, content) != checksum) {
          return;
        }
        reader.read(number, content, bytes.position());
      }
    }
  }

  private static int checksum(long number, byte[] content) {
    CRC32 crc = new CRC32();
    crc.update(ByteBuffer.allocate(Long.BYTES).putLong(0, number));
    crc.update(content);
    return (int) crc.getValue();
  }
}
