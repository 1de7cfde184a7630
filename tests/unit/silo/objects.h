/* objects.h: what the tests of objects share: requests with streamed bodies, and callers. */
#pragma once

#include "house.h"


#include "base/hex.h"
#include "crypt/crypt.h"
#include "store/blob.h"

#include <stdlib.h>

#define OBJECTS (SCOPE_SET(SCOPE_OBJECTS_READ) | SCOPE_SET(SCOPE_OBJECTS_WRITE))

static const struct who ada = {"ada", "", OBJECTS, CLEARANCE_INTERNAL};
static const struct who guest = {"guest", "", OBJECTS, CLEARANCE_PUBLIC};
static const struct who chief = {"chief", "", OBJECTS, CLEARANCE_RESTRICTED};

enum { HEADERS_MAX = RELAY_HEADERS };

/* One request and what came of it. */
struct ask {
    const char *method, *key, *query, *content_type;
    const char *headers[HEADERS_MAX];
    bool head_only;
    struct span bytes; /* of a PUT */
    int64_t announced; /* 0: the length of the bytes */
    bool drops;        /* the client goes away when all has come */
    /* answer */
    int http_status;
    char answer[HEADERS_MAX][SILO_HEADER_MAX];
    struct span content; /* of a download, in the arena */
    uint64_t length;
};

static inline void prepare(struct silo_request *ret, struct envelope *envelope,
                           struct span *headers, struct house *house, const struct who *who,
                           const struct ask *ask)
{
    struct route route;
    char allow[ACTION_ALLOW_MAX], text[1200];
    snprintf(text, sizeof text, "/v1/objects%s%s", ask->key ? "/" : "", ask->key ? ask->key : "");
    struct span path = arena_copy(&house->arena, span_of_text(text));
    assert_ok(house, authz_route(&route, allow, &action_table, span_of_text(ask->method), path,
                                 &house->fault));
    *envelope = (struct envelope){.action = route.action, .id_count = route.id_count,
                                  .scopes = who->scopes, .clearance = who->clearance,
                                  .time_us = house->now_us};
    hex_encode(envelope->tenant, SPAN_OF(house->opening.tenant_id));
    assert_true(span_to_text(envelope->user, sizeof envelope->user, span_of_text(who->user)));
    *ret = (struct silo_request){
        .envelope = envelope, .action = route.action, .query = span_of_text(ask->query),
        .arena = &house->arena, .now_us = house->now_us, .headers = headers,
        .content_type = span_of_text(ask->content_type), .head_only = ask->head_only};
    for (uint32_t i = 0; i < route.id_count; i++)
        ret->ids[i] = envelope->ids[i] = route.ids[i];
    for (int i = 0; i < HEADERS_MAX; i++)
        headers[i] = span_of_text(ask->headers[i]);
}

static inline status upload(struct silo_upload **ret, struct house *house,
                     const struct silo_request *request, const struct ask *ask)
{
    struct silo_upload *upload;
    int64_t announced = ask->announced ? ask->announced : (int64_t)ask->bytes.length;
    status code = silo_upload_begin(&upload, house->silo, request, announced, &house->fault);
    if (code != OK)
        return code;
    for (size_t at = 0; at < ask->bytes.length && code == OK; at += RELAY_FRAGMENT_MAX) {
        size_t left = ask->bytes.length - at;
        code = silo_upload_put(upload, (struct span){ask->bytes.data + at,
                               left < RELAY_FRAGMENT_MAX ? left : RELAY_FRAGMENT_MAX},
                               &house->fault);
    }
    if (code == OK)
        code = silo_upload_end(upload, &house->fault);
    if (code != OK || ask->drops) {
        assert_null(silo_upload_drop(upload));
        return code != OK ? code : CLOSED;
    }
    *ret = upload;
    return OK;
}

static inline status read_download(struct house *house, struct ask *ask,
                                   struct silo_download *download)
{
    struct buffer content = buffer_of(MIB(8));
    status code = OK;
    for (bool end = false; !end && code == OK;)
        code = silo_download_read(&content, &end, download, RELAY_FRAGMENT_MAX, &house->fault);
    ask->content = arena_copy(&house->arena, buffer_span(&content));
    buffer_free(&content);
    assert_null(silo_download_close(download));
    return code;
}

/* download: NULL to read it at once. */
static inline status do_in_turn(struct house *house, const struct who *who, struct ask *ask,
                         struct silo_download **download)
{
    struct envelope envelope;
    struct span headers[HEADERS_MAX];
    struct silo_request request;
    prepare(&request, &envelope, headers, house, who, ask);
    if (request.action->streams & ACTION_STREAMS_IN) {
        status came = upload(&request.upload, house, &request, ask);
        if (came != OK)
            return came;
    }
    buffer_clear(&house->body);
    struct silo_response response = {.body = &house->body};
    status done = silo_handle(&response, house->silo, &request, &house->fault);
    if (done != OK)
        silo_upload_drop(request.upload);
    ask->http_status = response.http_status;
    ask->length = response.length;
    for (uint32_t i = 0; i < response.header_count; i++)
        snprintf(ask->answer[response.headers[i].kind], SILO_HEADER_MAX, "%s",
                 response.headers[i].value);
    if (done == OK && house->body.length > 0)
        assert_ok(house, json_parse(&house->answer, &house->arena,
                                    arena_copy(&house->arena, buffer_span(&house->body)),
                                    &house->fault));
    if (done != OK || !response.download)
        return done;
    if (!download)
        return read_download(house, ask, response.download);
    *download = response.download;
    return OK;
}

static inline status do_ask(struct house *house, const struct who *who, struct ask *ask)
{
    silo_begin(house->silo, house->now_us);
    status done = do_in_turn(house, who, ask, NULL);
    if (silo_must_commit(house->silo)) {
        struct fault fault;
        status committed = silo_commit(house->silo, &fault);
        if (committed != OK && done == OK) {
            house->fault = fault;
            return committed;
        }
    }
    return done;
}

static inline status put(struct house *house, const struct who *who, const char *key,
                         const char *query, struct span bytes)
{
    struct ask ask = {.method = "PUT", .key = key, .query = query, .bytes = bytes,
                      .content_type = "text/plain"};
    status done = do_ask(house, who, &ask);
    house->http_status = ask.http_status;
    return done;
}

static inline status get(struct house *house, struct ask *ret, const struct who *who,
                         const char *key)
{
    *ret = (struct ask){.method = "GET", .key = key};
    return do_ask(house, who, ret);
}

static inline status del(struct house *house, const struct who *who, const char *key)
{
    struct ask ask = {.method = "DELETE", .key = key};
    return do_ask(house, who, &ask);
}

static inline void assert_reads(struct house *house, const struct who *who, const char *key,
                         struct span expected)
{
    struct ask ask;
    assert_ok(house, get(house, &ask, who, key));
    assert_int_equal(ask.http_status, 200);
    assert_int_equal(ask.content.length, expected.length);
    if (expected.length)
        assert_memory_equal(ask.content.data, expected.data, expected.length);
}

static inline uint32_t files_of(struct house *house)
{
    uint32_t files = 0;
    const char *name;
    for (uint32_t i = 0; (name = sim_below(house->sim, i)) != NULL; i++)
        files += strcmp(name, "open") != 0;
    return files;
}

static inline struct span many(struct house *house, size_t length, uint8_t seed)
{
    uint8_t *bytes = arena_alloc(&house->arena, length);
    assert_non_null(bytes);
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(i * 31 + i / 253 + seed);
    return (struct span){bytes, length};
}

static inline void list(struct house *house, const struct who *who, const char *query)
{
    struct ask ask = {.method = "GET", .query = query};
    assert_ok(house, do_ask(house, who, &ask));
    assert_int_equal(ask.http_status, 200);
}
