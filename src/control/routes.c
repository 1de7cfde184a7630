/* routes.c: hosts, telephone numbers and customer numbers that lead to a tenant. A back end that
 * asks for one is answered when the ledger has its question: no answer that left no trace. */
#include "base/hex.h"
#include "base/log.h"
#include "control/control.h"

#include <stdlib.h>
#include <string.h>

enum {
    HOST_MAX = 253, LABEL_MAX = 63,       /* RFC 1035 */
    PHONE_DIGITS_MIN = 8, PHONE_DIGITS_MAX = 15, /* E.164 */
    CUSTOMER_MAX = 64,
    GATHER_US = 20 * 1000, /* one commit for all questions of that time */
    GATHERED_MAX = 256,
};

struct route_question {
    struct gateway_link *link;
    uint32_t generation, request;
    char kind[16], subject[USER_MAX + 1];
    uint8_t value[HASH_BYTES], token[HASH_BYTES], trace[TRACE_ID_BYTES];
    status found;
    struct tenant tenant; /* when it was */
    struct route_question *next;
};

/* ---- what may be one ---- */

static bool is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

static bool is_alphanumeric(uint8_t byte)
{
    return is_digit(byte) || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
}

static bool label_is_valid(struct span label)
{
    if (label.length < 1 || label.length > LABEL_MAX || label.data[0] == '-'
        || label.data[label.length - 1] == '-')
        return false;
    for (size_t i = 0; i < label.length; i++)
        if (!is_alphanumeric(label.data[i]) && label.data[i] != '-')
            return false;
    return true;
}

/* Two labels at least, and the last no number: that would be an address. */
static bool host_is_valid(struct span host)
{
    size_t labels = 0;
    bool last_is_number = false;
    if (host.length > HOST_MAX)
        return false;
    for (;;) {
        size_t dot = span_find(host, '.');
        struct span label = {host.data, dot};
        if (!label_is_valid(label))
            return false;
        labels++;
        last_is_number = true;
        for (size_t i = 0; i < label.length; i++)
            last_is_number = last_is_number && is_digit(label.data[i]);
        if (dot == host.length)
            return labels >= 2 && !last_is_number;
        host = (struct span){host.data + dot + 1, host.length - dot - 1};
    }
}

static bool phone_is_valid(struct span phone)
{
    if (phone.length < 1 + PHONE_DIGITS_MIN || phone.length > 1 + PHONE_DIGITS_MAX
        || phone.data[0] != '+' || phone.data[1] == '0')
        return false;
    for (size_t i = 1; i < phone.length; i++)
        if (!is_digit(phone.data[i]))
            return false;
    return true;
}

static bool customer_is_valid(struct span customer)
{
    if (customer.length < 1 || customer.length > CUSTOMER_MAX)
        return false;
    for (size_t i = 0; i < customer.length; i++) {
        uint8_t byte = customer.data[i];
        if (!is_alphanumeric(byte) && byte != '.' && byte != '_' && byte != '-')
            return false;
    }
    return true;
}

static const struct {
    const char *name;
    bool (*is_valid)(struct span value);
    const char *allowed;
} kinds[] = {
    {"host", host_is_valid, "a DNS name of two labels or more, such as acme.example.com"},
    {"phone", phone_is_valid, "E.164: + and 8 to 15 digits, the first not 0"},
    {"customer", customer_is_valid, "1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-'"},
};

static void lower(char *text)
{
    for (; *text; text++)
        if (*text >= 'A' && *text <= 'Z')
            *text = (char)(*text - 'A' + 'a');
}

status route_read(struct route *ret, struct span kind, struct span value, struct fault *fault)
{
    struct route route;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (!span_is(kind, kinds[i].name))
            continue;
        if (!kinds[i].is_valid(value) || !span_to_text(route.value, sizeof route.value, value)
            || !span_to_text(route.kind, sizeof route.kind, kind))
            return FAIL(BAD_FIELD, fault, "%s: must be %s", kinds[i].name, kinds[i].allowed);
        if (i == 0)
            lower(route.value);
        *ret = route;
        return OK;
    }
    return FAIL(BAD_FIELD, fault, "kind: must be host, phone or customer");
}

/* ---- rows ---- */

status route_find(struct tenant *ret, struct control *control, const struct route *route,
                  struct fault *fault)
{
    _cleanup_statement_ struct statement *find = NULL;
    uint8_t id[TENANT_ID_BYTES];
    TRY(statement_open(&find, control->store, "SELECT tenant FROM route WHERE kind = ?1 AND"
                       " value = ?2", fault));
    statement_bind_text(find, 1, span_of_text(route->kind));
    statement_bind_text(find, 2, span_of_text(route->value));
    TRY(statement_step(find, fault));
    struct cursor bytes = cursor_over(statement_span(find, 0));
    TRY(cursor_copy(id, &bytes, sizeof id, fault));
    return registry_by_id(ret, control, id, fault);
}

static status insert(struct control *control, const struct route *route,
                     const struct tenant *tenant, struct fault *fault)
{
    _cleanup_statement_ struct statement *insert = NULL;
    TRY(statement_open(&insert, control->store, "INSERT INTO route(kind, value, tenant)"
                       " VALUES(?1, ?2, ?3)", fault));
    statement_bind_text(insert, 1, span_of_text(route->kind));
    statement_bind_text(insert, 2, span_of_text(route->value));
    statement_bind_blob(insert, 3, SPAN_OF(tenant->id));
    return statement_run(insert, fault);
}

static status delete(struct control *control, const struct route *route,
                     const struct tenant *tenant, struct fault *fault)
{
    _cleanup_statement_ struct statement *delete = NULL;
    (void)tenant;
    TRY(statement_open(&delete, control->store, "DELETE FROM route WHERE kind = ?1 AND value = ?2",
                       fault));
    statement_bind_text(delete, 1, span_of_text(route->kind));
    statement_bind_text(delete, 2, span_of_text(route->value));
    return statement_run(delete, fault);
}

status routes_remove_of(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                        struct fault *fault)
{
    _cleanup_statement_ struct statement *delete = NULL;
    TRY(statement_open(&delete, control->store, "DELETE FROM route WHERE tenant = ?1", fault));
    statement_bind_blob(delete, 1, (struct span){id, TENANT_ID_BYTES});
    return statement_run(delete, fault);
}

status routes_any_host(bool *ret, struct control *control, struct fault *fault)
{
    _cleanup_statement_ struct statement *find = NULL;
    TRY(statement_open(&find, control->store, "SELECT 1 FROM route WHERE kind = 'host' LIMIT 1",
                       fault));
    status found = statement_step(find, fault);
    if (found != OK && found != NOT_FOUND)
        return found;
    *ret = found == OK;
    return OK;
}

status routes_all(struct control *control, const struct tenant *tenant, route_each *each,
                  void *context, struct fault *fault)
{
    _cleanup_statement_ struct statement *all = NULL;
    TRY(statement_open(&all, control->store, "SELECT kind, value, name FROM route JOIN tenant"
                       " ON tenant.id = route.tenant WHERE ?1 IS NULL OR route.tenant = ?1"
                       " ORDER BY kind, value", fault));
    if (tenant)
        statement_bind_blob(all, 1, SPAN_OF(tenant->id));
    else
        statement_bind_null(all, 1);
    for (;;) {
        status step = statement_step(all, fault);
        if (step == NOT_FOUND)
            return OK;
        TRY(step);
        TRY(each(context, statement_span(all, 0), statement_span(all, 1), statement_span(all, 2),
                 fault));
    }
}

/* ---- changes ---- */

/* The ledger outlives the tenant: it holds of a value no more than what tells it again. */
static void put_value_hash(struct json_writer *writer, const uint8_t hashed[HASH_BYTES])
{
    char text[2 * HASH_BYTES + 1];
    hex_encode(text, (struct span){hashed, HASH_BYTES});
    json_put_text(writer, "value_sha256", text);
}

static void put_route(struct buffer *out, const struct route *route)
{
    uint8_t hashed[HASH_BYTES];
    struct json_writer writer = json_writer_on(out);
    hash(hashed, span_of_text(route->value));
    json_open_object(&writer, NULL);
    json_put_text(&writer, "kind", route->kind);
    put_value_hash(&writer, hashed);
    json_close_object(&writer);
}

static status change(struct control *control, const struct route *route,
                     const struct tenant *tenant, const char *event, int64_t operator_uid,
                     status (*apply)(struct control *, const struct route *,
                                     const struct tenant *, struct fault *), struct fault *fault)
{
    uint8_t storage[256];
    struct buffer detail = buffer_over(storage, sizeof storage);
    put_route(&detail, route);
    TRY(buffer_check(&detail, "route", fault));
    TRY(registry_begin(control, fault));
    status result = apply(control, route, tenant, fault);
    if (result == OK)
        result = ledger_append(control, event, tenant, operator_uid, buffer_span(&detail), fault);
    if (result != OK) {
        registry_undo(control);
        return result;
    }
    TRY(registry_commit(control, fault));
    gateways_tell_changed(control, tenant->id);
    gateways_tell_platform(control);
    return OK;
}

status route_add(bool *ret_news, struct control *control, const struct route *route,
                 const struct tenant *tenant, int64_t operator_uid, struct fault *fault)
{
    struct tenant other;
    status found = route_find(&other, control, route, fault);
    if (found == OK && !span_equal(SPAN_OF(other.id), SPAN_OF(tenant->id)))
        return FAIL(CONFLICT, fault, "this %s leads to the tenant %s", route->kind, other.name);
    if (found != OK && found != NOT_FOUND)
        return found;
    *ret_news = found == NOT_FOUND;
    return *ret_news ? change(control, route, tenant, "route.add", operator_uid, insert, fault)
                     : OK;
}

status route_remove(struct tenant *ret, struct control *control, const struct route *route,
                    int64_t operator_uid, struct fault *fault)
{
    struct tenant tenant;
    status found = route_find(&tenant, control, route, fault);
    if (found == NOT_FOUND)
        return FAIL(NOT_FOUND, fault, "no tenant has this %s", route->kind);
    TRY(found);
    TRY(change(control, route, &tenant, "route.remove", operator_uid, delete, fault));
    *ret = tenant;
    return OK;
}

/* ---- questions of back ends ---- */

static void put_question(struct buffer *out, const struct route_question *question)
{
    char token[2 * HASH_BYTES + 1], trace[2 * TRACE_ID_BYTES + 1];
    struct json_writer writer = json_writer_on(out);
    hex_encode(token, SPAN_OF(question->token));
    hex_encode(trace, SPAN_OF(question->trace));
    json_open_object(&writer, NULL);
    json_put_text(&writer, "kind", question->kind);
    put_value_hash(&writer, question->value);
    json_put_bool(&writer, "found", question->found == OK);
    json_put_text(&writer, "subject", question->subject);
    json_put_text(&writer, "token_sha256", token);
    json_put_text(&writer, "trace_id", trace);
    json_close_object(&writer);
}

static status write_question(struct control *control, const struct route_question *question,
                             struct fault *fault)
{
    uint8_t storage[4096];
    struct buffer detail = buffer_over(storage, sizeof storage);
    put_question(&detail, question);
    TRY(buffer_check(&detail, "route question", fault));
    return ledger_append(control, "route.find", question->found == OK ? &question->tenant : NULL,
                         -1, buffer_span(&detail), fault);
}

static status write_questions(struct control *control, struct fault *fault)
{
    status result = OK;
    TRY(registry_begin(control, fault));
    const struct route_question *question = control->route_questions;
    for (; question && result == OK; question = question->next)
        result = write_question(control, question, fault);
    return registry_end(control, result, fault);
}

static void answer_question(const struct route_question *question, bool written)
{
    uint8_t storage[128];
    struct buffer result = buffer_over(storage, sizeof storage);
    if (question->link->generation != question->generation)
        return;
    if (written && question->found == OK) {
        buffer_put(&result, SPAN_OF(question->tenant.id));
        buffer_put_text_field(&result, question->tenant.name);
    }
    gateway_answer(question->link, question->request, written ? question->found : UNAVAILABLE,
                   "", buffer_span(&result));
}

void routes_flush(struct control *control)
{
    struct fault fault;
    loop_timer_stop(control->loop, &control->route_timer);
    if (!control->route_questions)
        return;
    bool written = write_questions(control, &fault) == OK;
    if (!written)
        log_event(LOG_WARN, "ledger.routes", "%s", fault.detail);
    while (control->route_questions) {
        struct route_question *question = control->route_questions;
        control->route_questions = question->next;
        answer_question(question, written);
        free(question);
    }
    control->route_question_count = 0;
}

static void on_gathered(void *context)
{
    routes_flush(context);
}

static status read_question(struct route_question *ret, struct span *ret_value,
                            struct cursor *body, struct fault *fault)
{
    struct span kind;
    TRY(cursor_field(&kind, body, IPC_BODY_MAX, "kind", fault));
    TRY(cursor_field(ret_value, body, IPC_BODY_MAX, "value", fault));
    TRY(cursor_text(ret->subject, sizeof ret->subject, body, "subject", fault));
    TRY(cursor_copy(ret->token, body, sizeof ret->token, fault));
    TRY(cursor_copy(ret->trace, body, sizeof ret->trace, fault));
    TRY(cursor_end(body, fault));
    if (!span_to_text(ret->kind, sizeof ret->kind, kind))
        (void)span_to_text(ret->kind, sizeof ret->kind, SPAN("unknown"));
    return OK;
}

/* What could be no route is a question like another: it is written down. */
static void look(struct route_question *question, struct control *control, struct span value)
{
    struct route route;
    struct fault fault;
    status found = route_read(&route, span_of_text(question->kind), value, &fault);
    hash(question->value, found == OK ? span_of_text(route.value) : value);
    if (found == OK)
        found = route_find(&question->tenant, control, &route, &fault);
    if (found == OK && question->tenant.state != TENANT_ACTIVE
        && question->tenant.state != TENANT_PAUSED_STATE)
        found = NOT_FOUND;
    bool told = found == OK || found == NOT_FOUND || found == BAD_FIELD;
    question->found = told ? found : UNAVAILABLE;
}

status route_ask(struct gateway_link *link, uint32_t id, struct cursor *body, struct fault *fault)
{
    struct control *control = link->control;
    struct route_question *question = calloc(1, sizeof *question);
    struct span value;
    if (!question)
        return FAIL(INTERNAL, fault, "out of memory");
    status read = read_question(question, &value, body, fault);
    if (read != OK) {
        free(question);
        return read;
    }
    question->link = link;
    question->generation = link->generation;
    question->request = id;
    look(question, control, value);
    question->next = control->route_questions;
    control->route_questions = question;
    if (++control->route_question_count >= GATHERED_MAX)
        routes_flush(control);
    else if (control->route_timer.due_us == 0)
        return loop_timer_start(control->loop, &control->route_timer, GATHER_US, on_gathered,
                                control, fault);
    return OK;
}
