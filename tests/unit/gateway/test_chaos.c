/* Everything at once, by dice: clients that come, stammer and go, half by HTTP/2, cells
 * that answer, lie, drain and die, a control that fails and is lost. Whatever happens, no client
 * ever reads a byte of another tenant's, and everything is given back at the end (the
 * sanitizers' builds look). */
#define _GNU_SOURCE
#include "client2.h"

#include "base/hex.h"
#include "gateway/state.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TENANTS = 4, CLIENTS = 24, CELLS = 8, STREAMS = 1024, ROUNDS = 12000, SEEDS = 4 };

struct visitor {
    int fd; /* -1: none */
    int tenant;
    bool spoilt; /* sent what is no request: read no more than one refusal from */
    bool http2;
    int32_t stream;    /* HTTP/2: the next */
    struct buffer got; /* of a frame: not whole yet */
};

struct inmate {
    int fd; /* -1: none */
    int tenant;
    bool drained;
    uint32_t streams[STREAMS];
    bool complete[STREAMS];
    int count;
};

struct chaos {
    struct house *house;
    uint32_t seed;
    char tokens[TENANTS][2048];
    char ids[TENANTS][TENANT_ID_TEXT];
    struct visitor visitors[CLIENTS];
    struct inmate inmates[CELLS];
    uint64_t answers[2], refusals[2]; /* by HTTP/1.1, HTTP/2 */
};

static uint32_t dice(struct chaos *chaos, uint32_t sides)
{
    chaos->seed = chaos->seed * 1664525 + 1013904223;
    return (chaos->seed >> 8) % sides;
}

static void forget_cell(struct inmate *inmate)
{
    if (inmate->fd >= 0)
        close(inmate->fd);
    *inmate = (struct inmate){.fd = -1};
}

static void give(struct chaos *chaos, int tenant)
{
    struct inmate *inmate = &chaos->inmates[dice(chaos, CELLS)];
    forget_cell(inmate);
    inmate->fd = house_give_cell(chaos->house, chaos->ids[tenant]);
    inmate->tenant = tenant;
}

static int tenant_of(struct chaos *chaos, const char *text)
{
    for (int i = 0; i < TENANTS; i++)
        if (strcmp(chaos->ids[i], text) == 0)
            return i;
    fail_msg("asked for %s", text);
    return 0;
}

static void answer_find(struct chaos *chaos, const struct ipc_message *asked)
{
    struct cursor cursor = cursor_over(asked->body);
    char text[TENANT_NAME_MAX + 1];
    struct fault fault;
    assert_int_equal(cursor_text(text, sizeof text, &cursor, "tenant", &fault), OK);
    uint32_t how = dice(chaos, 20);
    if (how == 0)
        house_reply_to(chaos->house, asked->id, NOT_FOUND);
    else if (how == 1)
        house_reply_to(chaos->house, asked->id, UNAVAILABLE);
    else
        house_found(chaos->house, asked->id, chaos->ids[tenant_of(chaos, text)],
                    how == 2 ? RECORD_PAUSED : how == 3 ? RECORD_ERASING : RECORD_ACTIVE);
}

static void answer_wake(struct chaos *chaos, const struct ipc_message *asked)
{
    char text[TENANT_ID_TEXT];
    uint32_t how = dice(chaos, 10);
    assert_int_equal(asked->body.length, TENANT_ID_BYTES);
    hex_encode(text, asked->body);
    if (how < 8)
        give(chaos, tenant_of(chaos, text));
    house_reply_to(chaos->house, asked->id, how == 9 ? UNAVAILABLE : OK);
}

static void play_control(struct chaos *chaos)
{
    struct house *house = chaos->house;
    struct ipc_message message;
    struct fault fault;
    while (ipc_receive(&message, house->control, house->storage, &fault) == OK) {
        if (message.type == MESSAGE_TENANT_FIND)
            answer_find(chaos, &message);
        else if (message.type == MESSAGE_TENANT_WAKE)
            answer_wake(chaos, &message);
        else
            assert_int_equal(message.type, MESSAGE_DENIED);
    }
    if (dice(chaos, 40) == 0)
        house_changed(house, chaos->ids[dice(chaos, TENANTS)]);
    if (dice(chaos, 400) == 0)
        house_new_control(house);
}

static void try_send(int cell, uint32_t type, uint32_t id, const struct buffer *body)
{
    struct fault fault; /* the gateway may have ended it, or not read it for a while */
    status sent = ipc_send(cell, type, id, buffer_span(body), NULL, 0, &fault);
    assert_true(sent == OK || sent == CLOSED || sent == AGAIN);
}

/* The body names the tenant in every byte. lie: what a hostile cell does to it. */
static void respond(struct chaos *chaos, struct inmate *inmate, uint32_t id, uint32_t lie)
{
    uint8_t bytes[256], storage[1024];
    struct buffer body = buffer_over(storage, sizeof storage);
    uint32_t length = 1 + dice(chaos, 200), first = dice(chaos, length + 1);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)('A' + inmate->tenant);
    buffer_put_u8(&body, first == length ? FLAG_END : 0);
    buffer_put_u16(&body, lie == 1 ? 99 : 200);
    buffer_put_u32(&body, 0);
    buffer_put_u64(&body, length + (lie == 3));
    buffer_put_u8(&body, 1);
    buffer_put_u8(&body, lie == 6 ? RELAY_RANGE : RELAY_CONTENT_TYPE);
    buffer_put_field(&body, lie == 2 ? SPAN("a\r\nb: c") : SPAN("a/b"));
    buffer_put_field(&body, (struct span){bytes, first});
    if (lie == 4)
        buffer_put_u8(&body, 0);
    try_send(inmate->fd, MESSAGE_RELAY_RESPONSE, lie == 5 ? id + 3 : id, &body);
    if (first == length)
        return;
    buffer_clear(&body);
    buffer_put_u8(&body, FLAG_END);
    buffer_put_field(&body, (struct span){bytes, length - first});
    try_send(inmate->fd, MESSAGE_RELAY_MORE, id, &body);
}

static void took(struct inmate *inmate, const struct ipc_message *message)
{
    uint8_t flags = message->body.length ? message->body.data[0] : 0;
    int at = 0;
    while (at < inmate->count && inmate->streams[at] != message->id)
        at++;
    switch (message->type) {
    case MESSAGE_RELAY_REQUEST:
        assert_int_equal(at, inmate->count);
        assert_true(at < STREAMS && !inmate->drained);
        inmate->streams[at] = message->id;
        inmate->complete[at] = flags & FLAG_END;
        inmate->count++;
        break;
    case MESSAGE_RELAY_BODY:
        assert_true(at < inmate->count && !inmate->complete[at] && !inmate->drained);
        inmate->complete[at] = flags & FLAG_END;
        break;
    case MESSAGE_RELAY_CANCEL:
        assert_false(inmate->drained);
        if (at == inmate->count)
            break; /* it crossed the answer */
        inmate->count--;
        inmate->streams[at] = inmate->streams[inmate->count];
        inmate->complete[at] = inmate->complete[inmate->count];
        break;
    default:
        assert_int_equal(message->type, MESSAGE_RELAY_DRAINED);
        assert_false(inmate->drained);
        inmate->drained = true;
    }
}

static void play_cell(struct chaos *chaos, struct inmate *inmate)
{
    struct fault fault;
    struct ipc_message message;
    const struct buffer nothing = {0};
    status came;
    if (inmate->fd < 0)
        return;
    while ((came = ipc_receive(&message, inmate->fd, chaos->house->storage, &fault)) == OK)
        took(inmate, &message);
    if (came == CLOSED || dice(chaos, 300) == 0) {
        forget_cell(inmate);
        return;
    }
    if (dice(chaos, 200) == 0)
        try_send(inmate->fd, MESSAGE_RELAY_DRAIN, 0, &nothing); /* twice ends it */
    if (dice(chaos, 400) == 0)
        try_send(inmate->fd, dice(chaos, 0x0900), dice(chaos, 9), &nothing);
    for (int i = inmate->count - 1; i >= 0; i--) {
        if (!inmate->complete[i] || dice(chaos, 4) == 0)
            continue;
        respond(chaos, inmate, inmate->streams[i], dice(chaos, 100));
        inmate->count--;
        inmate->streams[i] = inmate->streams[inmate->count];
        inmate->complete[i] = inmate->complete[inmate->count];
    }
}

static void say(struct chaos *chaos, struct visitor *visitor)
{
    static char body[KIB(100)];
    struct house *house = chaos->house;
    const char *token = chaos->tokens[visitor->tenant];
    uint32_t what = dice(chaos, 12);
    if (visitor->spoilt)
        return;
    memset(body, 'x', sizeof body - 1);
    if (what < 6) {
        house_say(house, visitor->fd,
                  "GET /v1/memories HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n",
                  token);
    } else if (what < 8) {
        house_say(house, visitor->fd,
                  "POST /v1/memories HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
                  "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", token);
    } else if (what == 8) {
        house_say(house, visitor->fd,
                  "POST /v1/memories HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
                  "Content-Length: %zu\r\n\r\n%s", token, sizeof body - 1, body);
    } else if (what == 9) { /* stops in the middle */
        visitor->spoilt = true;
        house_say(house, visitor->fd,
                  "POST /v1/memories HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
                  "Content-Length: %zu\r\n\r\n%.*s", token, sizeof body - 1,
                  (int)dice(chaos, sizeof body - 1), body);
    } else if (what == 10) {
        house_say(house, visitor->fd, "GET /v1/memories HTTP/1.1\r\nHost: x\r\n\r\n");
    } else {
        visitor->spoilt = true;
        house_say(house, visitor->fd, "GET\r\n\r\n");
    }
}

/* ---- of HTTP/2 ---- */

static void put_frame(struct buffer *out, uint8_t type, uint8_t flags, int32_t stream,
                      struct span payload)
{
    buffer_put_u8(out, (uint8_t)(payload.length >> 16));
    buffer_put_u16(out, (uint16_t)payload.length);
    buffer_put_u8(out, type);
    buffer_put_u8(out, flags);
    buffer_put_u32(out, (uint32_t)stream);
    buffer_put(out, payload);
}

static void put_number(struct buffer *out, uint8_t type, int32_t stream, uint32_t number)
{
    uint8_t storage[4];
    struct buffer payload = buffer_over(storage, sizeof storage);
    buffer_put_u32(&payload, number);
    put_frame(out, type, 0, stream, buffer_span(&payload));
}

static void put_request(struct buffer *out, struct chaos *chaos, struct visitor *visitor,
                        const char *method, bool end)
{
    uint8_t storage[3000];
    char bearer[2100];
    struct buffer block = buffer_over(storage, sizeof storage);
    snprintf(bearer, sizeof bearer, "Bearer %s", chaos->tokens[visitor->tenant]);
    client2_put_field(&block, ":method", method);
    client2_put_field(&block, ":scheme", "http");
    client2_put_field(&block, ":path", dice(chaos, 9) ? "/v1/memories" : "/no/where");
    client2_put_field(&block, ":authority", "x");
    client2_put_field(&block, "authorization", bearer);
    if (dice(chaos, 20) == 0)
        client2_put_field(&block, "Wrong", "");
    put_frame(out, NGHTTP2_HEADERS,
              (uint8_t)(NGHTTP2_FLAG_END_HEADERS | (end ? NGHTTP2_FLAG_END_STREAM : 0)),
              visitor->stream, buffer_span(&block));
    visitor->stream += 2;
}

static void put_data(struct buffer *out, struct chaos *chaos, struct visitor *visitor)
{
    static const uint8_t bytes[FRAME_MAX];
    int32_t stream = visitor->stream - 2;
    for (uint32_t i = dice(chaos, 8); i > 0 && stream > 0; i--)
        put_frame(out, NGHTTP2_DATA, dice(chaos, 3) ? 0 : NGHTTP2_FLAG_END_STREAM, stream,
                  (struct span){bytes, dice(chaos, sizeof bytes)});
}

static void put_noise(struct buffer *out, struct chaos *chaos)
{
    uint8_t bytes[64];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)dice(chaos, 256);
    put_frame(out, (uint8_t)dice(chaos, 14), (uint8_t)dice(chaos, 256),
              (int32_t)dice(chaos, 20), (struct span){bytes, dice(chaos, sizeof bytes)});
}

/* One that was begun, or will be. */
static int32_t some_stream(struct chaos *chaos, const struct visitor *visitor)
{
    uint32_t back = dice(chaos, 12);
    return visitor->stream > (int32_t)back * 2 ? visitor->stream - (int32_t)back * 2 : 1;
}

static void say_frames(struct chaos *chaos, struct visitor *visitor)
{
    struct buffer out = buffer_of(MIB(1));
    for (uint32_t i = 1 + dice(chaos, 6); i > 0; i--) {
        uint32_t what = dice(chaos, 64);
        if (what < 24)
            put_request(&out, chaos, visitor, "GET", true);
        else if (what < 36)
            put_request(&out, chaos, visitor, "POST", false);
        else if (what < 44)
            put_data(&out, chaos, visitor);
        else if (what < 50)
            put_number(&out, NGHTTP2_RST_STREAM, some_stream(chaos, visitor), NGHTTP2_CANCEL);
        else if (what < 54)
            put_number(&out, NGHTTP2_WINDOW_UPDATE, some_stream(chaos, visitor),
                       1 + dice(chaos, 300));
        else if (what < 58)
            put_number(&out, NGHTTP2_WINDOW_UPDATE, 0, dice(chaos, 70000));
        else if (what < 60)
            put_frame(&out, NGHTTP2_SETTINGS, dice(chaos, 2) ? NGHTTP2_FLAG_ACK : 0, 0,
                      (struct span){0});
        else if (what < 61)
            put_frame(&out, NGHTTP2_GOAWAY, 0, 0, SPAN("\0\0\0\0\0\0\0\0"));
        else if (what < 62)
            put_noise(&out, chaos);
    }
    house_write(chaos->house, visitor->fd, buffer_span(&out));
    buffer_free(&out);
}

/* With a window in which few answers fit, or none. */
static void greet(struct chaos *chaos, struct visitor *visitor)
{
    uint8_t storage[128], settings[6];
    struct buffer out = buffer_over(storage, sizeof storage);
    struct buffer payload = buffer_over(settings, sizeof settings);
    buffer_put_u16(&payload, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE);
    buffer_put_u32(&payload, dice(chaos, 2) ? 65535 : dice(chaos, 200));
    buffer_put(&out, SPAN("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    put_frame(&out, NGHTTP2_SETTINGS, 0, 0, buffer_span(&payload));
    put_frame(&out, NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, (struct span){0});
    visitor->stream = 1;
    visitor->got = buffer_of(MIB(1));
    house_write(chaos->house, visitor->fd, buffer_span(&out));
}

/* ---- what they read ---- */

/* Every byte of a body is the tenant's letter, or the answer is a problem of the gateway's. */
static void check_bytes(struct chaos *chaos, const struct visitor *visitor, struct span all)
{
    for (size_t i = 0; i + 1 < all.length; i++) {
        bool run = all.data[i] >= 'A' && all.data[i] < 'A' + TENANTS
                && all.data[i + 1] == all.data[i];
        if (!run)
            continue;
        assert_int_equal(all.data[i], 'A' + visitor->tenant);
        chaos->answers[visitor->http2]++;
    }
    chaos->refusals[visitor->http2] += memmem(all.data, all.length, "trace_id", 8) != NULL;
}

/* DATA alone: a head is packed, and any byte can be in it. */
static void check_frames(struct chaos *chaos, struct visitor *visitor, struct span bytes)
{
    struct buffer *got = &visitor->got;
    buffer_put(got, bytes);
    assert_false(got->failed);
    while (got->length >= 9) {
        size_t length = (size_t)got->data[0] << 16 | (size_t)got->data[1] << 8 | got->data[2];
        if (got->length < 9 + length)
            return;
        if (got->data[3] == NGHTTP2_DATA)
            check_bytes(chaos, visitor, (struct span){got->data + 9, length});
        buffer_consume(got, 9 + length);
    }
}

static void leave(struct chaos *chaos, struct visitor *visitor)
{
    const struct linger at_once = {.l_onoff = 1};
    if (dice(chaos, 2)) /* a reset, not an orderly end */
        (void)setsockopt(visitor->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(visitor->fd);
    buffer_free(&visitor->got);
    visitor->fd = -1;
}

static void listen_to(struct chaos *chaos, struct visitor *visitor)
{
    uint8_t bytes[4096];
    ssize_t got;
    while ((got = recv(visitor->fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0) {
        struct span all = {bytes, (size_t)got};
        if (visitor->http2)
            check_frames(chaos, visitor, all);
        else
            check_bytes(chaos, visitor, all);
    }
    if (got == 0 || errno != EAGAIN || dice(chaos, 60) == 0)
        leave(chaos, visitor);
    else if (dice(chaos, 200) == 0)
        shutdown(visitor->fd, SHUT_WR);
}

static void play_visitor(struct chaos *chaos, struct visitor *visitor)
{
    if (visitor->fd < 0) {
        *visitor = (struct visitor){.fd = house_dial(chaos->house),
                                    .tenant = (int)dice(chaos, TENANTS),
                                    .http2 = dice(chaos, 2)};
        if (visitor->http2)
            greet(chaos, visitor);
    }
    if (dice(chaos, 3) == 0 && visitor->http2)
        say_frames(chaos, visitor);
    else if (dice(chaos, 3) == 0 && !visitor->http2)
        say(chaos, visitor);
    listen_to(chaos, visitor);
}

static void prepare(struct chaos *chaos, struct house *house, uint32_t seed)
{
    *chaos = (struct chaos){.house = house, .seed = seed};
    for (int i = 0; i < TENANTS; i++) {
        memset(chaos->ids[i], 'a' + i, TENANT_ID_TEXT - 1);
        snprintf(chaos->tokens[i], sizeof chaos->tokens[i], "%s",
                 house_token(house, chaos->ids[i], "memory:read memory:write"));
    }
    for (int i = 0; i < CLIENTS; i++)
        chaos->visitors[i].fd = -1;
    for (int i = 0; i < CELLS; i++)
        chaos->inmates[i].fd = -1;
}

static void whatever_happens_no_tenant_reads_anothers_bytes(void **state)
{
    static struct chaos chaos;
    struct house *house = *state;
    status why;
    for (uint32_t seed = 1; seed <= SEEDS; seed++) {
        prepare(&chaos, house, seed);
        for (int round = 0; round < ROUNDS / SEEDS; round++) {
            play_visitor(&chaos, &chaos.visitors[dice(&chaos, CLIENTS)]);
            play_control(&chaos);
            for (int i = 0; i < CELLS; i++)
                play_cell(&chaos, &chaos.inmates[i]);
            house_wait(house, dice(&chaos, 100) == 0 ? 5000 : dice(&chaos, 20));
            assert_false(house_ended(house, &why));
        }
        for (int i = 0; i < 2; i++)
            assert_true(chaos.answers[i] > 100 && chaos.refusals[i] > 10);
        for (int i = 0; i < CELLS; i++)
            forget_cell(&chaos.inmates[i]);
        for (int i = 0; i < CLIENTS; i++)
            if (chaos.visitors[i].fd >= 0)
                leave(&chaos, &chaos.visitors[i]);
        house_turn(house);
        assert_int_equal(house->stats->slots[1].connections_open, 0);
        assert_int_equal(house->gateway->memory, 0);
        assert_int_equal(house->gateway->wait_lookup + house->gateway->wait_wake, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(whatever_happens_no_tenant_reads_anothers_bytes,
                                        house_setup, house_teardown),
    };
    return cmocka_run_group_tests_name("gateway chaos", tests, NULL, NULL);
}
