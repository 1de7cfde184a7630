/* actions.h: the action table: every kind of data in a silo and the rows it answers to.
 *
 * A kind's rows stand beside its handlers (memory_actions.c beside memory.c) in a file of constants
 * only; together they make the library `actions`, which the gateway links without any handler. A
 * kind lists its rows in an enum; its handlers are an array in that order, found by route.set and
 * route.row. A new kind: its file, a line here and in actions.c. */
#pragma once

#include "authz/action.h"

enum action_kind {
    ACTIONS_MEMORY,
    ACTIONS_KNOWLEDGE,
    ACTIONS_OBJECTS,
    ACTIONS_TENANT,
    ACTIONS_EVIDENCE,
    ACTION_KINDS
};

enum memory_action {
    MEMORY_ADD,
    MEMORY_LIST,
    MEMORY_FORGET_USER,
    MEMORY_SEARCH,
    MEMORY_READ,
    MEMORY_UPDATE,
    MEMORY_DELETE,
    MEMORY_HISTORY,
    MEMORY_ACTIONS
};
extern const struct action memory_actions[MEMORY_ACTIONS];

enum knowledge_action {
    KNOWLEDGE_LIST,
    KNOWLEDGE_BATCH,
    KNOWLEDGE_PUT,
    KNOWLEDGE_READ,
    KNOWLEDGE_DELETE,
    KNOWLEDGE_SEARCH,
    KNOWLEDGE_ACTIONS
};
extern const struct action knowledge_actions[KNOWLEDGE_ACTIONS];
enum object_action { OBJECT_PUT, OBJECT_GET, OBJECT_DELETE, OBJECT_LIST, OBJECT_ACTIONS };
extern const struct action object_actions[OBJECT_ACTIONS];

enum tenant_action { TENANT_READ, TENANT_ACTIONS };
extern const struct action tenant_actions[TENANT_ACTIONS];

enum evidence_action {
    EVIDENCE_LIST,
    EVIDENCE_CHECKPOINT,
    EVIDENCE_PROOF,
    EVIDENCE_CONSISTENCY,
    EVIDENCE_EXPORT,
    EVIDENCE_HASH,
    EVIDENCE_ACTIONS
};
extern const struct action evidence_actions[EVIDENCE_ACTIONS];

extern const struct action_table action_table;
