#include "silo/actions.h"

static const char *const put_query[] = {"classification", NULL};
static const char *const list_query[] = {"prefix", "delimiter", "limit", "cursor", NULL};

const struct action object_actions[OBJECT_ACTIONS] = {
    [OBJECT_PUT] = {
        .name = "object.put", .method = "PUT", .path = "/v1/objects/{key...}",
        .resource = "object", .scope = SCOPE_OBJECTS_WRITE, .mutates = true,
        .body = ACTION_BODY_BYTES, .body_max = OBJECT_BYTES_MAX, .streams = ACTION_STREAMS_IN,
        .query = put_query,
    },
    [OBJECT_GET] = {
        .name = "object.get", .method = "GET", .path = "/v1/objects/{key...}",
        .resource = "object", .scope = SCOPE_OBJECTS_READ, .streams = ACTION_STREAMS_OUT,
    },
    [OBJECT_DELETE] = {
        .name = "object.delete", .method = "DELETE", .path = "/v1/objects/{key...}",
        .resource = "object", .scope = SCOPE_OBJECTS_WRITE, .mutates = true,
    },
    [OBJECT_LIST] = {
        .name = "object.list", .method = "GET", .path = "/v1/objects", .resource = "object",
        .scope = SCOPE_OBJECTS_READ, .query = list_query,
    },
};
