/* A whole gateway and a cell that may say anything to it. The first byte says what its client has
 * asked for; each message is then a type, a stream (0: the client's), a length and the body. The
 * gateway lives on, and what the client gets is a head of the gateway's own fields alone, or
 * nothing. */
#define _GNU_SOURCE
#include "fuzz.h"

#include "house.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *const asked[] = {
    "GET /v1/memories HTTP/1.1\r\n",
    "GET /v1/streams/a HTTP/1.1\r\n",
    "HEAD /v1/streams/a HTTP/1.1\r\n",
    "POST /v1/streams HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
    "PUT /v1/streams/a HTTP/1.1\r\nContent-Length: 10\r\n",
    "GET /v1/streams/a HTTP/1.0\r\n",
};

static const uint32_t types[] = {
    MESSAGE_RELAY_RESPONSE, MESSAGE_RELAY_MORE, MESSAGE_RELAY_CREDIT, MESSAGE_RELAY_BREAK,
    MESSAGE_RELAY_DRAIN,    MESSAGE_REPLY,      MESSAGE_RELAY_BODY,   MESSAGE_RELAY_CANCEL,
};

static const char *const names[] = {
    "Date", "Traceparent", "Content-Type", "Content-Length", "Allow", "ETag", "Last-Modified",
    "Content-Range", "Accept-Ranges", "Content-Disposition", "Idempotent-Replayed",
    "X-Content-Type-Options", "Content-Security-Policy", "WWW-Authenticate", "Retry-After",
    "Transfer-Encoding", "Connection", NULL,
};

static bool is_known(const char *line)
{
    for (size_t i = 0; names[i]; i++)
        if (strncmp(line, names[i], strlen(names[i])) == 0
            && strncmp(line + strlen(names[i]), ": ", 2) == 0)
            return true;
    return false;
}

static void check_head(char *text)
{
    char *end = strstr(text, "\r\n\r\n");
    if (!text[0])
        return;
    CHECK(strncmp(text, "HTTP/1.1 ", 9) == 0 && end);
    if (strncmp(text + 9, "100", 3) == 0) {
        check_head(end + 4);
        return;
    }
    CHECK(text[9] >= '2' && text[9] <= '5');
    end[2] = '\0';
    for (char *line = strstr(text, "\r\n") + 2; *line; line = strstr(line, "\r\n") + 2)
        CHECK(is_known(line));
}

/* Twice, so that a connection that has been closed is seen to be. */
static void drink(struct house *house, int client, struct buffer *ret)
{
    for (int i = 0; i < 2; i++) {
        ssize_t got = 1;
        while (got > 0) {
            uint8_t *room = buffer_reserve(ret, 4096);
            CHECK(room);
            got = recv(client, room, 4096, MSG_DONTWAIT);
            if (got > 0)
                buffer_advance(ret, (size_t)got);
        }
        house_turn(house);
    }
}

static void say(int cell, uint32_t id, struct cursor *input)
{
    struct fault fault;
    struct span body;
    uint8_t type, stream;
    uint16_t length;
    while (cursor_u8(&type, input, &fault) == OK && cursor_u8(&stream, input, &fault) == OK
           && cursor_u16(&length, input, &fault) == OK
           && cursor_bytes(&body, input, length, &fault) == OK)
        if (ipc_send(cell, types[type % (sizeof types / sizeof *types)], id + stream, body, NULL,
                     0, &fault) != OK)
            return;
}

static void drop_messages(struct house *house, int channel)
{
    while (recv(channel, house->storage, sizeof house->storage, MSG_DONTWAIT) > 0)
        ;
}

static void answer_questions(struct house *house)
{
    struct ipc_message message;
    struct fault fault;
    while (ipc_receive(&message, house->control, house->storage, &fault) == OK)
        if (message.type == MESSAGE_TENANT_FIND)
            house_found(house, message.id, TENANT, 1);
}

/* What control is asked is answered: the tenant is known, its cell is this one. On a busy machine
 * what the client said may come late. */
static int relayed_cell(struct house *house, uint32_t *ret_id)
{
    struct ipc_message message;
    struct fault fault;
    status came = AGAIN;
    int cell = house_give_cell(house, TENANT);
    for (int patience = 400; came == AGAIN && patience > 0; patience--) {
        house_turn(house);
        answer_questions(house);
        came = ipc_receive(&message, cell, house->storage, &fault);
        if (came == AGAIN && patience < 390)
            usleep(1000);
    }
    CHECK(came == OK && message.type == MESSAGE_RELAY_REQUEST);
    *ret_id = message.id;
    return cell;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct house *house;
    const struct linger none = {.l_onoff = 1};
    status why;
    uint32_t id;
    if (size == 0)
        return 0;
    if (!house)
        CHECK(house_setup((void **)&house) == 0);
    struct cursor input = cursor_over((struct span){data + 1, size - 1});
    struct buffer answer = buffer_of(MIB(16));
    int client = house_dial(house);
    uint8_t what = data[0] % (sizeof asked / sizeof *asked);
    house_say(house, client, "%sHost: x\r\nAuthorization: Bearer %s\r\n\r\n%s", asked[what],
              (const char *)house->token.data, what == 3 ? "4\r\none\n\r\n" : what == 4 ? "1" : "");
    int cell = relayed_cell(house, &id);
    say(cell, id, &input);
    drink(house, client, &answer);
    close(cell);
    drink(house, client, &answer);
    CHECK(!setsockopt(client, SOL_SOCKET, SO_LINGER, &none, sizeof none));
    close(client);
    house_settle(house);
    drop_messages(house, house->control);
    buffer_put_u8(&answer, 0);
    CHECK(!answer.failed);
    check_head((char *)answer.data);
    CHECK(house->stats->slots[1].connections_open == 0);
    CHECK(!house_ended(house, &why));
    buffer_free(&answer);
    return 0;
}
