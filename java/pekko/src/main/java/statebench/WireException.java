package statebench;

/** The bytes are no message of a version that is known here; nothing in them was applied. */
final class WireException extends RuntimeException {

  private static final long serialVersionUID = 1;

  WireException(String message) {
    super(message);
  }
}
