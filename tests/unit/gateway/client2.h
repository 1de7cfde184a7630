/* client2.h: a client of HTTP/2 for tests, frame by frame, so that it can do what none should. */
#pragma once

#include "house.h"

#include <nghttp2/nghttp2.h>

enum { FRAME_MAX = 16384 };

struct frame {
    uint8_t type, flags;
    int32_t stream;
    struct span payload;      /* until the next one */
    int status;               /* HEADERS: of the answer */
    char fields[2048];        /* HEADERS: "name: value\n" each */
    uint32_t code;            /* RST_STREAM, GOAWAY */
};

struct client2 {
    struct house *house;
    int fd;
    nghttp2_hd_inflater *inflater;
    uint64_t stream_window;   /* what the gateway has opened of streams, all together */
    uint8_t storage[FRAME_MAX];
};

struct field2 {
    const char *name, *value;
};

struct client2 *client2_dial(struct house *house);       /* and the settings are exchanged */
struct client2 *client2_open(struct house *house);       /* the preface and SETTINGS are sent */
void client2_close(struct client2 *client);

void client2_frame(struct client2 *client, uint8_t type, uint8_t flags, int32_t stream,
                   struct span payload);
/* HEADERS of these fields, as literals; flags: END_STREAM, END_HEADERS. */
void client2_fields(struct client2 *client, uint8_t flags, int32_t stream,
                    const struct field2 *fields, size_t count);
void client2_put_field(struct buffer *out, const char *name, const char *value);
/* The usual fields with the house's token. end: there is no body. */
void client2_request(struct client2 *client, int32_t stream, const char *method,
                     const char *path, bool end);
void client2_data(struct client2 *client, int32_t stream, size_t length, bool end);
void client2_reset(struct client2 *client, int32_t stream, uint32_t code);

/* The next frame; NULL when the gateway has closed or nothing comes. */
const struct frame *client2_read(struct client2 *client);
/* The next one of that type and stream (-1: any); others are passed over. Fails the test when none
 * comes. */
const struct frame *client2_await(struct client2 *client, uint8_t type, int32_t stream);
void client2_expect(struct client2 *client, int32_t stream, int http_status);
void client2_expect_reset(struct client2 *client, int32_t stream, uint32_t code);
/* GOAWAY with this code, then the end of the connection. */
void client2_expect_end(struct client2 *client, uint32_t code);
