/* The load: asks a server over sockets, or a program over pipes, and checks every answer.

   ask SUMS SECONDS CLIENTS DEPTH TARGET

   SUMS is a file of requests, each with the one reply that is right. Each of CLIENTS threads
   keeps DEPTH requests under way; with DEPTH 0 it connects, asks one, closes, and so on.
   TARGET is a port of 127.0.0.1; "udp:PORT", where each request is a datagram; "tls:PORT", in
   a program that was compiled with -DTLS; or "IN,OUT", the descriptors of pipes from and to a
   program.
   Prints: answers seconds, and of the waits median, 99th percentile, longest (nanoseconds; 0
   where DEPTH is over 1). A wrong answer, or none in time, is told on stderr; the exit status
   is then not 0. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifdef TLS
#include <openssl/ssl.h>
static SSL_CTX *context;
#endif

#define TIMEOUT 30      /* seconds beyond SECONDS: then it ends by SIGALRM */
#define WAITS 4000000   /* that are kept, over all clients */
#define CHUNK (1 << 16)
#define LOST 5          /* seconds without an answer over UDP */

/* Requests and replies as two long texts; number i starts at requests[i], replies[i]. */
static char *request_text, *reply_text;
static size_t *requests, *replies, count;

static int clients, depth, port, datagrams, in_fd, out_fd;
static uint64_t nanoseconds, began;
static pthread_barrier_t ready;

struct client {
    pthread_t thread;
    int number, in, out;
    size_t answers, waits, most_waits;
    uint64_t *wait;
#ifdef TLS
    SSL *tls;
#endif
};

static void die(const char *what) {
    fprintf(stderr, "ask: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void wrong(size_t number, const char *came, size_t length) {
    fprintf(stderr, "ask: wrong answer to %.*sexpected %.*scame %.*s\n",
            (int)(requests[number + 1] - requests[number]), request_text + requests[number],
            (int)(replies[number + 1] - replies[number]), reply_text + replies[number],
            (int)(length < 200 ? length : 200), came);
    exit(1);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void keep_wait(struct client *self, uint64_t wait) {
    if (self->waits < self->most_waits)
        self->wait[self->waits++] = wait;
}

/* Each client has an address of its own: one would run out of ports for short connections. */
static void open_connection(struct client *self) {
    int on = 1, fd = socket(AF_INET, datagrams ? SOCK_DGRAM : SOCK_STREAM, 0);
    struct sockaddr_in here = {.sin_family = AF_INET}, there = here;
    struct timeval lost = {.tv_sec = LOST};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (unsigned)self->number);
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    there.sin_port = htons((uint16_t)port);
    if (fd < 0) die("socket");
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (datagrams)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &lost, sizeof lost);
    else
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&here, sizeof here)) die("bind");
    if (connect(fd, (struct sockaddr *)&there, sizeof there)) die("connect");
    self->in = self->out = fd;
#ifdef TLS
    self->tls = SSL_new(context);
    if (!self->tls || !SSL_set_fd(self->tls, fd) || SSL_connect(self->tls) != 1)
        die("TLS handshake");
#endif
}

static void close_connection(struct client *self) {
#ifdef TLS
    SSL_shutdown(self->tls);
    SSL_free(self->tls);
#endif
    close(self->in);
}

static ssize_t read_some(struct client *self, char *buffer, size_t size) {
#ifdef TLS
    return SSL_read(self->tls, buffer, (int)size);
#endif
    return read(self->in, buffer, size);
}

static size_t write_some(struct client *self, const char *text, size_t length) {
#ifdef TLS
    if (SSL_write(self->tls, text, (int)length) != (int)length) die("send");
    return length;
#endif
    ssize_t sent = port ? send(self->out, text, length, MSG_DONTWAIT | MSG_NOSIGNAL)
                        : write(self->out, text, length);
    if (sent < 0 && errno != EAGAIN) die("send");
    return sent < 0 ? 0 : (size_t)sent;
}

/* Ask from number `done` on, to the end of the list or of the time; false: the time is over. */
static int converse(struct client *self, size_t done, size_t deep) {
    size_t sent = requests[done], got = replies[done], ahead = done, next = done;
    uint64_t asked = now();
    int over = asked - began >= nanoseconds;
    char buffer[CHUNK];
    for (;;) {
        if (!over) ahead = done + deep < count ? done + deep : count;
        if (done == ahead) return !over;
        for (; datagrams && next < ahead; sent = requests[++next])
            if (send(self->out, request_text + sent, requests[next + 1] - sent, 0) < 0)
                die("send");
        if (sent < requests[ahead])
            sent += write_some(self, request_text + sent, requests[ahead] - sent);
        if (sent < requests[ahead]) {
            struct pollfd ends[] = {{self->in, POLLIN, 0}, {self->out, POLLOUT, 0}};
            poll(ends, 2, -1);
            if (!ends[0].revents) continue;
        }
        ssize_t came = read_some(self, buffer, sizeof buffer);
        if (came < 0) die("read");
        if (!came) wrong(done, "nothing: it went away\n", 22);
        if (got + (size_t)came > replies[ahead] ||
            memcmp(buffer, reply_text + got, (size_t)came))
            wrong(done, buffer, (size_t)came);
        got += (size_t)came;
        uint64_t then = now();
        while (done < ahead && replies[done + 1] <= got) {
            done++, self->answers++;
            if (deep == 1) keep_wait(self, then - asked);
        }
        if (done == ahead) asked = then;
        over = then - began >= nanoseconds;
    }
}

/* Connect, ask one, wait for all of the answer, close. */
static int ask_once(struct client *self, size_t number) {
    uint64_t start = now();
    char buffer[CHUNK];
    size_t length = replies[number + 1] - replies[number], got = 0;
    open_connection(self);
    write_some(self, request_text + requests[number], requests[number + 1] - requests[number]);
    while (got < length) {
        ssize_t came = read_some(self, buffer + got, sizeof buffer - got);
        if (came < 0) die("read");
        if (!came) wrong(number, "nothing: it went away\n", 22);
        got += (size_t)came;
    }
    if (got != length || memcmp(buffer, reply_text + replies[number], length))
        wrong(number, buffer, got);
    close_connection(self);
    self->answers++;
    uint64_t end = now();
    keep_wait(self, end - start);
    return end - began < nanoseconds;
}

static void *run(void *argument) {
    struct client *self = argument;
    size_t number = count / (size_t)clients * (size_t)self->number; /* each starts elsewhere */
    self->in = in_fd, self->out = out_fd;
    if (port && depth) open_connection(self);
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&ready); /* between these two the clock is started */
    if (depth)
        while (converse(self, number, (size_t)depth)) number = 0;
    else
        while (ask_once(self, number)) number = (number + 1) % count;
    return NULL;
}

static void read_sums(const char *path) {
    FILE *file = fopen(path, "rb");
    uint32_t number, lengths[2];
    if (!file || fread(&number, sizeof number, 1, file) != 1) die(path);
    count = number;
    requests = calloc(count + 1, sizeof *requests);
    replies = calloc(count + 1, sizeof *replies);
    for (size_t i = 0; i < count; i++) {
        if (fread(lengths, sizeof lengths, 1, file) != 1) die(path);
        requests[i + 1] = requests[i] + lengths[0];
        replies[i + 1] = replies[i] + lengths[1];
    }
    request_text = malloc(requests[count]);
    reply_text = malloc(replies[count]);
    if (fread(request_text, 1, requests[count], file) != requests[count]) die(path);
    if (fread(reply_text, 1, replies[count], file) != replies[count]) die(path);
    fclose(file);
}

static int by_size(const void *one, const void *other) {
    uint64_t left = *(const uint64_t *)one, right = *(const uint64_t *)other;
    return (left > right) - (left < right);
}

int main(int argc, char **argv) {
    if (argc != 6) return fprintf(stderr, "ask SUMS SECONDS CLIENTS DEPTH TARGET\n"), 2;
    read_sums(argv[1]);
    nanoseconds = (uint64_t)(atof(argv[2]) * 1e9);
    clients = atoi(argv[3]), depth = atoi(argv[4]);
    if (sscanf(argv[5], "%d,%d", &in_fd, &out_fd) == 2)
        fcntl(out_fd, F_SETFL, O_NONBLOCK);
    else
        port = atoi(argv[5] + strcspn(argv[5], "0123456789"));
    datagrams = !strncmp(argv[5], "udp:", 4);
#ifdef TLS
    context = SSL_CTX_new(TLS_client_method());
    if (!context) die("TLS");
#endif
    alarm((unsigned)atof(argv[2]) + TIMEOUT);

    struct client *all = calloc((size_t)clients, sizeof *all);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 4 * CHUNK);
    pthread_barrier_init(&ready, NULL, (unsigned)clients + 1);
    for (int i = 0; i < clients; i++) {
        all[i].number = i, all[i].most_waits = WAITS / (size_t)clients;
        all[i].wait = malloc(all[i].most_waits * sizeof *all[i].wait);
        if (pthread_create(&all[i].thread, &small, run, &all[i])) die("pthread_create");
    }
    pthread_barrier_wait(&ready);
    began = now();
    pthread_barrier_wait(&ready);
    size_t answers = 0, waits = 0;
    uint64_t *wait = malloc(WAITS * sizeof *wait);
    for (int i = 0; i < clients; i++) {
        pthread_join(all[i].thread, NULL);
        memcpy(wait + waits, all[i].wait, all[i].waits * sizeof *wait);
        answers += all[i].answers, waits += all[i].waits;
    }
    double seconds = (double)(now() - began) / 1e9;
    qsort(wait, waits, sizeof *wait, by_size);
    if (!waits) wait[0] = 0, waits = 1;
    printf("%zu %.6f %lu %lu %lu\n", answers, seconds, wait[waits / 2], wait[waits * 99 / 100],
           wait[waits - 1]);
    return 0;
}
