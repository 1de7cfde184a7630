/* verbs_route.c: what operators ask about routes. */
#include "base/cleanup.h"
#include "control/control.h"

enum { LIST_MAX = 64 * 1024 * 1024 };

static status read_route(struct route *ret, const struct json *arguments, struct fault *fault)
{
    struct span kind, value;
    TRY(json_text(&kind, arguments, "kind", 1, 32, fault));
    TRY(json_text(&value, arguments, "value", 1, 255, fault));
    return route_read(ret, kind, value, fault);
}

static status answer_route(struct session *session, const struct route *route,
                           const struct tenant *tenant, const char *what, bool happened,
                           struct fault *fault)
{
    uint8_t storage[1024];
    struct buffer text = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&text);
    json_open_object(&writer, NULL);
    json_put_text(&writer, "kind", route->kind);
    json_put_text(&writer, "value", route->value);
    json_put_text(&writer, "tenant", tenant->name);
    json_put_bool(&writer, what, happened);
    json_close_object(&writer);
    TRY(buffer_check(&text, "route", fault));
    session_answer(session, OK, "", buffer_span(&text));
    return OK;
}

status verb_route_add(struct session *session, const struct json *arguments,
                      struct ipc_message *message, struct fault *fault)
{
    static const char *const known[] = {"name", "kind", "value", NULL};
    struct tenant tenant;
    struct route route;
    bool added;
    (void)message;
    TRY(json_only(arguments, known, fault));
    TRY(read_route(&route, arguments, fault));
    TRY(verb_tenant(&tenant, session->control, arguments, fault));
    TRY(route_add(&added, session->control, &route, &tenant, session->uid, fault));
    return answer_route(session, &route, &tenant, "added", added, fault);
}

status verb_route_remove(struct session *session, const struct json *arguments,
                         struct ipc_message *message, struct fault *fault)
{
    static const char *const known[] = {"kind", "value", NULL};
    struct tenant tenant;
    struct route route;
    (void)message;
    TRY(json_only(arguments, known, fault));
    TRY(read_route(&route, arguments, fault));
    TRY(route_remove(&tenant, session->control, &route, session->uid, fault));
    return answer_route(session, &route, &tenant, "removed", true, fault);
}

static status list_one(void *context, struct span kind, struct span value, struct span tenant,
                       struct fault *fault)
{
    struct json_writer *writer = context;
    (void)fault;
    json_open_object(writer, NULL);
    json_put_string(writer, "kind", kind);
    json_put_string(writer, "value", value);
    json_put_string(writer, "tenant", tenant);
    json_close_object(writer);
    return OK;
}

status verb_route_list(struct session *session, const struct json *arguments,
                       struct ipc_message *message, struct fault *fault)
{
    static const char *const known[] = {"name", NULL};
    _cleanup_buffer_ struct buffer text = buffer_of(LIST_MAX);
    struct json_writer writer = json_writer_on(&text);
    struct tenant tenant;
    bool one = json_member(arguments, "name") != NULL;
    (void)message;
    TRY(json_only(arguments, known, fault));
    if (one)
        TRY(verb_tenant(&tenant, session->control, arguments, fault));
    json_open_object(&writer, NULL);
    json_open_array(&writer, "data");
    TRY(routes_all(session->control, one ? &tenant : NULL, list_one, &writer, fault));
    json_close_array(&writer);
    json_close_object(&writer);
    TRY(buffer_check(&text, "list", fault));
    session_answer(session, OK, "", buffer_span(&text));
    return OK;
}
