// What servers do most, again and again: `Benchmarks/order` finds the libOS's functions that serve it.
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void *thread(void *argument) { return argument; }

static void files(void) {
  char buffer[4096];
  struct stat status;
  int file = open("/tmp/file", O_RDWR | O_CREAT, 0644);
  if (write(file, buffer, sizeof buffer) < 0 || pread(file, buffer, 100, 0) < 0) abort();
  fstat(file, &status);
  stat("/tmp", &status);
  lseek(file, 0, SEEK_SET);
  if (read(file, buffer, 100) < 0) abort();
  void *memory = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mprotect(memory, 4096, PROT_READ);
  munmap(memory, 65536);
  close(file);
}

static void sockets(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  if (bind(listener, (void *)&address, length) || listen(listener, 8)) abort();
  getsockname(listener, (void *)&address, &length);
  int client = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(client, IPPROTO_TCP, 1, &one, sizeof one);
  if (connect(client, (void *)&address, length)) abort();
  int server = accept4(listener, 0, 0, SOCK_NONBLOCK), queue = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN | EPOLLET};
  epoll_ctl(queue, EPOLL_CTL_ADD, server, &event);
  char buffer[100];
  for (int i = 0; i < 2; i++) {
    if (write(client, buffer, 100) != 100) abort();
    epoll_wait(queue, &event, 1, 1000);
    if (recv(server, buffer, 100, 0) != 100 || recv(server, buffer, 100, 0) >= 0) abort();
    struct iovec parts[2] = {{buffer, 50}, {buffer, 50}};
    if (writev(server, parts, 2) != 100 || recv(client, buffer, 100, MSG_WAITALL) != 100) abort();
  }
  close(queue);
  close(client);
  close(server);
  close(listener);
}

int main(int count, char **arguments) {
  if (count > 2) return 0;
  int turns = count > 1 ? atoi(arguments[1]) : 40, there[2], back[2];
  for (int i = 0; i < turns; i++) {
    char byte = 0;
    if (pipe(there) || pipe(back)) abort();
    pid_t child = fork();
    if (child == 0) {
      if (read(there[0], &byte, 1) != 1 || write(back[1], &byte, 1) != 1) abort();
      _exit(0);
    }
    if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) abort();
    waitpid(child, 0, 0);
    close(there[0]), close(there[1]), close(back[0]), close(back[1]);
    if ((child = vfork()) == 0) execl("/proc/self/exe", "again", "1", "2", (char *)0);
    waitpid(child, 0, 0);
    files();
    sockets();
    pthread_t other;
    pthread_create(&other, 0, thread, 0);
    pthread_join(other, 0);
    usleep(100);
  }
}
