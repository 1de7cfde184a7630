#include "silo/actions.h"

enum { KNOWLEDGE_SEARCH_BODY_MAX = KIB(128) };
#define KNOWLEDGE_BATCH_MAX (UINT64_C(64) << 30) /* of all lines together */

static const char *const list_query[] = {"classification", "prefix", "limit", "cursor", NULL};

const struct action knowledge_actions[KNOWLEDGE_ACTIONS] = {
    [KNOWLEDGE_LIST] = {
        .name = "knowledge.list", .method = "GET", .path = "/v1/documents",
        .resource = "document", .scope = SCOPE_KNOWLEDGE_READ, .query = list_query,
    },
    [KNOWLEDGE_BATCH] = {
        .name = "knowledge.batch", .method = "POST", .path = "/v1/documents/batch",
        .resource = "document", .scope = SCOPE_KNOWLEDGE_WRITE, .mutates = true,
        .body = ACTION_BODY_NDJSON, .body_max = KNOWLEDGE_BATCH_MAX,
        .streams = ACTION_STREAMS_IN | ACTION_STREAMS_OUT,
    },
    [KNOWLEDGE_PUT] = {
        .name = "knowledge.put", .method = "PUT", .path = "/v1/documents/{id}",
        .resource = "document", .scope = SCOPE_KNOWLEDGE_WRITE, .mutates = true,
        .body = ACTION_BODY_JSON, .body_max = DOCUMENT_BODY_MAX,
    },
    [KNOWLEDGE_READ] = {
        .name = "knowledge.read", .method = "GET", .path = "/v1/documents/{id}",
        .resource = "document", .scope = SCOPE_KNOWLEDGE_READ,
    },
    [KNOWLEDGE_DELETE] = {
        .name = "knowledge.delete", .method = "DELETE", .path = "/v1/documents/{id}",
        .resource = "document", .scope = SCOPE_KNOWLEDGE_WRITE, .mutates = true,
    },
    [KNOWLEDGE_SEARCH] = {
        .name = "knowledge.search", .method = "POST", .path = "/v1/search",
        .resource = "document", .scope = SCOPE_KNOWLEDGE_READ,
        .body = ACTION_BODY_JSON, .body_max = KNOWLEDGE_SEARCH_BODY_MAX,
    },
};
