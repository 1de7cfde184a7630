/* scope.h: what a token may be allowed to do: the scopes of the API, and sets of them. */
#pragma once

#include "base/span.h"
#include "base/status.h"

enum scope {
    SCOPE_MEMORY_READ,
    SCOPE_MEMORY_WRITE,
    SCOPE_MEMORY_ANY_USER, /* act on items of other users: a platform's own back end */
    SCOPE_KNOWLEDGE_READ,
    SCOPE_KNOWLEDGE_WRITE,
    SCOPE_VECTORS_READ,
    SCOPE_VECTORS_WRITE,
    SCOPE_VAULT_WRITE,
    SCOPE_VAULT_USE,
    SCOPE_MODELS_INVOKE,
    SCOPE_TOOLS_CALL,
    SCOPE_SANDBOX_RUN,
    SCOPE_OBJECTS_READ,
    SCOPE_OBJECTS_WRITE,
    SCOPE_AUDIT_READ,
    SCOPE_TENANT_READ,
    SCOPE_ROUTES_READ, /* of the platform's own tokens alone */
    SCOPE_COUNT
};

typedef uint64_t scope_set;

#define SCOPE_SET(scope) ((scope_set)1 << (scope))
#define SCOPES_KNOWN (SCOPE_SET(SCOPE_COUNT) - 1)

const char *scope_name(enum scope scope); /* "memory:read" */
bool scope_holds(scope_set set, enum scope scope);

/* A scope claim or parameter: the grammar of RFC 6749 section 3.3, at most TOKEN_SCOPES_MAX bytes.
 * Names that are not ours are passed over. BAD_FIELD outside the grammar. */
MUST_CHECK status scope_set_read(scope_set *ret, struct span text, struct fault *fault);

/* The same, for what we are asked to grant: a name that is not ours is BAD_FIELD and is named. */
MUST_CHECK status scope_set_read_known(scope_set *ret, struct span text, struct fault *fault);
