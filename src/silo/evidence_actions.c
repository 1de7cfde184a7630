#include "silo/actions.h"

static const char *const list_query[] = {"from", "limit", "cursor", "since", "until", "subject",
                                         "action", "decision", NULL};
static const char *const proof_query[] = {"index", "size", NULL};
static const char *const consistency_query[] = {"from", "to", NULL};

const struct action evidence_actions[EVIDENCE_ACTIONS] = {
    [EVIDENCE_LIST] = {
        .name = "audit.list", .method = "GET", .path = "/v1/audit", .resource = "audit",
        .scope = SCOPE_AUDIT_READ, .query = list_query,
    },
    [EVIDENCE_CHECKPOINT] = {
        .name = "audit.checkpoint", .method = "GET", .path = "/v1/audit/checkpoint",
        .resource = "audit", .scope = SCOPE_AUDIT_READ, .fresh_note = true,
    },
    [EVIDENCE_PROOF] = {
        .name = "audit.proof", .method = "GET", .path = "/v1/audit/proof", .resource = "audit",
        .scope = SCOPE_AUDIT_READ, .query = proof_query,
    },
    [EVIDENCE_CONSISTENCY] = {
        .name = "audit.consistency", .method = "GET", .path = "/v1/audit/consistency",
        .resource = "audit", .scope = SCOPE_AUDIT_READ, .query = consistency_query,
    },
    [EVIDENCE_EXPORT] = {
        .name = "audit.export", .method = "GET", .path = "/v1/audit/export", .resource = "audit",
        .scope = SCOPE_AUDIT_READ, .streams = ACTION_STREAMS_OUT, .fresh_note = true,
    },
    [EVIDENCE_HASH] = {
        .name = "audit.hash", .method = "POST", .path = "/v1/audit/hash", .resource = "audit",
        .scope = SCOPE_AUDIT_READ, .body = ACTION_BODY_JSON, .body_max = HTTP_BODY_MAX,
    },
};
