/* claims.h: the payload of a token whose signature holds, read into claims. For token.c only. */
#pragma once

#include "authz/token.h"
#include "wire/json.h"

/* The form of a tenant_id: an id (32 lower-case hexadecimal digits, not all zero: that is the
 * platform's own registry) or a name. What has the form of an id is never a name. */
bool claims_tenant_is_id(struct span text);
bool claims_tenant_is_platform(struct span text); /* the all-zero id */
bool claims_tenant_is_label(struct span text);    /* a name, whether or not it has an id's form */
bool claims_tenant_is_name(struct span text);

/* TOKEN_ACCEPTED, or the first claim that is wrong; ret only when accepted. iss: checked before. */
enum token_reason claims_read(struct claims *ret, const struct json *payload,
                              const struct token_issuer *issuer, int64_t now);
