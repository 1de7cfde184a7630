#define _GNU_SOURCE
#include "fake_silo.h"

#include "base/clock.h"
#include "silo/actions.h"
#include "silo/silo.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct fake_silo *fake_silo;

enum {
    PUT_OBJECT, GET_OBJECT, BATCH, PUT_DOCUMENT, CHECKPOINT, FAKE_ACTIONS, FAKE_BODY_MAX = MIB(64),
};

static const struct action fake_actions[FAKE_ACTIONS] = {
    [PUT_OBJECT] = {
        .name = "object.put", .method = "PUT", .path = "/v1/objects/{key...}",
        .resource = "object", .scope = SCOPE_MEMORY_WRITE, .mutates = true,
        .body = ACTION_BODY_BYTES, .body_max = FAKE_BODY_MAX, .streams = ACTION_STREAMS_IN,
    },
    [GET_OBJECT] = {
        .name = "object.read", .method = "GET", .path = "/v1/objects/{key...}",
        .resource = "object", .scope = SCOPE_MEMORY_READ, .streams = ACTION_STREAMS_OUT,
    },
    [BATCH] = {
        .name = "document.batch", .method = "POST", .path = "/v1/documents/batch",
        .resource = "document", .scope = SCOPE_MEMORY_WRITE, .mutates = true,
        .body = ACTION_BODY_NDJSON, .body_max = FAKE_BODY_MAX,
        .streams = ACTION_STREAMS_IN | ACTION_STREAMS_OUT,
    },
    [PUT_DOCUMENT] = {
        .name = "document.put", .method = "PUT", .path = "/v1/documents/{id}",
        .resource = "document", .scope = SCOPE_MEMORY_WRITE, .mutates = true,
        .body = ACTION_BODY_JSON, .body_max = DOCUMENT_BODY_MAX,
    },
    [CHECKPOINT] = {
        .name = "audit.checkpoint", .method = "GET", .path = "/v1/audit/checkpoint",
        .resource = "audit", .scope = SCOPE_MEMORY_READ, .fresh_note = true,
    },
};

static const struct action_set sets[] = {
    {"memory", memory_actions, MEMORY_ACTIONS},
    {"fake", fake_actions, FAKE_ACTIONS},
};
const struct action_table action_table = {sets, 2};

struct silo {
    struct merkle_edge edge; /* of what is committed */
    uint32_t staged_items, staged_entries, pending;
    int64_t pending_since_us;
    bool wrote, read_strictly;
    struct anchor anchor;
};

enum { SHARED_FD = 9 }; /* survives the exec of the cell */

void fake_silo_attach(void)
{
    fake_silo = mmap(NULL, sizeof *fake_silo, PROT_READ | PROT_WRITE, MAP_SHARED, SHARED_FD, 0);
    if (fake_silo == MAP_FAILED)
        abort();
}

void fake_silo_make(void)
{
    int fd = memfd_create("fake_silo", 0);
    if (fd < 0 || ftruncate(fd, sizeof *fake_silo) || dup2(fd, SHARED_FD) != SHARED_FD)
        abort();
    if (fd != SHARED_FD)
        close(fd);
    fake_silo_attach();
}

void fake_silo_drop(void)
{
    munmap(fake_silo, sizeof *fake_silo);
    close(SHARED_FD);
    fake_silo = NULL;
}

static struct hash_value leaf(uint64_t index)
{
    return merkle_leaf((struct span){(const uint8_t *)&index, sizeof index});
}

static void append(struct silo *silo, uint32_t entries)
{
    struct fault fault;
    for (uint32_t i = 0; i < entries; i++) {
        struct hash_value hash = leaf(silo->edge.size);
        if (merkle_append(&silo->edge, &hash, NULL, NULL, &fault) != OK)
            abort();
    }
}

status silo_open(struct silo **ret, const struct silo_opening *opening, struct fault *fault)
{
    (void)fault;
    struct silo *silo = calloc(1, sizeof *silo);
    silo->anchor = opening->anchor;
    append(silo, fake_silo->log_size);
    *ret = silo;
    return OK;
}

struct silo *silo_close(struct silo *silo)
{
    if (silo)
        fake_silo->closed = true;
    free(silo);
    return NULL;
}

struct silo *silo_abandon(struct silo *silo)
{
    if (silo)
        fake_silo->abandoned = true;
    free(silo);
    return NULL;
}

void silo_begin(struct silo *silo, int64_t now_us)
{
    (void)now_us;
    silo->wrote = silo->read_strictly = false;
}

static void answer(struct silo_response *response, const struct silo *silo, struct span body)
{
    response->http_status = 200;
    buffer_printf(response->body, "{\"items\":%u,\"bytes\":%zu,\"first\":\"%c\"",
                  fake_silo->items + silo->staged_items, body.length,
                  body.length ? body.data[0] : '-');
    if (fake_silo->answer_bytes) {
        buffer_put_text(response->body, ",\"fill\":\"");
        while (response->body->length < fake_silo->answer_bytes && !response->body->failed)
            buffer_put_text(response->body, "................");
        buffer_put_text(response->body, "\"");
    }
    buffer_put_text(response->body, "}");
}

uint8_t fake_byte(uint64_t position)
{
    return (uint8_t)(position * 31 + (position >> 8) * 7 + (position >> 16));
}

struct silo_upload {
    uint64_t bytes;
};

status silo_upload_begin(struct silo_upload **ret, struct silo *silo,
                         const struct silo_request *request, int64_t body_length,
                         struct fault *fault)
{
    (void)silo;
    if (request->action != &fake_actions[PUT_OBJECT] || request->body.length)
        abort();
    fake_silo->said_length = body_length;
    if (fake_silo->begin_fails)
        return FAIL((status)fake_silo->begin_fails, fault, "the test wants no upload");
    *ret = calloc(1, sizeof **ret);
    fake_silo->uploads_open++;
    fake_silo->uploads_begun++;
    return OK;
}

status silo_upload_put(struct silo_upload *upload, struct span bytes, struct fault *fault)
{
    if (fake_silo->put_fails && upload->bytes + bytes.length >= fake_silo->put_fails_at)
        return FAIL((status)fake_silo->put_fails, fault, "the test broke this upload");
    for (size_t i = 0; i < bytes.length; i++)
        fake_silo->put_odd += bytes.data[i] != fake_byte(upload->bytes + i);
    upload->bytes += bytes.length;
    fake_silo->put_bytes += bytes.length;
    return OK;
}

status silo_upload_end(struct silo_upload *upload, struct fault *fault)
{
    (void)upload;
    fake_silo->uploads_ended++;
    return fake_silo->end_fails ? FAIL((status)fake_silo->end_fails, fault, "the test broke it")
                                : OK;
}

struct silo_upload *silo_upload_drop(struct silo_upload *upload)
{
    if (upload)
        fake_silo->uploads_open--;
    free(upload);
    return NULL;
}

struct silo_download {
    uint64_t bytes;
};

status silo_download_read(struct buffer *out, bool *ret_end, struct silo_download *download,
                          size_t max, struct fault *fault)
{
    uint64_t left = fake_silo->download_bytes - download->bytes;
    uint64_t now = left < max ? left : max;
    if (fake_silo->reads_nothing)
        return OK;
    if (fake_silo->reads_too_much)
        now = max;
    if (fake_silo->read_fails_at && download->bytes + now >= fake_silo->read_fails_at)
        return FAIL(CORRUPT, fault, "the test broke this chunk");
    for (uint64_t i = 0; i < now; i++)
        buffer_put_u8(out, fake_byte(download->bytes + i));
    download->bytes += now;
    fake_silo->read_bytes += now;
    *ret_end = download->bytes == fake_silo->download_bytes;
    return OK;
}

struct silo_download *silo_download_close(struct silo_download *download)
{
    if (download)
        fake_silo->downloads_open--;
    free(download);
    return NULL;
}

static void note_read(struct silo *silo)
{
    if (fake_silo->strict) {
        silo->read_strictly = true;
        silo->staged_entries++;
        return;
    }
    silo->pending++;
    if (silo->pending_since_us == 0)
        silo->pending_since_us = clock_monotonic_us();
}

static void add(struct silo *silo)
{
    silo->staged_items++;
    silo->staged_entries++;
    silo->wrote = true;
}

static status put_object(struct silo_response *response, struct silo *silo,
                         const struct silo_request *request)
{
    if (!request->upload)
        abort();
    add(silo);
    buffer_printf(response->body, "{\"bytes\":%llu}", (unsigned long long)request->upload->bytes);
    response->http_status = 201;
    silo_upload_drop(request->upload);
    fake_silo->uploads_taken++;
    return OK;
}

static void put_header(struct silo_response *response, uint8_t kind, const char *value)
{
    struct silo_header *header = &response->headers[response->header_count++];
    header->kind = kind;
    snprintf(header->value, sizeof header->value, "%s", value);
}

static status get_object(struct silo_response *response, struct silo *silo,
                         const struct silo_request *request, struct fault *fault)
{
    struct span asked = request->headers[RELAY_IF_NONE_MATCH];
    note_read(silo);
    span_to_text(fake_silo->header, sizeof fake_silo->header, asked);
    if (span_is(request->ids[0], "none/such"))
        return FAIL(NOT_FOUND, fault, "there is no such object");
    response->http_status = asked.length ? 304 : 200;
    put_header(response, RELAY_CONTENT_TYPE, "application/x-test");
    put_header(response, RELAY_ETAG, "\"e\"");
    if (asked.length)
        return OK;
    response->length = fake_silo->length_unknown ? RELAY_LENGTH_UNKNOWN : fake_silo->download_bytes;
    if (request->head_only)
        return OK;
    response->download = calloc(1, sizeof *response->download);
    fake_silo->downloads_open++;
    return OK;
}

static status add_line(struct silo_response *response, struct silo *silo,
                       const struct silo_request *request, struct fault *fault)
{
    if (!arena_alloc(request->arena, 3 * request->body.length)) /* its handler needs that */
        abort();
    fake_silo->lines++;
    fake_silo->lines_out_of_order += request->line <= fake_silo->last_line;
    fake_silo->last_line = (uint32_t)request->line;
    fake_silo->line_bytes += request->body.length;
    if (fake_silo->line_us)
        usleep(fake_silo->line_us);
    if (request->token_once.length) {
        fake_silo->tokens_used++;
        response->token_used = true;
        silo->wrote = true;
    }
    if (span_is(request->body, "bad"))
        return FAIL(BAD_FIELD, fault, "text: \"bad\" is what it is");
    if (span_is(request->body, "odd"))
        return FAIL(CORRUPT, fault, "page 17 of silo.db is odd");
    add(silo);
    response->http_status = 201;
    buffer_printf(response->body, "{\"line\":%llu,\"bytes\":%zu}",
                  (unsigned long long)request->line, request->body.length);
    return OK;
}

status silo_handle(struct silo_response *response, struct silo *silo,
                   const struct silo_request *request, struct fault *fault)
{
    fake_silo->handled++;
    if (request->action == &fake_actions[PUT_OBJECT])
        return put_object(response, silo, request);
    if (request->action == &fake_actions[GET_OBJECT])
        return get_object(response, silo, request, fault);
    if (request->action == &fake_actions[BATCH])
        return add_line(response, silo, request, fault);
    if (request->action == &fake_actions[CHECKPOINT])
        fake_silo->notes_at_checkpoint = fake_silo->notes;
    if (request->action == &memory_actions[MEMORY_DELETE])
        return FAIL(INTERNAL, fault, "page 17 of silo.db is odd");
    if (request->action->mutates) {
        add(silo);
        answer(response, silo, request->body);
        response->http_status = 201;
        return OK;
    }
    note_read(silo);
    answer(response, silo, request->body);
    return OK;
}

status silo_refuse(struct silo *silo, const struct silo_request *request, status why,
                   struct fault *fault)
{
    (void)fault;
    fake_silo->refused++;
    fake_silo->lines_undone += request->line > 0;
    fake_silo->last_refusal = why;
    note_read(silo);
    return OK;
}

bool silo_must_commit(const struct silo *silo)
{
    return silo->wrote || silo->read_strictly;
}

int64_t silo_pending_since_us(const struct silo *silo)
{
    return silo->pending ? silo->pending_since_us : 0;
}

status silo_commit(struct silo *silo, struct fault *fault)
{
    if (fake_silo->commit_fails) {
        if (fake_silo->commit_fails > 0)
            fake_silo->commit_fails--;
        if (silo->read_strictly) { /* entries of reads stay pending */
            silo->pending += silo->staged_entries - silo->staged_items;
            silo->pending_since_us = clock_monotonic_us();
        }
        silo->staged_items = silo->staged_entries = 0;
        silo->wrote = silo->read_strictly = false;
        return FAIL((status)fake_silo->fail_status, fault, "the test broke this commit");
    }
    fake_silo->commits++;
    fake_silo->items += silo->staged_items;
    fake_silo->log_size += silo->staged_entries + silo->pending;
    append(silo, silo->staged_entries + silo->pending);
    silo->anchor.commits++;
    silo->staged_items = silo->staged_entries = silo->pending = 0;
    silo->pending_since_us = 0;
    silo->wrote = silo->read_strictly = false;
    return OK;
}

static status read_node(struct hash_value *ret, void *context, uint32_t level, uint64_t index,
                        struct fault *fault)
{
    (void)context;
    if (level == 0) {
        *ret = leaf(index);
        return OK;
    }
    struct hash_value left, right;
    TRY(read_node(&left, NULL, level - 1, 2 * index, fault));
    TRY(read_node(&right, NULL, level - 1, 2 * index + 1, fault));
    *ret = merkle_node(&left, &right);
    return OK;
}

status silo_anchor(struct anchor *ret, struct hash_value *proof, uint32_t *ret_proof_count,
                   struct silo *silo, uint64_t anchored_log_size, struct fault *fault)
{
    struct hash_value root = merkle_root(&silo->edge);
    silo->anchor.log_size = silo->edge.size;
    memcpy(silo->anchor.log_root, root.bytes, HASH_BYTES);
    *ret_proof_count = 0;
    if (anchored_log_size)
        TRY(merkle_consistency(proof, ret_proof_count, anchored_log_size, silo->edge.size,
                               read_node, NULL, fault));
    *ret = silo->anchor;
    return OK;
}

status silo_checkpoint(struct silo *silo, struct fault *fault)
{
    (void)fault;
    fake_silo->checkpoints++;
    silo->anchor.map_generation++;
    silo->anchor.map_hash[0]++;
    return OK;
}

void silo_keep_checkpoint(struct silo *silo, struct span note)
{
    (void)silo;
    fake_silo->notes += note.length > 0;
}

status silo_add_key(struct silo *silo, const struct store_key *key, struct fault *fault)
{
    (void)silo, (void)fault;
    fake_silo->key_version = key->version;
    fake_silo->reseal_steps = 3;
    return OK;
}

status silo_reseal(bool *ret_more, struct silo *silo, uint32_t pages, struct fault *fault)
{
    (void)silo, (void)pages, (void)fault;
    if (fake_silo->reseal_steps > 0)
        fake_silo->reseal_steps--;
    *ret_more = fake_silo->reseal_steps > 0;
    return OK;
}

bool silo_keys_wait(const struct silo *silo)
{
    (void)silo;
    return false;
}

status silo_drop_keys(struct silo *silo, struct fault *fault)
{
    (void)silo, (void)fault;
    fake_silo->keys_dropped++;
    return OK;
}

status silo_expire(bool *ret_more, struct silo *silo, int64_t now_us, bool parking,
                   struct fault *fault)
{
    (void)now_us, (void)fault;
    *ret_more = false;
    if (fake_silo->expire_batches == 0) {
        if (!parking)
            fake_silo->next_expiry_us = 0;
        return OK;
    }
    fake_silo->expired++;
    fake_silo->expire_batches--;
    silo->staged_entries++;
    silo->wrote = true;
    *ret_more = fake_silo->expire_batches > 0;
    if (!*ret_more)
        fake_silo->next_expiry_us = 0;
    return OK;
}

int64_t silo_next_expiry_us(struct silo *silo)
{
    (void)silo;
    return fake_silo->next_expiry_us;
}

void silo_trim(struct silo *silo)
{
    (void)silo;
    fake_silo->trims++;
}

uint64_t silo_bytes(struct silo *silo)
{
    return fake_silo->bytes + (uint64_t)silo->staged_items * fake_silo->item_bytes;
}

void silo_count(struct silo *silo, const struct action *action, bool refused, uint64_t bytes_in,
                uint64_t bytes_out)
{
    (void)silo, (void)action;
    fake_silo->counted++;
    fake_silo->counted_refused += refused;
    fake_silo->bytes_in += bytes_in;
    fake_silo->bytes_out += bytes_out;
}

void silo_count_bytes(struct silo *silo, uint64_t bytes_in, uint64_t bytes_out)
{
    (void)silo;
    fake_silo->bytes_in += bytes_in;
    fake_silo->bytes_out += bytes_out;
}

/* As many bytes as the test says. */
uint32_t silo_usage_report(struct buffer *out, struct silo *silo)
{
    (void)silo;
    for (uint32_t i = 0; i < fake_silo->report_bytes; i++)
        buffer_put_u8(out, 'r');
    return fake_silo->report_bytes > 0;
}

bool silo_usage_settle(struct silo *silo)
{
    (void)silo;
    return false;
}

void silo_set_prices(struct silo *silo, const struct prices *prices)
{
    (void)silo, (void)prices;
}

void silo_set_posture(struct silo *silo, const struct posture *posture, uint64_t sequence)
{
    (void)silo;
    fake_silo->retention_days = posture->retention_days;
    fake_silo->sequence = (uint32_t)sequence;
}

/* It holds the copy that the test gave it, of the tenant only. */
status silo_charter_head(struct charter_head *ret, struct silo *silo, enum silo_charter scope,
                         struct fault *fault)
{
    (void)silo, (void)fault;
    *ret = scope == SILO_CHARTER_TENANT ? fake_silo->copy_head : (struct charter_head){0};
    return OK;
}

status silo_charter(struct buffer *out, struct silo *silo, enum silo_charter scope,
                    struct fault *fault)
{
    (void)silo;
    if (scope != SILO_CHARTER_TENANT || fake_silo->copy_length == 0)
        return FAIL(NOT_FOUND, fault, "no copy");
    buffer_put(out, (struct span){fake_silo->copy, fake_silo->copy_length});
    return buffer_check(out, "charter", fault);
}

void silo_keep_charter(struct silo *silo, enum silo_charter scope,
                       const struct signed_charter *charter)
{
    (void)silo;
    fake_silo->kept[scope] = (uint32_t)charter->sequence;
}

status silo_note_denials(struct silo *silo, const char *action, status why, const char *subject,
                         uint64_t count, struct fault *fault)
{
    (void)why, (void)fault;
    fake_silo->denial_entries++;
    fake_silo->denied += (uint32_t)count;
    snprintf(fake_silo->denial, sizeof fake_silo->denial, "%s of %s", action, subject);
    note_read(silo);
    return OK;
}

uint32_t silo_damage(struct silo *silo, char *where, size_t size)
{
    (void)silo;
    snprintf(where, size, "silo.db page 17");
    return fake_silo->damage;
}

status silo_export_audit(struct buffer *out, uint64_t *from_index, bool *ret_done,
                         struct silo *silo, const uint8_t platform_key[32], struct fault *fault)
{
    (void)silo, (void)platform_key;
    if (fake_silo->notes == 0)
        return FAIL(UNAVAILABLE, fault, "there is no checkpoint");
    for (uint32_t i = 0; i < KIB(64) / 16; i++)
        buffer_put_text(out, "line of export\n\n");
    ++*from_index;
    fake_silo->pieces++;
    *ret_done = *from_index >= fake_silo->export_pieces;
    return OK;
}

status silo_put_checkpoint(struct buffer *out, struct silo *silo, const uint8_t platform_key[32],
                           struct fault *fault)
{
    (void)silo, (void)platform_key;
    if (fake_silo->notes == 0)
        return FAIL(UNAVAILABLE, fault, "there is no checkpoint");
    buffer_put_text(out, "a note\n");
    return OK;
}

/* ---- what most programs begin with ---- */

char token[2048];

int setup_asleep(void **state)
{
    fake_silo_make();
    harness_setup(state);
    harness_token(token, *state, (struct harness_token){0});
    return 0;
}

int setup(void **state)
{
    setup_asleep(state);
    harness_start(*state);
    return 0;
}

int teardown(void **state)
{
    harness_teardown(state);
    fake_silo_drop();
    return 0;
}

struct harness_request reading(void)
{
    return (struct harness_request){.method = "GET", .path = "/v1/memories", .token = token};
}

struct harness_request adding(void)
{
    return (struct harness_request){.method = "POST", .path = "/v1/memories", .token = token,
                                    .body = SPAN("{\"text\":\"x\"}")};
}
