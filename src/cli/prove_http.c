/* prove_http.c: a client of a few lines, to the node's own listener. */
#define _GNU_SOURCE
#include "cli/prove.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/secret.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

enum { REQUEST_MAX = 64 * 1024, PIECE = 16 * 1024, SEND_WAIT_S = 5 };

static status connect_to(int *ret, const char *address, struct fault *fault)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                                   .ai_socktype = SOCK_STREAM};
    const struct timeval wait = {.tv_sec = SEND_WAIT_S};
    struct addrinfo *found;
    char host[64];
    const char *colon = strrchr(address, ':');
    size_t length = colon ? (size_t)(colon - address) : 0;
    bool bracketed = length > 2 && address[0] == '[' && address[length - 1] == ']';
    struct span inner = {(const uint8_t *)address + bracketed, length - 2 * (size_t)bracketed};
    if (!colon || !span_to_text(host, sizeof host, inner)
        || getaddrinfo(host, colon + 1, &hints, &found))
        return FAIL(BAD_FIELD, fault, "the node listens on \"%.60s\", which is no address",
                    address);
    _cleanup_close_ int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool connected = fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait)
                  && !connect(fd, found->ai_addr, found->ai_addrlen);
    int error = errno;
    freeaddrinfo(found);
    if (!connected)
        return FAIL(UNAVAILABLE, fault, "%.60s: %s", address, strerror(error));
    *ret = take_fd(&fd);
    return OK;
}

status prove_http_send(int *ret, const char *address, const char *method, const char *path,
                       const char *token, struct span body, struct fault *fault)
{
    _cleanup_buffer_ struct buffer request = buffer_of(REQUEST_MAX);
    _cleanup_close_ int fd = -1;
    TRY(connect_to(&fd, address, fault));
    buffer_printf(&request, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n"
                  "Authorization: Bearer ", method, path, address);
    buffer_put_text(&request, token);
    if (body.length)
        buffer_printf(&request, "\r\nContent-Type: application/json\r\nContent-Length: %zu",
                      body.length);
    buffer_put_text(&request, "\r\n\r\n");
    buffer_put(&request, body);
    TRY(buffer_check(&request, "request", fault));
    ssize_t sent = send(fd, request.data, request.length, MSG_NOSIGNAL);
    secret_wipe(request.data, request.length);
    if (sent != (ssize_t)request.length)
        return FAIL(UNAVAILABLE, fault, "%.60s: %s", address, strerror(errno));
    *ret = take_fd(&fd);
    return OK;
}

status prove_http_read(struct buffer *out, int fd, int timeout_ms, struct fault *fault)
{
    _cleanup_close_ int owned = fd;
    int64_t until_us = clock_monotonic_us() + (int64_t)timeout_ms * 1000;
    for (;;) {
        int64_t left_us = until_us - clock_monotonic_us();
        struct pollfd readable = {.fd = owned, .events = POLLIN};
        if (left_us <= 0 || poll(&readable, 1, (int)((left_us + 999) / 1000)) == 0)
            return FAIL(TIMED_OUT, fault, "no whole answer within %d ms", timeout_ms);
        uint8_t *room = buffer_reserve(out, PIECE);
        ssize_t count = room ? recv(owned, room, PIECE, MSG_DONTWAIT) : -1;
        if (count < 0 && (errno == EAGAIN || errno == EINTR) && room)
            continue;
        if (count <= 0) /* a reset is an end, too: what came before it counts */
            return buffer_check(out, "answer", fault);
        buffer_advance(out, (size_t)count);
    }
}

int prove_http_status(struct span answer)
{
    int code = 0;
    if (answer.length < 12 || !span_starts_with(answer, SPAN("HTTP/1.1 ")))
        return 0;
    for (int i = 9; i < 12; i++) {
        if (answer.data[i] < '0' || answer.data[i] > '9')
            return 0;
        code = code * 10 + (answer.data[i] - '0');
    }
    return code;
}
