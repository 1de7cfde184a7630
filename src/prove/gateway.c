/* gateway.c: the relays: answers that nobody asked for, and answers to a request of this tenant
 * that would desynchronise a connection which other tenants share. */
#define _GNU_SOURCE
#include "prove/hostile.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { REQUEST_WAIT_MS = 8000, STREAM_OF_NOBODY = 0x7eadbeef, STORM = 2000 };

static const char json_type[] = "application/json";

struct response { /* RELAY_RESPONSE, each member as it is to be */
    uint8_t flags;
    uint16_t http_status;
    uint32_t retry_after;
    struct span content_type, allow;
    uint64_t length;
    struct span fragment;
};

static struct response good_response(void)
{
    return (struct response){.flags = FLAG_END, .http_status = 200,
                             .content_type = span_of_text(json_type), .length = 2,
                             .fragment = SPAN("{}")};
}

static void put_header(struct buffer *body, uint8_t kind, struct span value)
{
    if (value.length == 0)
        return;
    buffer_put_u8(body, kind);
    buffer_put_field(body, value);
}

static void send_response(int relay, uint32_t stream, const struct response *response,
                          uint32_t fds)
{
    static uint8_t storage[IPC_BODY_MAX];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u8(&body, response->flags);
    buffer_put_u16(&body, response->http_status);
    buffer_put_u32(&body, response->retry_after);
    buffer_put_u64(&body, response->length);
    buffer_put_u8(&body, (uint8_t)(!!response->content_type.length + !!response->allow.length));
    put_header(&body, RELAY_CONTENT_TYPE, response->content_type);
    put_header(&body, RELAY_ALLOW, response->allow);
    buffer_put_field(&body, response->fragment);
    channel_send(relay, MESSAGE_RELAY_RESPONSE, stream, buffer_span(&body), fds);
}

static void send_more(int relay, uint32_t stream, uint8_t flags, struct span fragment)
{
    uint8_t storage[512];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u8(&body, flags);
    buffer_put_field(&body, fragment);
    channel_send(relay, MESSAGE_RELAY_MORE, stream, buffer_span(&body), 0);
}

/* ---- nobody asked ---- */

static struct got no_relay(void)
{
    return got_survived("no gateway gave a relay");
}

static struct got say(struct hostile *self, const struct attempt *attempt)
{
    uint8_t storage[512];
    struct buffer body = buffer_over(storage, sizeof storage);
    if (!self->relay_count)
        return no_relay();
    if (attempt->put)
        attempt->put(&body, &self->target);
    channel_send(self->relays[0], attempt->type, STREAM_OF_NOBODY, buffer_span(&body),
                 attempt->fds);
    return channel_ending(self, self->relays[0]);
}

static void put_neighbour(struct buffer *body, const struct target *target)
{
    buffer_put(body, SPAN_OF(target->neighbour));
}

static void put_channel(struct buffer *body, const struct target *target)
{
    (void)target;
    buffer_put_u8(body, CHANNEL_CONTROL);
    buffer_put_u32(body, 0);
}

static void put_reply(struct buffer *body, const struct target *target)
{
    (void)target;
    reply_put_head(body, OK, "");
}

static void put_request(struct buffer *body, const struct target *target)
{
    static const uint8_t trace[TRACE_ID_BYTES] = {1};
    (void)target;
    buffer_put_u8(body, FLAG_END);
    buffer_put(body, SPAN_OF(trace));
    buffer_put_text_field(body, "GET");
    buffer_put_text_field(body, "/v1/memories");
    buffer_put_text_field(body, ""); /* query */
    buffer_put_u64(body, 0);
    buffer_put_u8(body, 0); /* headers */
    buffer_put_text_field(body, ""); /* token */
    buffer_put_text_field(body, ""); /* fragment */
}

static void put_fragment(struct buffer *body, const struct target *target)
{
    (void)target;
    buffer_put_u8(body, FLAG_END);
    buffer_put_field(body, SPAN("fragment"));
}

static void put_text_of_4_gib(struct buffer *body, const struct target *target)
{
    (void)target;
    buffer_put_u8(body, FLAG_END);
    buffer_put_u16(body, 200);
    buffer_put_u32(body, 0);
    buffer_put_u64(body, 0);
    buffer_put_u8(body, 1);
    buffer_put_u8(body, RELAY_CONTENT_TYPE);
    buffer_put_u32(body, UINT32_MAX);
    buffer_put_text(body, "text/plain");
}

static struct got unasked_response(struct hostile *self, const struct attempt *attempt)
{
    const struct response response = good_response();
    if (!self->relay_count)
        return no_relay();
    send_response(self->relays[0], STREAM_OF_NOBODY, &response, attempt->fds);
    return channel_ending(self, self->relays[0]);
}

static struct got unasked_for_each(struct hostile *self, const struct attempt *attempt)
{
    const struct response response = good_response();
    (void)attempt;
    if (!self->relay_count)
        return no_relay();
    for (uint32_t stream = 0; stream < STORM; stream++)
        send_response(self->relays[0], stream, &response, 0);
    return channel_ending(self, self->relays[0]);
}

static struct got cut_packet(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    if (!self->relay_count)
        return no_relay();
    channel_send_raw(self->relays[0], SPAN("\0\0\x07"), 0);
    return channel_ending(self, self->relays[0]);
}

static struct got large_packet(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    _cleanup_free_ uint8_t *packet = calloc(1, IPC_PACKET_MAX + 1);
    if (!self->relay_count || !packet)
        return no_relay();
    channel_send_raw(self->relays[0], (struct span){packet, IPC_PACKET_MAX + 1}, 0);
    return channel_ending(self, self->relays[0]);
}

static struct got random_packets(struct hostile *self, const struct attempt *attempt)
{
    uint8_t packet[256];
    (void)attempt;
    if (!self->relay_count)
        return no_relay();
    for (int i = 0; i < STORM; i++) {
        if (getrandom(packet, sizeof packet, 0) != sizeof packet)
            return got_survived("no random bytes");
        packet[0] |= 0x80; /* a type that nobody has */
        if (!channel_send_raw(self->relays[0], SPAN_OF(packet), 0))
            break;
    }
    return channel_ending(self, self->relays[0]);
}

/* Saying again and again that it is about to park: the gateway says once that it has let go. */
static struct got drain_storm(struct hostile *self, const struct attempt *attempt)
{
    struct ipc_message message;
    struct fault fault;
    (void)attempt;
    if (!self->relay_count)
        return no_relay();
    for (int i = 0; i < STORM; i++)
        if (!channel_send(self->relays[0], MESSAGE_RELAY_DRAIN, 0, (struct span){0}, 0))
            break;
    for (uint32_t answers = 0;; answers++) {
        status got = ipc_await(&message, self->relays[0], self->storage, REQUEST_WAIT_MS, &fault);
        if (got == CLOSED)
            return got_bounded("%u answers, then the end", answers);
        if (got != OK || message.type != MESSAGE_RELAY_DRAINED || answers > 0)
            return got_survived("%s", got == OK ? "more than one DRAINED" : fault.detail);
        ipc_message_close(&message);
    }
}

/* ---- a request in flight ---- */

/* Waits on all relays; false when none came. */
static bool await_request(int *ret_relay, uint32_t *ret_stream, struct hostile *self)
{
    struct pollfd relays[GATEWAYS_MAX];
    struct ipc_message message;
    struct fault fault;
    report_wants_request(self);
    for (uint32_t i = 0; i < self->relay_count; i++)
        relays[i] = (struct pollfd){.fd = self->relays[i], .events = POLLIN};
    if (!self->relay_count || poll(relays, self->relay_count, REQUEST_WAIT_MS) <= 0)
        return false;
    for (uint32_t i = 0; i < self->relay_count; i++) {
        if (!(relays[i].revents & POLLIN))
            continue;
        if (ipc_receive(&message, self->relays[i], self->storage, &fault) != OK)
            continue;
        bool asked = message.type == MESSAGE_RELAY_REQUEST;
        *ret_relay = self->relays[i];
        *ret_stream = message.id;
        ipc_message_close(&message);
        return asked;
    }
    return false;
}

static struct got no_request(void)
{
    return got_survived("no request came through");
}

typedef void alter(struct response *response);

static struct got altered(struct hostile *self, alter *change)
{
    struct response response = good_response();
    int relay;
    uint32_t stream;
    if (!await_request(&relay, &stream, self))
        return no_request();
    change(&response);
    send_response(relay, stream, &response, 0);
    return channel_ending(self, relay);
}

static void type_with_crlf(struct response *response)
{
    response->content_type = SPAN("text/plain\r\nX-Hostile: yes");
}

static void type_with_response(struct response *response)
{
    response->content_type = SPAN("text/plain\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 hostile");
}

static void type_with_nul(struct response *response)
{
    response->content_type = SPAN("text/plain\0hostile");
}

static void type_with_newline(struct response *response)
{
    response->content_type = SPAN("text/plain\nX-Hostile: yes");
}

static void type_too_long(struct response *response)
{
    static uint8_t text[KIB(16)];
    memset(text, 'a', sizeof text);
    response->content_type = SPAN_OF(text);
}

static void allow_with_crlf(struct response *response)
{
    response->http_status = 405;
    response->allow = SPAN("GET\r\nX-Hostile: yes");
}

static void status_zero(struct response *response)
{
    response->http_status = 0;
}

static void status_1000(struct response *response)
{
    response->http_status = 1000;
}

static void status_informational(struct response *response)
{
    response->http_status = 100;
}

static void status_switching(struct response *response)
{
    response->http_status = 101;
}

static void status_without_body(struct response *response)
{
    response->http_status = 204;
}

static void longer_than_announced(struct response *response)
{
    response->fragment = SPAN("{}HTTP/1.1 200 hostile\r\n\r\n");
}

static void shorter_than_announced(struct response *response)
{
    response->length = 100;
}

static void length_of_4_gib(struct response *response)
{
    response->length = UINT32_MAX;
    response->flags = 0;
}

static void flags_unknown(struct response *response)
{
    response->flags = 0xFF;
}

static void body_without_type(struct response *response)
{
    response->content_type = (struct span){0};
}

#define ALTERED(function, change) \
    static struct got function(struct hostile *self, const struct attempt *attempt) \
    { \
        (void)attempt; \
        return altered(self, change); \
    }

ALTERED(answer_type_with_crlf, type_with_crlf)
ALTERED(answer_type_with_response, type_with_response)
ALTERED(answer_type_with_nul, type_with_nul)
ALTERED(answer_type_with_newline, type_with_newline)
ALTERED(answer_type_too_long, type_too_long)
ALTERED(answer_allow_with_crlf, allow_with_crlf)
ALTERED(answer_status_zero, status_zero)
ALTERED(answer_status_1000, status_1000)
ALTERED(answer_status_informational, status_informational)
ALTERED(answer_status_switching, status_switching)
ALTERED(answer_status_without_body, status_without_body)
ALTERED(answer_longer, longer_than_announced)
ALTERED(answer_shorter, shorter_than_announced)
ALTERED(answer_of_4_gib, length_of_4_gib)
ALTERED(answer_flags_unknown, flags_unknown)
ALTERED(answer_without_type, body_without_type)

static struct got answer_another(struct hostile *self, const struct attempt *attempt)
{
    const struct response response = good_response();
    int relay;
    uint32_t stream;
    (void)attempt;
    if (!await_request(&relay, &stream, self))
        return no_request();
    send_response(relay, stream + 1, &response, 0);
    return channel_ending(self, relay);
}

static struct got answer_without_head(struct hostile *self, const struct attempt *attempt)
{
    int relay;
    uint32_t stream;
    (void)attempt;
    if (!await_request(&relay, &stream, self))
        return no_request();
    send_more(relay, stream, FLAG_END, SPAN("hostile"));
    return channel_ending(self, relay);
}

static struct got answer_with_descriptor(struct hostile *self, const struct attempt *attempt)
{
    const struct response response = good_response();
    int relay;
    uint32_t stream;
    (void)attempt;
    if (!await_request(&relay, &stream, self))
        return no_request();
    send_response(relay, stream, &response, 1);
    return channel_ending(self, relay);
}

static struct got answer_twice(struct hostile *self, const struct attempt *attempt)
{
    const struct response response = good_response();
    struct response second = good_response();
    int relay;
    uint32_t stream;
    (void)attempt;
    if (!await_request(&relay, &stream, self))
        return no_request();
    second.length = 7;
    second.fragment = SPAN("hostile");
    send_response(relay, stream, &response, 0);
    send_response(relay, stream, &second, 0);
    return channel_ending(self, relay);
}

static struct got answer_on_and_on(struct hostile *self, const struct attempt *attempt)
{
    struct response response = good_response();
    int relay;
    uint32_t stream;
    (void)attempt;
    if (!await_request(&relay, &stream, self))
        return no_request();
    response.flags = 0;
    send_response(relay, stream, &response, 0);
    for (int i = 0; i < 100; i++)
        send_more(relay, stream, 0, SPAN("HTTP/1.1 200 hostile\r\n\r\n"));
    return channel_ending(self, relay);
}

/* ---- streams ---- */

static void put_no_credit(struct buffer *body, const struct target *target)
{
    (void)target;
    buffer_put_u32(body, 0);
}

static void put_long_credit(struct buffer *body, const struct target *target)
{
    (void)target;
    buffer_put_u64(body, UINT64_MAX);
}

/* One message to the stream of the request, which does not stream. */
static struct got say_to_it(struct hostile *self, uint32_t type, struct span body)
{
    int relay;
    uint32_t stream;
    if (!await_request(&relay, &stream, self))
        return no_request();
    channel_send(relay, type, stream, body, 0);
    return channel_ending(self, relay);
}

static struct got answer_credit(struct hostile *self, const struct attempt *attempt)
{
    static const uint8_t credit[4] = {0xFF, 0xFF, 0xFF, 0xFF};
    (void)attempt;
    return say_to_it(self, MESSAGE_RELAY_CREDIT, SPAN_OF(credit));
}

static struct got answer_break(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    return say_to_it(self, MESSAGE_RELAY_BREAK, (struct span){0});
}

static struct got break_begun(struct hostile *self, const struct attempt *attempt)
{
    struct response response = good_response();
    int relay;
    uint32_t stream;
    (void)attempt;
    if (!await_request(&relay, &stream, self))
        return no_request();
    response.flags = 0;
    response.length = 200;
    send_response(relay, stream, &response, 0);
    channel_send(relay, MESSAGE_RELAY_BREAK, stream, (struct span){0}, 0);
    return channel_ending(self, relay);
}

static void length_unknown(struct response *response)
{
    response->length = RELAY_LENGTH_UNKNOWN;
}

ALTERED(answer_length_unknown, length_unknown)

/* An answer of two bytes with these headers. */
static struct got answer_headers(struct hostile *self, struct span headers)
{
    uint8_t storage[256];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u8(&body, FLAG_END);
    buffer_put_u16(&body, 200);
    buffer_put_u32(&body, 0);
    buffer_put_u64(&body, 2);
    buffer_put(&body, headers);
    buffer_put_text_field(&body, "{}");
    return say_to_it(self, MESSAGE_RELAY_RESPONSE, buffer_span(&body));
}

static struct got answer_kinds(struct hostile *self, uint8_t first, uint8_t second)
{
    uint8_t storage[128];
    struct buffer headers = buffer_over(storage, sizeof storage);
    buffer_put_u8(&headers, 2);
    put_header(&headers, first, span_of_text(json_type));
    put_header(&headers, second, span_of_text(json_type));
    return answer_headers(self, buffer_span(&headers));
}

#define KINDS(function, first, second) \
    static struct got function(struct hostile *self, const struct attempt *attempt) \
    { \
        (void)attempt; \
        return answer_kinds(self, first, second); \
    }

KINDS(answer_header_twice, RELAY_CONTENT_TYPE, RELAY_CONTENT_TYPE)
KINDS(answer_header_of_requests, RELAY_CONTENT_TYPE, RELAY_IF_MATCH)
KINDS(answer_header_unknown, RELAY_CONTENT_TYPE, 0xFF)
KINDS(answer_headers_backwards, RELAY_ETAG, RELAY_CONTENT_TYPE)
KINDS(answer_range_of_whole, RELAY_CONTENT_TYPE, RELAY_CONTENT_RANGE)

static struct got answer_headers_missing(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    return answer_headers(self, SPAN("\xFF"));
}

#define CLOSES(title, message, body, descriptors) \
    {.name = title, .expect = EXPECT_CLOSED, .run = say, .type = message, .put = body, \
     .fds = descriptors}
#define CLOSES_RUN(title, function, descriptors) \
    {.name = title, .expect = EXPECT_CLOSED, .run = function, .fds = descriptors}
#define REFUSED(title, function) {.name = title, .expect = EXPECT_CLIENT_503, .run = function}
#define CUT(title, function) {.name = title, .expect = EXPECT_CLIENT_CUT, .run = function}

static const struct attempt attempts[] = {
    CLOSES_RUN("an answer to nobody", unasked_response, 0),
    CLOSES_RUN("an answer to nobody with a descriptor", unasked_response, 1),
    CLOSES_RUN("2,000 answers, one for each guessed stream", unasked_for_each, 0),
    CLOSES("more of an answer to nobody", MESSAGE_RELAY_MORE, put_fragment, 0),
    CLOSES("a content type of 4 GiB", MESSAGE_RELAY_RESPONSE, put_text_of_4_gib, 0),
    CLOSES("an answer without a body", MESSAGE_RELAY_RESPONSE, NULL, 0),
    CLOSES("the gateway's own RELAY_REQUEST", MESSAGE_RELAY_REQUEST, put_request, 0),
    CLOSES("the gateway's own RELAY_BODY", MESSAGE_RELAY_BODY, put_fragment, 0),
    CLOSES("the gateway's own RELAY_CANCEL", MESSAGE_RELAY_CANCEL, NULL, 0),
    CLOSES("the gateway's own RELAY_DRAINED", MESSAGE_RELAY_DRAINED, NULL, 0),
    CLOSES("the supervisor's GATEWAY_CELL for the neighbour", MESSAGE_GATEWAY_CELL, put_neighbour,
           1),
    CLOSES("the supervisor's CHANNEL", MESSAGE_CHANNEL, put_channel, 1),
    CLOSES("the supervisor's STOP", MESSAGE_STOP, NULL, 0),
    CLOSES("control's TENANT_CHANGED of the neighbour", MESSAGE_TENANT_CHANGED, put_neighbour, 0),
    CLOSES("an answer of control", MESSAGE_REPLY, put_reply, 0),
    CLOSES("an unknown type", 0x0fff, NULL, 0),
    CLOSES("a credit of nothing", MESSAGE_RELAY_CREDIT, put_no_credit, 0),
    CLOSES("a credit of eight bytes", MESSAGE_RELAY_CREDIT, put_long_credit, 0),
    CLOSES("the break of nothing", MESSAGE_RELAY_BREAK, NULL, 0),
    CLOSES("a break with a body", MESSAGE_RELAY_BREAK, put_no_credit, 0),
    CLOSES_RUN("a packet of three bytes", cut_packet, 0),
    CLOSES_RUN("a packet over the limit", large_packet, 0),
    CLOSES_RUN("2,000 random packets", random_packets, 0),
    {.name = "2,000 times about to park", .expect = EXPECT_BOUNDED, .run = drain_storm},

    REFUSED("a header injected by the content type", answer_type_with_crlf),
    REFUSED("a whole answer injected by the content type", answer_type_with_response),
    REFUSED("a bare newline in the content type", answer_type_with_newline),
    REFUSED("a NUL in the content type", answer_type_with_nul),
    REFUSED("a content type of 16 KiB", answer_type_too_long),
    REFUSED("a header injected by Allow", answer_allow_with_crlf),
    REFUSED("status 0", answer_status_zero),
    REFUSED("status 1000", answer_status_1000),
    REFUSED("status 100, before another answer", answer_status_informational),
    REFUSED("status 101, to take the connection over", answer_status_switching),
    REFUSED("status 204 with a body", answer_status_without_body),
    REFUSED("a body longer than announced", answer_longer),
    REFUSED("a body shorter than announced", answer_shorter),
    REFUSED("an announced body of 4 GiB", answer_of_4_gib),
    REFUSED("a body without a type", answer_without_type),
    REFUSED("unknown flags", answer_flags_unknown),
    REFUSED("the answer to another's stream", answer_another),
    REFUSED("a body without a head", answer_without_head),
    REFUSED("an answer with a descriptor", answer_with_descriptor),
    REFUSED("credit of 4 GiB for what does not stream", answer_credit),
    REFUSED("the break of an answer that has not begun", answer_break),
    REFUSED("a length that is not known, of what does not stream", answer_length_unknown),
    REFUSED("a header twice", answer_header_twice),
    REFUSED("a header of requests", answer_header_of_requests),
    REFUSED("a header that has no name", answer_header_unknown),
    REFUSED("headers in another order", answer_headers_backwards),
    REFUSED("a Content-Range on a whole answer", answer_range_of_whole),
    REFUSED("255 headers, and none there", answer_headers_missing),
    CUT("the break of an answer that does not stream", break_begun),
    CUT("a second answer", answer_twice),
    CUT("a body that goes on and on", answer_on_and_on),
};

const struct battery battery_gateway =
    BATTERY("gateway", "the gateway believes no length, text or stream of a cell", attempts);
