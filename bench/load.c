/* bench-load: load over HTTP/1.1 keep-alive that keeps every latency.
 *
 *     bench-load PORT CONNECTIONS SECONDS STATUS FILE [RATE]
 *
 * FILE holds the requests, each as a line with its length in bytes, then its bytes; the connections
 * to 127.0.0.1 send them in turn, beginning apart, and again from the front. Each connection has
 * one request in flight. The first fifth of the time warms up and is not counted. An answer other
 * than STATUS ends the run: a figure of errors is no figure. Prints JSON; latencies in
 * microseconds, exact: no histogram, no correction.
 *
 * Without RATE a connection sends its next request when it has its answer (closed loop), and a
 * latency counts from the first byte written to the last byte read. With RATE requests fall due
 * evenly, RATE a second in all, and a latency counts from when its request was due, whether or not
 * a connection was free then: a server that stops for a moment is charged for everybody who would
 * have come meanwhile. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 1024, ANSWER_MAX = 64 * 1024, SAMPLES_MAX = 16 * 1024 * 1024 };

struct request {
    const char *bytes;
    size_t length;
};

struct connection {
    int fd;
    size_t next;   /* which request it sends */
    int64_t since; /* ns */
    size_t filled;
    char answer[ANSWER_MAX + 1];
};

struct run {
    struct request *requests;
    size_t request_count;
    int port, status, epoll;
    int64_t counted_from, until; /* ns */
    int64_t period, due;         /* ns; 0 without RATE */
    struct connection *idle[CONNECTIONS_MAX];
    int idle_count;
    float *samples_us;
    size_t sample_count;
    size_t answers; /* of the counted part */
    uint64_t bytes; /* of the last answer */
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench-load: %s: %s\n", what, why);
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static char *read_file(const char *path, size_t *ret_length)
{
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &about) != 0)
        die(path, strerror(errno));
    char *bytes = malloc((size_t)about.st_size + 1);
    *ret_length = (size_t)about.st_size;
    if (bytes == NULL || read(fd, bytes, *ret_length) != about.st_size)
        die(path, "cannot be read");
    close(fd);
    bytes[*ret_length] = 0;
    return bytes;
}

static void read_requests(struct run *run, const char *path)
{
    size_t length;
    char *at = read_file(path, &length), *end = at + length;
    while (at < end) {
        char *line_end;
        size_t size = strtoul(at, &line_end, 10);
        if (*line_end != '\n' || size == 0 || size > (size_t)(end - line_end - 1))
            die(path, "is not a list of requests");
        if ((run->request_count & (run->request_count - 1)) == 0) {
            size_t room = run->request_count ? run->request_count * 2 : 1;
            run->requests = realloc(run->requests, room * sizeof *run->requests);
            if (run->requests == NULL)
                die(path, "out of memory");
        }
        run->requests[run->request_count++] = (struct request){line_end + 1, size};
        at = line_end + 1 + size;
    }
    if (run->request_count == 0)
        die(path, "is empty");
}

static void connect_one(struct run *run, struct connection *connection)
{
    int yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)run->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0
        || connect(connection->fd, (const struct sockaddr *)&address, sizeof address) != 0
        || setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) != 0
        || fcntl(connection->fd, F_SETFL, O_NONBLOCK) != 0
        || epoll_ctl(run->epoll, EPOLL_CTL_ADD, connection->fd, &event) != 0)
        die("connect", strerror(errno));
}

/* Waits for room itself: requests are small against a socket's buffer. */
static void send_next(struct run *run, struct connection *connection)
{
    const struct request *request = &run->requests[connection->next];
    connection->next = (connection->next + 1) % run->request_count;
    connection->filled = 0;
    connection->since = run->period ? run->due : now_ns();
    run->due += run->period;
    for (size_t sent = 0; sent < request->length;) {
        ssize_t count = send(connection->fd, request->bytes + sent, request->length - sent,
                             MSG_NOSIGNAL);
        if (count < 0 && errno != EAGAIN)
            die("send", strerror(errno));
        sent += count > 0 ? (size_t)count : 0;
    }
}

/* Length of the whole answer, 0 while its head is not there. */
static size_t answer_length(const struct connection *connection)
{
    const char *end = memmem(connection->answer, connection->filled, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    size_t head = (size_t)(end - connection->answer) + 4;
    const char *field = strcasestr(connection->answer, "\r\ncontent-length:");
    if (field == NULL || field > end)
        die("answer has no length", connection->answer);
    return head + strtoul(field + 17, NULL, 10);
}

static bool receive(struct run *run, struct connection *connection)
{
    ssize_t count = recv(connection->fd, connection->answer + connection->filled,
                         ANSWER_MAX - connection->filled, 0);
    if (count < 0 && errno == EAGAIN)
        return false;
    if (count <= 0)
        die("receive", count ? strerror(errno) : "the server closed the connection");
    connection->filled += (size_t)count;
    connection->answer[connection->filled] = 0;
    size_t length = answer_length(connection);
    if (length == 0 || connection->filled < length)
        return false;
    if (connection->filled > length || strtol(connection->answer + 9, NULL, 10) != run->status)
        die("answer", connection->answer);
    run->bytes = length;
    return true;
}

static void count_answer(struct run *run, const struct connection *connection)
{
    int64_t now = now_ns();
    if (now < run->counted_from || now > run->until)
        return;
    run->answers++;
    if (connection->since >= run->counted_from && run->sample_count < SAMPLES_MAX)
        run->samples_us[run->sample_count++] = (float)(now - connection->since) / 1e3F;
}

/* How long to wait for answers: with RATE not beyond the next request that can be sent. */
static struct timespec patience(const struct run *run)
{
    int64_t wait = 10000000000LL;
    if (run->period && run->idle_count)
        wait = run->due - now_ns();
    if (wait < 0)
        wait = 0;
    return (struct timespec){wait / 1000000000, wait % 1000000000};
}

static void turn(struct run *run)
{
    static struct epoll_event events[CONNECTIONS_MAX];
    struct timespec wait = patience(run);
    int count = epoll_pwait2(run->epoll, events, CONNECTIONS_MAX, &wait, NULL);
    if (count == 0 && wait.tv_sec >= 10)
        die("answer", "none within 10 s");
    for (int i = 0; i < count; i++) {
        struct connection *connection = events[i].data.ptr;
        if (!receive(run, connection))
            continue;
        count_answer(run, connection);
        if (run->period)
            run->idle[run->idle_count++] = connection;
        else
            send_next(run, connection);
    }
    while (run->period && run->idle_count && run->due <= now_ns())
        send_next(run, run->idle[--run->idle_count]);
}

static int by_size(const void *left, const void *right)
{
    float a = *(const float *)left, b = *(const float *)right;
    return (a > b) - (a < b);
}

static double quantile(const struct run *run, double part)
{
    return run->samples_us[(size_t)((double)(run->sample_count - 1) * part)];
}

static void print(const struct run *run, int connections, double seconds)
{
    double sum = 0;
    if (run->sample_count == 0)
        die("run", "no answer was counted");
    for (size_t i = 0; i < run->sample_count; i++)
        sum += run->samples_us[i];
    printf("{\"connections\": %d, \"answers\": %zu, \"per_second\": %.1f, \"answer_bytes\": %llu, "
           "\"mean_us\": %.2f, \"p50_us\": %.2f, \"p90_us\": %.2f, \"p99_us\": %.2f, "
           "\"p999_us\": %.2f, \"max_us\": %.2f}\n", connections, run->answers,
           (double)run->answers / seconds, (unsigned long long)run->bytes,
           sum / (double)run->sample_count, quantile(run, .5), quantile(run, .9),
           quantile(run, .99), quantile(run, .999), quantile(run, 1));
}

int main(int argc, char **argv)
{
    static struct run run;
    if (argc != 6 && argc != 7) {
        fprintf(stderr, "usage: bench-load PORT CONNECTIONS SECONDS STATUS FILE [RATE]\n");
        return 2;
    }
    int connections = (int)strtol(argv[2], NULL, 10);
    double seconds = strtod(argv[3], NULL);
    run.port = (int)strtol(argv[1], NULL, 10);
    run.status = (int)strtol(argv[4], NULL, 10);
    if (connections < 1 || connections > CONNECTIONS_MAX || seconds <= 0)
        die(argv[2], "connections are 1 to 1024, seconds more than 0");
    read_requests(&run, argv[5]);
    run.epoll = epoll_create1(EPOLL_CLOEXEC);
    run.samples_us = malloc(SAMPLES_MAX * sizeof *run.samples_us);
    struct connection *all = calloc((size_t)connections, sizeof *all);
    if (run.epoll < 0 || run.samples_us == NULL || all == NULL)
        die("start", "out of memory");
    for (int i = 0; i < connections; i++) {
        connect_one(&run, &all[i]);
        all[i].next = run.request_count * (size_t)i / (size_t)connections;
    }
    double rate = argc == 7 ? strtod(argv[6], NULL) : 0;
    int64_t start = now_ns();
    run.counted_from = start + (int64_t)(seconds * 2e8);
    run.until = start + (int64_t)(seconds * 1e9);
    run.period = rate > 0 ? (int64_t)(1e9 / rate) : 0;
    run.due = start;
    for (int i = 0; i < connections; i++) {
        if (run.period)
            run.idle[run.idle_count++] = &all[i];
        else
            send_next(&run, &all[i]);
    }
    while (now_ns() < run.until)
        turn(&run);
    qsort(run.samples_us, run.sample_count, sizeof *run.samples_us, by_size);
    print(&run, connections, seconds * .8);
    return 0;
}
