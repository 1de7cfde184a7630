#define _GNU_SOURCE
#include "client2.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PATIENCE = 60 };

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

struct client2 *client2_open(struct house *house)
{
    struct client2 *client = calloc(1, sizeof *client);
    assert_non_null(client);
    client->house = house;
    client->fd = house_dial(house);
    const int on = 1; /* the house's clock stands still: the kernel must not wait for it */
    assert_int_equal(setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
    assert_int_equal(nghttp2_hd_inflate_new(&client->inflater), 0);
    house_write(house, client->fd, span_of_text(preface));
    client2_frame(client, NGHTTP2_SETTINGS, 0, 0, (struct span){0});
    return client;
}

struct client2 *client2_dial(struct house *house)
{
    struct client2 *client = client2_open(house);
    client2_await(client, NGHTTP2_SETTINGS, 0);
    client2_frame(client, NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, (struct span){0});
    return client;
}

void client2_close(struct client2 *client)
{
    close(client->fd);
    nghttp2_hd_inflate_del(client->inflater);
    house_turn(client->house);
    free(client);
}

void client2_frame(struct client2 *client, uint8_t type, uint8_t flags, int32_t stream,
                   struct span payload)
{
    struct buffer out = buffer_of(payload.length + 9);
    buffer_put_u8(&out, (uint8_t)(payload.length >> 16));
    buffer_put_u16(&out, (uint16_t)payload.length);
    buffer_put_u8(&out, type);
    buffer_put_u8(&out, flags);
    buffer_put_u32(&out, (uint32_t)stream);
    buffer_put(&out, payload);
    house_write(client->house, client->fd, buffer_span(&out));
    buffer_free(&out);
}

static void put_integer(struct buffer *out, uint8_t prefix_bits, size_t value)
{
    size_t max = ((size_t)1 << prefix_bits) - 1;
    if (value < max) {
        buffer_put_u8(out, (uint8_t)value);
        return;
    }
    buffer_put_u8(out, (uint8_t)max);
    for (value -= max; value >= 128; value /= 128)
        buffer_put_u8(out, (uint8_t)(value % 128 + 128));
    buffer_put_u8(out, (uint8_t)value);
}

void client2_put_field(struct buffer *out, const char *name, const char *value)
{
    buffer_put_u8(out, 0); /* literal, not indexed, a new name */
    put_integer(out, 7, strlen(name));
    buffer_put_text(out, name);
    put_integer(out, 7, strlen(value));
    buffer_put_text(out, value);
}

void client2_fields(struct client2 *client, uint8_t flags, int32_t stream,
                    const struct field2 *fields, size_t count)
{
    struct buffer block = buffer_of(MIB(1));
    for (size_t i = 0; i < count; i++)
        client2_put_field(&block, fields[i].name, fields[i].value);
    struct span left = buffer_span(&block);
    bool first = true;
    do {
        struct span part = {left.data, left.length < FRAME_MAX ? left.length : FRAME_MAX};
        left = (struct span){left.data + part.length, left.length - part.length};
        uint8_t mine = left.length ? (uint8_t)(flags & ~NGHTTP2_FLAG_END_HEADERS) : flags;
        client2_frame(client, first ? NGHTTP2_HEADERS : NGHTTP2_CONTINUATION,
                      first ? mine : (uint8_t)(mine & NGHTTP2_FLAG_END_HEADERS), stream, part);
        first = false;
    } while (left.length);
    buffer_free(&block);
}

void client2_request(struct client2 *client, int32_t stream, const char *method,
                     const char *path, bool end)
{
    char bearer[TOKEN_MAX];
    snprintf(bearer, sizeof bearer, "Bearer %s", (const char *)client->house->token.data);
    const struct field2 fields[] = {
        {":method", method}, {":scheme", "http"}, {":path", path}, {":authority", "x"},
        {"authorization", bearer}, {"content-type", "application/json"},
    };
    client2_fields(client, (uint8_t)(NGHTTP2_FLAG_END_HEADERS | (end ? NGHTTP2_FLAG_END_STREAM
                                                                     : 0)),
                   stream, fields, sizeof fields / sizeof *fields);
}

void client2_data(struct client2 *client, int32_t stream, size_t length, bool end)
{
    static const uint8_t bytes[FRAME_MAX];
    do {
        size_t part = length < FRAME_MAX ? length : FRAME_MAX;
        length -= part;
        client2_frame(client, NGHTTP2_DATA, end && length == 0 ? NGHTTP2_FLAG_END_STREAM : 0,
                      stream, (struct span){bytes, part});
    } while (length);
}

void client2_reset(struct client2 *client, int32_t stream, uint32_t code)
{
    uint8_t storage[4];
    struct buffer payload = buffer_over(storage, sizeof storage);
    buffer_put_u32(&payload, code);
    client2_frame(client, NGHTTP2_RST_STREAM, 0, stream, buffer_span(&payload));
}

/* False at the end, and when nothing comes. */
static bool read_all(struct client2 *client, uint8_t *bytes, size_t length)
{
    size_t have = 0;
    for (int patience = PATIENCE; have < length && patience > 0; patience--) {
        ssize_t got = recv(client->fd, bytes + have, length - have, MSG_DONTWAIT);
        if (got > 0) {
            have += (size_t)got;
            patience = PATIENCE;
        } else if (got == 0 || errno != EAGAIN) {
            return false;
        } else {
            house_turn(client->house);
        }
    }
    return have == length;
}

static uint32_t u32_at(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void read_fields(struct client2 *client, struct frame *frame)
{
    struct buffer text = buffer_over((uint8_t *)frame->fields, sizeof frame->fields - 1);
    struct span left = frame->payload;
    for (int flags = 0; !(flags & NGHTTP2_HD_INFLATE_FINAL);) {
        nghttp2_nv field;
        ssize_t used = nghttp2_hd_inflate_hd2(client->inflater, &field, &flags, left.data,
                                              left.length, 1);
        assert_true(used >= 0);
        left = (struct span){left.data + used, left.length - (size_t)used};
        if (!(flags & NGHTTP2_HD_INFLATE_EMIT))
            continue;
        buffer_printf(&text, "%.*s: %.*s\n", (int)field.namelen, (const char *)field.name,
                      (int)field.valuelen, (const char *)field.value);
        if (span_is((struct span){field.name, field.namelen}, ":status"))
            frame->status = (int)strtol((const char *)field.value, NULL, 10);
    }
    nghttp2_hd_inflate_end_headers(client->inflater);
    frame->fields[text.length] = '\0';
}

const struct frame *client2_read(struct client2 *client)
{
    static struct frame frame;
    uint8_t head[9];
    if (!read_all(client, head, sizeof head))
        return NULL;
    size_t length = u32_at(head) >> 8;
    assert_true(length <= sizeof client->storage);
    if (!read_all(client, client->storage, length))
        return NULL;
    frame = (struct frame){.type = head[3], .flags = head[4],
                           .stream = (int32_t)(u32_at(head + 5) & INT32_MAX),
                           .payload = {client->storage, length}};
    if (frame.type == NGHTTP2_HEADERS)
        read_fields(client, &frame);
    if (frame.type == NGHTTP2_WINDOW_UPDATE && frame.stream)
        client->stream_window += u32_at(client->storage);
    if (frame.type == NGHTTP2_RST_STREAM)
        frame.code = u32_at(client->storage);
    if (frame.type == NGHTTP2_GOAWAY)
        frame.code = u32_at(client->storage + 4);
    return &frame;
}

const struct frame *client2_await(struct client2 *client, uint8_t type, int32_t stream)
{
    const struct frame *frame;
    while ((frame = client2_read(client)))
        if (frame->type == type && (stream < 0 || frame->stream == stream))
            return frame;
    fail_msg("no frame of type %u came on stream %d", type, stream);
    return NULL;
}

void client2_expect(struct client2 *client, int32_t stream, int http_status)
{
    const struct frame *frame = client2_await(client, NGHTTP2_HEADERS, stream);
    if (frame->status != http_status)
        fail_msg("stream %d: status %d, expected %d", stream, frame->status, http_status);
}

void client2_expect_reset(struct client2 *client, int32_t stream, uint32_t code)
{
    const struct frame *frame = client2_await(client, NGHTTP2_RST_STREAM, stream);
    if (frame->code != code)
        fail_msg("stream %d: reset with %u, expected %u", stream, frame->code, code);
}

void client2_expect_end(struct client2 *client, uint32_t code)
{
    const struct frame *frame = client2_await(client, NGHTTP2_GOAWAY, 0);
    if (frame->code != code)
        fail_msg("GOAWAY with %u, expected %u", frame->code, code);
    assert_true(house_closed(client->house, client->fd));
}
