#include "authz/scope.h"

#include "base/limits.h"

static_assert(SCOPE_COUNT < 64, "a set of scopes is one word");

static const char *const names[SCOPE_COUNT] = {
    [SCOPE_MEMORY_READ] = "memory:read",
    [SCOPE_MEMORY_WRITE] = "memory:write",
    [SCOPE_MEMORY_ANY_USER] = "memory:any-user",
    [SCOPE_KNOWLEDGE_READ] = "knowledge:read",
    [SCOPE_KNOWLEDGE_WRITE] = "knowledge:write",
    [SCOPE_VECTORS_READ] = "vectors:read",
    [SCOPE_VECTORS_WRITE] = "vectors:write",
    [SCOPE_VAULT_WRITE] = "vault:write",
    [SCOPE_VAULT_USE] = "vault:use",
    [SCOPE_MODELS_INVOKE] = "models:invoke",
    [SCOPE_TOOLS_CALL] = "tools:call",
    [SCOPE_SANDBOX_RUN] = "sandbox:run",
    [SCOPE_OBJECTS_READ] = "objects:read",
    [SCOPE_OBJECTS_WRITE] = "objects:write",
    [SCOPE_AUDIT_READ] = "audit:read",
    [SCOPE_TENANT_READ] = "tenant:read",
    [SCOPE_ROUTES_READ] = "routes:read",
};

const char *scope_name(enum scope scope)
{
    return (unsigned)scope < SCOPE_COUNT ? names[scope] : "unknown";
}

bool scope_holds(scope_set set, enum scope scope)
{
    return (unsigned)scope < SCOPE_COUNT && (set & SCOPE_SET(scope)) != 0;
}

static scope_set scope_named(struct span name)
{
    for (unsigned i = 0; i < SCOPE_COUNT; i++)
        if (span_is(name, names[i]))
            return SCOPE_SET(i);
    return 0;
}

/* NQCHAR of RFC 6749, appendix A. */
static bool is_scope_character(uint8_t byte)
{
    return byte > 0x20 && byte < 0x7F && byte != '"' && byte != '\\';
}

static struct span next_token(struct span text, size_t from)
{
    size_t to = from;
    while (to < text.length && is_scope_character(text.data[to]))
        to++;
    return (struct span){text.data + from, to - from};
}

static status read_set(scope_set *ret, struct span text, bool known_only, struct fault *fault)
{
    scope_set set = 0;
    if (text.length > TOKEN_SCOPES_MAX)
        return FAIL(BAD_FIELD, fault, "scope: at most %d bytes", TOKEN_SCOPES_MAX);
    for (size_t at = 0; at <= text.length; at++) { /* past each token's closing blank */
        struct span token = next_token(text, at);
        at += token.length;
        if (token.length == 0 || (at < text.length && text.data[at] != ' '))
            return FAIL(BAD_FIELD, fault, "scope: names separated by single blanks");
        scope_set one = scope_named(token);
        if (known_only && one == 0)
            return FAIL(BAD_FIELD, fault, "scope: there is no scope \"%.*s\"",
                        token.length > 64 ? 64 : (int)token.length, (const char *)token.data);
        set |= one;
    }
    *ret = set;
    return OK;
}

status scope_set_read(scope_set *ret, struct span text, struct fault *fault)
{
    return read_set(ret, text, false, fault);
}

status scope_set_read_known(scope_set *ret, struct span text, struct fault *fault)
{
    return read_set(ret, text, true, fault);
}
