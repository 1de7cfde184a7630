#include "silo/evidence.h"

#include "base/clock.h"
#include "base/hex.h"
#include "wire/base64.h"
#include "wire/http.h"

#include <assert.h>

enum {
    /* What one page costs at most, whatever the filters: then it ends with a cursor. */
    LIST_EXAMINED_MAX = 20000,
    LIST_LOOK_AT_CLOCK = 256, /* entries */
    LIST_TIME_MAX_US = 20 * 1000,
    LIST_BYTES_MAX = MIB(1),
    NAME_MAX_BYTES = 64,      /* of an action */
    NUMBER_DIGITS_MAX = 16,   /* below 2^53 */
    SUBJECT_TEXT_MAX = 6 * USER_MAX + 2,
    BASE64_HASH_MAX = 48,
};

struct filter {
    bool has_since, has_until, action_is_prefix;
    char since[CLOCK_TEXT_SIZE], until[CLOCK_TEXT_SIZE]; /* as entries have them */
    struct span subject; /* as entries have it: JSON, quotes included; empty: any */
    struct span action, decision; /* empty: any */
};

struct list {
    struct call *call;
    struct filter filter;
    struct json_writer writer;
    uint32_t limit, count, examined;
    uint64_t next;
    int64_t until_us; /* monotonic */
};

static status read_number(uint64_t *ret, const struct span *text, const char *name,
                          struct fault *fault)
{
    uint64_t number = 0;
    bool ok = text->length > 0 && text->length <= NUMBER_DIGITS_MAX &&
              (text->data[0] != '0' || text->length == 1);
    for (size_t i = 0; ok && i < text->length; i++) {
        ok = text->data[i] >= '0' && text->data[i] <= '9';
        number = number * 10 + (uint64_t)(text->data[i] - '0');
    }
    if (!ok)
        return FAIL(BAD_FIELD, fault, "%s: must be a whole number from 0", name);
    *ret = number;
    return OK;
}

static status read_query(struct http_query *ret, const struct call *call, struct fault *fault)
{
    TRY(http_query_parse(ret, call->request->arena, call->request->query, fault));
    return http_query_only(ret, call->request->action->query, fault);
}

static void put_base64(struct json_writer *writer, const char *name, struct span bytes)
{
    uint8_t storage[BASE64_HASH_MAX];
    struct buffer text = buffer_over(storage, sizeof storage);
    base64_put(&text, bytes);
    assert(!text.failed);
    json_put_string(writer, name, buffer_span(&text));
}

static struct hash_value leaf_of(const struct store_log_entry *entry)
{
    const struct span parts[] = {entry->salt, entry->entry};
    return merkle_leaf_parts(parts, 2);
}

/* ---- entries ---- */

struct view { /* of an entry: values as they are written */
    struct span time, subject, action, decision;
};

static size_t string_end(struct span text, size_t at)
{
    for (at++; at < text.length && text.data[at] != '"'; at++)
        at += text.data[at] == '\\';
    return at < text.length ? at + 1 : text.length;
}

static size_t value_end(struct span text, size_t at)
{
    if (at < text.length && text.data[at] == '"')
        return string_end(text, at);
    while (at < text.length && text.data[at] != ',' && text.data[at] != '}')
        at++;
    return at;
}

static struct span part(struct span text, size_t from, size_t to)
{
    return (struct span){text.data + from, to - from};
}

/* An entry is one flat object that this silo wrote without blanks: it is read member by member, up
 * to the last that a filter looks at. */
static struct view view_of(struct span entry)
{
    struct view view = {0};
    size_t at = 1;
    while (at < entry.length && view.decision.length == 0) {
        size_t name_end = string_end(entry, at);
        struct span name = part(entry, at, name_end);
        if (name_end + 1 >= entry.length)
            break;
        size_t end = value_end(entry, name_end + 1);
        struct span value = part(entry, name_end + 1, end);
        if (span_is(name, "\"time\""))
            view.time = value;
        else if (span_is(name, "\"subject\""))
            view.subject = value;
        else if (span_is(name, "\"action\""))
            view.action = value;
        else if (span_is(name, "\"decision\""))
            view.decision = value;
        at = end + 1;
    }
    return view;
}

static struct span unquoted(struct span value)
{
    return value.length >= 2 && value.data[0] == '"' ? part(value, 1, value.length - 1)
                                                      : (struct span){0};
}

static bool is_action(const struct filter *filter, struct span action)
{
    return filter->action_is_prefix ? span_starts_with(action, filter->action)
                                    : span_equal(action, filter->action);
}

static bool is_wanted(const struct filter *filter, struct span entry)
{
    if (!filter->has_since && !filter->has_until && filter->subject.length == 0 &&
        filter->action.length == 0 && filter->decision.length == 0)
        return true;
    struct view view = view_of(entry);
    struct span time = unquoted(view.time);
    if (filter->has_since && span_compare(time, span_of_text(filter->since)) < 0)
        return false;
    if (filter->has_until && span_compare(time, span_of_text(filter->until)) >= 0)
        return false;
    if (filter->subject.length > 0 && !span_equal(view.subject, filter->subject))
        return false;
    if (filter->action.length > 0 && !is_action(filter, unquoted(view.action)))
        return false;
    return filter->decision.length == 0 || span_equal(unquoted(view.decision), filter->decision);
}

static void put_entry(struct json_writer *writer, const struct store_log_entry *entry)
{
    struct hash_value leaf = leaf_of(entry);
    json_open_object(writer, NULL);
    json_put_integer(writer, "index", (int64_t)entry->index);
    put_base64(writer, "salt", entry->salt);
    put_base64(writer, "leaf_hash", SPAN_OF(leaf.bytes));
    json_put_raw(writer, "entry", entry->entry);
    json_close_object(writer);
}

static status take_entry(void *context, const struct store_log_entry *entry, bool *stop,
                         struct fault *fault)
{
    struct list *list = context;
    const struct buffer *body = list->call->response->body;
    list->next = entry->index + 1;
    list->examined++;
    if (is_wanted(&list->filter, entry->entry)) {
        put_entry(&list->writer, entry);
        list->count++;
    }
    bool late = list->examined % LIST_LOOK_AT_CLOCK == 0 && clock_monotonic_us() > list->until_us;
    *stop = late || list->count == list->limit || list->examined == LIST_EXAMINED_MAX ||
            body->length >= LIST_BYTES_MAX;
    return buffer_check(body, "the answer", fault);
}

static status read_time(bool *ret_has, char ret[CLOCK_TEXT_SIZE], const struct span *text,
                        const char *name, struct fault *fault)
{
    int64_t wall_us;
    if (text == NULL)
        return OK;
    if (!clock_read(&wall_us, *text))
        return FAIL(BAD_FIELD, fault, "%s: must be a time of RFC 3339 from 1970 on, as "
                    "2026-01-31T23:59:59Z", name);
    clock_text(ret, wall_us);
    *ret_has = true;
    return OK;
}

/* "memory.search", or all that begin so: "memory.*". */
static status read_action(struct filter *filter, const struct span *text, struct fault *fault)
{
    if (text == NULL)
        return OK;
    struct span name = *text;
    filter->action_is_prefix = name.length > 2 && name.data[name.length - 1] == '*' &&
                               name.data[name.length - 2] == '.';
    if (filter->action_is_prefix)
        name.length--;
    bool ok = name.length > 0 && name.length <= NAME_MAX_BYTES;
    for (size_t i = 0; ok && i < name.length; i++)
        ok = (name.data[i] >= 'a' && name.data[i] <= 'z') || name.data[i] == '_' ||
             name.data[i] == '.';
    if (!ok)
        return FAIL(BAD_FIELD, fault, "action: must be the name of an action, or the beginning of "
                    "some, as memory.*");
    filter->action = name;
    return OK;
}

/* The subject is compared as it is written in entries: by the same writer. */
static status read_subject(struct filter *filter, const struct span *text, struct arena *arena,
                           struct fault *fault)
{
    if (text == NULL)
        return OK;
    if (text->length == 0 || text->length > USER_MAX)
        return FAIL(BAD_FIELD, fault, "subject: 1 to %d bytes", (int)USER_MAX);
    uint8_t *storage = arena_alloc(arena, SUBJECT_TEXT_MAX);
    struct buffer written = buffer_over(storage, storage != NULL ? SUBJECT_TEXT_MAX : 0);
    struct json_writer writer = json_writer_on(&written);
    json_put_string(&writer, NULL, *text);
    TRY(buffer_check(&written, "subject", fault));
    filter->subject = buffer_span(&written);
    return OK;
}

static status read_decision(struct filter *filter, const struct span *text, struct fault *fault)
{
    if (text == NULL)
        return OK;
    if (!span_is(*text, "allow") && !span_is(*text, "deny"))
        return FAIL(BAD_FIELD, fault, "decision: must be allow or deny");
    filter->decision = *text;
    return OK;
}

/* What a cursor belongs to: the same filters. */
static status bind_cursor(struct span *ret, const struct call *call, const struct filter *filter,
                          struct fault *fault)
{
    enum { SCOPE_BYTES_MAX = KIB(3) };
    uint8_t *storage = arena_alloc(call->request->arena, SCOPE_BYTES_MAX);
    struct buffer scope = buffer_over(storage, storage != NULL ? SCOPE_BYTES_MAX : 0);
    buffer_put_text_field(&scope, call->request->action->name);
    buffer_put_text_field(&scope, call->request->envelope->user);
    buffer_put_text_field(&scope, filter->since);
    buffer_put_text_field(&scope, filter->until);
    buffer_put_field(&scope, filter->subject);
    buffer_put_u8(&scope, filter->action_is_prefix);
    buffer_put_field(&scope, filter->action);
    buffer_put_field(&scope, filter->decision);
    TRY(buffer_check(&scope, "query", fault));
    *ret = buffer_span(&scope);
    return OK;
}

static status read_filter(struct filter *filter, const struct http_query *query,
                          const struct call *call, struct fault *fault)
{
    TRY(read_time(&filter->has_since, filter->since, http_query_get(query, "since"), "since",
                  fault));
    TRY(read_time(&filter->has_until, filter->until, http_query_get(query, "until"), "until",
                  fault));
    TRY(read_subject(filter, http_query_get(query, "subject"), call->request->arena, fault));
    TRY(read_action(filter, http_query_get(query, "action"), fault));
    return read_decision(filter, http_query_get(query, "decision"), fault);
}

static status read_start(struct list *list, const struct http_query *query, struct span scope,
                         struct fault *fault)
{
    const struct span *from = http_query_get(query, "from");
    const struct span *text = http_query_get(query, "cursor");
    struct span position;
    if (from != NULL)
        TRY(read_number(&list->next, from, "from", fault));
    if (text == NULL)
        return OK;
    TRY(position_get(&position, list->call, *text, scope, fault));
    struct cursor bytes = cursor_over(position);
    TRY(cursor_u64(&list->next, &bytes, fault));
    return cursor_end(&bytes, fault);
}

static status put_next(struct list *list, uint64_t size, struct span scope, struct fault *fault)
{
    uint8_t position[8];
    struct buffer bytes = buffer_over(position, sizeof position);
    if (list->next >= size) {
        json_put_null(&list->writer, "next_cursor");
        return OK;
    }
    buffer_put_u64(&bytes, list->next);
    return position_put(&list->writer, list->call, buffer_span(&bytes), scope, fault);
}

status evidence_list(struct call *call, struct fault *fault)
{
    struct http_query query;
    struct span scope;
    struct list list = {.call = call, .writer = json_writer_on(call->response->body),
                        .until_us = clock_monotonic_us() + LIST_TIME_MAX_US};
    uint64_t size = store_log_size(call->silo->log);
    TRY(read_query(&query, call, fault));
    TRY(read_limit(&list.limit, http_query_get(&query, "limit"), fault));
    TRY(read_filter(&list.filter, &query, call, fault));
    TRY(bind_cursor(&scope, call, &list.filter, fault));
    TRY(read_start(&list, &query, scope, fault));
    json_open_object(&list.writer, NULL);
    json_open_array(&list.writer, "data");
    if (list.next < size)
        TRY(store_log_read(call->silo->log, list.next, size, take_entry, &list, fault));
    json_close_array(&list.writer);
    TRY(put_next(&list, size, scope, fault));
    json_put_integer(&list.writer, "size", (int64_t)size);
    json_close_object(&list.writer);
    call->count = list.count;
    call->response->http_status = 200;
    return OK;
}

/* ---- checkpoints and proofs ---- */

status evidence_checkpoint(struct call *call, struct fault *fault)
{
    struct silo *silo = call->silo;
    struct checkpoint checkpoint;
    if (!silo->has_platform_key)
        return FAIL(UNAVAILABLE, fault, "there is no signed checkpoint yet");
    TRY(evidence_note(&checkpoint, silo, silo->platform_key, fault));
    struct silo_header *type = &call->response->headers[call->response->header_count++];
    type->kind = RELAY_CONTENT_TYPE;
    bool fits = span_to_text(type->value, sizeof type->value, SPAN("text/plain; charset=utf-8"));
    assert(fits);
    buffer_put(call->response->body, (struct span){silo->note, silo->note_length});
    call->response->http_status = 200;
    return OK;
}

/* The size that the newest checkpoint signs. */
static status signed_size(uint64_t *ret, struct silo *silo, struct fault *fault)
{
    struct checkpoint checkpoint;
    struct span note = {silo->note, silo->note_length};
    if (!silo->has_platform_key || note.length == 0)
        return FAIL(UNAVAILABLE, fault, "there is no signed checkpoint yet");
    TRY(checkpoint_open(&checkpoint, note, PLATFORM_KEY_NAME, silo->platform_key, fault));
    *ret = checkpoint.size;
    return OK;
}

/* A size that the log has had: given, or that of the newest checkpoint. */
static status read_size(uint64_t *ret, const struct call *call, const struct span *text,
                        const char *name, struct fault *fault)
{
    uint64_t size, now = store_log_size(call->silo->log);
    if (text == NULL)
        TRY(signed_size(&size, call->silo, fault));
    else
        TRY(read_number(&size, text, name, fault));
    if (size > now)
        return FAIL(BAD_FIELD, fault, "%s: must be 0 to %llu, the entries of the log", name,
                    (unsigned long long)now);
    *ret = size;
    return OK;
}

static status read_needed(uint64_t *ret, const struct http_query *query, const char *name,
                          struct fault *fault)
{
    const struct span *text = http_query_get(query, name);
    if (text == NULL)
        return FAIL(BAD_FIELD, fault, "%s: is needed", name);
    return read_number(ret, text, name, fault);
}

static void put_hashes(struct json_writer *writer, const struct hash_value *hashes, uint32_t count)
{
    json_open_array(writer, "hashes");
    for (uint32_t i = 0; i < count; i++)
        put_base64(writer, NULL, SPAN_OF(hashes[i].bytes));
    json_close_array(writer);
}

static status put_leaf(void *context, const struct store_log_entry *entry, bool *stop,
                       struct fault *fault)
{
    struct json_writer *writer = context;
    struct hash_value leaf = leaf_of(entry);
    *stop = true;
    put_base64(writer, "leaf_hash", SPAN_OF(leaf.bytes));
    put_base64(writer, "salt", entry->salt);
    json_put_raw(writer, "entry", entry->entry);
    return buffer_check(writer->out, "the answer", fault);
}

status evidence_proof(struct call *call, struct fault *fault)
{
    struct http_query query;
    struct hash_value hashes[CONSISTENCY_PROOF_MAX];
    struct json_writer writer = json_writer_on(call->response->body);
    uint32_t count;
    uint64_t index, size;
    TRY(read_query(&query, call, fault));
    TRY(read_needed(&index, &query, "index", fault));
    TRY(read_size(&size, call, http_query_get(&query, "size"), "size", fault));
    if (index >= size)
        return FAIL(BAD_FIELD, fault, "index: must be below %llu, the size of the %s",
                    (unsigned long long)size,
                    http_query_get(&query, "size") ? "proof" : "newest checkpoint");
    TRY(store_log_inclusion(hashes, &count, call->silo->log, index, size, fault));
    json_open_object(&writer, NULL);
    json_put_integer(&writer, "index", (int64_t)index);
    json_put_integer(&writer, "size", (int64_t)size);
    put_hashes(&writer, hashes, count);
    TRY(store_log_read(call->silo->log, index, index + 1, put_leaf, &writer, fault));
    json_close_object(&writer);
    call->response->http_status = 200;
    return OK;
}

status evidence_consistency(struct call *call, struct fault *fault)
{
    struct http_query query;
    struct hash_value hashes[CONSISTENCY_PROOF_MAX];
    struct json_writer writer = json_writer_on(call->response->body);
    uint32_t count;
    uint64_t from, to;
    TRY(read_query(&query, call, fault));
    TRY(read_needed(&from, &query, "from", fault));
    TRY(read_size(&to, call, http_query_get(&query, "to"), "to", fault));
    if (from > to)
        return FAIL(BAD_FIELD, fault, "from: must be 0 to %llu", (unsigned long long)to);
    TRY(store_log_consistency(hashes, &count, call->silo->log, from, to, fault));
    json_open_object(&writer, NULL);
    json_put_integer(&writer, "from", (int64_t)from);
    json_put_integer(&writer, "to", (int64_t)to);
    put_hashes(&writer, hashes, count);
    json_close_object(&writer);
    call->response->http_status = 200;
    return OK;
}

/* ---- the hash of a text ---- */

static status read_bytes(struct span *ret, const struct call *call, const struct json *body,
                         struct fault *fault)
{
    static const char *const names[] = {"text", "base64", NULL};
    bool has_text = json_member(body, "text") != NULL;
    struct span text;
    TRY(json_only(body, names, fault));
    if (has_text == (json_member(body, "base64") != NULL))
        return FAIL(BAD_FIELD, fault, "text or base64: one of them is needed");
    if (has_text)
        return json_text(ret, body, "text", 1, HTTP_BODY_MAX, fault);
    TRY(json_text(&text, body, "base64", 1, HTTP_BODY_MAX, fault));
    uint8_t *storage = arena_alloc(call->request->arena, text.length);
    if (storage == NULL)
        return FAIL(TOO_LARGE, fault, "the text does not fit the memory of one request");
    struct buffer bytes = buffer_over(storage, text.length);
    TRY(base64_decode(&bytes, text, "base64", fault));
    *ret = buffer_span(&bytes);
    return OK;
}

status evidence_hash(struct call *call, struct fault *fault)
{
    struct json body;
    struct span bytes = {0};
    uint8_t digest[HASH_BYTES];
    char text[2 * HASH_BYTES + 1];
    TRY(call_body(&body, call, fault));
    TRY(read_bytes(&bytes, call, &body, fault));
    hash_keyed(digest, SPAN_OF(call->silo->keys->audit), bytes);
    hex_encode(text, SPAN_OF(digest));
    struct json_writer writer = json_writer_on(call->response->body);
    json_open_object(&writer, NULL);
    json_put_text(&writer, "hash", text);
    json_close_object(&writer);
    call->response->http_status = 200;
    return OK;
}
