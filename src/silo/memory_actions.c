#include "silo/actions.h"

/* Every character of a text may come as a six-byte \u escape. */
enum { MEMORY_BODY_MAX = 6 * (MEMORY_TEXT_MAX + MEMORY_METADATA_MAX) + KIB(16) };
static_assert((uint32_t)MEMORY_BODY_MAX <= (uint32_t)HTTP_BODY_MAX, "the largest fits a body");

/* A query, and a vector of 4096 numbers written out in full. */
enum { MEMORY_SEARCH_BODY_MAX = KIB(128) };

static const char *const list_query[] = {"user_id", "session_id", "kind", "limit", "cursor", NULL};
static const char *const forget_query[] = {"user_id", NULL};
static const char *const page_query[] = {"limit", "cursor", NULL};

const struct action memory_actions[MEMORY_ACTIONS] = {
    [MEMORY_ADD] = {
        .name = "memory.add", .method = "POST", .path = "/v1/memories", .resource = "memory",
        .scope = SCOPE_MEMORY_WRITE, .mutates = true,
        .body = ACTION_BODY_JSON, .body_max = MEMORY_BODY_MAX,
    },
    [MEMORY_LIST] = {
        .name = "memory.list", .method = "GET", .path = "/v1/memories", .resource = "memory",
        .scope = SCOPE_MEMORY_READ, .query = list_query,
    },
    [MEMORY_FORGET_USER] = {
        .name = "memory.forget_user", .method = "DELETE", .path = "/v1/memories",
        .resource = "memory", .scope = SCOPE_MEMORY_WRITE, .mutates = true, .query = forget_query,
    },
    [MEMORY_SEARCH] = {
        .name = "memory.search", .method = "POST", .path = "/v1/memories/search",
        .resource = "memory", .scope = SCOPE_MEMORY_READ,
        .body = ACTION_BODY_JSON, .body_max = MEMORY_SEARCH_BODY_MAX,
    },
    [MEMORY_READ] = {
        .name = "memory.read", .method = "GET", .path = "/v1/memories/{id}", .resource = "memory",
        .scope = SCOPE_MEMORY_READ,
    },
    [MEMORY_UPDATE] = {
        .name = "memory.update", .method = "PATCH", .path = "/v1/memories/{id}",
        .resource = "memory", .scope = SCOPE_MEMORY_WRITE, .mutates = true,
        .body = ACTION_BODY_JSON, .body_max = MEMORY_BODY_MAX,
    },
    [MEMORY_DELETE] = {
        .name = "memory.delete", .method = "DELETE", .path = "/v1/memories/{id}",
        .resource = "memory", .scope = SCOPE_MEMORY_WRITE, .mutates = true,
    },
    [MEMORY_HISTORY] = {
        .name = "memory.history", .method = "GET", .path = "/v1/memories/{id}/history",
        .resource = "memory", .scope = SCOPE_MEMORY_READ, .query = page_query,
    },
};
