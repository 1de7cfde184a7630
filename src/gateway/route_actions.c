/* route_actions.c: the rows of the actions that the gateway answers itself. No cell knows them. */
#include "gateway/state.h"

enum route_action { ROUTE_READ, ROUTE_ACTIONS };

static const struct action route_actions[ROUTE_ACTIONS] = {
    [ROUTE_READ] = {
        .name = "route.read", .method = "GET", .path = "/v1/routes/{kind}/{value}",
        .resource = "route", .scope = SCOPE_ROUTES_READ,
    },
};

static const struct action_set sets[] = {{"route", route_actions, ROUTE_ACTIONS}};

const struct action_table route_table = {sets, 1};
