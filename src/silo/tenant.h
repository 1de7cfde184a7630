/* tenant.h: what a tenant may know of itself. */
#pragma once

#include "silo/state.h"

silo_handler tenant_read;
