/* tenant.h: what a tenant may know of itself. */
#pragma once

#include "silo/state.h"

silo_handler tenant_read;

/* Appends that as a document; the caller checks the buffer. */
MUST_CHECK status tenant_put(struct buffer *out, struct silo *silo, struct fault *fault);
