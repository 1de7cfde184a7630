#include "silo/actions.h"

static const struct action_set sets[ACTION_KINDS] = {
    [ACTIONS_MEMORY] = {"memory", memory_actions, MEMORY_ACTIONS},
    [ACTIONS_KNOWLEDGE] = {"knowledge", knowledge_actions, KNOWLEDGE_ACTIONS},
    [ACTIONS_OBJECTS] = {"object", object_actions, OBJECT_ACTIONS},
    [ACTIONS_TENANT] = {"tenant", tenant_actions, TENANT_ACTIONS},
    [ACTIONS_EVIDENCE] = {"evidence", evidence_actions, EVIDENCE_ACTIONS},
};

const struct action_table action_table = {sets, ACTION_KINDS};
