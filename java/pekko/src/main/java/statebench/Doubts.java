package statebench;

import java.util.List;

/** What an account's callers are told of its credits in doubt: JSON, as strategies/support/fates.py reads it. */
final class Doubts {

  private Doubts() {}

  /** Attempts with their sources. */
  static Outcome.Refusal of(List<String[]> pairs) {
    return Outcome.Reason.IN_DOUBT.because(json(pairs));
  }

  static String json(List<String[]> pairs) {
    StringBuilder out = new StringBuilder("[");
    for (String[] pair : pairs) {
      out.append(out.length() == 1 ? "[" : ", [");
      quote(out, pair[0]);
      out.append(", ");
      quote(out, pair[1]);
      out.append(']');
    }
    return out.append(']').toString();
  }

  private static void quote(StringBuilder out, String text) {
    out.append('"');
    for (char each : text.toCharArray()) {
      if (each == '"' || each == '\\') {
        out.append('\\').append(each);
      } else if (each < ' ') {
        out.append("\\u%04x".formatted((int) each));
      } else {
        out.append(each);
      }
    }
    out.append('"');
  }
}
