package statebench;

import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.net.ConnectException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.cluster.typed.SelfUp;

/** Program: starts a node, calls it, and ends, so that the JVM can keep the classes for quicker starts. */
public final class Rehearsal {

  private static final String LEDGER = "rehearsal";
  private static final int TURNS = 200;

  private Rehearsal() {}

  /** The argument is an empty directory, or none yet. */
  public static void main(String[] arguments) throws IOException, InterruptedException {
    Path directory = Files.createDirectories(Path.of(arguments[0]));
    int port;
    try (ServerSocket probe = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      port = probe.getLocalPort();
    }
    Config config =
        ConfigFactory.parseMap(
                Map.of(
                    "state-bench.port", port,
                    "state-bench.directory", directory.toString(),
                    "pekko.remote.artery.canonical.port", 0))
            .withFallback(ConfigFactory.load());
    ActorSystem<SelfUp> system = ActorSystem.create(Node.create(), "state-bench", config);
    try (Socket client = connected(port)) {
      byte[] opened = exchange(client, Ask.OPEN, 0, new byte[] {0, 0, 0, 1});
      long epoch = ByteBuffer.wrap(opened).getLong();
      exchange(client, Ask.ACCOUNTS, epoch, new byte[2 * Integer.BYTES]);
      exchange(client, Ask.BATCH, epoch, new byte[0]);
    } finally {
      system.terminate();
    }
    system.getWhenTerminated().toCompletableFuture().join();
  }

  private static Socket connected(int port) throws IOException, InterruptedException {
    for (int turn = 0; ; turn++) {
      try {
        return new Socket(InetAddress.getLoopbackAddress(), port);
      } catch (ConnectException error) {
        if (turn == TURNS) {
          throw error;
        }
        Thread.sleep(100);
      }
    }
  }

  private static byte[] exchange(Socket client, byte kind, long epoch, byte[] payload) throws IOException {
    byte[] name = LEDGER.getBytes(StandardCharsets.US_ASCII);
    DataOutputStream out = new DataOutputStream(client.getOutputStream());
    out.writeInt(Integer.BYTES + 1 + Long.BYTES + 1 + name.length + payload.length);
    out.writeInt(0);
    out.writeByte(kind);
    out.writeLong(epoch);
    out.writeByte(name.length);
    out.write(name);
    out.write(payload);
    DataInputStream in = new DataInputStream(client.getInputStream());
    byte[] answer = in.readNBytes(in.readInt());
    ByteBuffer content = ByteBuffer.wrap(answer);
    content.getInt();
    content.get();
    return MessageSerializer.rest(content);
  }
}
