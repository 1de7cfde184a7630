#include "house.h"

#include "base/hex.h"
#include "crypt/crypt.h"

#include <stdlib.h>

#define MEMORY (SCOPE_SET(SCOPE_MEMORY_READ) | SCOPE_SET(SCOPE_MEMORY_WRITE))

const struct who alice = {"alice", "", MEMORY, CLEARANCE_INTERNAL};
const struct who bob = {"bob", "", MEMORY, CLEARANCE_INTERNAL};
const struct who platform = {"backend", "",
                             MEMORY | SCOPE_SET(SCOPE_MEMORY_ANY_USER) |
                                 SCOPE_SET(SCOPE_TENANT_READ),
                             CLEARANCE_RESTRICTED};
const struct who cleared = {"alice", "", MEMORY, CLEARANCE_RESTRICTED};

static const struct store_key data_key = {1, "thirty-two bytes of data key ..."};

static void wake(struct house *house)
{
    assert_ok(house, silo_open(&house->silo, &house->opening, &house->fault));
}

int house_build(void **state)
{
    struct house *house = calloc(1, sizeof *house);
    if (crypt_start(&house->fault) != OK || store_start(&house->fault) != OK)
        return -1;
    house->sim = sim_create(1);
    house->now_us = START_US;
    house->arena = arena_of(ARENA_MAX);
    house->body = buffer_of(BODY_MAX);
    house->opening = (struct silo_opening){
        .silo_fd = -1, .tenant_id = "an id of sixteen", .keys = &data_key, .key_count = 1,
        .anchor = {.epoch = 1}, .posture = {.name = "acme", .created_at_us = START_US},
        .io = &house->sim->io};
    wake(house);
    *state = house;
    return 0;
}

int house_pull_down(void **state)
{
    struct house *house = *state;
    silo_close(house->silo);
    sim_free(house->sim);
    arena_free(&house->arena);
    buffer_free(&house->body);
    free(house);
    return 0;
}

static char *keep(struct house *house, const char *text)
{
    struct span copy = arena_copy(&house->arena, span_of_text(text));
    assert_non_null(copy.data);
    return (char *)copy.data;
}

static struct envelope envelope_of(struct house *house, const struct who *who,
                                   const struct route *route)
{
    struct envelope envelope = {.action = route->action, .id_count = route->id_count,
                                .scopes = who->scopes, .clearance = who->clearance,
                                .time_us = house->now_us};
    hex_encode(envelope.tenant, SPAN_OF(house->opening.tenant_id));
    assert_true(span_to_text(envelope.user, sizeof envelope.user, span_of_text(who->user)));
    assert_true(span_to_text(envelope.agent, sizeof envelope.agent, span_of_text(who->agent)));
    for (uint32_t i = 0; i < route->id_count; i++)
        envelope.ids[i] = route->ids[i];
    return envelope;
}

static void read_headers(struct house *house, const struct silo_response *response)
{
    house->replayed = false;
    house->type[0] = '\0';
    for (uint32_t i = 0; i < response->header_count; i++) {
        const struct silo_header *header = &response->headers[i];
        assert_true(i == 0 || response->headers[i - 1].kind < header->kind);
        if (header->kind == RELAY_IDEMPOTENT_REPLAYED)
            house->replayed = strcmp(header->value, "true") == 0;
        if (header->kind == RELAY_CONTENT_TYPE)
            memcpy(house->type, header->value, sizeof house->type);
    }
}

/* The whole of it becomes the body. */
static void drain(struct house *house, struct silo_download *download)
{
    size_t piece = house->download_piece > 0 ? house->download_piece : 4096;
    assert_int_equal(house->body.length, 0);
    for (bool end = false; !end;) {
        size_t before = house->body.length;
        assert_ok(house, silo_download_read(&house->body, &end, download, piece, &house->fault));
        assert_true(house->body.length <= before + piece);
        assert_true(end || house->body.length > before);
    }
    silo_download_close(download);
}

status ask_in_turn(struct house *house, const struct who *who, const char *method,
                   const char *path, const char *query, const char *body)
{
    struct route route;
    char allow[ACTION_ALLOW_MAX];
    buffer_clear(&house->body);
    assert_ok(house, authz_route(&route, allow, &action_table, span_of_text(method),
                                 span_of_text(keep(house, path)), &house->fault));
    struct envelope envelope = envelope_of(house, who, &route);
    struct silo_request request = {
        .envelope = &envelope, .action = route.action, .query = span_of_text(query),
        .arena = &house->arena, .now_us = house->now_us,
        .idempotency_key = house->idempotency_key, .line = house->line};
    for (uint32_t i = 0; i < route.id_count; i++)
        request.ids[i] = route.ids[i];
    if (body != NULL) {
        request.content_type = house->content_type ? span_of_text(house->content_type)
                                                   : SPAN("application/json; charset=utf-8");
        request.body = span_of_text(keep(house, body));
    }
    struct silo_response response = {.body = &house->body};
    status done = silo_handle(&response, house->silo, &request, &house->fault);
    house->http_status = response.http_status;
    read_headers(house, &response);
    if (done == OK && response.download != NULL)
        drain(house, response.download);
    else if (done == OK && house->body.length > 0 && house->type[0] == '\0')
        assert_ok(house, json_parse(&house->answer, &house->arena,
                                    arena_copy(&house->arena, buffer_span(&house->body)),
                                    &house->fault));
    return done;
}

status ask(struct house *house, const struct who *who, const char *method, const char *path,
           const char *query, const char *body)
{
    silo_begin(house->silo, house->now_us);
    status done = ask_in_turn(house, who, method, path, query, body);
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

struct anchor house_anchor(struct house *house)
{
    struct anchor anchor;
    struct hash_value proof[CONSISTENCY_PROOF_MAX];
    uint32_t count;
    assert_ok(house, silo_anchor(&anchor, proof, &count, house->silo, 0, &house->fault));
    return anchor;
}

void house_reopen(struct house *house)
{
    assert_ok(house, silo_commit(house->silo, &house->fault));
    assert_ok(house, silo_checkpoint(house->silo, &house->fault));
    house->opening.anchor = house_anchor(house);
    house->opening.anchor.epoch++;
    house->silo = silo_close(house->silo);
    wake(house);
}

void house_crash(struct house *house)
{
    house->opening.anchor = house_anchor(house);
    struct sim *after = sim_copy(house->sim);
    silo_close(house->silo);
    sim_free(house->sim);
    house->sim = after;
    house->opening.io = &after->io;
    house->opening.anchor.epoch++;
    wake(house);
}

const char *answer_text(struct house *house, const struct json *object, const char *name)
{
    const struct json *member = json_member(object, name);
    if (member == NULL || member->kind != JSON_STRING)
        fail_msg("%s: not a text in %.*s", name, SPAN_ARG(object->source));
    char *text = arena_alloc(&house->arena, member->string.length + 1);
    assert_true(span_to_text(text, member->string.length + 1, member->string));
    return text;
}

int64_t answer_integer(const struct json *object, const char *name)
{
    const struct json *member = json_member(object, name);
    if (member == NULL || member->kind != JSON_INTEGER)
        fail_msg("%s: not a number in %.*s", name, SPAN_ARG(object->source));
    return member->integer;
}

const struct json *answer_data(struct house *house)
{
    const struct json *data = json_member(&house->answer, "data");
    assert_non_null(data);
    assert_int_equal(data->kind, JSON_ARRAY);
    return data;
}

const struct json *answer_item(struct house *house, uint32_t i)
{
    const struct json *data = answer_data(house);
    if (i >= data->count)
        fail_msg("item %u of %u", i, data->count);
    return &data->items[i];
}

const char *remember_as(struct house *house, const struct who *who, const char *body)
{
    assert_ok(house, ask(house, who, "POST", "/v1/memories", "", body));
    assert_int_equal(house->http_status, 201);
    return answer_text(house, &house->answer, "id");
}

const char *remember(struct house *house, const struct who *who, const char *text)
{
    uint8_t storage[KIB(4)];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_printf(&body, "{\"text\":\"%s\"}", text);
    buffer_put_u8(&body, 0);
    assert_false(body.failed);
    return remember_as(house, who, (const char *)storage);
}

const char *path_of(struct house *house, const char *id, const char *rest)
{
    char *path = arena_alloc(&house->arena, 320);
    assert_non_null(path);
    snprintf(path, 320, "/v1/memories/%s%s", id, rest);
    return path;
}

void house_expire(struct house *house, bool parking)
{
    bool more = true;
    for (int turns = 0; more; turns++) {
        assert_true(turns < 1000);
        silo_begin(house->silo, house->now_us);
        assert_ok(house, silo_expire(&more, house->silo, house->now_us, parking, &house->fault));
        assert_ok(house, silo_commit(house->silo, &house->fault));
    }
}
