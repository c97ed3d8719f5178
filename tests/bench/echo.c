/* The floor of a server with a thread for each connection: it sends back what it gets, and
   checks, limits and logs nothing. With an argument it does so for datagrams. Prints its port. */

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK (1 << 16)

static void *serve(void *argument) {
    int fd = (int)(intptr_t)argument;
    char buffer[CHUNK];
    for (ssize_t came; (came = read(fd, buffer, sizeof buffer)) > 0;)
        for (ssize_t done = 0, sent; done < came; done += sent)
            if ((sent = send(fd, buffer + done, (size_t)(came - done), MSG_NOSIGNAL)) <= 0)
                return close(fd), NULL;
    close(fd);
    return NULL;
}

static void serve_datagrams(int fd) {
    char buffer[CHUNK];
    struct sockaddr_in from;
    for (;;) {
        socklen_t length = sizeof from;
        ssize_t came = recvfrom(fd, buffer, sizeof buffer, 0, (struct sockaddr *)&from, &length);
        if (came >= 0) sendto(fd, buffer, (size_t)came, 0, (struct sockaddr *)&from, length);
    }
}

int main(int argc, char **argv) {
    int on = 1, datagrams = argc > 1 && argv[1];
    int listener = socket(AF_INET, datagrams ? SOCK_DGRAM : SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    pthread_attr_t detached;
    pthread_t thread;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, length)) return 1;
    if (!datagrams) {
        setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (listen(listener, 4096)) return 1;
    }
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    if (datagrams) serve_datagrams(listener);
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, 4 * CHUNK);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd >= 0 && pthread_create(&thread, &detached, serve, (void *)(intptr_t)fd)) close(fd);
    }
}
