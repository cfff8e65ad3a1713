"""nginx under load while its workers come and go: reloads and killed workers, over a tap."""
import os
import re
import shutil
import signal
import subprocess
import threading
import time

CONFIGURATION = """worker_processes 2; daemon off; error_log stderr notice; pid /run/nginx.pid;
events { worker_connections 256; }
http { access_log off; keepalive_requests 100000; server { listen 80; root /site; } }
"""
# Runs nginx in the background and obeys lines of standard input.
SCRIPT = "nginx -c /etc/nginx/nginx.conf & while read line; do eval \"$line\"; done; kill $!; wait"
REQUEST = b"GET /index.html HTTP/1.1\r\nHost: test\r\n%s\r\n"
BODY = b"<h1>hello</h1>\n"


class Client(threading.Thread):
    """Asks again and again. A kept connection that closes before its next answer begins is not a failure: RFC 9112
    section 9.3.1 lets servers do so, and clients ask again. All else is."""

    def __init__(self, place, keeps, until):
        super().__init__()
        self.place, self.keeps, self.until = place, keeps, until
        self.good, self.failures = 0, []

    def run(self):
        connection = None
        while time.monotonic() < self.until:
            fresh = connection is None
            try:
                connection = connection or self.place.connect(80)
                answer = self.ask(connection)
            except OSError as error:
                answer = error if fresh or not isinstance(error, (ConnectionResetError, BrokenPipeError)) else b""
            if answer == b"" and not fresh:
                connection = None
                continue
            if not isinstance(answer, bytes) or not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(BODY):
                self.failures.append(repr(answer)[:200])
                connection = None
                continue
            self.good += 1
            if not self.keeps or b"Connection: close" in answer:
                connection.close()
                connection = None

    def ask(self, connection):
        connection.sendall(REQUEST % (b"" if self.keeps else b"Connection: close\r\n"))
        answer = b""
        while not answer.endswith(BODY):
            piece = connection.recv(65536)
            if not piece:
                break
            answer += piece
        return answer


def load(suite, name, place, seconds, disturb):
    """Eight clients, half of them with kept connections, while `disturb` runs."""
    until = time.monotonic() + seconds
    clients = [Client(place, index % 2 == 0, until) for index in range(8)]
    for client in clients:
        client.start()
    disturb()
    for client in clients:
        client.join()
    failures = [failure for client in clients for failure in client.failures]
    suite.check(name, not failures and all(client.good > 10 for client in clients),
                f"{[client.good for client in clients]} {failures[:5]}")


def workers(log):
    """Numbers of the workers that the log says were started."""
    with open(log) as file:
        return re.findall(r"start worker process (\d+)", file.read())


def wait_for(condition):
    for _ in range(100):
        if condition():
            return True
        time.sleep(0.1)
    return False


def tests(suite, place, work, site):
    empty, configuration = os.path.join(work, "control-empty"), os.path.join(work, "control.conf")
    os.makedirs(empty, exist_ok=True)
    with open(configuration, "w") as file:
        file.write(CONFIGURATION)
    nginx = ["--add", f"{empty}:/var/lib/nginx", "--add", f"{site}/index.html:/site/index.html", "--add",
             f"{configuration}:/etc/nginx/nginx.conf"]
    image = suite.build(work, "control", shutil.which("nginx"), *nginx, "--", "-c", "/etc/nginx/nginx.conf")
    log = os.path.join(work, "control.log")
    server = place.start(place.swiftlet("-m", "256M", image), log)
    place.wait_for(80)
    wait_for(lambda: len(workers(log)) >= 2)

    def reload():
        for turn in range(3):
            time.sleep(1)
            server.send_signal(signal.SIGHUP)
            wait_for(lambda: len(workers(log)) >= 2 * (turn + 2))

    load(suite, "nginx: three reloads under load, no request fails", place, 5, reload)
    suite.check("nginx: each reload started new workers", len(workers(log)) == 8, str(workers(log)))
    if shutil.which("wrk"):
        wrk = place.prefix(["wrk", "-t1", "-c16", "-d4s", "-H", "Connection: close", "http://10.0.2.15/index.html"])
        measure = subprocess.Popen(wrk, stdout=subprocess.PIPE, text=True)
        time.sleep(1)
        server.send_signal(signal.SIGHUP)
        text = measure.communicate()[0]
        suite.check("nginx: a reload under wrk without keep-alive, no error",
                    "Requests/sec" in text and "errors" not in text and "Non-2xx" not in text, text)
    suite.check("nginx: ends with status 0 after reloads", place.stop(server) == 0)
    killed_worker(suite, place, work, nginx)


def killed_worker(suite, place, work, nginx):
    image = suite.build(work, "control-shell", shutil.which("bash"), "--add", shutil.which("nginx"), *nginx)
    log = os.path.join(work, "control-shell.log")
    with open(log, "wb") as output:
        server = subprocess.Popen(
            place.prefix(place.swiftlet("-i", "-m", "256M", image, "-c", SCRIPT)), stdin=subprocess.PIPE, stdout=output,
            stderr=output)
    place.children.append(server)
    place.wait_for(80)
    wait_for(lambda: len(workers(log)) >= 2)

    def kill():
        time.sleep(1)
        server.stdin.write(f"kill -9 {workers(log)[0]}\n".encode())
        server.stdin.flush()
        wait_for(lambda: len(workers(log)) >= 3)

    until = time.monotonic() + 4
    clients = [Client(place, index % 2 == 0, until) for index in range(8)]
    for client in clients:
        client.start()
    kill()
    for client in clients:
        client.join()
    with open(log) as file:
        text = file.read()
    suite.check("nginx: a killed worker is noticed and followed by a new one",
                "exited on signal 9" in text and len(workers(log)) == 3, text[-600:])
    # What the killed worker had in hand is lost, natively too; everybody is served afterwards.
    failures = [failure for client in clients for failure in client.failures]
    suite.check("nginx: serves on after a worker was killed", len(failures) <= 8 and all(c.good > 10 for c in clients),
                f"{[client.good for client in clients]} {failures[:5]}")
    answer = place.run(["curl", "-sf", *["http://10.0.2.15/index.html"] * 50])
    suite.check("nginx: 50 requests after that", answer[1] == BODY * 50, str(answer))
    server.stdin.close()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
