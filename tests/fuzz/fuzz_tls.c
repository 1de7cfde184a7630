/* Whatever a client sends before it is anybody: a handshake goes on, or ends with a reason,
 * whole or in pieces; none is ever done without the keys, and all of it is given back. The first
 * byte of the input says into what pieces the rest is cut, and whether the client then leaves. */
#include "fuzz.h"

#include "../unit/crypt/tls_support.h"

static struct tls_server *server;

static void open_server(void)
{
    struct pair pair;
    struct fault fault;
    uint8_t tickets[TLS_TICKET_KEY_BYTES] = {1};
    CHECK(crypt_start(&fault) == OK && tls_warm_up(&fault) == OK);
    make_pair(&pair, "P-256", "fuzz.example", 30);
    server = serve(&pair);
    tls_server_tickets(server, tickets, 1);
}

/* AGAIN: it waits for more. */
static status go_on(struct tls_session *session)
{
    enum tls_want want;
    struct fault fault;
    status code = tls_handshake(session, &want, &fault);
    CHECK(code != OK);
    CHECK((code == AGAIN) == (want != TLS_WANT_NOTHING));
    return code;
}

static void drop_answers(int fd)
{
    uint8_t bytes[4096];
    while (recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int ends[2];
    struct tls_session *session;
    struct fault fault;
    enum tls_want want;
    uint8_t byte;
    if (!server)
        open_server();
    if (size == 0)
        return 0;
    size_t piece = data[0] & 0x7F ? data[0] & 0x7F : size;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    CHECK(tls_session_open(&session, server, ends[1], &fault) == OK);
    status code = go_on(session);
    for (size_t at = 1; at < size && code == AGAIN; at += piece) {
        size_t length = size - at < piece ? size - at : piece;
        CHECK(send(ends[0], data + at, length, MSG_NOSIGNAL) == (ssize_t)length);
        code = go_on(session);
        drop_answers(ends[0]);
    }
    if (data[0] & 0x80) {
        CHECK(shutdown(ends[0], SHUT_WR) == 0);
        CHECK(go_on(session) != AGAIN);
    }
    CHECK(tls_read(session, &byte, 1, &want) == -1 && tls_pending(session) == 0);
    CHECK(tls_write(session, (struct span){data, 1}, &want) == -1);
    tls_shutdown(session);
    tls_session_free(session);
    close(ends[0]);
    close(ends[1]);
    return 0;
}
