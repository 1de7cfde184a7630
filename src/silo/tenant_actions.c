#include "silo/actions.h"

const struct action tenant_actions[TENANT_ACTIONS] = {
    [TENANT_READ] = {
        .name = "tenant.read", .method = "GET", .path = "/v1/tenant", .resource = "tenant",
        .scope = SCOPE_TENANT_READ,
    },
};
