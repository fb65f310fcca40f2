package statebench;

import java.io.IOException;

/** Somebody else has begun to write this log: what this writer has in memory may be old. */
final class Fenced extends IOException {

  private static final long serialVersionUID = 1;

  Fenced(String message) {
    super(message);
  }
}
