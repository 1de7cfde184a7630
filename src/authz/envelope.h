/* envelope.h: the verified facts about one request, and the decision on them.
 *
 * Nothing is done without an envelope (design, invariant 2). It is made from verified claims, the
 * routed action and what this process itself knows of the tenant: never from a body, a header or a
 * model's output. The gateway makes one to deny early; the cell trusts nobody and makes its own. */
#pragma once

#include "authz/action.h"
#include "authz/token.h"

/* What the process knows of the tenant it serves: the cell from its own silo, the gateway from
 * control. A zeroed record matches no token. */
struct tenant_facts {
    char id[TENANT_ID_TEXT];
    char name[TENANT_NAME_MAX + 1];
    int64_t created_at_us;              /* wall clock */
    bool clearance_required;            /* posture: the token must carry the claim */
    int64_t token_lifetime_max_seconds; /* posture: exp - iat; 0 for the issuer's cap alone */
};

struct request_facts {
    uint8_t trace_id[TRACE_ID_BYTES];
    uint8_t token_hash[HASH_BYTES];
    int64_t time_us; /* wall clock */
};

struct envelope {
    char tenant[TENANT_ID_TEXT];
    char user[USER_MAX + 1];
    char agent[USER_MAX + 1]; /* "" when there is none */
    const struct action *action;
    uint32_t id_count;
    struct span ids[ACTION_IDS_MAX]; /* borrowed from the route's path: valid as long as that is */
    scope_set scopes;
    enum clearance clearance;
    bool clearance_given;
    bool clearance_required;
    int64_t lifetime_seconds;     /* of the token; INT64_MAX when it has no iat */
    int64_t lifetime_max_seconds; /* the tenant's; 0: none of its own */
    uint8_t trace_id[TRACE_ID_BYTES];
    uint8_t token_hash[HASH_BYTES];
    int64_t time_us;
};

/* For the audit log. Zero is a denial, so that what was forgotten is denied. */
enum decision {
    DECISION_DENIED, /* nothing was decided */
    DECISION_DENIED_TENANT,
    DECISION_DENIED_TIME, /* the token expired, or is not yet usable */
    DECISION_DENIED_LIFETIME,
    DECISION_DENIED_CLEARANCE,
    DECISION_DENIED_SCOPE,
    DECISION_ALLOWED,
    DECISION_COUNT
};

const char *decision_name(enum decision decision); /* "denied_scope" */

/* UNAUTHENTICATED, with the one detail of every token that does not verify, unless the claims are
 * of this very tenant and current: an id must be equal; a name must be equal and the token issued
 * (iat) not before the tenant was made, or it was meant for an earlier tenant of that name; an
 * issuer of one tenant vouches for that tenant only. decision is always set: DECISION_DENIED
 * with OK, since the envelope still has to be decided on. */
MUST_CHECK status authz_envelope(struct envelope *ret, enum decision *decision,
                                 const struct claims *claims, const struct tenant_facts *tenant,
                                 const struct route *route, const struct request_facts *request,
                                 struct fault *fault);

/* May it? FORBIDDEN_SCOPE names the scope that is missing, FORBIDDEN_POLICY the tenant's rule.
 * decision is always set; OK means DECISION_ALLOWED. */
MUST_CHECK status authz_decide(enum decision *decision, const struct envelope *envelope,
                               struct fault *fault);

/* May the caller act on items of this user? Its own: yes; another's: FORBIDDEN_SCOPE unless the
 * token has memory:any-user. BAD_FIELD when user is no principal. */
MUST_CHECK status authz_acts_for(const struct envelope *envelope, struct span user,
                                 struct fault *fault);
