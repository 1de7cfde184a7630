/* Clients of HTTP/2 that mean harm: floods, bombs, what is never finished. Each is sent away, and
 * beside it stands what an honest client does as often as it needs. */
#include "client2.h"

#include "gateway/state.h"

#include <unistd.h>

static const uint8_t eight[8], four_one[] = {0, 0, 0, 1}, five[] = {0, 0, 0, 0, 16};

static void ping(struct client2 *client, int i)
{
    (void)i;
    client2_frame(client, NGHTTP2_PING, 0, 0, SPAN_OF(eight));
}

static void settings(struct client2 *client, int i)
{
    (void)i;
    client2_frame(client, NGHTTP2_SETTINGS, 0, 0, (struct span){0});
}

static void priority(struct client2 *client, int i)
{
    client2_frame(client, NGHTTP2_PRIORITY, 0, 1 + 2 * (i % 1000), SPAN_OF(five));
}

static void window_update(struct client2 *client, int i)
{
    (void)i;
    client2_frame(client, NGHTTP2_WINDOW_UPDATE, 0, 0, SPAN_OF(four_one));
}

static void unknown(struct client2 *client, int i)
{
    static const uint8_t much[FRAME_MAX];
    client2_frame(client, 0xfa, (uint8_t)i, 0, SPAN_OF(much));
}

static void empty_data(struct client2 *client, int i)
{
    if (i == 0)
        client2_request(client, 1, "POST", "/v1/memories", false);
    client2_frame(client, NGHTTP2_DATA, 0, 1, (struct span){0});
}

static void padding(struct client2 *client, int i)
{
    static const uint8_t only[] = {3, 0, 0, 0};
    if (i == 0)
        client2_request(client, 1, "POST", "/v1/memories", false);
    client2_frame(client, NGHTTP2_DATA, NGHTTP2_FLAG_PADDED, 1, SPAN_OF(only));
}

static void rapid_reset(struct client2 *client, int i)
{
    client2_request(client, 1 + 2 * i, "GET", "/v1/memories", true);
    client2_reset(client, 1 + 2 * i, NGHTTP2_CANCEL);
}

/* Made to be reset by us: CVE-2025-8671. */
static void made_you_reset(struct client2 *client, int i)
{
    static const uint8_t most[] = {0x7f, 0xff, 0xff, 0xff};
    client2_request(client, 1 + 2 * i, "POST", "/v1/memories", false);
    client2_frame(client, NGHTTP2_WINDOW_UPDATE, 0, 1 + 2 * i, SPAN_OF(most));
}

static const struct {
    const char *name;
    void (*once)(struct client2 *client, int i);
    int allowed, too_many;
} floods[] = {
    {"ping", ping, 150, 1200},
    {"settings", settings, 20, 80},
    {"priority", priority, 500, 1200},
    {"window update", window_update, 500, 1200},
    {"unknown", unknown, 30, 100},
    {"empty data", empty_data, 500, 1200},
    {"padding", padding, 500, 1200},
    {"rapid reset", rapid_reset, 100, 300},
    {"made you reset", made_you_reset, 100, 300},
};

static bool says_goaway(struct client2 *client, uint32_t *ret_code)
{
    for (const struct frame *frame; (frame = client2_read(client));)
        if (frame->type == NGHTTP2_GOAWAY) {
            *ret_code = frame->code;
            return true;
        }
    return false;
}

static void what_moves_nothing_is_borne_only_so_often(void **state)
{
    for (size_t i = 0; i < sizeof floods / sizeof *floods; i++) {
        struct client2 *client = client2_dial(*state);
        uint32_t code = 0;
        int sent = 0;
        while (sent < floods[i].allowed)
            floods[i].once(client, sent++);
        if (says_goaway(client, &code))
            fail_msg("%s: sent away with %u already after %d", floods[i].name, code, sent);
        while (sent < floods[i].too_many)
            floods[i].once(client, sent++);
        if (!says_goaway(client, &code) || code != NGHTTP2_ENHANCE_YOUR_CALM)
            fail_msg("%s: still there after %d, or with another word: %u", floods[i].name, sent,
                     code);
        assert_true(house_closed(client->house, client->fd));
        client2_close(client);
    }
}

static void what_is_spread_over_time_is_borne(void **state)
{
    struct client2 *client = client2_dial(*state);
    for (int second = 0; second < 15; second++) {
        for (int i = 0; i < 100; i++)
            ping(client, i);
        house_wait(client->house, 1000);
    }
    const struct frame *frame;
    while ((frame = client2_read(client)))
        assert_int_not_equal(frame->type, NGHTTP2_GOAWAY);
    assert_false(house_closed(client->house, client->fd));
    client2_close(client);
}

static void more_streams_than_agreed_are_refused(void **state)
{
    struct client2 *client = client2_dial(*state);
    for (int i = 0; i < 101; i++)
        client2_request(client, 1 + 2 * i, "GET", "/v1/memories", true);
    uint32_t code = 0;
    for (const struct frame *frame; code == 0 && (frame = client2_read(client));)
        if (frame->type == NGHTTP2_RST_STREAM || frame->type == NGHTTP2_GOAWAY)
            code = frame->code;
    assert_true(code == NGHTTP2_REFUSED_STREAM || code == NGHTTP2_PROTOCOL_ERROR);
    client2_close(client);
}

/* A field of 4000 bytes in the table, then one byte each time. */
static void a_block_that_is_packed_to_burst_ends_the_connection(void **state)
{
    struct client2 *client = client2_dial(*state);
    char value[4000];
    struct buffer block = buffer_of(MIB(1));
    memset(value, 'v', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    client2_put_field(&block, ":method", "GET");
    client2_put_field(&block, ":scheme", "http");
    client2_put_field(&block, ":path", "/");
    client2_put_field(&block, ":authority", "x");
    size_t at = block.length;
    client2_put_field(&block, "x", value);
    block.data[at] = 0x40; /* the same, into the table */
    for (int i = 0; i < 5000; i++)
        buffer_put_u8(&block, 0x80 | 62);
    client2_frame(client, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_STREAM | NGHTTP2_FLAG_END_HEADERS, 1,
                  buffer_span(&block));
    client2_expect_end(client, NGHTTP2_ENHANCE_YOUR_CALM);
    buffer_free(&block);
    client2_close(client);
}

static void too_large_a_head_is_431_and_the_others_go_on(void **state)
{
    struct client2 *client = client2_dial(*state);
    static char large[36000];
    struct field2 fields[70] = {{":method", "GET"}, {":scheme", "http"}, {":path", "/"},
                                {":authority", "x"}, {"x", large}};
    memset(large, 'l', sizeof large - 1);
    client2_fields(client, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, 1, fields, 5);
    client2_expect(client, 1, 431);
    for (size_t i = 4; i < 70; i++)
        fields[i] = (struct field2){"x", "y"};
    client2_fields(client, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, 3, fields, 70);
    client2_expect(client, 3, 431);
    client2_fields(client, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, 5, fields, 10);
    client2_expect(client, 5, 401);
    client2_close(client);
}

static void continuations_are_counted(void **state)
{
    struct client2 *client = client2_dial(*state);
    client2_frame(client, NGHTTP2_HEADERS, 0, 1, (struct span){0});
    for (int i = 0; i < 20; i++)
        client2_frame(client, NGHTTP2_CONTINUATION, 0, 1, (struct span){0});
    client2_expect_end(client, NGHTTP2_ENHANCE_YOUR_CALM);
    client2_close(client);
}

static void a_head_that_is_never_finished_is_not_waited_for(void **state)
{
    struct client2 *client = client2_dial(*state);
    client2_frame(client, NGHTTP2_HEADERS, 0, 1, (struct span){0});
    house_wait(client->house, 9000);
    assert_false(house_closed(client->house, client->fd));
    client2_frame(client, NGHTTP2_CONTINUATION, 0, 1, (struct span){0}); /* drop by drop */
    house_wait(client->house, 1100);
    assert_true(house_closed(client->house, client->fd));
    client2_close(client);
}

static void settings_that_are_not_acknowledged_are_not_waited_for(void **state)
{
    struct client2 *client = client2_open(*state);
    house_wait(client->house, 9000);
    client2_request(client, 1, "GET", "/no", true);
    house_wait(client->house, 1100);
    client2_expect_end(client, NGHTTP2_SETTINGS_TIMEOUT);
    client2_close(client);
}

static void an_idle_connection_is_not_kept_by_pings(void **state)
{
    struct client2 *client = client2_dial(*state);
    for (int i = 0; i < 7; i++) {
        house_wait(client->house, 10000);
        ping(client, i);
        client2_await(client, NGHTTP2_PING, 0);
    }
    assert_int_equal(client->house->gateway->idle.count, 1);
    house_wait(client->house, 5100);
    client2_expect_end(client, NGHTTP2_NO_ERROR);
    client2_close(client);
}

static void who_does_not_read_is_not_read_from(void **state)
{
    struct client2 *client = client2_dial(*state);
    struct house *house = client->house;
    for (int second = 0; second < 40; second++) { /* each is answered by 500 bytes and more */
        for (int i = 0; i < 20; i++) {
            const struct field2 fields[] = {{":method", "GET"}, {":scheme", "http"},
                                            {":path", "/"}, {":authority", "x"}};
            client2_fields(client, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM,
                           1 + 2 * (second * 20 + i), fields, 4);
        }
        assert_true(house->gateway->memory < KIB(512));
    }
    client2_close(client);
    assert_int_equal(house->gateway->memory, 0);
}

static const struct {
    struct field2 fields[8];
    int status;    /* 0: the stream is reset with PROTOCOL_ERROR */
} heads[] = {
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x"}}, 401},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {"host", "x"}}, 401},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x"},
      {"host", "X"}}, 401},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x"},
      {"host", "y"}}, 400},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x y"}}, 0},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x/y"}}, 0},
    {{{":method", "GET"}, {":scheme", "ftp"}, {":path", "/"}, {":authority", "x"}}, 400},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "no"}, {":authority", "x"}}, 0},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/a b"}, {":authority", "x"}}, 0},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/\"a"}, {":authority", "x"}}, 400},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "*"}, {":authority", "x"}}, 0},
    {{{":method", "OPTIONS"}, {":scheme", "http"}, {":path", "*"}, {":authority", "x"}}, 400},
    {{{":method", "G T"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x"}}, 0},
    {{{":method", "GET"}, {":scheme", "http"}, {":authority", "x"}}, 0},
    {{{":method", "CONNECT"}, {":authority", "x"}}, 400},
    {{{":method", "GET"}, {":path", "/"}, {":authority", "x"}}, 0},
    {{{":method", "GET"}, {":method", "GET"}, {":scheme", "http"}, {":path", "/"},
      {":authority", "x"}}, 0},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {"a", "b"}, {":authority", "x"}},
     0},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x"},
      {":status", "200"}}, 0},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x"},
      {"connection", "close"}}, 0},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x"},
      {"transfer-encoding", "chunked"}}, 0},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x"},
      {"te", "gzip"}}, 0},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x"},
      {"Upper", "case"}}, 0},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x"},
      {"a", "b\r\nhost: y"}}, 0},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x"},
      {"a", " b"}}, 0},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x"},
      {"a", "b\001"}}, 0},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x"},
      {"content-length", "1"}}, 0},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x"},
      {"content-length", "00"}}, 400},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x"},
      {"expect", "200-ok"}}, 400},
    {{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x"},
      {"authorization", "Bearer a"}, {"authorization", "Bearer b"}}, 400},
};

static void each_head_is_judged(void **state)
{
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        struct client2 *client = client2_dial(*state);
        size_t count = 0;
        int got = -1;
        while (count < 8 && heads[i].fields[count].name)
            count++;
        client2_fields(client, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, 1,
                       heads[i].fields, count);
        for (const struct frame *frame; got < 0 && (frame = client2_read(client));) {
            if (frame->stream == 1 && frame->type == NGHTTP2_HEADERS)
                got = frame->status;
            if (frame->stream == 1 && frame->type == NGHTTP2_RST_STREAM
                && frame->code == NGHTTP2_PROTOCOL_ERROR)
                got = 0;
        }
        if (got != heads[i].status)
            print_error("head %zu: %d, expected %d\n", i, got, heads[i].status);
        assert_int_equal(got, heads[i].status);
        client2_request(client, 3, "GET", "/no", true); /* the connection goes on */
        client2_close(client);
    }
}

static void more_data_than_the_window_is_an_error(void **state)
{
    struct client2 *client = client2_dial(*state);
    client2_request(client, 1, "POST", "/v1/memories", false);
    client2_data(client, 1, 5 * FRAME_MAX, false);
    uint32_t code = 0;
    for (const struct frame *frame; code == 0 && (frame = client2_read(client));)
        if (frame->type == NGHTTP2_RST_STREAM || frame->type == NGHTTP2_GOAWAY)
            code = frame->code;
    assert_int_equal(code, NGHTTP2_FLOW_CONTROL_ERROR);
    client2_close(client);
}

static void bytes_of_all_kinds_do_not_harm(void **state)
{
    struct house *house = *state;
    uint32_t seed = 12345;
    uint8_t bytes[600];
    for (int round = 0; round < 300; round++) {
        struct client2 *client = client2_dial(house);
        for (size_t i = 0; i < sizeof bytes; i++) {
            seed = seed * 1664525 + 1013904223;
            bytes[i] = (uint8_t)(seed >> 24);
        }
        bytes[0] = bytes[1] = 0;        /* short enough to be read */
        bytes[3] = (uint8_t)(round % 11);
        bytes[5] = bytes[6] = bytes[7] = 0;
        bytes[8] = (uint8_t)(round % 4);
        house_write(house, client->fd, SPAN_OF(bytes));
        client2_close(client);
    }
    assert_int_equal(house->gateway->memory, 0);
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_setup, house_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(what_moves_nothing_is_borne_only_so_often),
        HOUSE_TEST(what_is_spread_over_time_is_borne),
        HOUSE_TEST(more_streams_than_agreed_are_refused),
        HOUSE_TEST(a_block_that_is_packed_to_burst_ends_the_connection),
        HOUSE_TEST(too_large_a_head_is_431_and_the_others_go_on),
        HOUSE_TEST(continuations_are_counted),
        HOUSE_TEST(a_head_that_is_never_finished_is_not_waited_for),
        HOUSE_TEST(settings_that_are_not_acknowledged_are_not_waited_for),
        HOUSE_TEST(an_idle_connection_is_not_kept_by_pings),
        HOUSE_TEST(who_does_not_read_is_not_read_from),
        HOUSE_TEST(each_head_is_judged),
        HOUSE_TEST(more_data_than_the_window_is_an_error),
        HOUSE_TEST(bytes_of_all_kinds_do_not_harm),
    };
    return cmocka_run_group_tests_name("gateway http2 floods", tests, NULL, NULL);
}
