/* IPv6 beside IPv4 over loopback: prints what it finds, which must be what Linux itself prints. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_in6 six(const char *text, int port)
{
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    inet_pton(AF_INET6, text, &a.sin6_addr);
    return a;
}

static struct sockaddr_in four(const char *text, int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, text, &a.sin_addr);
    return a;
}

static void tell(const char *what, int result) { printf("%s: %s\n", what, result < 0 ? strerror(errno) : "ok"); }

static const char *text(struct sockaddr_in6 *a)
{
    static char buffer[64];
    inet_ntop(AF_INET6, &a->sin6_addr, buffer, sizeof buffer);
    return buffer;
}

static int listener(int domain, const char *address, int port, int only)
{
    int s = socket(domain, SOCK_STREAM, 0), one = 1;
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (only)
        setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    struct sockaddr_in6 a6 = six(address, port);
    struct sockaddr_in a4 = four(address, port);
    if (domain == AF_INET6 ? bind(s, (void *)&a6, sizeof a6) : bind(s, (void *)&a4, sizeof a4)) {
        close(s);
        return -1;
    }
    if (listen(s, 5)) {
        close(s);
        return -1;
    }
    return s;
}

static void streams(void)
{
    int dual = listener(AF_INET6, "::", 7001, 0);
    tell("dual-stack listener", dual);
    tell("IPv4 listener beside it", listener(AF_INET, "0.0.0.0", 7001, 0));
    int only = listener(AF_INET6, "::", 7002, 1);
    tell("IPv6-only listener", only);
    int both = listener(AF_INET, "0.0.0.0", 7002, 0);
    tell("IPv4 listener beside that", both);
    struct sockaddr_in a4 = four("127.0.0.1", 7001);
    struct sockaddr_in6 a6 = six("::1", 7001), peer, own, mapped = six("::ffff:127.0.0.1", 7001);
    socklen_t length = sizeof peer;
    int c = socket(AF_INET, SOCK_STREAM, 0);
    tell("IPv4 connects to ::", connect(c, (void *)&a4, sizeof a4));
    int s = accept(dual, (void *)&peer, &length);
    printf("peer %s, length %d, family %d\n", text(&peer), (int)length, peer.sin6_family);
    length = sizeof own;
    getsockname(s, (void *)&own, &length);
    printf("own %s port %d\n", text(&own), ntohs(own.sin6_port));
    c = socket(AF_INET6, SOCK_STREAM, 0);
    tell("IPv6 connects to ::", connect(c, (void *)&a6, sizeof a6));
    length = sizeof peer;
    s = accept(dual, (void *)&peer, &length);
    printf("peer %s scope %d\n", text(&peer), (int)peer.sin6_scope_id);
    c = socket(AF_INET6, SOCK_STREAM, 0);
    tell("mapped address", connect(c, (void *)&mapped, sizeof mapped));
    length = sizeof own;
    getsockname(c, (void *)&own, &length);
    printf("own %s\n", text(&own));
    c = socket(AF_INET6, SOCK_STREAM, 0);
    int one = 1;
    setsockopt(c, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    tell("mapped address of an IPv6-only socket", connect(c, (void *)&mapped, sizeof mapped));
    c = socket(AF_INET6, SOCK_STREAM, 0);
    tell("an address of the wrong family", connect(c, (void *)&a4, sizeof a4));
    struct sockaddr_in6 link = six("fe80::1", 7001), closed = six("::1", 7003);
    tell("a link-local address without scope", connect(c, (void *)&link, sizeof link));
    tell("a short address", connect(c, (void *)&a6, 20));
    tell("a closed port", connect(c, (void *)&closed, sizeof closed));
    tell("IPV6_V6ONLY once bound", setsockopt(dual, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one));
}

static void datagrams(void)
{
    int a = socket(AF_INET6, SOCK_DGRAM, 0), b = socket(AF_INET6, SOCK_DGRAM, 0), one = 1, hops = 7, class = 0x20;
    struct sockaddr_in6 own = six("::", 7004), target = six("::1", 7004), from;
    tell("bind", bind(a, (void *)&own, sizeof own));
    tell("IPV6_RECVPKTINFO", setsockopt(a, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof one));
    setsockopt(a, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &one, sizeof one);
    setsockopt(a, IPPROTO_IPV6, IPV6_RECVTCLASS, &one, sizeof one);
    tell("IPV6_UNICAST_HOPS", setsockopt(b, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &hops, sizeof hops));
    tell("IPV6_TCLASS", setsockopt(b, IPPROTO_IPV6, IPV6_TCLASS, &class, sizeof class));
    static char data[65000];
    for (int size = 0; size <= 60000; size += 30000) {
        sendto(b, data, size, 0, (void *)&target, sizeof target);
        char control[256];
        struct iovec v = {data, sizeof data};
        struct msghdr m = {&from, sizeof from, &v, 1, control, sizeof control, 0};
        ssize_t n = recvmsg(a, &m, 0);
        printf("received %zd from %s\n", n, text(&from));
        for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
            struct in6_pktinfo *info = (void *)CMSG_DATA(h);
            if (h->cmsg_type == IPV6_PKTINFO) {
                struct sockaddr_in6 to = {.sin6_addr = info->ipi6_addr};
                printf("to %s interface %d\n", text(&to), (int)info->ipi6_ifindex);
            } else
                printf("level %d type %d value %d\n", h->cmsg_level, h->cmsg_type, *(int *)CMSG_DATA(h));
        }
    }
    int c = socket(AF_INET6, SOCK_DGRAM, 0);
    struct sockaddr_in6 closed = six("::1", 7005);
    connect(c, (void *)&closed, sizeof closed);
    send(c, "x", 1, 0);
    usleep(10000);
    tell("after a closed port", send(c, "x", 1, 0));
}

static void interfaces(void)
{
    struct ifaddrs *list, *i;
    tell("getifaddrs", getifaddrs(&list));
    for (i = list; i; i = i->ifa_next) {
        char buffer[64] = "";
        if (strcmp(i->ifa_name, "lo") || !i->ifa_addr || !(i->ifa_flags & IFF_LOOPBACK))
            continue;
        if (i->ifa_addr->sa_family == AF_INET)
            inet_ntop(AF_INET, &((struct sockaddr_in *)i->ifa_addr)->sin_addr, buffer, sizeof buffer);
        if (i->ifa_addr->sa_family == AF_INET6)
            inet_ntop(AF_INET6, &((struct sockaddr_in6 *)i->ifa_addr)->sin6_addr, buffer, sizeof buffer);
        printf("%s family %d %s\n", i->ifa_name, i->ifa_addr->sa_family, buffer);
    }
    printf("lo is %u\n", if_nametoindex("lo"));
}

static void pings(void)
{
    char echo[16] = {8}, answer[64];
    int raw = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    struct sockaddr_in to = four("127.0.0.1", 0);
    echo[2] = 0xf7, echo[3] = 0xff;
    tell("raw send", sendto(raw, echo, 8, 0, (void *)&to, sizeof to));
    for (int i = 0; i < 2; i++) {
        ssize_t n = recv(raw, answer, sizeof answer, 0);
        printf("raw received %zd, type %d\n", n, answer[20]);
    }
    int packet = socket(AF_PACKET, SOCK_RAW, htons(0x88b5));
    tell("packet socket", packet);
    struct pollfd p = {packet, POLLIN, 0};
    printf("quiet: %d\n", poll(&p, 1, 0));
    tell("unknown type", socket(AF_INET6, SOCK_SEQPACKET, 0));
    tell("unknown protocol", socket(AF_INET6, SOCK_STREAM, 17));
}

int main(void)
{
    streams();
    datagrams();
    interfaces();
    pings();
    return 0;
}
