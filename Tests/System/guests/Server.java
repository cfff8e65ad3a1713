// What people run a JVM for: an HTTP server and client, threads, the collector, traps that become exceptions, files,
// processes. With an argument it only serves.
import com.sun.net.httpserver.HttpServer;
import java.io.*;
import java.net.*;
import java.net.http.*;
import java.nio.*;
import java.nio.channels.FileChannel;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.stream.*;

public class Server {
  static int depth(int n) { return n + depth(n + 1); }

  public static void main(String[] arguments) throws Exception {
    var pool = Executors.newFixedThreadPool(8);
    var server = HttpServer.create(new InetSocketAddress("0.0.0.0", 8080), 100);
    server.setExecutor(pool);
    server.createContext("/", exchange -> {
      byte[] body = exchange.getRequestBody().readAllBytes();
      byte[] answer = (exchange.getRequestMethod() + " " + exchange.getRequestURI() + " " + body.length + "\n").getBytes();
      exchange.sendResponseHeaders(200, answer.length);
      try (var out = exchange.getResponseBody()) { out.write(answer); }
    });
    server.start();
    if (arguments.length > 0) { System.out.println("serving"); return; }
    var client = HttpClient.newBuilder().executor(pool).build();
    var ask = HttpRequest.newBuilder(URI.create("http://127.0.0.1:8080/a")).POST(HttpRequest.BodyPublishers.ofString("x".repeat(10000))).build();
    var answers = IntStream.range(0, 200).mapToObj(n -> client.sendAsync(ask, HttpResponse.BodyHandlers.ofString())).toList();
    System.out.print(answers.stream().map(a -> a.join().body()).collect(Collectors.toSet()));
    System.out.println();
    // Threads, locks, a compiled loop, and the collector at work.
    var sum = new AtomicLong();
    var threads = new ArrayList<Thread>();
    for (int t = 0; t < 16; t++) { var thread = new Thread(() -> { for (int i = 0; i < 100000; i++) sum.incrementAndGet(); }); thread.start(); threads.add(thread); }
    for (var thread : threads) thread.join();
    System.out.println(sum);
    System.out.println(IntStream.range(0, 3_000_000).parallel().mapToLong(i -> (long) i * i % 7).sum());
    long kept = 0;
    for (int i = 0; i < 300; i++) { var block = new byte[1 << 20]; block[i] = 1; kept += block[i]; }
    System.gc();
    System.out.println("allocated " + kept);
    // Traps that the machine turns into exceptions.
    try { Object nothing = arguments.length == 0 ? null : ""; nothing.hashCode(); } catch (NullPointerException e) { System.out.println("null"); }
    try { System.out.println(depth(0)); } catch (StackOverflowError e) { System.out.println("overflow"); }
    try { System.out.println(1 / arguments.length); } catch (ArithmeticException e) { System.out.println(e.getMessage()); }
    try { var much = new ArrayList<byte[]>(); for (;;) much.add(new byte[16 << 20]); } catch (OutOfMemoryError e) { System.out.println("memory"); }
    // Files, mappings, processes, sockets, watching.
    Path file = Files.createTempFile("j", ".txt");
    Files.writeString(file, "text\n".repeat(1000));
    try (var channel = FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
      MappedByteBuffer map = channel.map(FileChannel.MapMode.READ_WRITE, 0, channel.size());
      map.put(0, (byte) 'T'); map.force();
      System.out.println(Files.lines(file).filter(l -> l.equals("Text")).count() + " " + channel.size());
    }
    var process = new ProcessBuilder("sh", "-c", "read a; echo got $a; exit 5").start();
    try (var in = process.outputWriter()) { in.write("line\n"); }
    System.out.println(new String(process.getInputStream().readAllBytes()).trim() + " " + process.waitFor());
    try (var watch = FileSystems.getDefault().newWatchService()) {
      Path directory = Files.createTempDirectory("w");
      directory.register(watch, StandardWatchEventKinds.ENTRY_CREATE);
      Files.createFile(directory.resolve("made"));
      System.out.println(watch.poll(10, TimeUnit.SECONDS).pollEvents().get(0).context());
    }
    System.out.println(ProcessHandle.current().pid() > 0 && Runtime.getRuntime().availableProcessors() > 0);
    System.out.println(InetAddress.getByName("127.0.0.1").isReachable(1000));
    var timer = Executors.newScheduledThreadPool(1);
    System.out.println(timer.schedule(() -> "later", 50, TimeUnit.MILLISECONDS).get());
    Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("hook")));
    System.exit(7);
  }
}
