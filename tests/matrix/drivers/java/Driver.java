// Drives JavaPhoenixClient, a Kotlin library. What it is told and reports stands in tests/matrix/driver.py.

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonObject;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import kotlin.Unit;
import kotlin.jvm.functions.Function0;
import okhttp3.OkHttpClient;
import org.phoenixframework.Channel;
import org.phoenixframework.Defaults;
import org.phoenixframework.Message;
import org.phoenixframework.Presence;
import org.phoenixframework.Push;
import org.phoenixframework.Socket;

public class Driver {
  static final long TIMEOUT_MS = 10_000;
  static final int NORMAL = 1000;

  static final Gson gson = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();
  static final Map<String, Socket> sockets = new HashMap<>();
  static final Map<String, String> tokens = new ConcurrentHashMap<>();
  static final Map<String, Channel> channels = new HashMap<>();

  static synchronized void report(String saw, String socket, Object... details) {
    Map<String, Object> line = new LinkedHashMap<>(Map.of("saw", saw, "as", socket));
    for (int i = 0; i < details.length; i += 2) line.put((String) details[i], details[i + 1]);
    System.out.write((gson.toJson(line) + "\n").getBytes(StandardCharsets.UTF_8), 0,
        (gson.toJson(line) + "\n").getBytes(StandardCharsets.UTF_8).length);
    System.out.flush();
  }

  static Object parsed(Message message) {
    return gson.fromJson(message.getPayloadJson(), JsonObject.class);
  }

  static void connect(String as, JsonObject told) {
    tokens.put(as, told.get("token").getAsString());
    Function0<Map<String, Object>> params = () -> Map.of("token", tokens.get(as));
    Socket socket =
        new Socket(
            told.get("url").getAsString(),
            params,
            Defaults.VSN,
            Defaults.INSTANCE.getEncode(),
            Defaults.INSTANCE.getDecode(),
            new OkHttpClient());
    if (told.get("beat").getAsLong() > 0) socket.setHeartbeatIntervalMs(told.get("beat").getAsLong());
    socket.onOpen(
        () -> {
          report("open", as);
          return Unit.INSTANCE;
        });
    socket.onClose(
        () -> {
          report("closed", as);
          return Unit.INSTANCE;
        });
    socket.onError(
        (error, response) -> {
          report("error", as, "text", String.valueOf(error));
          return Unit.INSTANCE;
        });
    sockets.put(as, socket);
    socket.connect();
  }

  static void join(String as, String topic, JsonObject told) {
    boolean resume = told.get("resume").getAsBoolean();
    Map<String, Object> asked = new ConcurrentHashMap<>();
    Function0<Map<String, Object>> params =
        () -> {
          Map<String, Object> sent = new HashMap<>(asked);
          // The library's JSON leaves out null: so much for the first join
          if (resume && asked.isEmpty()) sent.put("resume", Map.of("last", 1));
          return sent;
        };
    Channel channel = sockets.get(as).channel(topic, params);
    channels.put(as + " " + topic, channel);
    channel.on(
        "said",
        message -> {
          if (message.getRef().startsWith("@")) asked.put("resume", message.getRef());
          report("heard", as, "topic", topic, "event", "said", "payload", parsed(message));
          return Unit.INSTANCE;
        });
    if (told.get("presence").getAsBoolean()) {
      Presence presence = new Presence(channel, Presence.Options.Companion.getDefaults());
      presence.onSync(
          () -> {
            Map<String, Integer> users = new HashMap<>();
            presence.getState().forEach((user, entry) -> users.put(user, entry.get("metas").size()));
            report("present", as, "users", users);
            return Unit.INSTANCE;
          });
    }
    Push push = channel.join(TIMEOUT_MS);
    push.receive(
        "ok",
        message -> {
          JsonObject response = (JsonObject) parsed(message);
          if (resume) asked.put("resume", response.get("position").getAsString());
          report("joined", as, "topic", topic, "response", response);
          return Unit.INSTANCE;
        });
    push.receive(
        "error",
        message -> {
          channel.leave(TIMEOUT_MS); // or it would try again for ever
          report("refused", as, "topic", topic, "response", parsed(message));
          return Unit.INSTANCE;
        });
  }

  @SuppressWarnings("unchecked")
  static void push(String as, String topic, JsonObject told) {
    Map<String, Object> payload = gson.fromJson(told.get("payload"), Map.class);
    Push push = channels.get(as + " " + topic).push(told.get("event").getAsString(), payload, TIMEOUT_MS);
    for (String status : List.of("ok", "error")) {
      push.receive(
          status,
          message -> {
            report("answer", as, "status", status, "response", parsed(message));
            return Unit.INSTANCE;
          });
    }
  }

  static void leave(String as, String topic) {
    channels
        .get(as + " " + topic)
        .leave(TIMEOUT_MS)
        .receive(
            "ok",
            message -> {
              report("left", as);
              return Unit.INSTANCE;
            });
  }

  public static void main(String[] arguments) throws Exception {
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      JsonObject told = gson.fromJson(line, JsonObject.class);
      String as = told.get("as").getAsString();
      String topic = told.has("topic") ? told.get("topic").getAsString() : "";
      switch (told.get("do").getAsString()) {
        case "connect" -> connect(as, told);
        case "token" -> tokens.put(as, told.get("token").getAsString());
        case "join" -> join(as, topic, told);
        case "push" -> push(as, topic, told);
        case "leave" -> leave(as, topic);
        case "close" -> sockets.get(as).disconnect(NORMAL, null, null);
        default -> {}
      }
    }
    System.exit(0);
  }
}
